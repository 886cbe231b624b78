// BullMQ for Node, with its default settings.
import { fileURLToPath } from "node:url";
import { Queue, Worker } from "bullmq";
import { concurrency, flush, noop, run, sleep } from "./program.mjs";

const url = new URL(process.env.BENCH_REDIS_URL ?? "redis://127.0.0.1:6379");
const connection = { host: url.hostname, port: Number(url.port) };

async function work() {
  const handle = (job) => (job.name === "noop" ? noop(job.data) : sleep(job.data));
  const worker = new Worker("bench", handle, concurrency ? { connection, concurrency } : { connection });
  worker.on("error", (error) => console.error(error));
  process.on("SIGTERM", async () => {
    await worker.close();
    flush();
    process.exit(0);
  });
}

function peer() {
  const queue = new Queue("bench", { connection });
  return {
    prepare: async () => null,
    enqueueAt: (dues) =>
      Promise.all(
        dues.map((due, index) =>
          queue.add("noop", { index, due }, { delay: Math.max(0, Math.round(due * 1000) - Date.now()) }),
        ),
      ),
    enqueueMany: (count, due, name) => {
      const delay = Math.max(0, Math.round(due * 1000 - Date.now()));
      const opts = delay > 0 ? { delay } : {};
      return queue.addBulk(Array.from({ length: count }, (_, index) => ({ name, data: { index, due }, opts })));
    },
    results: async () => {
      const counts = await queue.getJobCounts("waiting", "delayed", "active", "prioritized", "completed");
      const left = counts.waiting + counts.delayed + counts.active + counts.prioritized;
      return { left, completed: counts.completed };
    },
    close: () => queue.close(),
  };
}

if (process.argv[2] === "work") {
  await work();
} else {
  await run(peer(), fileURLToPath(import.meta.url));
}
