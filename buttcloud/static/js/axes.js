// What all charts of the site have in common: colours of the page, grid, labels with their units, a line for a limit.

import { size } from "./format.js";

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const axis = () => ({ stroke: color("--soft"), font: "11px system-ui, sans-serif", grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } });
export const lineColor = (index) => color(index ? "--series-b" : "--series-a");

const short = (bytes) => size(bytes).replace(" ", "");
const POWERS = Array.from({ length: 40 }, (_, power) => 2 ** power);
const TENS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000, 5000];
// By unit, as in format.js: labels of the axis, the steps between them, and the lowest top that a chart has.
export const scales = {
  percent: { label: (value) => `${value}%`, steps: TENS, least: 5 },
  size: { label: short, steps: POWERS, least: 64 * 1024 ** 2 },
  rate: { label: (value) => `${short(value)}/s`, steps: POWERS, least: 1024 },
  count: { label: String, steps: TENS, least: 5 },
};

// A line from side to side.
export function dash({ ctx, bbox, valToPos }, value, stroke) {
  const y = Math.round(valToPos(value, "y", true));
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}
