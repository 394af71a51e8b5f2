// Numbers as people read them. The template filters `size` and `age` say the same on the first paint.

const trimmed = (value, digits) => value.toFixed(digits).replace(/\.0$/, "");

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let value = bytes, step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${trimmed(value, value >= 100 || step === 0 ? 0 : 1)} ${units[step]}`;
}

export const units = {
  size,
  rate: (bytes) => `${size(bytes)}/s`,
  percent: (value) => `${value.toFixed(1)} %`,
  count: (value) => trimmed(value, 1),
};

export function age(seconds) {
  for (const [length, unit] of [[86400, "day"], [3600, "h"], [60, "min"]]) {
    const number = Math.floor(seconds / length);
    if (number) return `${number} ${unit}${unit === "day" && number > 1 ? "s" : ""} ago`;
  }
  return `${Math.max(0, Math.floor(seconds))} s ago`;
}
