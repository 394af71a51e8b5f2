// A pub's page, live: state, figures and answers as they change.

import { show } from "./answers.js";
import { charts } from "./charts.js";
import { age, units } from "./format.js";
import { ask, become, parse } from "./pieces.js";
import { follow } from "./socket.js";

const STALE = 60; // seconds, as in shown.py
const FRESH = 5; // seconds that a figure is taken for what is
const LOOK_AGAIN = 20; // seconds since the server last said how the pub is
const stats = document.getElementById("stats");
const link = document.getElementById("link");
let ahead = 0; // how much the server's clock is ahead of ours, in ms
let drawnAt = performance.now();

const pub = () => document.getElementById("pub");
const secondsSince = (iso) => (Date.now() + ahead - Date.parse(iso)) / 1000;

// --- State ---

function drawPub(html) {
  const old = pub(), fresh = parse(html);
  drawnAt = performance.now();
  ahead = Date.parse(fresh.dataset.now) - Date.now();
  if (old.dataset.word !== fresh.dataset.word) {
    document.getElementById("announce").textContent = `${fresh.dataset.name}: ${fresh.dataset.word}`;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  become(old, fresh);
  tick();
  if (!focused?.id || focused.isConnected) return;
  // The button that was pressed may be gone, like Stop after stopping: the next one takes its place.
  // Not one that is folded away, which takes no focus.
  (document.getElementById(focused.id) ?? old.querySelector(".state > .actions button"))?.focus({ preventScroll: true });
}

async function lookAgain() {
  drawnAt = performance.now();
  try {
    const { status, html } = await ask(location.pathname);
    if (status === 200) drawPub(html);
  } catch {
    // No network: the age of what is shown goes on and says so.
  }
}

// --- Figures ---

// A frame that comes late, or again after a reconnect, never covers a newer one.
function drawStats(sample) {
  if (sample.seq < stats.dataset.seq) return;
  Object.assign(stats.dataset, { at: sample.at, seq: sample.seq });
  add(sample);
  for (const place of stats.querySelectorAll("[data-stat]")) {
    const value = sample[place.dataset.stat];
    place.textContent = value == null ? "–" : units[place.dataset.unit](value);
  }
  for (const place of stats.querySelectorAll(".when-old")) place.dataset.age = sample.at;
}

function tick() {
  if (document.hidden) return;
  for (const place of document.querySelectorAll("[data-age]")) {
    const words = age(secondsSince(place.dataset.age));
    if (place.textContent !== words) place.textContent = words;
  }
  const { seen, mayRun, unknown } = pub().dataset;
  const old = Boolean(seen) && secondsSince(seen) > STALE;
  pub().toggleAttribute("data-stale", mayRun !== undefined && (old || unknown !== undefined));
  tickStats();
  if (performance.now() - drawnAt > LOOK_AGAIN * 1000) lookAgain();
}

function tickStats() {
  const { at } = stats.dataset;
  if (!at) return;
  const old = secondsSince(at) > FRESH;
  stats.toggleAttribute("data-old", old);
  document.getElementById("stats-age").textContent = old ? `Figures from ${age(secondsSince(at))}` : "New each second";
}

function say(state) {
  const words = { gone: "not yours any more: reload" };
  const tones = { live: "good", paused: "off", gone: "bad" };
  link.textContent = words[state] ?? state;
  link.className = `badge ${tones[state] ?? "busy"} needs-js`;
}

const kinds = {
  stats: drawStats,
  past: ({ rows }) => fill(rows),
  pub: ({ html }) => drawPub(html),
  command: ({ html }) => show(html),
};
ahead = Date.parse(pub().dataset.now) - Date.now();
const { add, fill } = charts(stats, () => (Date.now() + ahead) / 1000);
follow(stats.dataset.socket, { onMessage: (message) => kinds[message.kind]?.(message), onState: say });
tick();
setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
