// Jobs by filter, one job's life, and what can be done to one, a few, or all that match.
import {h} from "./dom.js";
import * as p from "./parts.js";
import {both, count, fromField, moment, num, span, title, toField, when} from "./words.js";

const TIMES = ["due_after", "due_before", "finished_after", "finished_before"];

const looks = job => job.late ? "late" : job.state === "scheduled" && job.blocked_by ? "blocked" : job.state;
const since = (from, to) => from && to && span(Math.max(0, Date.parse(to) - Date.parse(from)));

// What can be done to a job in this state; to many, whatever they are.
const FITS = {retry: "discarded cancelled", cancel: "scheduled running"};
const actions = (run, state = "") => Object.entries(p.ACTIONS).map(([action, [verb, , look]]) =>
	(FITS[action] ?? "scheduled").includes(state) && p.button(verb, () => run(action), look, {key: action}));

function timing(job) {
	const took = since(job.started_at, job.finished_at);
	if (job.finished_at) return [when(job.finished_at), took && h("small", `, took ${took}`)];
	return job.state === "running" ? ["began ", when(job.started_at)] : ["due ", when(job.scheduled_at)];
}

function form(params, tasks) {
	const submit = event => {
		event.preventDefault();
		const given = Object.fromEntries(new FormData(event.target));
		for (const name of TIMES) given[name] = fromField(given[name]);
		location.hash = p.href(["jobs"], {...given, state: params.state});
	};
	const field = (name, text = title(name), more) => p.field(text, name, {value: params[name] ?? "", ...more});
	return h("form.card.filter", {key: JSON.stringify(params), role: "search", "aria-label": "Filter jobs", onsubmit: submit},
		field("task", "Task", {list: "tasks"}), field("queue"), field("text", "Text in arguments or error"),
		h("datalist", {id: "tasks"}, tasks.map(value => h("option", {value}))),
		h("button.primary", "Search"), p.link(["jobs"], "Clear"),
		h("details", {open: ["key", "group", ...TIMES].some(name => params[name])}, h("summary", "More"), h("div", field("key"), field("group"),
			TIMES.map(name => field(name, title(name), {type: "datetime-local", step: 1, value: toField(params[name])})))));
}

function toolbar({picked}, ctx) {
	const {cursor, ...params} = ctx.params, any = picked.size || Object.keys(params).length;
	const about = Object.entries(params).map(([name, value]) => `${title(name)}: ${value}`).join(", ");
	const run = async action => {
		if (!await p.act(action, picked.size ? "" : about, picked.size ? {ids: [...picked]} : {filter: params})) return;
		picked.clear();
		ctx.reload();
	};
	return p.acts(h("span", {"aria-live": "polite"}, picked.size ? `${count(picked.size, "job")} chosen:` : any ? "All that match:" : "Choose or filter jobs, to act on them."),
		any ? actions(run) : "");
}

function columns({items, picked}, ctx) {
	const box = (label, ids) => h("input", {
		type: "checkbox", "aria-label": label, checked: ids.every(id => picked.has(id)),
		onchange: ({target}) => {for (const id of ids) picked[target.checked ? "add" : "delete"](id); ctx.redraw();},
	});
	return [
		...p.may("operate") ? [[[box("Choose all on this page", items.map(({id}) => id)), h("span.quiet", "Chosen")], ({id}) => box(`Choose job ${id}`, [id])]] : [],
		["Job", "id", "n", p.job], ["State", job => [p.badge(looks(job)), job.attempt > 1 && h("small", ` ${job.attempt}/${job.max_attempts}`)], "one"],
		["Task", job => [h("b", job.task), job.queue !== "default" && h("small", ` in ${job.queue}`)], "one"],
		["Key, group", ({key, group}) => [key, key && group && h("br"), group && h("small", `group ${group}`)], "cut"], ["When", timing, "one"],
		["Note", job => job.error ? job.error.trim().split("\n").at(-1) : job.reason ?? (job.blocked_by && `behind ${job.blocked_by}`), "cut"],
	];
}

export const list = {
	title: () => "Jobs",
	async load(ctx) {
		ctx.tasks ??= await ctx.get("tasks").then(({items}) => items.map(({name}) => name), () => []);
		return {...await ctx.get("jobs", {limit: 50, ...ctx.params}), tasks: ctx.tasks, picked: ctx.picked ??= new Set(), missed: 0};
	},
	// Rows stay while somebody chooses among them, reads a further page, or searches.
	still: (data, {params}) => data.picked.size > 0 || params.cursor || params.text,
	hear(event, data) {
		const row = data.items.find(({id}) => id === event.id);
		if (row) Object.assign(row, event);
		else data.missed += 1;
		return true;
	},
	draw: (data, ctx) => [
		p.chips(ctx, "jobs", p.STATES),
		form(ctx.params, data.tasks),
		toolbar(data, ctx),
		data.missed > 0 && list.still(data, ctx) && h("p", {key: "missed"}, `${count(data.missed, "change")} of other jobs since. `, p.button("Show them", ctx.reload, "plain")),
		p.table("Jobs", columns(data, ctx), data.items, data.scanned ? "Nothing found so far." : "No job is like that."),
		data.scanned && h("p", {key: "scanned", role: "status"}, `Searched the jobs ${num(data.scanned.from)} to ${num(data.scanned.to)}. `, !data.next && "That was all."),
		p.pages(data.next, ctx.params, "jobs", data.scanned && "Go on with older jobs"),
	],
};

export const code = (name, value) => value != null && JSON.stringify(value) !== "{}" && p.card(name, "",
	p.scroll(name, h("pre", typeof value === "string" ? value : JSON.stringify(value, null, 2))));

export const one = {
	...p.one("job", ({job, why, life}, ctx) => {
		const run = async action => await p.act(action, `${job.task}, ${job.state}`, {ids: [job.id]}) && ctx.reload();
		const same = name => [title(name), job[name] && p.link(["jobs"], job[name], {[name]: job[name]})];
		return [
			h("p.lead", p.badge(looks(job)), " ", h("b", job.task), " ", why),
			p.acts(actions(run, job.state)),
			h("div.grid",
				p.card("Its life", "wide", p.life(life.map(({at, event, text, traceback}) => ({
					at, what: event, text, more: traceback && h("details", h("summary", "Traceback"), p.scroll("Traceback", h("pre", traceback))),
				})))),
				p.card("Facts", "", p.facts(
					...["task", "queue", "key", "group"].map(same), ["Priority", job.priority], ["Attempt", `${job.attempt} of ${job.max_attempts}`],
					["Snoozed", job.snoozes || null], ["Scheduled", both(job.created_at)], ["By", job.origin && `${job.origin} ${job.origin_ref ?? ""}`],
					["Due", both(job.scheduled_at)], ["May start", job.eligible_at !== job.scheduled_at && both(job.eligible_at)],
					["Started", both(job.started_at)], ["Late by", since(job.scheduled_at, job.started_at)], ["Finished", both(job.finished_at)],
					["Took", since(job.started_at, job.finished_at)], ["Worker", job.worker && p.link(["workers"], job.worker)],
					["Behind", job.blocked_by && p.link(["blockers"], job.blocked_by)], ["Outcome", job.outcome], ["Reason", job.reason]))),
			code("Error", job.traceback ?? job.error), ["args", "progress", "result", "metadata"].map(name => code(title(name), job[name])),
		];
	}),
	pace: 500,
	hear: (event, {job}) => event.id === job.id,
};
