// Adds jobs to a queue as a program of Node does: QUEUE, then a list of [name, data, options] in JSON from the input.
import { readFileSync } from "node:fs";
import { Queue } from "bullmq";
import { connection } from "./connection.mjs";

const queue = new Queue(process.argv[2], { connection, prefix: process.env.PREFIX ?? "bull" });
for (const [name, data, opts] of JSON.parse(readFileSync(0, "utf8"))) {
  const job = await queue.add(name, data, opts);
  console.log(JSON.stringify({ id: job.id, timestamp: job.timestamp }));
}
await queue.close();
