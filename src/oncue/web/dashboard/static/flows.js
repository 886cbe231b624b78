// What makes jobs, what runs them, conversations, and who did what.
import {h} from "./dom.js";
import * as p from "./parts.js";
import {code} from "./jobs.js";
import {health} from "./overview.js";
import {ago, moment, num, title, when} from "./words.js";

const list = (name, draw) => ({title: () => name, load: ctx => ctx.get(name.toLowerCase(), ctx.params), draw});
const bold = text => h("b", text);
const runs = row => p.badge(row.paused ? "paused" : "ok", row.paused ? "paused" : "runs");
const path = (kind, name) => `${kind}s/${encodeURIComponent(name)}`;

const toggle = (kind, row, ctx, text) => p.changing(ctx, path(kind, row.name), row.paused ? "resume" : "pause", `${kind} ${row.name}`,
	row.paused ? "What is due starts at once." : text);

const lanes = (kind, {items}, ctx) => p.card(`${title(kind)}s`, "", p.table(`${title(kind)}s`, [
	["Name", "name", "", bold], ["State", runs],
	...["due", "late", "scheduled", "blocked", "running", "discarded"].map(state => [title(state), row => p.link(["jobs"], num(row[state]), {[kind]: row.name, state}), "n"]),
	["Act", row => toggle(kind, row, ctx, "Nothing of it starts until it is resumed. What runs ends."), "act"],
], items, "None yet."));

export const queues = {
	title: () => "Queues & tasks",
	load: ctx => Promise.all([ctx.get("queues"), ctx.get("tasks")]),
	draw: ([queues, tasks], ctx) => [lanes("queue", queues, ctx), lanes("task", tasks, ctx)],
};

export const blockers = list("Blockers", ({items}) => [
	h("p.lead", "A busy group, a started key, or a limit on how many run at once."),
	p.table("Blockers", [
		["Behind", "name", "", bold], ["Waiting", "waiting", "n", num], ["Held by", "job", "n", p.job], "why", ["Since", "since", "one", when],
	], items, "Nothing waits behind anything."),
]);

export const workers = list("Workers", ({items}) => p.table("Workers", [
	["Worker", row => [bold(row.name), h("small", ` #${row.id}`)]], ["State", row => [p.badge(row.state), row.wake && " hears late"]], ["Running", "running", "n", num],
	["Queues", "queues", "", names => names?.join(", ") ?? "all"], ["Tasks", "tasks", "n", names => names ? num(names.length) : "all"],
	["Host", row => `${row.host}, pid ${row.pid}`], "version", ["Started", "started_at", "one", when], ["Seen", "seen_at", "one", when],
], items, "No worker is registered. Start one: oncue worker module:app"));

export const sources = list("Sources", ({items}) => p.table("Sources", [
	["Source", "name", "", bold], ["State", row => p.badge(row.error ? "fail" : "ok", row.error ? "fails" : "well")],
	["Last sweep", "swept_at", "one", when], ["Rows", "rows", "n", num], ["Drift", "drift", "n", num], ["Found", row => row.error ? ["since ", when(row.since), ": ", row.error] : row.found],
], items, "No source is declared."));

export const audit = list("Audit", ({items, next}, ctx) => [
	p.table("Audit", [["When", "at", "one", moment], "who", ["What", "action", "", bold], ["On", "target", "cut"], ["Jobs", "count", "n", num], ["Detail", "detail", "cut"]],
		items, "Nothing was done yet."),
	p.pages(next, ctx.params, "audit"),
]);

export const checks = {...list("Checks", ({items}, ctx) => p.card("All checks", "", health(items, ctx))), pace: 60_000};

const scheduling = (row, ctx) => [
	toggle("schedule", row, ctx, "It makes no jobs until it is resumed."), " ",
	p.changing(ctx, path("schedule", row.name), "run-now", `schedule ${row.name}`, "It makes one job, due at once. Its next fire stays as it is."),
];

const rule = row => [h("code", row.rule), h("small", ` ${row.timezone}`)];

export const schedules = list("Schedules", ({items}, ctx) => p.table("Schedules", [
	["Schedule", "name", "", name => p.link(["schedule", name], name)], ["State", runs], "task", ["Rule", rule, "one"],
	["Next", "next", "one", when], ["Last", "last", "one", when], ["Act", row => scheduling(row, ctx), "one.act"],
], items, "No schedule is declared."));

const fires = (label, rows, empty) => p.card(label, "", p.table(label, [
	["There", row => [`${row.local} ${row.offset}`, row.shift && bold(` ${row.shift}`)], "one"], ["Here", "at", "", moment], ["Job", row => row.job ? p.job(row.job) : ago(row.at), "one"],
], rows, empty));

export const schedule = {
	title: ({id}) => `Schedule ${id}`,
	load: ctx => ctx.get(path("schedule", ctx.id)),
	draw: (row, ctx) => [
		h("p.lead", runs(row), " ", rule(row), " makes ", bold(row.task)),
		p.acts(scheduling(row, ctx)),
		fires("Next fires", row.next_fires, "It fires no more."), fires("Last fires", row.last_fires, "It has not fired yet."),
	],
};

// What can be done in which states (human: taken over), and what follows.
const TALKS = {
	resume: ["paused parked", "It goes on. What failed is tried anew."],
	release: ["human", "It goes on by itself."],
	pause: ["active", "Nothing is sent. What the person writes is kept."],
	takeover: ["active paused parked", "A human takes over. OnCue sends nothing until released."],
	restart: ["", "It ends, and begins anew.", "danger"],
	stop: ["active paused parked human", "It ends for good.", "danger"],
};

const someone = row => `${row.person_name ?? ""} p${row.person}`;

export const conversations = list("Conversations", ({items, next}, ctx) => [
	p.chips(ctx, "conversations", ["active", "paused", "parked", "ended"]),
	p.table("Conversations", [
		["Number", row => p.link(["conversation", row.id], `#${row.id}`), "n"], ["State", "state", "", p.badge], ["Conversation", "conversation", "", bold],
		["Person", row => p.link(["conversations"], someone(row), {person: row.person})], "step", ["Began", "started_at", "one", when], ["Changed", "changed_at", "one", when], ["Note", "reason", "cut"],
	], items, "No conversation is like that."),
	p.pages(next, ctx.params, "conversations"),
]);

export const conversation = {
	title: ({id}) => `Conversation ${id}`,
	load: ctx => ctx.get(`conversations/${ctx.id}`),
	draw: ({conversation: row, timeline, why, human_since: human, error}, ctx) => [
		h("p.lead", p.badge(row.state), " ", bold(row.conversation), ` with ${someone(row)} on ${row.channel}: ${why}`),
		p.acts(Object.entries(TALKS).map(([action, [states, text, look]]) => (!states || states.includes(human ? "human" : row.state))
			&& p.changing(ctx, path("conversation", row.id), action, `conversation ${row.id}`, text, look))),
		code("Error", error),
		p.card("What was said and done", "", p.life(timeline.map(({at, who, kind, text}) => ({at, what: `${who}, ${kind}:`, text})))),
	],
};
