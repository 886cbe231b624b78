"use strict";
// A phone for people who aren't there: it follows the ledger and writes by the control plane.

const at = (id) => document.getElementById(id);
const people = new Map(); // by key: {person, name, ..., chat: [events], news, typing}
const messages = new Map(); // the business's messages by id: {event, status, code}
let open = null;
let outage = false;
let seen = 0;

async function call(path, body, method) {
  at("error").textContent = "";
  const options = body === undefined ? { method: method || "GET" }
    : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  try {
    const response = await fetch("/_sim/" + path, options);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  } catch (error) {
    at("error").textContent = error.message;
    return null;
  }
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function someone(key) {
  if (!people.has(key)) people.set(key, { person: key, name: key, chat: [], news: 0, typing: 0, marketing: true });
  return people.get(key);
}

const notes = {
  blocked: () => "You blocked this business", unblocked: () => "You unblocked this business",
  preference: (e) => (e.marketing === "stop" ? "You want no marketing" : "You want marketing again"),
};

function take(event) {
  seen = event.n;
  if (event.event === "outage" || event.event === "outage-ended") {
    outage = event.event === "outage";
    at("outage").setAttribute("aria-pressed", outage);
  }
  if (event.event === "fault") loadFaults();
  if (!event.person) return null;
  const them = someone(event.person);
  if (event.event === "joined") Object.assign(them, { name: event.name, wa_id: event.wa_id, user_id: event.user_id });
  if (event.event === "accepted") messages.set(event.wamid, { event, status: "accepted" });
  if (event.event === "blocked" || event.event === "unblocked") them.blocked = event.event === "blocked";
  if (event.event === "preference") them.marketing = event.marketing === "resume";
  if (event.event === "typing") them.typing = event.at_us / 1000 + 25000;
  if (event.event === "said" || event.event in notes) them.chat.push(event);
  const message = messages.get(event.wamid);
  if (message && ["sent", "delivered", "read", "failed"].includes(event.event)) {
    message.status = event.event;
    if (event.event === "delivered") {
      them.typing = 0;
      them.chat.push(message.event);
      if (open !== them) them.news += 1;
    }
    if (event.event === "failed") Object.assign(message, { code: event.code });
  }
  return them;
}

function clock(event) {
  return new Date(event.at_us / 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// The ticks as the business would see them.
const ticks = { accepted: "◷", sent: "✓", delivered: "✓✓", read: "✓✓", failed: "✗" };

function bubble(event) {
  if (event.event in notes) return element("li", notes[event.event](event), "note");
  if (event.event === "said") {
    const mine = element("li", event.text || "[" + event.type + "]", "mine");
    mine.append(element("small", clock(event)));
    return mine;
  }
  const { status } = messages.get(event.wamid);
  const item = element("li", event.text || "[" + event.type + "]", status === "failed" ? "failed" : "");
  item.dataset.wamid = event.wamid;
  if (event.options) {
    const box = element("div", undefined, "options");
    for (const option of event.options) {
      const button = element("button", option.title);
      button.type = "button";
      button.addEventListener("click", () => call("taps", { person: open.person, option: option.id, message: event.wamid }));
      box.append(button);
      if (option.description) box.append(element("small", option.description));
    }
    item.append(box);
  }
  const line = element("small", clock(event) + " ");
  const tick = element("span", ticks[status], status === "read" ? "read" : "");
  tick.setAttribute("role", "img");
  tick.setAttribute("aria-label", status);
  tick.title = status;
  line.append(tick);
  item.append(line);
  return item;
}

function showPeople() {
  const list = at("people");
  const focused = document.activeElement && document.activeElement.dataset.person;
  list.replaceChildren(...[...people.values()].slice(0, 500).map((them) => {
    const item = element("li");
    const button = element("button", them.name);
    button.type = "button";
    button.dataset.person = them.person;
    if (them === open) button.setAttribute("aria-current", "true");
    if (them.news) {
      const news = element("span", them.news, "new");
      news.setAttribute("aria-label", them.news + " new");
      button.append(news);
    }
    button.addEventListener("click", () => choose(them));
    item.append(button);
    return item;
  }));
  const again = focused && list.querySelector("[data-person='" + CSS.escape(focused) + "']");
  if (again) again.focus();
}

function showChat() {
  if (!open) return;
  at("who").textContent = open.name;
  at("what").textContent = open.wa_id ? "+" + open.wa_id : open.user_id || open.person;
  at("block").setAttribute("aria-pressed", Boolean(open.blocked));
  at("marketing").setAttribute("aria-pressed", !open.marketing);
  const chat = at("chat");
  const under = [...messages.values()].filter((m) => m.event.person === open.person && !open.chat.includes(m.event));
  const lines = [...under.slice(-20)].map((m) => element("li",
    m.status === "failed" ? "A message failed (" + m.code + ")" : "A message is under way: " + m.status, "note"));
  chat.replaceChildren(...open.chat.slice(-200).map(bubble), ...lines);
  chat.scrollTop = chat.scrollHeight;
  for (const part of at("say").elements) part.disabled = Boolean(open.blocked);
  at("block").disabled = at("marketing").disabled = false;
  showTyping();
}

function showTyping() {
  at("typing").textContent = open && open.typing > Date.now() ? "typing …" : "";
}

function readAll() {
  // Who looks at the chat has read it.
  if (open && !document.hidden && open.chat.some((e) => e.wamid && (messages.get(e.wamid) || {}).status === "delivered")) {
    call("read", { person: open.person });
  }
}

function choose(them) {
  open = them;
  them.news = 0;
  showPeople();
  showChat();
  readAll();
  at("text").focus();
}

async function loadFaults() {
  const faults = await call("faults");
  if (!faults) return;
  at("faultcount").textContent = faults.length;
  at("faults").replaceChildren(...faults.map((f) => element("li",
    f.action + (f.to ? " to " + f.to : "") + ": happened " + f.happened + (f.times ? " of " + f.times : ""))));
}

let waiting = false;
let whose = new Set();
function later(them) {
  if (them) whose.add(them);
  if (waiting) return;
  waiting = true;
  // Not requestAnimationFrame: that stands still in a tab that is not looked at.
  setTimeout(() => {
    waiting = false;
    showPeople();
    if (whose.has(open)) { showChat(); readAll(); }
    whose = new Set();
  }, 50);
}

function follow() {
  const events = new EventSource("/_sim/events?since=" + seen);
  events.onopen = () => { at("link").textContent = "Connected"; };
  events.onmessage = (message) => later(take(JSON.parse(message.data)));
  events.onerror = () => {
    // Not its own reconnection: a simulator that was started anew counts from 1 again.
    events.close();
    at("link").textContent = "The simulator does not answer …";
    setTimeout(async () => {
      const found = await call("ledger?since=" + Math.max(0, seen - 1));
      if (found && seen && !found.length) location.reload();
      else follow();
    }, 1000);
  };
}

at("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const number = form.elements.wa_id.value;
  const key = number || "XX." + Date.now();
  const facts = { name: form.elements.name.value, ...(number ? { wa_id: key } : { user_id: key }) };
  if (await call("people", facts)) {
    form.reset();
    choose(Object.assign(someone(key), facts));
  }
});
at("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text");
  if (text.value && await call("messages", { person: open.person, text: text.value })) text.value = "";
});
at("block").addEventListener("click", () => call("block", { person: open.person, blocked: !open.blocked }));
at("marketing").addEventListener("click", () => call("preferences", { person: open.person, marketing: !open.marketing }));
at("outage").addEventListener("click", () => call("outage", { seconds: outage ? 0 : "on" }));
at("fault").addEventListener("submit", async (event) => {
  event.preventDefault();
  await call("faults", { action: event.target.elements.action.value, times: 1 });
  loadFaults();
});
at("nofaults").addEventListener("click", async () => { await call("faults", undefined, "DELETE"); loadFaults(); });
document.addEventListener("visibilitychange", readAll);
setInterval(showTyping, 1000);
loadFaults();
follow();
