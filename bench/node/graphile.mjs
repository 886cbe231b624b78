// Graphile Worker, with the local queue and the batched completion that its manual shows for throughput.
import { fileURLToPath } from "node:url";
import pg from "pg";
import { makeWorkerUtils, run as runWorker } from "graphile-worker";
import { byCallers, concurrency, dsn, dueTimes, flush, noop, run, sleep } from "./program.mjs";

const BULK = 10_000; // jobs in one call

const runAt = (due) => (due * 1000 > Date.now() ? new Date(due * 1000) : undefined);

async function work() {
  const runner = await runWorker({
    connectionString: dsn,
    noHandleSignals: true,
    taskList: { noop, sleep },
    preset: {
      worker: {
        concurrentJobs: concurrency || 24,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  process.on("SIGTERM", async () => {
    await runner.stop();
    flush();
    process.exit(0);
  });
}

async function peer() {
  const utils = await makeWorkerUtils({ connectionString: dsn });
  return {
    prepare: () => utils.migrate(),
    enqueueAt: (dues) => byCallers(dues, (index, due) => utils.addJob("noop", { index, due }, { runAt: runAt(due) })),
    enqueueMany: async (count, due, identifier) => {
      const dues = dueTimes(count, due);
      for (let first = 0; first < count; first += BULK) {
        const some = dues.slice(first, first + BULK);
        await utils.addJobs(
          some.map((at, i) => ({ identifier, payload: { index: first + i, due: at }, runAt: runAt(at) })),
        );
      }
    },
    results: async () => {
      const client = new pg.Client(dsn);
      await client.connect();
      const { rows } = await client.query(
        "SELECT count(*)::int AS left FROM graphile_worker.jobs WHERE run_at < now() + interval '1 day'",
      );
      await client.end();
      return { left: rows[0].left, completed: null };
    },
    close: () => utils.release(),
  };
}

if (process.argv[2] === "work") {
  await work();
} else {
  await run(await peer(), fileURLToPath(import.meta.url));
}
