// All is well, or what is not and how to mend it.
import {chart} from "./charts.js";
import {h} from "./dom.js";
import {STATES, badge, card, changing, facts, href, link} from "./parts.js";
import {count, num, short, span, title} from "./words.js";

// Where a check leads, by its first word.
const PLACES = {
	discarded: "jobs?state=discarded", overdue: "jobs?state=late", running: "jobs?state=running", workers: "workers", queues: "queues",
	tasks: "queues", wake: "workers", paused: "queues", blockers: "blockers", source: "sources", schedules: "schedules",
	conversations: "conversations", channel: "conversations",
};
const place = (name, to = PLACES[name.split(" ")[0]]) => to ? h("a", {href: `#/${to}`}, name) : name;

export const health = (checks, ctx) => h("ul.health", checks.map(({name, state, found, remedy}) => h("li", {key: name},
	badge(state), h("div", h("b", place(name)), ` ${found}`, ctx && state !== "ok" && [
		remedy && h("p.remedy", remedy), /^wake/.test(name) && changing(ctx, "workers", "reconnect", "wake channels", "What hears late connects anew.")]))));

const sum = (bins, name) => bins.reduce((total, bin) => total + bin[name], 0);
const lost = ({counts, past}) => Math.min(counts.discarded, sum(past, "discarded"));

// The worst of it: ok, warn or fail.
export const worst = data => data.counts.late || data.health.some(({state}) => state === "fail") ? "fail"
	: lost(data) || data.health.some(({state}) => state === "warn") ? "warn" : "ok";

function verdict(data, ctx) {
	const bad = data.health.filter(({state}) => state !== "ok"), {late} = data.counts, look = worst(data), gone = lost(data);
	return h(`section.card.verdict.${look}`, {"aria-label": "Verdict"},
		h("p", h(`i.cue.${look}`), look === "ok" && ["All is well. ", h("small", "Nothing is late, and every check is green.")],
			late > 0 && [link(["jobs"], `${count(late, "job")} late`, {state: "late"}), ". "],
			gone > 0 && [link(["jobs"], `${count(gone, "job")} discarded in the past hour`, {state: "discarded"}), ". "],
			bad.length > 0 && `${count(bad.length, "check needs you", "checks need you")}.`),
		bad.length > 0 && health(bad, ctx));
}

const charts = ({coming, past}) => [
	card("Coming due", "", chart("coming", {
		bins: coming, unit: "by 30 s", series: [["count", "s1", "due"]],
		summary: `In the next 10 minutes ${num(sum(coming, "count"))} jobs come due.`,
	})),
	card("The past hour", "wide", chart("past", {
		bins: past, unit: "by the minute", series: [["completed", "s1"], ["retried", "s2"], ["discarded", "s3"]],
		summary: `In the past hour: ${["started", "completed", "retried", "discarded"].map(name => `${num(sum(past, name))} ${name}`).join(", ")}.`,
	})),
	card("Lateness", "wide", chart("lateness", {
		bins: past, unit: "by the minute", ms: true, series: [["p50_ms", "l1", "p50"], ["p99_ms", "l2", "p99"], ["max_ms", "l3", "max"]],
		summary: `In the past hour no job started more than ${span(Math.max(0, ...past.map(bin => bin.max_ms)))} late.`,
	})),
];

export const view = {
	title: () => "Overview",
	load: ctx => ctx.get("overview"),
	draw: (data, ctx) => [
		verdict(data, ctx),
		h("ul.tiles", STATES.map(state => h(`li.${data.counts[state] ? state : "none"}`,
			h("a", {href: href(["jobs"], {state})}, h("b", {title: num(data.counts[state])}, short(data.counts[state])), title(state))))),
		h("div.grid", charts(data), card("Health", "",
			facts(...["p50", "p99", "max"].map(name => [`Lateness ${name}`, span(data.lateness[`${name}_ms`])]), ["Jobs a second", num(data.throughput_per_s)]),
			health(data.health),
			h("p", link(["checks"], "Run every check of the doctor")))),
	],
};
