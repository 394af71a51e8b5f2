// The last three minutes of a pub, drawn by uPlot. The numbers beside the charts say the same to those who can't see them.

import { size } from "./format.js";

const LENGTH = 180; // seconds
const short = (bytes) => size(bytes).replace(" ", "");
const POWERS = Array.from({ length: 40 }, (_, power) => 2 ** power);
const SERIES = {
  cpu: { keys: ["cpu"], label: (value) => `${value}%`, least: 5, steps: [1, 2, 5, 10, 20, 25, 50, 100, 200] },
  memory: { keys: ["memory"], label: short, least: 64 * 1024 ** 2, steps: POWERS },
  network: { keys: ["rx_rate", "tx_rate"], label: short, least: 1024, steps: POWERS },
  disk: { keys: ["read_rate", "write_rate"], label: short, least: 1024, steps: POWERS },
};

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(place, { keys, label, least, steps }) {
  const axis = { stroke: color("--soft"), font: "11px system-ui, sans-serif", grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const lines = keys.map((key, index) => {
    const stroke = color(index ? "--series-b" : "--series-a");
    return { stroke, width: 2, points: { show: false }, ...(index ? { dash: [5, 3] } : { fill: `${stroke}22` }) };
  });
  const options = {
    width: place.clientWidth,
    height: place.clientHeight,
    legend: { show: false },
    cursor: { show: false },
    padding: [6, 16, 0, 0],
    scales: { x: { time: false, range: [-LENGTH, 0] }, y: { range: (chart, low, high) => [0, Math.max(least, high * 1.15)] } },
    axes: [
      { ...axis, size: 24, gap: 6, splits: () => [-180, -120, -60, 0], values: (chart, splits) => splits.map((at) => (at ? `${at / -60} min` : "now")), align: 0 },
      { ...axis, size: 58, gap: 4, space: 26, incrs: steps, values: (chart, splits) => splits.map(label) },
    ],
    series: [{}, ...lines],
  };
  return new uPlot(options, [[], ...keys.map(() => [])], place);
}

export function charts(root) {
  const samples = []; // { time in seconds, sample }
  let drawn = [];

  function paint() {
    if (document.hidden) return;
    const now = samples.at(-1)?.time ?? 0;
    // Where nothing came for three seconds the line is broken, not bridged.
    const rows = samples.flatMap((row, i) => (i && row.time - samples[i - 1].time > 3 ? [{ time: row.time - 1, sample: {} }, row] : [row]));
    const times = rows.map((row) => row.time - now);
    for (const { chart, keys } of drawn) {
      chart.setData([times, ...keys.map((key) => rows.map((row) => row.sample[key] ?? null))]);
    }
  }

  function build() {
    for (const { chart } of drawn) chart.destroy();
    drawn = [...root.querySelectorAll("[data-chart]")].map((place) => {
      const series = SERIES[place.dataset.chart];
      return { chart: draw(place, series), keys: series.keys, place };
    });
    paint();
  }

  const fit = () => drawn.forEach(({ chart, place }) => chart.setSize({ width: place.clientWidth, height: place.clientHeight }));
  new ResizeObserver(fit).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  document.addEventListener("visibilitychange", paint);
  build();

  return function add(sample) {
    const time = Date.parse(sample.at) / 1000;
    // The newest sample comes again after each reconnect.
    if (time <= (samples.at(-1)?.time ?? 0)) return;
    samples.push({ time, sample });
    while (samples[0].time < time - LENGTH) samples.shift();
    paint();
  };
}
