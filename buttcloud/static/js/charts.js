// The last three minutes of a pub, drawn by uPlot. The numbers beside the charts say the same to those who can't see them.

import { axis, color, dash, lineColor, scales } from "./axes.js";

const LENGTH = 180; // seconds
const DELAY = 1.5; // seconds: the newest sample waits beyond the edge, so that its line glides in
const FRAME = 1000 / 12; // ms: a pixel of a chart is a third of a second wide, so that more frames show nothing more
const RISE = 200; // ms: how slowly a chart's top follows
const STEP = 10; // seconds of a step of the history, as in history.py
const PAUSE = 2; // seconds late: the line is broken where nothing came, not bridged

const CHARTS = {
  cpu: { keys: ["cpu"], unit: "percent" },
  memory: { keys: ["memory"], unit: "size", limit: "memory_limit" },
  network: { keys: ["rx_rate", "tx_rate"], unit: "rate" },
  disk: { keys: ["read_rate", "write_rate"], unit: "rate" },
  processes: { keys: ["pids"], unit: "count" },
};

const seconds = (iso) => Date.parse(iso) / 1000;
const still = matchMedia("(prefers-reduced-motion: reduce)");

// `root` holds the places to draw in; `clock` says what time it is at the server, in seconds.
export function charts(root, clock) {
  let rows = []; // the oldest first: { time, every: seconds that it stands for, sample }
  let drawn = [];
  let right = 0; // the time at the right edge
  let framed = 0, seen = true;

  function draw(place) {
    const { keys, unit, limit } = CHARTS[place.dataset.chart];
    const { label, least, steps } = scales[unit];
    const lines = keys.map((key, index) => {
      const stroke = lineColor(index);
      return { stroke, width: 2, points: { show: false }, ...(index ? { dash: [5, 3] } : { fill: `${stroke}22` }) };
    });
    const bound = () => (limit && rows.at(-1)?.sample[limit]) || 0;
    const bad = color("--bad");
    const one = { place, keys, bound, least, top: 0 };
    one.chart = new uPlot({
      width: place.clientWidth,
      height: place.clientHeight,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 16, 0, 0],
      scales: { x: { time: false, range: () => [right - LENGTH, right] }, y: { range: () => [0, one.top || least] } },
      axes: [
        { ...axis(), size: 24, gap: 6, splits: () => [3, 2, 1, 0].map((minutes) => right - minutes * 60), values: () => ["3 min", "2 min", "1 min", "now"], align: 0 },
        { ...axis(), size: 58, gap: 4, space: 26, incrs: steps, values: (chart, splits) => splits.map(label), ...(limit && { splits: () => [0, bound() / 2, bound()] }) },
      ],
      series: [{}, ...lines],
      hooks: { draw: [(chart) => bound() && dash(chart, bound(), bad)] },
    }, [[], ...keys.map(() => [])], place);
    return one;
  }

  function load() {
    const all = rows.flatMap((row, i) => (i && isApart(rows[i - 1], row) ? [{ time: row.time - 0.001, sample: {} }, row] : [row]));
    for (const { chart, keys } of drawn) {
      chart.setData([all.map((row) => row.time), ...keys.map((key) => all.map((row) => row.sample[key] ?? null))], false);
    }
    if ((still.matches || !seen) && !document.hidden) paint(Infinity);
  }

  const isApart = (one, next) => next.time - one.time > Math.max(one.every, next.every) + PAUSE;

  function paint(passed) {
    right = clock() - DELAY;
    const share = 1 - Math.exp(-passed / RISE);
    for (const one of drawn) {
      const goal = topOf(one);
      one.top = Math.abs(goal - one.top) < goal / 200 ? goal : one.top + (goal - one.top) * (one.top ? share : 1);
      one.chart.redraw();
    }
  }

  function topOf({ keys, bound, least }) {
    if (bound()) return bound() * 1.04;
    const values = rows.flatMap(({ time, sample }) => (time >= right - LENGTH ? keys.map((key) => sample[key] ?? 0) : []));
    return Math.max(least, 1.15 * Math.max(0, ...values));
  }

  function glide(at) {
    requestAnimationFrame(glide); // browsers call it for nobody while the page is hidden
    const passed = at - framed;
    if (passed < FRAME || !seen || still.matches || !rows.length) return;
    framed = at;
    paint(passed);
  }

  function build() {
    for (const { chart } of drawn) chart.destroy();
    drawn = [...root.querySelectorAll("[data-chart]")].map(draw);
    right = clock() - DELAY;
    load();
  }

  function keep(more) {
    rows = [...rows, ...more].filter(({ time }) => time > clock() - LENGTH - DELAY - STEP).sort((a, b) => a.time - b.time);
    load();
  }

  const isUnknown = ({ time }) => !rows.some((row) => Math.abs(row.time - time) < STEP / 2);

  const fit = () => drawn.forEach(({ chart, place }) => chart.setSize({ width: place.clientWidth, height: place.clientHeight }));
  new ResizeObserver(fit).observe(root);
  new IntersectionObserver(([entry]) => (seen = entry.isIntersecting)).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  build();
  requestAnimationFrame(glide);

  return {
    // The newest sample comes again after each reconnect.
    add: (sample) => seconds(sample.at) > (rows.at(-1)?.time ?? 0) && keep([{ time: seconds(sample.at), every: 1, sample }]),
    // Steps of the history, where nothing finer is known: before the page was opened, and while it was away.
    fill: (steps) => keep(steps.map((sample) => ({ time: seconds(sample.at), every: STEP, sample })).filter(isUnknown)),
  };
}
