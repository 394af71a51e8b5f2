// What a pub writes, live: follow, search as you type, wrap. The server hides secrets; here all is plain text.

import { follow as open } from "./socket.js";

const SHOWN = 2000; // lines on the page
const SILENT_FROM = 5; // lines at once that a screen reader is not read any more, but told the number of
const TELL_EACH = 10_000; // ms
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const section = document.getElementById("log");
const frame = document.getElementById("lines");
const list = frame.querySelector("ol");
const link = document.getElementById("link");
const sought = document.getElementById("sought");
const follow = document.getElementById("follow");
const more = document.getElementById("more");
const rows = new Map([...list.children].map((row) => [row.dataset.key, row])); // in the order of the page
let held = []; // what came while the reader has scrolled up
let stream = "", next = 0; // of the last line that came: whose it was, and the number of the one after it
let hasJoined = false; // that stream's lines to those before
let untold = 0, toldAt = 0;

// --- Lines ---

function time(iso) {
  const at = new Date(iso);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${iso.slice(11, 19)}`;
}

function element(name, text = "", values = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, values);
}

function row(line) {
  const made = element("li", "", { className: line.is_error ? "error" : "" });
  made.append(element("time", time(line.at), { dateTime: line.at }), " ");
  if (line.is_error) made.append(element("b", "error"), " ");
  made.append(element("span", line.text));
  return made;
}

function gap(words) {
  return element("li", words, { className: "gap" });
}

// When it was written, in nanoseconds: numbers of 19 digits, which compare as text.
const moment = (key) => key.split(".")[0];

// What is not yet on the page or held, with a mark where lines are missing. Returns how many.
function fresh({ stream: from, lines }) {
  if (from !== stream) [stream, next, hasJoined] = [from, lines[0]?.number ?? 0, rows.size === 0];
  const first = rows.keys().next().value;
  const isKnown = ({ key }) => rows.has(key) || (first && moment(key) < moment(first));
  if (lines.length && !hasJoined && !lines.some(isKnown)) keep(`gap ${stream}`, gap("Some lines may be missing here."));
  hasJoined ||= lines.length > 0;
  let count = 0;
  for (const line of lines) {
    const left = line.number - next;
    if (left > 0) keep(`gap ${stream} ${next}`, gap(`${left} line${left > 1 ? "s were" : " was"} left out: they came too fast.`));
    next = Math.max(next, line.number + 1);
    if (isKnown(line)) continue;
    keep(line.key, row(line));
    count++;
  }
  return count;
}

function keep(key, made) {
  made.dataset.key = key;
  rows.set(key, made);
  held.push(made);
}

function put() {
  for (const made of held) mark(made);
  list.append(...held);
  held = [];
  for (const [key, old] of rows) {
    if (rows.size <= SHOWN) break;
    rows.delete(key);
    old.remove();
  }
  more.hidden = true;
  frame.scrollTop = frame.scrollHeight;
  count();
}

function hold() {
  // A reader who stays for long: what is on the page stays, and of what waits the newest.
  while (held.length > SHOWN) rows.delete(held.shift().dataset.key);
  const waiting = held.filter((made) => !made.matches(".gap")).length;
  more.textContent = `${waiting} new line${waiting === 1 ? "" : "s"} ↓`;
  more.hidden = !waiting;
}

function receive(message) {
  if (message.kind === "waiting") return;
  const isFirst = message.kind === "begin";
  const came = fresh(message);
  document.getElementById("log-words").hidden = rows.size > 0;
  // What was written before, and a flood, is not read aloud.
  frame.ariaLive = isFirst || came >= SILENT_FROM || !follow.checked ? "off" : "polite";
  if (follow.checked) put();
  else hold();
  if (!isFirst) tell(frame.ariaLive === "off" ? came : 0);
}

function tell(came) {
  untold += came;
  const now = performance.now();
  if (!untold || now - toldAt < TELL_EACH) return;
  document.getElementById("new-lines").textContent = `${untold} new lines`;
  [untold, toldAt] = [0, now];
}

// --- Search ---

let pattern = null;

function seek() {
  const words = sought.value.trim();
  pattern = words ? new RegExp(`(${words.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&")})`, "gi") : null;
  for (const each of list.children) mark(each);
  if (follow.checked) frame.scrollTop = frame.scrollHeight;
  count();
}

// As the filter of the same name in pubs_extras.py: all is text, and what was sought is in a mark.
function mark(made) {
  const text = made.querySelector("span");
  if (!text) return void (made.hidden = Boolean(pattern));
  const pieces = pattern ? text.textContent.split(pattern) : [text.textContent];
  made.hidden = Boolean(pattern) && pieces.length === 1;
  if (pieces.length > 1 || text.firstElementChild) {
    text.replaceChildren(...pieces.map((piece, number) => (number % 2 ? element("mark", piece) : piece)));
  }
}

function count() {
  const all = list.querySelectorAll("li:not(.gap)").length;
  const found = list.querySelectorAll("li:not(.gap, [hidden])").length;
  const words = pattern ? `${found} of ${all} line${all === 1 ? "" : "s"}${found ? "" : ": not found"}` : "";
  const place = document.getElementById("matches");
  if (place.textContent !== words) place.textContent = words;
}

// --- Follow and wrap ---

const isAtEnd = () => frame.scrollHeight - frame.scrollTop - frame.clientHeight < 30;

frame.addEventListener("scroll", () => {
  if (follow.checked && !isAtEnd()) follow.checked = false;
  else if (!follow.checked && isAtEnd() && !held.length) follow.checked = true;
});
follow.addEventListener("change", () => follow.checked && put());
more.addEventListener("click", () => {
  follow.checked = true;
  put();
  frame.focus();
});
document.getElementById("wrap").addEventListener("change", ({ target }) => {
  frame.classList.toggle("long", !target.checked);
  if (follow.checked) frame.scrollTop = frame.scrollHeight;
});
sought.addEventListener("input", seek);
sought.form.addEventListener("submit", (event) => event.preventDefault());

function say(state) {
  const words = { gone: "not yours any more: reload", waiting: "waiting for your pub" };
  const tones = { live: "good", paused: "off", gone: "bad" };
  link.textContent = words[state] ?? state;
  link.className = `badge ${tones[state] ?? "busy"} needs-js`;
}

open(section.dataset.socket, {
  onMessage(message) {
    say(message.kind === "waiting" ? "waiting" : "live");
    receive(message);
  },
  onState: (state) => state !== "live" && say(state),
});
seek();
frame.scrollTop = frame.scrollHeight;
