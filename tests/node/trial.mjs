// The two lines of the trial's producer, word for word.
import { Queue } from "bullmq";
import { connection } from "./connection.mjs";

const messageQueue = new Queue("messageQueue", { connection });
const [trialId, delayMs] = [process.argv[2], Number(process.argv[3])];

if (process.argv[4] !== "named") {
  await messageQueue.add("send-question", { trialId, messageType: "question" }, { delay: 2000 });
} else {
  await messageQueue.add(`question-${trialId}`, { trialId, type: "question" }, { delay: delayMs, jobId: `question-${trialId}` });
}
await messageQueue.close();
