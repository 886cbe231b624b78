// What views are made of: badges, tables, links, and the question before every action.
import {at, draw, h} from "./dom.js";
import {api} from "./net.js";
import {count, fromField, moment, title} from "./words.js";

export const STATES = ["late", "due", "running", "scheduled", "blocked", "completed", "discarded", "cancelled"];
const GLYPHS = {
	scheduled: "○", due: "◔", running: "▶", completed: "✓", discarded: "✕", cancelled: "⊘", blocked: "‖", late: "!",
	ok: "✓", warn: "!", fail: "✕", alive: "✓", dead: "✕", paused: "‖", active: "✓",
};

export const me = {roles: []};
export const may = role => me.roles.includes(role);
export const badge = (state, text = state) => h(`span.badge.${state}`, h("span", {"aria-hidden": "true"}, GLYPHS[state] ?? "•"), ` ${text}`);
export const button = (text, onclick, look = "", more) => h(`button.${look}`, {type: "button", onclick, ...more}, text);

export function href(parts, params = {}) {
	const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value));
	return `#/${parts.map(encodeURIComponent).join("/")}${query.size ? `?${query}` : ""}`;
}

export const link = (parts, text, params) => h("a", {href: href(parts, params)}, text);
export const job = id => id == null ? "–" : link(["job", id], `#${id}`);

const text = value => value && typeof value === "object" ? JSON.stringify(value) : value;

// What may be wider or higher than its place: keys scroll it too.
export const scroll = (label, ...kids) => h("div.scroll", {key: label, tabindex: 0, role: "region", "aria-label": label}, kids);

// columns: [heading, name of a field or cell(row), class, format(value)]
export function table(label, given, rows, empty) {
	if (!rows.length) return h("p.dim", {key: label}, empty);
	const columns = given.map(column => Array.isArray(column) ? column : [title(column), column]);
	return scroll(label, h("table",
		h("thead", h("tr", columns.map(([name, , look = ""]) => h(`th.${look}`, {scope: "col"}, name)))),
		h("tbody", rows.map((row, i) => h("tr", {key: row.id ?? row.name ?? i}, columns.map(([, cell, look = "", format = text]) => h(`td.${look}`, typeof cell === "function" ? cell(row) : format(row[cell]))))))));
}

export const facts = (...pairs) => h("dl", pairs.map(([name, value]) => value != null && value !== "" && h("div", h("dt", name), h("dd", value))));
export const card = (title, look, ...kids) => h(`section.card.${look}`, {key: title}, h("h2", title), kids);
export const chips = ({params}, view, states) => h("nav.row", {"aria-label": "States"}, ["", ...states].map(state =>
	h("a.chip", {href: href([view], {...params, cursor: "", state}), "aria-current": state === (params.state ?? "") && "true"}, title(state || "all"))));
export const acts = (...kids) => may("operate") && h("div.row", {role: "group", "aria-label": "Actions"}, kids);
export const pages = (next, params, view, text) => (next || params.cursor) && h("p.row",
	params.cursor && link([view], "First page", {...params, cursor: ""}), next && link([view], text || "Next page", {...params, cursor: next}));
export const life = events => h("ol.life", events.map(({at, what, text, more}) => h("li", h("small", moment(at)), h("b", title(what)), " ", text, more)));

let fading;
export function say(text, look = "good") {
	clearTimeout(fading);
	draw(at("note"), text && [h(`p.${look}`, text), button("Close", () => say(), "plain")]);
	if (text && look === "good") fading = setTimeout(say, 12_000);
}

// A question in a dialog. Answers what was filled in, or null.
export const ask = (title, text, yes, look, fields = []) => new Promise(done => {
	const dialog = at("ask");
	const end = answer => {dialog.onclose = null; dialog.close(); draw(dialog); done(answer);};
	const fill = event => {event.preventDefault(); end(Object.fromEntries(new FormData(event.target)));};
	dialog.onclose = () => end(null);
	draw(dialog, h("form", {onsubmit: fill}, h("h2", {id: "asked"}, title), text.map(line => line && h("p", line)), fields,
		h("p.row", button("Back", () => end(null)), h(`button.${look || "primary"}`, yes))));
	dialog.showModal();
});

export const field = (label, name, more) => h("label", label, h("input", {name, autocomplete: "off", ...more}));

export const ACTIONS = {
	"run-now": ["Run now", "Due at once."],
	retry: ["Retry", "Fresh attempts, with the same arguments."],
	reschedule: ["Reschedule", "Another due time.", "", () => [
		field("At (your time)", "at", {type: "datetime-local", step: 1}),
		field("or in so many minutes", "minutes", {type: "number", min: 0, step: "any", value: 5}),
	]],
	cancel: ["Cancel", "What has not started never runs. What runs is asked to stop.", "danger"],
};

const attempt = work => work().catch(error => say(error.message, "bad"));

// What to do to these ids, or to all that match a filter, after a question with the count. Answers whether it was done.
export const act = (action, about, {ids, filter}) => attempt(async () => {
	const [verb, text, look, fields] = ACTIONS[action];
	const counted = ids ? {count: ids.length} : await api("jobs/many", {action, filter}), jobs = count(counted.count, "job");
	if (!counted.count) return say("Nothing matches by now, so there is nothing to do.");
	const answer = await ask(`${verb}: ${jobs}?`, [about, text], `${verb} ${jobs}`, look, fields?.());
	if (!answer) return false;
	const when = !fields ? {} : answer.at ? {at: fromField(answer.at)} : {delay: answer.minutes * 60};
	const {refused, text: said} = ids ? await each(action, ids, when)
		: await api("jobs/many", {action, filter, ...when, token: counted.token, confirm: counted.count});
	const why = refused.slice(0, 3).map(one => `Job ${one.id}: ${one.why}`);
	say([said, ...why].join(" "), why.length ? "bad" : "good");
	return true;
});

async function each(action, ids, when) {
	const refused = [];
	let text;
	for (const id of ids) {
		const answer = await api(`jobs/${id}/${action}`, when).catch(error => ({text: error.message}));
		if (!answer.done) refused.push({id, why: answer.text});
		else text = answer.text;
	}
	return {refused, text: ids[1] || !text ? `${count(ids.length - refused.length, "job")} done, ${refused.length} refused.` : text};
}

// One of a kind, at an address of its own.
export const path = (kind, id) => `${kind}s/${encodeURIComponent(id)}`;
export const one = (kind, draw) => ({title: ({id}) => `${title(kind)} ${id}`, load: ctx => ctx.get(path(kind, ctx.id)), draw});

// A button for one action on a queue, task, schedule or conversation.
export function changing(ctx, path, action, name, text, look) {
	const verb = title(action), label = `${verb}: ${name}`;
	const run = () => attempt(async () => {
		if (!await ask(`${label}?`, [text], verb, look)) return;
		say((await api(`${path}/${action}`, {})).text);
		ctx.reload();
	});
	return may("operate") && button(verb, run, look, {"aria-label": label});
}
