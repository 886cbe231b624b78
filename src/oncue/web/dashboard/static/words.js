// Numbers, spans and times in words. Times are in the browser's zone, by the server's clock.
import {h} from "./dom.js";

let shift = 0; // the server's clock minus this one, in ms

export const setNow = iso => {shift = Date.parse(iso) - Date.now();};
const now = () => Date.now() + shift;
export const num = n => n == null ? "–" : n.toLocaleString("en");
export const title = name => name[0].toUpperCase() + name.slice(1).replace(/[_-]/g, " ");
export const short = n => n < 1e5 ? num(n) : n.toLocaleString("en", {notation: "compact", maximumSignificantDigits: 3});
export const count = (n, one, many = `${one}s`) => `${num(n)} ${n === 1 ? one : many}`;

const UNITS = [[864e5, "d", 36e5, "h"], [36e5, "h", 6e4, "min"], [6e4, "min", 1e3, "s"]];

export function span(ms) {
	if (ms == null) return "–";
	if (ms < 1e3) return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
	if (ms < 6e4) return `${ms < 1e4 ? Math.round(ms / 100) / 10 : Math.round(ms / 1e3)} s`;
	const [size, unit, part, small] = UNITS.find(([size]) => ms >= size), whole = Math.floor(ms / size);
	const rest = whole < 10 && Math.floor((ms % size) / part);
	return `${whole} ${unit}${rest ? ` ${rest} ${small}` : ""}`;
}

export function ago(iso) {
	const ms = Date.parse(iso) - now(), far = span(Math.round(Math.abs(ms) / 1e3) * 1e3);
	return Math.abs(ms) < 500 ? "now" : ms > 0 ? `in ${far}` : `${far} ago`;
}

const TIME = {hour: "2-digit", minute: "2-digit"};
export const minute = iso => new Date(iso).toLocaleTimeString("en-GB", TIME);

export function clock(iso) {
	const date = new Date(iso), today = date.toDateString() === new Date(now()).toDateString();
	const time = date.toLocaleTimeString("en-GB", {...TIME, second: "2-digit", fractionalSecondDigits: 3}).replace(".000", "");
	return today ? time : `${date.toLocaleDateString("en-GB", {dateStyle: "medium"})} ${time}`;
}

// The title gives what the server sent, to the microsecond.
export const when = (iso, text = ago) => iso ? h("time", {datetime: iso, title: `${clock(iso)}, ${iso}`}, text(iso)) : "–";
export const moment = iso => when(iso, clock);
export const both = iso => iso && [moment(iso), h("small", ` ${ago(iso)}`)];

// datetime-local, in the browser's zone, from and to what the API speaks.
export const toField = iso => iso && new Date(iso).toLocaleString("sv").replace(" ", "T");
export const fromField = text => text && new Date(text).toISOString();
