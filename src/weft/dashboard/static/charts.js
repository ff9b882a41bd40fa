// @ts-check
// Charts. A page holds `<figure data-chart="lines|heat" data-title="…" data-src="/data/series?…" data-keep>` (macro
// `chart` in templates/parts.html), may add `data-more` (further addresses with commas, into the same axes) and
// `data-marks` (an address of `changes`), and calls `keepCharts()` once. They are asked for when they come into
// view, and again at each `weft:tick` on `document`.
//
// Pointing at one reads it off, on all charts of the page at the same time; a click or Enter pins what is read,
// with the way to the traces of that moment. The arrow keys walk, Escape lets go. Below each there is its table.
import { clock, figure, sparkPath, unitOf } from "./charts-scale.js";
import { drawHeat, drawLines, html, linesOf, svg } from "./charts-draw.js";

/** @typedef {import("./charts-draw.js").Change} Change @typedef {import("./charts-draw.js").Drawn} Drawn */
/** @typedef {import("./charts-draw.js").Answer} Answer */
/** @typedef {{sources: string, told: string, answers: Answer[], changes: Change[], width: number, drawn: Drawn | null,
 *   at: number | null, row: number | undefined, pinned: boolean, seen: boolean, asking: boolean}} State */

const TAKEN = "data-chart";
const MANY_CHANGES = 4;
const LARGEST_TABLE = 400;

/** @type {Map<HTMLElement, State>} */
const charts = new Map();
let kept = false;

/** A small line without axes. @param {(number | null)[]} values @param {string} words what it shows, for who cannot see it */
export function sparkline(values, words) {
  const line = svg("svg", { class: "sparkline", viewBox: "0 0 200 34", preserveAspectRatio: "none", role: "img", "aria-label": words });
  line.append(svg("path", { d: sparkPath(values, 200, 34) }));
  return line;
}

/** Draw the charts of this page and keep them up to date. */
export function keepCharts() {
  if (kept) return find();
  kept = true;
  wearStyle();
  find();
  document.addEventListener("weft:page", find);
  document.addEventListener("weft:tick", () => charts.forEach((state, chart) => state.seen && void ask(chart)));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point(null, undefined, null);
  });
  document.addEventListener("pointerdown", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest(`[${TAKEN}]`)) point(null, undefined, null);
  });
}

/** The style of charts, on pages that did not ask for it themselves. */
export function wearStyle() {
  if (document.querySelector('link[href="/static/charts.css"]')) return;
  document.head.append(html("link", { rel: "stylesheet", href: "/static/charts.css" }));
}

const seeing = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const state = charts.get(/** @type {HTMLElement} */ (target));
    if (!state) continue;
    state.seen = isIntersecting;
    if (isIntersecting) void ask(/** @type {HTMLElement} */ (target));
  }
}, { rootMargin: "200px" });

const measuring = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const state = charts.get(/** @type {HTMLElement} */ (target));
    if (state?.answers.length && target.clientWidth !== state.width) draw(/** @type {HTMLElement} */ (target), state);
  }
});

function find() {
  for (const chart of charts.keys()) {
    if (chart.isConnected) continue;
    seeing.unobserve(chart);
    measuring.unobserve(chart);
    charts.delete(chart);
  }
  for (const chart of document.querySelectorAll(`figure[${TAKEN}]`)) {
    if (!(chart instanceof HTMLElement)) continue;
    const known = charts.get(chart);
    if (!known) {
      charts.set(chart, { sources: "", told: "", answers: [], changes: [], width: 0, drawn: null, at: null, row: undefined, pinned: false, seen: false, asking: false });
      seeing.observe(chart);
      measuring.observe(chart);
    } else if (known.seen && known.sources !== sourcesOf(chart)) void ask(chart);
  }
}

/** @param {HTMLElement} chart */
function sourcesOf(chart) {
  return [chart.dataset.src, chart.dataset.more, chart.dataset.marks].join(" ");
}

/** @param {string} address */
async function read(address) {
  const answer = await fetch(address, { headers: { accept: "application/json" } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.message ?? `the answer was ${answer.status}`);
  return found;
}

/** @param {HTMLElement} chart */
async function ask(chart) {
  const state = charts.get(chart);
  if (!state || state.asking) return;
  state.asking = true;
  const sources = sourcesOf(chart);
  try {
    const addresses = [chart.dataset.src ?? "", ...(chart.dataset.more ?? "").split(",")].filter(Boolean);
    const marks = chart.dataset.marks;
    // Changes are an addition: without the right to see them, the chart is there all the same.
    const [changes, ...answers] = await Promise.all([
      marks ? read(marks).then((found) => found.changes ?? [], () => []) : [],
      ...addresses.map(read),
    ]);
    const told = JSON.stringify([changes, answers]);
    if (told === state.told) return;
    [state.changes, state.answers, state.sources, state.told] = [changes, answers, sources, told];
    draw(chart, state);
  } catch (error) {
    if (!state.drawn) tell(chart, `Not known: ${error instanceof Error ? error.message : error}`);
  } finally {
    state.asking = false;
  }
}

/** @param {HTMLElement} chart @param {string} words */
function tell(chart, words) {
  for (const each of chart.querySelectorAll(".chart-plot, .chart-key, .chart-empty, .chart-table")) each.remove();
  chart.append(html("p", { class: "chart-empty" }, words));
}

/** @param {HTMLElement} chart @param {State} state */
function draw(chart, state) {
  state.width = chart.clientWidth;
  if (state.width < 60) return;
  const heat = chart.dataset.chart === "heat";
  const [answer] = state.answers;
  const something = heat ? answer.series.some((one) => one.counts?.some((column) => column?.some(Boolean)))
    : linesOf(state.answers).some((line) => line.values.some((value) => value !== null));
  if (!something) {
    state.drawn = null;
    return tell(chart, "No data in this time");
  }
  chart.querySelector(".chart-empty")?.remove();
  const drawn = heat ? drawHeat(answer, state.changes, state.width) : drawLines(state.answers, state.changes, state.width);
  name(chart, state, drawn);
  const old = state.drawn?.plot;
  const focused = old && document.activeElement === old;
  if (old?.isConnected) old.replaceWith(drawn.plot);
  else chart.querySelector("figcaption")?.after(drawn.plot);
  state.drawn = drawn;
  if (focused) drawn.plot.focus({ preventScroll: true });
  key(chart, state, heat);
  table(chart, state, heat);
  listen(chart, state, drawn);
  if (state.at !== null) show(chart, state);
}

/** @param {HTMLElement} chart @param {State} state @param {Drawn} drawn */
function name(chart, state, drawn) {
  const [{ from, to }] = state.answers;
  drawn.plot.setAttribute("aria-label", chart.dataset.title ?? "Chart");
  drawn.plot.setAttribute("aria-description",
    `${clock(from)} to ${clock(to)}. ${state.changes.length} changes of configuration. Arrow keys read it off; its table is below.`);
}

/** @param {HTMLElement} chart @param {State} state @param {boolean} heat */
function key(chart, state, heat) {
  chart.querySelector(".chart-key")?.remove();
  const lines = heat ? [] : linesOf(state.answers);
  if (lines.length < 2) return;
  const list = html("ul", { class: "chart-key" });
  for (const line of lines) {
    const sign = svg("svg", { viewBox: "0 0 14 4", class: `hue-${line.hue}`, "aria-hidden": "true" }, svg("rect", { width: 14, height: 4, rx: 2 }));
    list.append(html("li", {}, sign, line.key));
  }
  chart.querySelector("figcaption")?.after(list);
}

/** The same in words and numbers, made when it is opened. @param {HTMLElement} chart @param {State} state @param {boolean} heat */
function table(chart, state, heat) {
  const old = chart.querySelector(".chart-table");
  if (old instanceof HTMLDetailsElement) {
    if (old.open) fill(old, state, heat);
    return;
  }
  const details = html("details", { class: "chart-table" }, html("summary", {}, "As a table"), html("div", { tabindex: "0", role: "region", "aria-label": `${chart.dataset.title}, as a table` }));
  details.addEventListener("toggle", () => details.open && fill(details, state, heat));
  chart.append(details);
}

/** @param {HTMLDetailsElement} details @param {State} state @param {boolean} heat */
function fill(details, state, heat) {
  const [answer] = state.answers;
  const lines = heat ? [] : linesOf(state.answers);
  const unit = unitOf(answer);
  const heads = heat ? ["requests"] : lines.map((line) => line.key);
  const body = html("tbody");
  answer.times.slice(-LARGEST_TABLE).forEach((time, place) => {
    const at = Math.max(0, answer.times.length - LARGEST_TABLE) + place;
    const values = heat ? [(answer.series[0]?.counts?.[at] ?? []).reduce((sum, one) => sum + one, 0).toLocaleString("en")]
      : lines.map((line) => (line.values[at] === null || line.values[at] === undefined ? "–" : figure(/** @type {number} */ (line.values[at]), unit)));
    const changed = state.changes.filter((change) => change.time >= time && change.time < time + answer.step);
    body.prepend(html("tr", {}, html("th", { scope: "row" }, clock(time, answer.step)),
      ...values.map((value) => html("td", { class: "num" }, value)), html("td", {}, changed.map(words).join("; "))));
  });
  const head = html("tr", {}, html("th", { scope: "col" }, "Time"), ...heads.map((one) => html("th", { scope: "col", class: "num" }, one)), html("th", { scope: "col" }, "Changes"));
  details.querySelector("div")?.replaceChildren(html("table", {}, html("thead", {}, head), body));
}

/** @param {HTMLElement} chart @param {State} state @param {Drawn} drawn */
function listen(chart, state, drawn) {
  const { plot } = drawn;
  const place = (/** @type {MouseEvent} */ event) => {
    const box = plot.getBoundingClientRect();
    const scale = state.width / (box.width || 1);
    return { time: drawn.timeAt((event.clientX - box.left) * scale), row: drawn.rowAt((event.clientY - box.top) * scale) };
  };
  const held = () => [...charts.values()].some((one) => one.pinned);
  plot.addEventListener("pointermove", (event) => {
    if (held()) return;
    const { time, row } = place(event);
    point(time, row, chart);
  });
  plot.addEventListener("pointerleave", () => held() || point(null, undefined, null));
  plot.addEventListener("click", (event) => {
    const { time, row } = place(event);
    point(time, row, chart, true);
  });
  plot.addEventListener("keydown", (event) => {
    const [{ from, to }] = state.answers;
    const now = state.at ?? to - drawn.step / 2;
    const moves = { ArrowLeft: now - drawn.step, ArrowRight: now + drawn.step, Home: from, End: to, Enter: now };
    const next = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (next === undefined) return;
    event.preventDefault();
    point(Math.min(to - 1, Math.max(from, next)), undefined, chart, event.key === "Enter");
  });
  plot.addEventListener("blur", () => held() || point(null, undefined, null));
}

/** Read all charts off at a time; the one that is pointed at says so. @param {number | null} time @param {number | undefined} row
 * @param {HTMLElement | null} from @param {boolean} [pin] */
function point(time, row, from, pin = false) {
  charts.forEach((state, chart) => {
    if (time === null && state.at === null) return;
    state.at = time;
    state.row = chart === from && chart.dataset.chart === "heat" ? row : undefined;
    state.pinned = pin && chart === from;
    show(chart, state, chart === from);
  });
}

/** @param {HTMLElement} chart @param {State} state @param {boolean} [here] */
function show(chart, state, here = Boolean(chart.querySelector(".chart-read"))) {
  const reading = state.drawn?.show(state.at, state.row) ?? null;
  chart.querySelector(".chart-read")?.remove();
  if (!reading || !here || !state.drawn) return;
  const shown = html("div", { class: "chart-read", role: "status" });
  const step = state.drawn.step;
  shown.append(html("p", { class: "at" }, `${clock(reading.time, Math.min(step, 59_000))} – ${clock(reading.until, Math.min(step, 59_000))}`));
  const list = html("ul");
  for (const row of reading.rows) {
    const sign = svg("svg", { viewBox: "0 0 10 10", class: `hue-${row.hue}`, "aria-hidden": "true" }, svg("circle", { cx: 5, cy: 5, r: 4 }));
    list.append(html("li", {}, sign, html("span", {}, row.key), row.value));
  }
  shown.append(list);
  for (const change of reading.changes.slice(0, MANY_CHANGES)) shown.append(html("p", { class: "what" }, words(change)));
  if (reading.changes.length > MANY_CHANGES) shown.append(html("p", { class: "what" }, `and ${reading.changes.length - MANY_CHANGES} more`));
  if (state.pinned) {
    shown.dataset.pinned = "";
    shown.append(html("p", {}, html("a", { href: exemplars(chart, reading) }, "Traces of this moment")));
  }
  chart.append(shown);
  const x = Number(state.drawn.plot.querySelector(".cross, .chosen")?.getAttribute("x1") ?? state.drawn.plot.querySelector(".chosen")?.getAttribute("x"));
  const right = x > state.width / 2;
  shown.style.left = right ? "auto" : `${x + 14}px`;
  shown.style.right = right ? `${Math.max(0, state.width - x + 14)}px` : "auto";
}

/** @param {Change} change */
function words(change) {
  const what = [change.kind, [change.namespace, change.name].filter(Boolean).join("/")].filter(Boolean).join(" ");
  return `${clock(change.time, 1000)} ${change.who || "somebody"}: ${change.verb ?? "change"} ${what}`;
}

/** Where the traces are that are behind a point. @param {HTMLElement} chart @param {import("./charts-draw.js").Reading} reading */
function exemplars(chart, reading) {
  const asked = new URL(chart.dataset.src ?? "", location.href).searchParams;
  const query = new URLSearchParams({ from: String(Math.round(reading.time)), to: String(Math.round(reading.until)), ...reading.query });
  const of = asked.get("of");
  if (of) query.set("service", of.replace(/^(service|workload):/, ""));
  const namespace = asked.get("namespace");
  if (namespace) query.set("namespace", namespace);
  if (asked.get("metric") === "errors" || asked.get("metric") === "success") query.set("errors", "1");
  return `/traces?${query}`;
}
