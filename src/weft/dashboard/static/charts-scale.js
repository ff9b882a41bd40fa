// @ts-check
// What charts measure with: nice steps, places on an axis, and numbers as people read them. No document here.

/** An answer of telemetry's `series`. @typedef {{
 *   metric: string, unit?: string, from: number, to: number, step: number, times: number[],
 *   series: {key: string, values?: (number | null)[], counts?: number[][]}[], bounds?: number[]
 * }} Answer */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const STEPS = [1000, 5000, 15_000, 30_000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 48 * HOUR, 168 * HOUR];

/** The least of 1, 2, 5, 10, 20 … that is not below. @param {number} least */
export function niceStep(least) {
  if (!(least > 0)) return 1; // nothing to divide
  const power = 10 ** Math.floor(Math.log10(least));
  const factor = [1, 2, 5, 10].find((each) => each * power >= least * 0.999999) ?? 10;
  return factor * power;
}

/** Marks of an axis from `low` to at least `high`, about `many`. @param {number} low @param {number} high @param {number} many */
export function ticks(low, high, many) {
  const step = niceStep((high - low) / Math.max(1, many));
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: Math.max(1, last - first) + 1 }, (_, place) => (first + place) * step);
}

/** Whole times of the reader's day between two, at most `many`. @param {number} from @param {number} to @param {number} many */
export function timeTicks(from, to, many) {
  const step = STEPS.find((each) => (to - from) / each <= many) ?? STEPS[STEPS.length - 1];
  const offset = new Date(from).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let time = Math.ceil((from - offset) / step) * step + offset; time <= to; time += step) found.push(time);
  return found;
}

/** A time of day; with seconds where steps are that short. @param {number} time @param {number} [step] */
export function clock(time, step = MINUTE) {
  const at = new Date(time);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const minutes = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return step < MINUTE ? `${minutes}:${two(at.getSeconds())}` : minutes;
}

/** @param {number} value @param {string} unit */
export function figure(value, unit) {
  if (unit === "share") return share(value);
  if (unit === "ms") return milliseconds(value);
  if (unit === "bytes") return `${size(value)}/s`;
  return unit === "count" ? Math.round(value).toLocaleString("en") : rate(value);
}

/** @param {number | null | undefined} value */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 0.01) return "<0.01";
  return value < 1 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

/** @param {number | null | undefined} value */
export function share(value) {
  if (value === null || value === undefined) return "–";
  const percent = value * 100;
  if (percent === 0 || percent === 100) return `${percent} %`;
  return percent > 99 ? `${Math.min(percent, 99.99).toFixed(2)} %` : `${Math.max(percent, 0.1).toFixed(1)} %`;
}

/** @param {number | null | undefined} value */
export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 9.95) return `${value.toFixed(1)} ms`;
  if (value < 999.5) return `${Math.round(value)} ms`;
  return value < 9995 ? `${(value / 1000).toFixed(2)} s` : `${(value / 1000).toFixed(1)} s`;
}

/** @param {number} value */
export function size(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let place = 0;
  while (value >= 1000 && place < units.length - 1) [value, place] = [value / 1000, place + 1];
  return `${place && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[place]}`;
}

/** What the values of a metric are: `ms`, `share`, `bytes`, `count` or `rate`. @param {Answer} answer */
export function unitOf(answer) {
  if (["success", "mtls"].includes(answer.metric)) return "share";
  if (["p50", "p95", "p99", "mean", "latency"].includes(answer.metric)) return "ms";
  if (answer.metric === "bytes") return "bytes";
  return answer.metric === "connections" ? "count" : "rate";
}

/** A path through the values that are known; a gap where none is. A lone value is a dot.
 * @param {(number | null)[]} values @param {(place: number) => number} x @param {(value: number) => number} y */
export function linePath(values, x, y) {
  let path = "";
  let drawing = false;
  values.forEach((value, place) => {
    if (value !== null) {
      const at = `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
      const alone = !drawing && (values[place + 1] ?? null) === null;
      path += `${drawing ? "L" : "M"}${at}${alone ? "h.01" : ""}`;
    }
    drawing = value !== null;
  });
  return path;
}

/** The area between the values and the ground, a piece for each run of known values.
 * @param {(number | null)[]} values @param {(place: number) => number} x @param {(value: number) => number} y @param {number} ground */
export function areaPath(values, x, y, ground) {
  let path = "";
  let begun = -1;
  for (let place = 0; place <= values.length; place += 1) {
    const value = values[place] ?? null;
    if (value !== null) {
      path += `${begun < 0 ? `M${x(place).toFixed(1)} ${ground}L` : "L"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
      if (begun < 0) begun = place;
    } else if (begun >= 0) {
      path += `L${x(place - 1).toFixed(1)} ${ground}Z`;
      begun = -1;
    }
  }
  return path;
}

/** A small path in a box, for tables and panels. @param {(number | null)[]} values @param {number} width @param {number} height */
export function sparkPath(values, width, height) {
  const top = Math.max(0, ...values.map((value) => value ?? 0)) || 1;
  const step = width / Math.max(1, values.length - 1);
  return linePath(values, (place) => place * step, (value) => height - 1 - (height - 2) * (value / top));
}
