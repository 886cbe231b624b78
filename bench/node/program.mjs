// What the peers for Node share: the records of bench/records.py and the operations of bench/peers/_program.py.
import { appendFileSync } from "node:fs";
import { join } from "node:path";

const RECORD_BYTES = 24;
const SLEEP_STARTED = -1;
const SLEEP_DONE = -2;
const CALLERS = 50; // of single calls, on PostgreSQL

export const concurrency = Number(process.env.BENCH_CONCURRENCY ?? "0"); // 0: the peer's default
export const dsn = process.env.BENCH_DSN ?? "";

const pending = [];
let flushing = false;

export function flush() {
  const buffer = Buffer.alloc(pending.length * RECORD_BYTES);
  pending.forEach(([index, due, at], i) => {
    buffer.writeBigInt64LE(BigInt(index), i * RECORD_BYTES);
    buffer.writeDoubleLE(due, i * RECORD_BYTES + 8);
    buffer.writeDoubleLE(at, i * RECORD_BYTES + 16);
  });
  pending.length = 0;
  flushing = false;
  appendFileSync(join(process.env.BENCH_DIR, `records-${process.pid}.bin`), buffer);
}

// Node has no mapped memory: records wait in memory and are written a moment later, at most 5 times a second.
function record(index, due) {
  pending.push([index, due, Date.now() / 1000]);
  if (!flushing) {
    flushing = true;
    setTimeout(flush, 200);
  }
}

export function noop({ index, due }) {
  record(index, due);
}

export async function sleep({ index }) {
  record(index, SLEEP_STARTED);
  flush();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  record(index, SLEEP_DONE);
}

// When each of many jobs is due: all at once, but the many far ones a millisecond apart.
export function dueTimes(count, due) {
  return Array.from({ length: count }, (_, index) => (count >= 100_000 ? due + index / 1000 : due));
}

// CALLERS at a time: each makes its next call when it has the answer to the last.
export async function byCallers(dues, call) {
  const waiting = dues.entries();
  const caller = async () => {
    for (const [index, due] of waiting) await call(index, due);
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
}

async function timed(action) {
  const start = performance.now();
  await action();
  return (performance.now() - start) / 1000;
}

// peer: prepare(), enqueueAt(dues), enqueueMany(count, due, kind), results(), close(); times in seconds since the epoch.
export async function run(peer, program) {
  const [operation, text] = process.argv.slice(2);
  const options = JSON.parse(text ?? "{}");
  const now = Date.now() / 1000;
  let answer = null;
  if (operation === "prepare") {
    await peer.prepare();
  } else if (operation === "enqueue_at") {
    const step = (options.last - options.first) / Math.max(1, options.count - 1);
    const dues = Array.from(
      { length: options.count },
      (_, i) => Math.round((now + options.first + i * step) * 1000) / 1000,
    );
    answer = await timed(() => peer.enqueueAt(dues));
  } else if (operation === "enqueue_single") {
    const dues = Array(options.count).fill(now + options.delay);
    answer = [];
    for (let i = 0; i < options.rounds; i++) answer.push(await timed(() => peer.enqueueAt(dues)));
  } else if (operation === "enqueue_many") {
    const due = options.due ?? now + options.delay;
    answer = { seconds: await timed(() => peer.enqueueMany(options.count, due, options.kind)) };
  } else if (operation === "worker_command") {
    answer = [process.execPath, program, "work"];
  } else if (operation === "results") {
    answer = await peer.results();
  } else {
    throw new Error(`unknown operation ${operation}`);
  }
  await peer.close();
  console.log(JSON.stringify(answer));
}
