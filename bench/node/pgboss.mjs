// pg-boss, with its default poll of 2 s. A job a poll is its default batch: here up to 500, and a worker that got a
// full batch is told to fetch again at once, by notifyWorker.
import { fileURLToPath } from "node:url";
import pg from "pg";
import PgBoss from "pg-boss";
import { byCallers, dsn, dueTimes, flush, noop, run, sleep } from "./program.mjs";

const BATCH = 500;
const BULK = 10_000; // jobs in one call

const when = (due) => (due * 1000 > Date.now() ? new Date(due * 1000) : undefined);

async function open(options) {
  const boss = new PgBoss({ connectionString: dsn, ...options });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}

async function work() {
  const boss = await open();
  for (const [name, handler] of [["noop", noop], ["sleep", sleep]]) {
    const id = await boss.work(name, { batchSize: BATCH }, async (jobs) => {
      if (jobs.length === BATCH) boss.notifyWorker(id);
      if (name === "noop") jobs.forEach((job) => handler(job.data));
      else await Promise.all(jobs.map((job) => handler(job.data)));
    });
  }
  process.on("SIGTERM", async () => {
    await boss.stop({ graceful: true, timeout: 3000 });
    flush();
    process.exit(0);
  });
}

// As its manual says for a process that only sends: no maintenance and no schedules.
async function peer() {
  const boss = await open({ supervise: false, schedule: false });
  return {
    prepare: async () => {
      await boss.createQueue("noop");
      await boss.createQueue("sleep");
    },
    enqueueAt: (dues) =>
      byCallers(dues, (index, due) => boss.send("noop", { index, due }, { startAfter: when(due) })),
    enqueueMany: async (count, due, name) => {
      const dues = dueTimes(count, due);
      for (let first = 0; first < count; first += BULK) {
        const some = dues.slice(first, first + BULK);
        await boss.insert(some.map((at, i) => ({ name, data: { index: first + i, due: at }, startAfter: when(at) })));
      }
    },
    results: async () => {
      const client = new pg.Client(dsn);
      await client.connect();
      const { rows } = await client.query(
        `SELECT count(*) FILTER (WHERE state < 'completed' AND start_after < now() + interval '1 day')::int AS left,
         count(*) FILTER (WHERE state = 'completed')::int AS completed FROM pgboss.job WHERE name IN ('noop', 'sleep')`,
      );
      await client.end();
      return rows[0];
    },
    close: () => boss.stop({ graceful: false, wait: false }),
  };
}

if (process.argv[2] === "work") {
  await work();
} else {
  await run(await peer(), fileURLToPath(import.meta.url));
}
