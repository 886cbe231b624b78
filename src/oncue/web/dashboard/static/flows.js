// What makes jobs, what runs them, conversations, and who did what.
import {h} from "./dom.js";
import * as p from "./parts.js";
import {code} from "./jobs.js";
import {health} from "./overview.js";
import {ago, moment, num, title, when} from "./words.js";

// A list that is a table; above it what else there is to see.
const list = (name, columns, empty, above, view = name.toLowerCase()) => ({
	title: () => name,
	load: ctx => ctx.get(view, ctx.params),
	draw: ({items, next}, ctx) => [above?.(ctx), p.table(name, columns(ctx), items, empty), p.pages(next, ctx.params, view)],
});
const bold = text => h("b", text);
const figure = name => [title(name), name, "n", num];
const time = (name, text = title(name)) => [text, name, "one", when];
const runs = row => p.badge(row.paused ? "paused" : "ok", row.paused ? "paused" : "runs");

const toggle = (kind, row, ctx, text) => p.changing(ctx, p.path(kind, row.name), row.paused ? "resume" : "pause", `${kind} ${row.name}`,
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

export const blockers = list("Blockers", () => [
	["Behind", "name", "", bold], figure("waiting"), ["Held by", "job", "n", p.job], "why", time("since"),
], "Nothing waits behind anything.", () => h("p.lead", "A busy group, a started key, or a limit on how many run at once."));

const since = (from, text) => ["since ", when(from), ": ", text];
const busy = ({running, jobs}) => [num(running), jobs.slice(0, 3).map(({id, task, started_at}) => h("p", p.job(id), h("small", ` ${task} `, when(started_at))))];

export const workers = list("Workers", () => [
	["Worker", row => [bold(row.name), h("small", ` #${row.id}`)]], ["State", row => [p.badge(row.state), row.wake && [" hears late ", since(row.wake_since, row.wake)]]], ["Running", busy],
	["Queues", ({queues, weights}) => queues?.map(name => weights ? `${name}=${weights[name]}` : name).join(", ") ?? "all"], ["Tasks", "tasks", "n", names => names?.length ?? "all"],
	["Host", row => `${row.host}, pid ${row.pid}`], "version", time("started_at", "Started"), time("seen_at", "Seen"),
], "No worker is registered. Start one: oncue worker module:app");

export const sources = list("Sources", () => [
	["Source", "name", "", bold], ["State", row => p.badge(row.error ? "fail" : "ok", row.error ? "fails" : "well")],
	time("swept_at", "Last sweep"), figure("rows"), figure("drift"), ["Found", row => row.error ? since(row.since, row.error) : row.found],
], "No source is declared.");

export const audit = list("Audit", () => [
	["When", "at", "one", moment], "who", ["What", "action", "", bold], ["On", "target", "cut"], ["Jobs", "count", "n", num], ["Detail", "detail", "cut"],
], "Nothing was done yet.");

export const checks = {...list("Checks"), draw: ({items}, ctx) => p.card("All checks", "", health(items, ctx)), pace: 60_000};

const scheduling = (row, ctx) => [
	toggle("schedule", row, ctx, "It makes no jobs until it is resumed."), " ",
	p.changing(ctx, p.path("schedule", row.name), "run-now", `schedule ${row.name}`, "It makes one job, due at once. Its next fire stays as it is."),
];

const rule = row => [h("code", row.rule), h("small", ` ${row.timezone}`)];

export const schedules = list("Schedules", ctx => [
	["Schedule", "name", "", name => p.link(["schedule", name], name)], ["State", runs], "task", ["Rule", rule, "one"],
	time("next"), time("last"), ["Act", row => scheduling(row, ctx), "one.act"],
], "No schedule is declared.");

const fires = (label, rows, empty) => p.card(label, "", p.table(label, [
	["There", row => [`${row.local} ${row.offset}`, row.shift && bold(` ${row.shift}`)], "one"], ["Here", "at", "", moment], ["Job", row => row.job ? p.job(row.job) : ago(row.at), "one"],
], rows, empty));

export const schedule = p.one("schedule", (row, ctx) => [
	h("p.lead", runs(row), " ", rule(row), " makes ", bold(row.task)),
	p.acts(scheduling(row, ctx)),
	fires(row.paused ? "Next fires, if resumed now" : "Next fires", row.next_fires, "It fires no more."), fires("Last fires", row.last_fires, "It has not fired yet."),
]);

// What can be done in which states (human: taken over), and what follows.
const TALKS = {
	resume: ["paused parked", "It goes on. What failed is tried anew."],
	release: ["human", "It goes on by itself."],
	pause: ["active", "Nothing is sent. What the person writes is kept."],
	takeover: ["active paused parked", "A human takes over. OnCue sends nothing until released."],
	restart: ["", "It ends, and begins anew.", "danger"],
	stop: ["active paused parked human", "It ends for good.", "danger"],
};

const someone = row => p.link(["conversations"], `${row.person_name ?? ""} p${row.person}`, {person: row.person});

const said = timeline => p.card("What was said and done", "", p.life(timeline.map(({at, who, kind, text}) => ({at, what: `${who}, ${kind}:`, text}))));

const talks = list("Conversations", () => [
	["Number", row => p.link(["conversation", row.id], `#${row.id}`), "n"], ["State", "state", "", p.badge], ["Conversation", "conversation", "", bold],
	["Person", someone], "step", time("started_at", "Began"), time("changed_at", "Changed"), ["Note", "reason", "cut"],
], "No conversation is like that.", ctx => p.chips(ctx, "conversations", ["active", "paused", "parked", "ended"]));

// Those of one person, with what was said in all of them.
export const conversations = {
	...talks,
	load: async ctx => ({...await talks.load(ctx), ...ctx.params.person && await ctx.get(`people/${ctx.params.person}`)}),
	draw: (data, ctx) => [talks.draw(data, ctx), data.person && said(data.timeline)],
};

export const conversation = p.one("conversation", ({conversation: row, timeline, why, human_since: human, error}, ctx) => [
	h("p.lead", p.badge(row.state), " ", bold(row.conversation), " with ", someone(row), ` on ${row.channel}: ${why}`),
	p.acts(Object.entries(TALKS).map(([action, [states, text, look]]) => (!states || states.includes(human ? "human" : row.state))
		&& p.changing(ctx, p.path("conversation", row.id), action, `conversation ${row.id}`, text, look))),
	code("Error", error),
	said(timeline),
]);

