// What a pub used over time, drawn by uPlot: a line for the mean, and a band from the lowest to the highest value.
// The tables below the charts say the same to those who can't see them.

import { axis, color, dash, lineColor, scales } from "./axes.js";
import { units } from "./format.js";

const DAY = 86400;
const PARTS = ["max", "mean", "min"]; // as uPlot wants the edges of a band: the upper one first
const root = document.getElementById("past");
const step = Number(root.dataset.step);
// Days are those of UTC, and all else is told as the visitor's clock does.
const zone = step === DAY ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;
const told = (format) => {
  const formatter = new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...format });
  return (at) => formatter.format(at * 1000);
};
const clock = told({ hour: "2-digit", minute: "2-digit" });
const second = told({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = told({ day: "numeric", month: "short" });
const date = told({ day: "numeric", month: "short", year: "numeric" });
const month = told({ month: "short" });
const year = told({ year: "numeric" });

function timeLabel(at, apart) {
  if (apart < DAY) return clock(at) === "00:00" ? day(at) : clock(at);
  if (apart < 28 * DAY) return day(at);
  return month(at) === "Jan" ? year(at) : month(at);
}

function moment(at) {
  if (step === DAY) return date(at);
  return `${day(at)}, ${step < 60 ? second(at) : clock(at)}`;
}

// A value between two gaps has no neighbour to draw a line to.
const lonely = (values) => values.flatMap((value, i) => (value != null && values[i - 1] == null && values[i + 1] == null ? [i] : []));

function draw(place, { times, metrics }) {
  const { unit, limit } = place.dataset;
  const keys = place.dataset.metrics.split(" ");
  const { label, steps, least } = scales[unit];
  const bound = Number(limit ?? 0);
  const columns = keys.flatMap((key) => PARTS.map((part) => metrics[key][part]));
  const readout = place.closest(".past").querySelector(".readout");
  const shown = [...readout.querySelectorAll(".value")];

  const series = keys.flatMap((key, index) => {
    const stroke = lineColor(index);
    const edge = { width: 0, points: { show: false } };
    const points = { show: false, size: 4, fill: stroke, filter: (chart, at) => lonely(chart.data[at]) };
    return [edge, { stroke, width: 1.75, points, ...(index && { dash: [5, 3] }) }, edge];
  });
  const bands = keys.map((key, index) => ({ series: [3 * index + 1, 3 * index + 3], fill: `${lineColor(index)}33` }));

  // A limit that is far away would press the line to the ground: the words beside the chart name it.
  function top(high) {
    return Math.max(least, 1.15 * high, bound <= 4 * high ? 1.04 * bound : 0);
  }

  function read({ cursor: { idx } }) {
    readout.querySelector("time").textContent = idx == null ? "" : moment(times[idx]);
    shown.forEach((place, i) => (place.textContent = idx == null ? "" : words(keys[i], idx)));
  }

  function words(key, at) {
    const [high, mean, low] = PARTS.map((part) => metrics[key][part][at]);
    return mean == null ? "not measured" : `${units[unit](mean)} (${units[unit](low)} to ${units[unit](high)})`;
  }

  return new uPlot({
    width: place.clientWidth,
    height: place.clientHeight,
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: "past" } },
    padding: [8, 12, 0, 0],
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone),
    scales: { x: { range: [times[0], times.at(-1) + step] }, y: { range: (chart, low, high) => [0, top(high ?? 0)] } },
    axes: [
      { ...axis(), size: 26, gap: 6, space: 56, values: (chart, splits, at, space, apart) => splits.map((split) => timeLabel(split, apart)) },
      { ...axis(), size: 58, gap: 4, space: 30, incrs: steps, values: (chart, splits) => splits.map(label) },
    ],
    series: [{}, ...series],
    bands,
    hooks: { setCursor: [read], draw: [(chart) => bound && bound <= chart.scales.y.max && dash(chart, bound, color("--bad"))] },
  }, [times, ...columns], place);
}

async function begin() {
  const response = await fetch(root.dataset.url);
  if (!response.ok) throw new Error(`status ${response.status}`);
  const history = await response.json();
  const places = [...root.querySelectorAll("[data-metrics]")];
  let charts = [];
  const build = () => {
    for (const chart of charts) chart.destroy();
    charts = places.map((place) => draw(place, history));
  };
  build();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  const fit = () => charts.forEach((chart, i) => chart.setSize({ width: places[i].clientWidth, height: places[i].clientHeight }));
  new ResizeObserver(fit).observe(root);
  root.dataset.drawn = "";
}

for (const place of document.querySelectorAll("[data-zone]")) place.textContent = zone.replaceAll("_", " ");
begin().catch(() => (document.getElementById("not-drawn").hidden = false));
