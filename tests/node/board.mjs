// Bull Board for the queues named, as a person runs it; it says where it listens.
import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { ExpressAdapter } from "@bull-board/express";
import { Queue } from "bullmq";
import express from "express";
import { connection } from "./connection.mjs";

const serverAdapter = new ExpressAdapter();
const queues = process.argv.slice(2).map((name) => new BullMQAdapter(new Queue(name, { connection })));
createBullBoard({ queues, serverAdapter });
const app = express().use(serverAdapter.getRouter());
const server = app.listen(0, "127.0.0.1", () => console.log("listening", server.address().port));
