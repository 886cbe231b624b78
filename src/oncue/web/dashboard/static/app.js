// The shell: which view is shown, when it loads anew, and whether it is live.
import {hooks} from "./charts.js";
import {at, draw, h} from "./dom.js";
import * as flows from "./flows.js";
import * as jobs from "./jobs.js";
import {api, listen, live, setToken, token} from "./net.js";
import * as overview from "./overview.js";
import {ask, field, href, me, say} from "./parts.js";
import {count, num, setNow, span, title} from "./words.js";

const REDRAW_MS = 250, RELOAD_MS = 2_000, IDLE_MS = 30_000, SAY_MS = 10_000;
const VIEWS = {__proto__: null, ...flows, "": overview.view, jobs: jobs.list, job: jobs.one};
const NAV = ["", "jobs", "blockers", "schedules", "queues", "workers", "sources", "conversations", "audit"];
const NOWHERE = {title: () => "No such page", load: async () => {throw Error("Nothing is at this address.");}};
const LIGHTS = {ok: "seagreen", warn: "orange", fail: "crimson"};

let shown; // the view that is on the page: {name, view, ctx, data, error}
let latest; // the last overview
let told = {next: 0}, waiting, drawn = 0;

function redraw() {
	waiting ??= setTimeout(() => requestAnimationFrame(paint), Math.max(0, drawn + REDRAW_MS - performance.now()));
}

function paint() {
	waiting = null;
	drawn = performance.now();
	draw(at("nav"), NAV.filter(name => me.conversations || name !== "conversations").map(name => h("li", h("a", {href: href([name]), "aria-current": [shown.name, `${shown.name}s`].includes(name) && "page"},
		VIEWS[name].title({}), name === "jobs" && latest?.counts.late > 0 && h("b", ` ${num(latest.counts.late)} late`)))));
	const silence = span(Math.round((performance.now() - live.news) / 1e3) * 1e3);
	draw(at("live"), h(`i.cue.${live.state === "live" ? "ok" : "off"}`),
		{live: "Live", denied: "Not live: not let in"}[live.state] ?? `${title(live.state)}, last news ${silence} ago`);
	const {view, ctx, data, error} = shown;
	draw(at("main"), h("h1", {tabindex: -1, id: "title"}, view.title(ctx)),
		error && h("p.card.bad", {key: "error", role: "alert"}, error.message),
		data ? h("div", {key: location.hash}, view.draw(data, ctx)) : !error && h("p.dim", "Loading…"));
}

// For who looks elsewhere: in the tab's name and light, and said by a screen reader.
function tell() {
	const {late, discarded} = latest.counts, text = `${count(late, "job")} late, ${num(discarded)} discarded.`;
	const icon = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 2 2'><circle cx='1' cy='1' r='.9' fill='${LIGHTS[overview.worst(latest)]}'/></svg>`;
	document.title = `${late ? `(${late} late) ` : ""}${shown.view.title(shown.ctx)} – OnCue`;
	if (at("icon").getAttribute("href") !== icon) at("icon").href = icon;
	if (told.text !== text && performance.now() > told.next) at("said").textContent = (told = {text, next: performance.now() + SAY_MS}).text;
}

function news(data) {
	latest = data;
	setNow(data.now);
	tell();
}

async function load() {
	const mine = shown;
	// What was asked for while an answer was on its way may be newer than that.
	if (mine.loading) return void (mine.again = true);
	clearTimeout(mine.timer);
	mine.loading = true;
	try {
		mine.data = await mine.view.load(mine.ctx);
		mine.error = null;
		if (mine.name === "") news(mine.data);
	} catch (error) {
		if (error.status === 401) return start();
		mine.error = error;
	} finally {
		mine.loading = mine.soon = false;
		mine.loaded = performance.now();
	}
	if (mine !== shown) return;
	redraw();
	if (mine.again) load(mine.again = false);
	else mine.timer = setTimeout(stale, mine.error ? RELOAD_MS : IDLE_MS);
}

// Something changed: the view is loaded anew soon, but not more often than every 2 s.
function stale() {
	const {view, data, ctx, loaded = 0, soon} = shown;
	if (soon || (data && view.still?.(data, ctx))) return;
	clearTimeout(shown.timer);
	shown.soon = true;
	shown.timer = setTimeout(load, Math.max(0, loaded + (view.pace ?? RELOAD_MS) - performance.now()));
}

// A percent sign that encodes nothing stays one.
const decoded = text => new URLSearchParams(`=${text}`).get("");

function go() {
	const [path, query] = location.hash.slice(2).split("?"), [given, id] = path.split("/").map(decoded);
	// #/jobs/17 is #/job/17: of what has a list, one is shown by its id.
	const name = id ? given.replace(/s$/, "") : given;
	clearTimeout(shown?.timer);
	shown?.stop.abort();
	const stop = new AbortController();
	const get = (path, params) => api(`${path}?${new URLSearchParams(params)}`, null, stop.signal);
	const ctx = {id, params: Object.fromEntries(new URLSearchParams(query)), redraw, reload: load, get};
	shown = {name, view: !id === !VIEWS[`${name}s`] && VIEWS[name] || NOWHERE, ctx, stop, data: name ? null : latest};
	if (latest) tell();
	paint();
	scrollTo(0, 0);
	load();
}

function hear(name, data) {
	if (name === "reset") {
		say("Some changes were missed. All was loaded anew.");
		load();
	} else if (name === "overview") {
		news(data);
		if (shown.name) stale();
		else shown.data = data;
	} else if (name === "job" ? shown.data && shown.view.hear?.(data, shown.data) : shown.name) stale();
	else return;
	redraw();
}

async function start() {
	let who;
	try {
		who = await api("me");
	} catch (error) {
		if (error.status !== 401) {
			say(error.message, "bad");
			return setTimeout(start, 3000);
		}
		if (at("ask").open) return;
		const why = token() ? "That token is unknown, has expired or was revoked." : "This server lets in whoever has a token.";
		const given = await ask("Token", [why, "Make one with: oncue tokens create NAME --role read --role operate"], "Let me in", "",
			[field("Token, kept for this tab only", "token", {type: "password", required: true})]);
		setToken(given?.token.trim() ?? "");
		return start();
	}
	const first = !me.who;
	Object.assign(me, who);
	draw(at("who"), h("p", me.who), h("p", Intl.DateTimeFormat().resolvedOptions().timeZone));
	if (!first) return load();
	go();
	// A screen reader is told by the heading where it is; keys go on from there.
	addEventListener("hashchange", () => {go(); at("title").focus();});
	setInterval(() => document.hidden || redraw(), 1000);
	if (shown.name) api("overview").then(news, () => {});
	listen(hear, state => {
		at("said").textContent = state === "live" ? "Live." : "Not live: reconnecting.";
		// What changed before was told to nobody.
		if (state === "live") load();
		redraw();
	});
}

hooks.redraw = redraw;
at("skip").onclick = event => {event.preventDefault(); at("main").focus();};
start();
