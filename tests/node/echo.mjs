// Repeats one line.
import { createInterface } from "node:readline";

console.log(process.env.GREETING, "to listen");
for await (const line of createInterface({ input: process.stdin })) {
  console.log("heard", line);
  break;
}
console.error("bye");
process.exit();
