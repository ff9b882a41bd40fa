// @ts-check
// Draws a chart: an SVG of the width that there is, and what is read off it at a time.
import { areaPath, clock, figure, linePath, milliseconds, ticks, timeTicks, unitOf } from "./charts-scale.js";

/** @typedef {import("./charts-scale.js").Answer} Answer */
/** `drawn`: where there are no errors there is no line of them.
 * @typedef {{key: string, values: (number | null)[], drawn: (number | null)[], times: number[], hue: number, unit: string}} Line */
/** @typedef {{time: number, who?: string, verb?: string, kind?: string, namespace?: string, name?: string}} Change */
/** What is read off at a time: `rows` are words and values; `query` asks for the traces behind it.
 * @typedef {{time: number, until: number, rows: {key: string, value: string, hue: number}[], changes: Change[],
 *   query: Record<string, string>}} Reading */
/** A drawn chart: `show` moves the crosshair (null: away) and answers with the reading there.
 * @typedef {{plot: SVGSVGElement, show: (time: number | null, row?: number) => Reading | null,
 *   timeAt: (x: number) => number, rowAt: (y: number) => number, step: number}} Drawn */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 172;
const TOP = 8;
const BOTTOM = 22;
const HUES = 7;
const ERRORS = 8;

/** @param {string} name @param {Record<string, string | number>} [attributes] @param {(Node | string)[]} children */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/** @template {keyof HTMLElementTagNameMap} K @param {K} name @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[K]} */
export function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The lines of one or several answers; where there are several, each is called by its metric.
 * @param {Answer[]} answers @returns {Line[]} */
export function linesOf(answers) {
  let hue = 0;
  return answers.flatMap((answer) =>
    answer.series.map((one) => {
      const words = [answers.length > 1 ? answer.metric : "", one.key].filter(Boolean).join(" ");
      const bad = answer.metric === "errors" && !one.key;
      if (!bad) hue = Math.min(hue + 1, HUES);
      const values = one.values ?? [];
      const drawn = bad ? values.map((value, place) => (value || values[place - 1] || values[place + 1] ? value : null)) : values;
      return { key: words || answer.metric, values, drawn, times: answer.times, hue: bad ? ERRORS : hue, unit: unitOf(answer) };
    }),
  );
}

/** @param {number} width @param {number} from @param {number} to @param {string[]} labels */
function frame(width, from, to, labels) {
  const left = 10 + 6.4 * Math.max(3, ...labels.map((label) => label.length));
  const x = (/** @type {number} */ time) => left + ((time - from) / Math.max(1, to - from)) * (width - left - 6);
  const timeAt = (/** @type {number} */ at) => from + ((at - left) / Math.max(1, width - left - 6)) * (to - from);
  const plot = /** @type {SVGSVGElement} */ (
    svg("svg", { class: "chart-plot", viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", tabindex: 0 })
  );
  const marks = timeTicks(from, to, Math.max(2, Math.floor((width - left) / 84)));
  const step = marks.length > 1 ? marks[1] - marks[0] : to - from;
  for (const time of marks) {
    if (x(time) > width - 16) continue;
    plot.append(svg("text", { x: x(time), y: HEIGHT - 6, "text-anchor": x(time) < left + 14 ? "start" : "middle" }, clock(time, step)));
  }
  return { plot, left, x, timeAt };
}

/** @param {SVGElement} plot @param {Change[]} changes @param {(time: number) => number} x @param {number} from @param {number} to */
function marks(plot, changes, x, from, to) {
  // Many at once are one mark.
  const places = new Set(changes.filter(({ time }) => time >= from && time <= to).map(({ time }) => Math.round(x(time) / 3) * 3));
  for (const at of places) {
    const ground = HEIGHT - BOTTOM;
    plot.append(svg("g", { class: "mark" }, svg("line", { x1: at, x2: at, y1: TOP, y2: ground }),
      svg("path", { d: `M${at} ${ground - 7}l4.500 7h-9z` })));
  }
}

/** Lines over time; a single one stands on its area.
 * @param {Answer[]} answers @param {Change[]} changes @param {number} width @returns {Drawn} */
export function drawLines(answers, changes, width) {
  const [{ from, to, step }] = answers;
  const lines = linesOf(answers);
  const unit = lines[0]?.unit ?? "rate";
  const known = lines.flatMap((line) => line.values.filter((value) => value !== null));
  // A share of 99.9 is another world than one of 99: its axis need not begin at nothing.
  const low = unit === "share" ? Math.min(0.95, ...known) : 0;
  const high = unit === "share" ? 1 : Math.max(...known, unit === "ms" ? 1 : 0.1);
  const levels = ticks(unit === "share" ? Math.floor(low * 20) / 20 : 0, high, 3).filter((level) => unit !== "share" || level < 1.0001);
  const labels = levels.map((level) => (unit === "share" ? `${Math.round(level * 1000) / 10} %` : whole(figure(level, unit))));
  const { plot, left, x, timeAt } = frame(width, from, to, labels);
  const ground = HEIGHT - BOTTOM;
  const [bottom, top] = [levels[0], levels[levels.length - 1]];
  const y = (/** @type {number} */ value) => ground - ((value - bottom) / (top - bottom || 1)) * (ground - TOP);
  levels.forEach((level, place) => {
    plot.append(svg("line", { class: "grid", x1: left, x2: width - 6, y1: y(level), y2: y(level) }),
      svg("text", { x: left - 7, y: y(level) + 4, "text-anchor": "end" }, labels[place]));
  });
  marks(plot, changes, x, from, to);
  const points = lines.map((line) => {
    const at = (/** @type {number} */ place) => x(line.times[place] + step / 2);
    if (lines.length === 1 || line.hue === ERRORS) plot.append(svg("path", { class: `area hue-${line.hue}`, d: areaPath(line.drawn, at, y, ground) }));
    plot.append(svg("path", { class: `line hue-${line.hue}`, d: linePath(line.drawn, at, y) }));
    return svg("circle", { class: `point hue-${line.hue}`, r: 3.5 });
  });
  const cross = svg("line", { class: "cross", y1: TOP, y2: ground });
  plot.append(cross, ...points);
  return {
    plot, timeAt, step, rowAt: () => 0,
    show: (time) => {
      const place = time === null ? -1 : nearest(answers[0].times, time, step);
      plot.toggleAttribute("data-at", place >= 0);
      if (place < 0) return null;
      const middle = answers[0].times[place] + step / 2;
      cross.setAttribute("x1", String(x(middle)));
      cross.setAttribute("x2", String(x(middle)));
      const rows = lines.map((line, number) => {
        const value = line.values[nearest(line.times, middle, step)] ?? null;
        points[number].classList.toggle("known", value !== null);
        if (value !== null) {
          points[number].setAttribute("cx", String(x(middle)));
          points[number].setAttribute("cy", String(y(value)));
        }
        const words = value === null ? "–" : figure(value, line.unit) + (line.unit === "rate" ? " /s" : "");
        return { key: line.key, value: words, hue: line.hue };
      });
      return { ...span(answers[0].times[place], step), rows, changes: near(changes, middle, step), query: {} };
    },
  };
}

/** How long requests took: a column for each step, a row for each bucket that was ever used.
 * @param {Answer} answer @param {Change[]} changes @param {number} width @returns {Drawn} */
export function drawHeat(answer, changes, width) {
  const { from, to, step, times } = answer;
  const bounds = answer.bounds ?? [];
  const counts = answer.series[0]?.counts ?? [];
  const used = bounds.map((_, row) => row).concat(bounds.length).filter((row) => counts.some((column) => column?.[row]));
  const first = Math.max(0, (used[0] ?? 0) - 1);
  const last = Math.min(bounds.length, (used[used.length - 1] ?? 3) + 1);
  const rows = last - first + 1;
  const labels = bounds.slice(first, last).map((bound) => short(bound));
  const { plot, left, x, timeAt } = frame(width, from, to, labels);
  const ground = HEIGHT - BOTTOM;
  const tall = (ground - TOP) / rows;
  const y = (/** @type {number} */ row) => ground - (row - first + 1) * tall;
  const most = Math.max(1, ...counts.flatMap((column) => column ?? []));
  const every = Math.ceil(rows / 7);
  labels.forEach((label, place) => {
    const at = y(first + place);
    plot.append(svg("line", { class: "grid", x1: left, x2: width - 6, y1: at, y2: at }));
    if (place % every === 0) plot.append(svg("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, label));
  });
  counts.forEach((column, place) => {
    const at = x(times[place]);
    const wide = Math.max(1, x(times[place] + step) - at - 0.6);
    (column ?? []).forEach((count, row) => {
      if (!count || row < first || row > last) return;
      // Few requests must be seen beside many: by the root of their share.
      const depth = (0.16 + 0.84 * Math.sqrt(count / most)).toFixed(2);
      plot.append(svg("rect", { class: "cell", x: at.toFixed(1), y: (y(row) + 0.3).toFixed(1), width: wide.toFixed(1), height: (tall - 0.6).toFixed(1), opacity: depth, rx: 1 }));
    });
  });
  marks(plot, changes, x, from, to);
  const chosen = svg("rect", { class: "chosen known", rx: 1 });
  plot.append(chosen);
  return {
    plot, timeAt, step,
    rowAt: (at) => Math.min(last, Math.max(first, first + Math.floor((ground - at) / tall))),
    show: (time, row) => {
      const place = time === null ? -1 : nearest(times, time, step);
      plot.toggleAttribute("data-at", place >= 0);
      if (place < 0) return null;
      const column = counts[place] ?? [];
      const whole = row === undefined;
      const box = { x: x(times[place]), width: Math.max(2, x(times[place] + step) - x(times[place])),
        y: whole ? TOP : y(row), height: whole ? ground - TOP : tall };
      for (const [key, value] of Object.entries(box)) chosen.setAttribute(key, value.toFixed(1));
      const all = column.reduce((sum, count) => sum + count, 0);
      /** @type {Record<string, string>} */
      const query = {};
      const read = [{ key: "requests", value: all.toLocaleString("en"), hue: 7 }];
      if (!whole) {
        const [least, end] = [row ? bounds[row - 1] : 0, bounds[row]];
        const words = end === undefined ? `over ${milliseconds(least)}` : `${short(least)} to ${milliseconds(end)}`;
        read.unshift({ key: words, value: (column[row] ?? 0).toLocaleString("en"), hue: 1 });
        if (least) query.min = `${least}ms`;
        if (end !== undefined) query.max = `${end}ms`;
      }
      return { ...span(times[place], step), rows: read, changes: near(changes, times[place] + step / 2, step), query };
    },
  };
}

/** `20`, not `20.0`. @param {string} text */
function whole(text) {
  return text.replace(/^(\d+)\.0+(?!\d)/, "$1");
}

/** A bound without needless digits: `0.5 ms`, `25 ms`, `1 s`. @param {number} value */
function short(value) {
  return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
}

/** @param {number} time @param {number} step */
function span(time, step) {
  return { time, until: time + step };
}

/** @param {Change[]} changes @param {number} time @param {number} step */
function near(changes, time, step) {
  return changes.filter((change) => Math.abs(change.time - time) <= step * 0.75);
}

/** The step that a time falls into; -1 without any. @param {number[]} times @param {number} time @param {number} step */
function nearest(times, time, step) {
  if (!times.length) return -1;
  return Math.min(times.length - 1, Math.max(0, Math.floor((time - times[0]) / step)));
}
