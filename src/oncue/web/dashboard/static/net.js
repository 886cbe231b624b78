// The API and its stream of events. A token is kept for this tab alone, and sent as a header.
const BASE = new URL("../api/", import.meta.url), TOKEN = "oncue-token", SILENCE_MS = 25_000, SLOWEST_MS = 10_000;

export const token = () => sessionStorage.getItem(TOKEN);
export const setToken = text => sessionStorage.setItem(TOKEN, text);

const ask = (path, {headers, ...more}) => fetch(new URL(path, BASE), {
	headers: {...(token() && {authorization: `Bearer ${token()}`}), ...headers}, ...more,
});

const problem = (status, text) => Object.assign(Error(text), {status});

// Reads, or with a body does. Raises an error with a status: 0 where there was no answer.
export async function api(path, body, signal) {
	const post = body && {method: "POST", body: JSON.stringify(body), headers: {"x-oncue": "1", "content-type": "application/json"}};
	let response;
	try {
		response = await ask(path, {...post, signal});
	} catch (error) {
		throw signal?.aborted ? error : problem(0, "The server does not answer. Is it running, and is the network up?");
	}
	const answer = await response.json().catch(() => null);
	if (response.ok) return answer;
	throw problem(response.status, answer?.detail ?? `The server answered ${response.status}.`);
}

export const live = {state: "connecting", news: performance.now()};

// Reads the events, and begins anew after what was heard last.
export async function listen(hear, changed) {
	let last, wait = 500, nudge;
	const say = state => {
		if (live.state !== state) changed(live.state = state);
	};
	addEventListener("online", () => nudge?.());
	for (;;) {
		const stop = new AbortController();
		// A comment comes every 15 s: a connection that says nothing for longer is dead.
		const watch = setInterval(() => performance.now() - live.news > SILENCE_MS && stop.abort(), 1000);
		let lost = "reconnecting";
		try {
			const response = await ask("events", {headers: last && {"last-event-id": last}, signal: stop.signal});
			if (!response.ok) throw problem(response.status);
			live.news = performance.now();
			say("live");
			wait = 500;
			for await (const {name, data, id} of events(response.body)) {
				last = id ?? last;
				hear(name, data);
			}
		} catch (error) {
			if ([401, 403].includes(error.status)) lost = "denied";
		}
		clearInterval(watch);
		say(lost);
		await new Promise(done => {nudge = done; setTimeout(done, wait * (0.5 + Math.random() / 2));});
		wait = Math.min(wait * 2, SLOWEST_MS);
	}
}

async function* events(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	for (let rest = "", event = {}, got; !(got = await reader.read()).done;) {
		live.news = performance.now();
		const lines = (rest + got.value).split("\n");
		rest = lines.pop();
		for (const line of lines) {
			const [, field, text] = /^(\w+): ?(.*?)\r?$/.exec(line) ?? [];
			if (field) event[field] = (event[field] ?? "") + text;
			else if (event.event) {
				yield {name: event.event, id: event.id, data: event.data && JSON.parse(event.data)};
				event = {};
			} else if (!line.trim()) event = {};
		}
	}
}
