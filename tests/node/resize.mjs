// A worker that resizes images: QUEUE, LEDGER (a file that it appends what it begins and ends to), LOCK (ms).
// What it does with an image goes by the image's name. What is slow ends when a line is read, or by its signal.
import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { UnrecoverableError, Worker } from "bullmq";
import { connection } from "./connection.mjs";

const [queue, ledger, lock] = process.argv.slice(2);
const note = (what, job) => {
  appendFileSync(ledger, `${what} ${job.id} ${job.data.image}\n`);
};
const lines = createInterface({ input: process.stdin });

const work = {
  fails: () => { throw new Error("no such file"); },
  "fails-once": (job) => {
    if (job.id.split("-")[2] === "1") throw new Error("not today");
    return { path: "again.png", width: job.data.width };
  },
  hopeless: () => { throw new UnrecoverableError("not an image"); },
  odd: () => "as you like it",
  slow: async (job, signal) => {
    const end = new Promise((resolve, reject) => {
      lines.once("line", resolve);
      signal.addEventListener("abort", () => { note("aborted", job); reject(new Error("aborted")); });
    });
    // A job that was revoked has no progress to update.
    await Promise.all([job.updateProgress(40).catch(() => {}), end]);
    return { path: "slow.png", width: job.data.width };
  },
};

const worker = new Worker(queue, async (job, _token, signal) => {
  note("began", job);
  const result = await (work[job.data.image] ?? (() => ({ path: `${job.data.image}.png`, width: job.data.width })))(job, signal);
  note("ended", job);
  return result;
}, {
  connection, prefix: process.env.PREFIX ?? "bull", concurrency: 10, lockDuration: Number(lock), maxStalledCount: 3,
  stalledInterval: Number(process.env.STALLED ?? 30000), runRetryDelay: 100,
});
worker.on("lockRenewalFailed", (ids) => ids.forEach((id) => worker.cancelJob(id, "its lock is gone")));
worker.on("error", () => {});
await worker.waitUntilReady();
console.log("ready");
