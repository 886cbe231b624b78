// A Node worker on an adopted queue: says which job it has, and ends it when it is told to.
import { createInterface } from "node:readline";
import { Worker } from "bullmq";
import { connection } from "./connection.mjs";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const removeOnComplete = process.argv[3] === "remove" ? { count: 0 } : { count: 10 };
const handle = async (job) => {
  console.log("took", job.id);
  await lines.next();
};
const worker = new Worker(process.argv[2], handle, { connection, removeOnComplete });
worker.on("completed", (job) => console.log("completed", job.id));
await worker.waitUntilReady();
console.log("ready");
