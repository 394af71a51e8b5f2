// The last three minutes of a pub, drawn by uPlot. The numbers beside the charts say the same to those who can't see them.

import { size } from "./format.js";

const LENGTH = 180; // seconds
const DELAY = 1.5; // seconds: the newest sample waits beyond the edge, so that its line glides in
const FRAME = 1000 / 15; // ms: a chart's pixel is a third of a second wide, so that more frames show nothing more
const RISE = 200; // ms: how slowly a chart's top follows
const STEP = 10; // seconds of a step of the history, as in history.py
const PAUSE = 2; // seconds late: the line is broken where nothing came, not bridged

const short = (bytes) => size(bytes).replace(" ", "");
const POWERS = Array.from({ length: 40 }, (_, power) => 2 ** power);
const TENS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000, 5000];
const CHARTS = {
  cpu: { keys: ["cpu"], label: (value) => `${value}%`, least: 5, steps: TENS },
  memory: { keys: ["memory"], label: short, least: 64 * 1024 ** 2, steps: POWERS, limit: "memory_limit" },
  network: { keys: ["rx_rate", "tx_rate"], label: short, least: 1024, steps: POWERS },
  disk: { keys: ["read_rate", "write_rate"], label: short, least: 1024, steps: POWERS },
  processes: { keys: ["pids"], label: String, least: 5, steps: TENS },
};

// A line from side to side.
function dash({ ctx, bbox, valToPos, pxRatio }, value, stroke) {
  const y = Math.round(valToPos(value, "y", true));
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = 1.5 * pxRatio;
  ctx.setLineDash([6 * pxRatio, 4 * pxRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

const seconds = (iso) => Date.parse(iso) / 1000;
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const still = matchMedia("(prefers-reduced-motion: reduce)");

// `root` holds the places to draw in; `clock` says what time it is at the server, in seconds.
export function charts(root, clock) {
  let rows = []; // the oldest first: { time, every: seconds that it stands for, sample }
  let drawn = [];
  let right = 0; // the time at the right edge
  let framed = 0, seen = true;

  function draw(place) {
    const { keys, label, least, steps, limit } = CHARTS[place.dataset.chart];
    const axis = { stroke: color("--soft"), font: "11px system-ui, sans-serif", grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const lines = keys.map((key, index) => {
      const stroke = color(index ? "--series-b" : "--series-a");
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
        { ...axis, size: 24, gap: 6, splits: () => [3, 2, 1, 0].map((minutes) => right - minutes * 60), values: () => ["3 min", "2 min", "1 min", "now"], align: 0 },
        { ...axis, size: 58, gap: 4, space: 26, incrs: steps, values: (chart, splits) => splits.map(label), ...(limit && { splits: () => [0, bound() / 2, bound()] }) },
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
    if (still.matches && !document.hidden) paint(Infinity);
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
