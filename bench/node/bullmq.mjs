// BullMQ for Node, with its default settings: the same operations as bench/peers/_program.py.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Queue, Worker } from "bullmq";

const url = new URL(process.env.BENCH_REDIS_URL ?? "redis://127.0.0.1:6379");
const connection = { host: url.hostname, port: Number(url.port) };
const RECORD_BYTES = 24;
const SLEEP_STARTED = -1;
const SLEEP_DONE = -2;

const pending = [];
let flushing = false;

function flush() {
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

async function handle(job) {
  if (job.name === "noop") {
    record(job.data.index, job.data.due);
    return;
  }
  record(job.data.index, SLEEP_STARTED);
  flush();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  record(job.data.index, SLEEP_DONE);
}

async function work() {
  const concurrency = Number(process.env.BENCH_CONCURRENCY ?? "0");
  const worker = new Worker("bench", handle, concurrency ? { connection, concurrency } : { connection });
  worker.on("error", (error) => console.error(error));
  process.on("SIGTERM", async () => {
    await worker.close();
    if (pending.length) flush();
    process.exit(0);
  });
}

async function enqueueAt(queue, dues) {
  await Promise.all(
    dues.map((due, index) =>
      queue.add("noop", { index, due }, { delay: Math.max(0, Math.round(due * 1000) - Date.now()) }),
    ),
  );
}

async function timed(action) {
  const start = performance.now();
  await action();
  return (performance.now() - start) / 1000;
}

const operations = {
  prepare: async () => null,
  enqueue_at: async (queue, { count, first, last }) => {
    const base = Date.now() / 1000;
    const step = (last - first) / Math.max(1, count - 1);
    const dues = Array.from({ length: count }, (_, i) => Math.round((base + first + i * step) * 1000) / 1000);
    return timed(() => enqueueAt(queue, dues));
  },
  enqueue_single: async (queue, { count, rounds, delay }) => {
    const due = Date.now() / 1000 + delay;
    const seconds = [];
    for (let i = 0; i < rounds; i++) seconds.push(await timed(() => enqueueAt(queue, Array(count).fill(due))));
    return seconds;
  },
  enqueue_many: async (queue, { count, delay, kind }) => {
    const due = Date.now() / 1000 + delay;
    const opts = delay > 0 ? { delay: delay * 1000 } : {};
    const jobs = Array.from({ length: count }, (_, index) => ({ name: kind, data: { index, due }, opts }));
    return { seconds: await timed(() => queue.addBulk(jobs)) };
  },
  worker_command: async () => [process.execPath, fileURLToPath(import.meta.url), "work"],
  results: async (queue) => {
    const counts = await queue.getJobCounts("waiting", "delayed", "active", "prioritized", "completed");
    const left = counts.waiting + counts.delayed + counts.active + counts.prioritized;
    return { left, completed: counts.completed };
  },
};

const [operation, options] = process.argv.slice(2);
if (operation === "work") {
  await work();
} else {
  const queue = new Queue("bench", { connection });
  const answer = await operations[operation](queue, JSON.parse(options ?? "{}"));
  await queue.close();
  console.log(JSON.stringify(answer));
}
