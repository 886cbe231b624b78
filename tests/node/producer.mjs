// Does what each line of its input asks for: [url, queue, action, ...arguments] in JSON; answers with one line each.
import { createInterface } from "node:readline";
import { FlowProducer, Queue } from "bullmq";
import { connectionOf } from "./connection.mjs";

const queues = new Map();
const actions = {
  add: async (queue, jobs) =>
    (await queue.addBulk(jobs.map(([name, data, opts]) => ({ name, data, opts })))).map(({ id, timestamp }) => ({ id, timestamp })),
  flow: async (queue, children) => {
    const flows = new FlowProducer({ connection: queue.opts.connection, prefix: queue.opts.prefix });
    const queueName = queue.name;
    await flows.add({ name: "parent", queueName, data: {}, children: children.map((data) => ({ name: "child", data, queueName })) });
    await flows.close();
  },
  repeat: async (queue, id, every, data) => (await queue.upsertJobScheduler(id, { every }, { name: id, data })).id,
  changeDelay: async (queue, id, delay) => (await queue.getJob(id)).changeDelay(delay),
  pause: (queue) => queue.pause(),
  states: (queue) => queue.getJobCounts("wait", "paused", "delayed", "prioritized", "active", "completed", "failed"),
};

function queueOf(url, name) {
  const known = `${url} ${name}`;
  if (!queues.has(known)) {
    const prefix = new URL(url).searchParams.get("prefix") ?? "bull";
    const queue = new Queue(name, { connection: connectionOf(url), prefix });
    queue.on("error", () => {});
    queues.set(known, queue);
  }
  return queues.get(known);
}

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [url, name, action, ...args] = JSON.parse(line);
  try {
    console.log("done", JSON.stringify((await actions[action](queueOf(url, name), ...args)) ?? null));
  } catch (error) {
    console.log("failed", error.stack.replaceAll("\n", " | "));
  }
}
