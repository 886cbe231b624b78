// Charts as SVG, in words and as a table; under the pointer, one bin's figures.
import {h} from "./dom.js";
import {table} from "./parts.js";
import {minute, num, span} from "./words.js";

const W = 600, H = 100, TICKS = [1, 10, 100, 1e3, 1e4, 6e4, 6e5, 36e5, 864e5];
const log = ms => Math.log10(1 + ms), under = {}, open = {};
export const hooks = {};

function scale(bins, series, ms) {
	const values = bins.map(bin => series.map(([name]) => bin[name]));
	const most = Math.max(1, ...values.map(row => ms ? Math.max(...row) : row.reduce((sum, n) => sum + n)));
	if (!ms) return {y: n => H - n / most * H, ticks: most > 1 ? [most, Math.round(most / 2)] : [1]};
	const top = TICKS.find(tick => tick >= most) ?? most;
	return {y: n => H - log(n) / log(top) * H, ticks: TICKS.filter(tick => tick <= top).slice(-4)};
}

const bars = (bins, series, y) => bins.flatMap((bin, i) => {
	let base = 0;
	return series.map(([name, look]) => {
		const n = bin[name], top = y(base += n), wide = W / bins.length;
		return n > 0 && h(`rect.${look}`, {x: (i + 0.12) * wide, width: wide * 0.76, y: top, height: Math.max(y(base - n) - top, 1)});
	});
});

// A bin without a figure is a gap; one alone between gaps is a dot.
const lines = (bins, series, y) => series.map(([name, look]) => h(`path.${look}`, {
	d: bins.map((bin, i) => bin[name] == null ? "" : `${bins[i - 1]?.[name] == null ? "M" : "L"}${(i + 0.5) * W / bins.length} ${y(bin[name])}h0`).join(""),
}));

// series: [name, look, text]; bins: [{at, [name]: number}]; ms: lines of spans on a logarithmic scale.
export function chart(id, {bins, series, ms, summary, unit}) {
	const {y, ticks} = scale(bins, series, ms), show = ms ? span : num, bin = bins[under[id]];
	const move = event => {
		const {left, width} = event.currentTarget.getBoundingClientRect();
		under[id] = Math.floor((event.clientX - left) / width * bins.length);
		hooks.redraw();
	};
	const leave = () => {delete under[id]; hooks.redraw();};
	return h("figure",
		h("div.plot", {onpointermove: move, onpointerleave: leave},
			ticks.map(tick => h("span", {"aria-hidden": "true", top: `${y(tick)}%`}, show(tick))),
			h("svg", {viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": summary},
				bin && h("rect.under", {x: under[id] * W / bins.length, width: W / bins.length, height: H}),
				(ms ? lines : bars)(bins, series, y))),
		h("div.axis", {"aria-hidden": "true"}, [0, bins.length >> 1, bins.length - 1].map(i => bins[i] && h("span", minute(bins[i].at)))),
		h("figcaption",
			series.map(([name, look, text = name]) => h("span",
				h("svg.key", {"aria-hidden": "true"}, ms ? h(`path.${look}`, {d: "M1 6h20"}) : h(`rect.${look}`, {width: 22, height: 12})),
				text, bin && h("b", ` ${show(bin[name])}`))),
			h("span.dim", bin ? minute(bin.at) : unit),
			h("details", {ontoggle: event => {open[id] = event.target.open; hooks.redraw();}}, h("summary", "Table"), open[id] && table(summary, [["From", "at", "", minute], ...series.map(([name, , text = name]) => [text, name, "n", show])], bins))));
}
