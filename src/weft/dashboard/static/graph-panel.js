// @ts-check
// What a node or a line is: briefly beside the pointer, at length in the panel that a click opens.
import { html, svg } from "./charts-draw.js";
import { sparkline } from "./charts.js";
import { milliseconds, rate, share } from "./charts-scale.js";
import { health } from "./graph-model.js";
import { facts, title } from "./graph-view.js";

/** @typedef {import("./graph-model.js").Graph} Graph @typedef {import("./graph-model.js").Node} Node @typedef {import("./graph-model.js").Link} Link */

const KINDS = { service: "Service", gateway: "Gateway", client: "Clients outside of the mesh", external: "Outside of the mesh", namespace: "Namespace", other: "Not told apart" };
const MANY = 6;

/** The part of an identity that differs. @param {string} principal */
function identity(principal) {
  const parts = principal.split("/");
  return parts.length === 7 && parts[3] === "ns" ? `${parts[4]}/${parts[6]}` : principal;
}

/** @param {string[]} values */
function several(values) {
  return values.length > MANY ? `${values.slice(0, MANY).join(", ")} and ${values.length - MANY} more` : values.join(", ");
}

/** @param {Node} node */
export function noteOfNode(node) {
  return [html("h3", {}, title(node)), html("p", { class: "quiet" }, [KINDS[/** @type {keyof typeof KINDS} */ (node.kind)], node.group].filter(Boolean).join(" · ")), facts([
    ["Requests", node.requests ? `${rate(node.rps)} /s` : "none"], ["Success", node.requests ? share(node.success) : ""],
    ["p95", node.p95 === null ? "" : milliseconds(node.p95)], ["Connections", node.opened ? String(node.opened) : ""],
    ["Versions", node.version ? "" : several(node.versions)], ["Identity", several(node.principals.map(identity))],
  ])];
}

/** @param {Link} link @param {Graph} graph */
export function noteOfLink(link, graph) {
  const [from, to] = [graph.nodes.get(link.source), graph.nodes.get(link.target)];
  const tls = link.mtls === null ? "" : !link.inside ? "ends at the edge of the mesh" : link.secured ? "mutual TLS" : `mutual TLS for ${share(link.mtls)} of it`;
  return [html("h3", {}, `${from ? title(from) : ""} → ${to ? title(to) : ""}`), html("p", { class: "quiet" }, link.protocols.join(", ")), facts([
    ["Requests", link.requests ? `${rate(link.rps)} /s` : "none"], ["Success", link.requests ? share(link.success) : ""],
    ["p95", link.p95 === null ? "" : milliseconds(link.p95)], ["Connections", link.opened ? String(link.opened) : ""],
    ["Transport", tls], ["Identity", several(link.callers.map(identity))],
  ])];
}

/** @param {...string} steps */
function path(...steps) {
  return `/${steps.map(encodeURIComponent).join("/")}`;
}

/** `NAMESPACE/NAME` as telemetry knows it; empty for what is none of the mesh. @param {Node} node */
function asked(node) {
  if (!["service", "gateway"].includes(node.kind)) return "";
  const name = node.version || node.kind === "gateway" ? node.workloads[0] : node.services[0] ?? node.workloads[0];
  return name ? `${node.namespace}/${name}` : "";
}

/** With the namespace and the window that were chosen. @param {string} href */
function kept(href) {
  const address = new URL(href, location.href);
  for (const name of ["namespace", "window"]) {
    const value = new URLSearchParams(location.search).get(name);
    if (value && !address.searchParams.has(name)) address.searchParams.set(name, value);
  }
  return address.pathname + address.search;
}

/** @param {Node} node */
function ways(node) {
  const links = html("p", { class: "graph-ways" });
  const add = (/** @type {string} */ href, /** @type {string} */ words) => links.append(html("a", { href: kept(href) }, words));
  const name = asked(node).split("/")[1];
  const service = node.services[0];
  if (service && node.kind === "service") add(path("services", node.namespace, service), "Service");
  const workload = node.version || node.kind === "gateway" || !service ? node.workloads[0] : "";
  if (workload) add(path("workloads", node.namespace, workload), "Workload");
  const traced = `${node.namespace}/${node.version ? node.workloads[0] : node.name}`;
  if (name) add(`/traces?${new URLSearchParams({ service: traced })}`, "Traces");
  if (name && node.errors) add(`/traces?${new URLSearchParams({ service: traced, errors: "1" })}`, "Failed traces");
  if (node.workloads[0]) {
    const role = node.kind === "gateway" ? "gateway" : "workload";
    add(`/explain?${new URLSearchParams({ role, from: `${node.namespace}/${node.workloads[0]}` })}`, "Explain a request");
  }
  if (node.kind === "namespace") add(`/graph?${new URLSearchParams({ namespace: node.name })}`, "Only this namespace");
  return links;
}

/** @param {string} heading @param {Link[]} links @param {"source" | "target"} end @param {Graph} graph @param {(id: string) => void} go */
function others(heading, links, end, graph, go) {
  if (!links.length) return [];
  const list = html("ul", { class: "graph-others" });
  for (const link of [...links].sort((a, b) => b.rps - a.rps || (a.id < b.id ? -1 : 1))) {
    const node = graph.nodes.get(link[end]);
    if (!node) continue;
    const button = html("button", { type: "button" }, html("span", { class: `dot ${link.idle ? "none" : health(link.success)}` }), title(node));
    button.addEventListener("click", () => go(node.id));
    const told = link.requests ? `${rate(link.rps)}/s · ${share(link.success)}${link.p95 === null ? "" : ` · ${milliseconds(link.p95)}`}` : link.opened ? `${link.opened} connections` : "no traffic";
    const plain = link.inside && link.mtls !== null && !link.secured ? " · not all mutual TLS" : "";
    list.append(html("li", {}, button, html("span", { class: "quiet" }, told + plain)));
  }
  return [html("h3", {}, `${heading} (${list.children.length})`), list];
}

export class Panel {
  /** @param {HTMLElement} stage @param {(id: string) => void} go @param {() => void} close */
  constructor(stage, go, close) {
    this.body = html("div");
    const shut = html("button", { type: "button", class: "graph-shut", "aria-label": "Close" }, "×");
    shut.addEventListener("click", close);
    this.panel = html("aside", { class: "graph-panel", "aria-label": "Details", tabindex: "-1" }, shut, this.body);
    this.panel.hidden = true;
    stage.append(this.panel);
    this.go = go;
    this.charts = html("div", { class: "graph-lines" });
    this.charted = "";
  }

  /** @param {Node} node @param {Graph} graph @param {boolean} focus */
  show(node, graph, focus) {
    const links = [...graph.links.values()];
    const focused = document.activeElement;
    const place = [...this.body.querySelectorAll("a, button")].findIndex((one) => one === focused);
    const kind = [KINDS[/** @type {keyof typeof KINDS} */ (node.kind)], node.group].filter(Boolean).join(" · ");
    const signals = html("dl", { class: "graph-signals" });
    for (const [word, value, class_] of /** @type {[string, string, string][]} */ ([
      ["Requests/s", node.requests ? rate(node.rps) : "–", ""], ["Success", share(node.success), health(node.success)], ["p95", milliseconds(node.p95), ""],
    ])) signals.append(html("div", {}, html("dt", {}, word), html("dd", { class: class_ }, value)));
    this.body.replaceChildren(
      html("h2", {}, title(node)), html("p", { class: "quiet" }, kind), signals, this.charts, ways(node),
      facts([["Versions", node.version ? "" : several(node.versions)], ["Workloads", several(node.workloads)], ["Replicas", node.instances ? String(node.instances) : ""], ["Identity", several(node.principals)]]),
      ...others("Called by", links.filter((link) => link.target === node.id), "source", graph, this.go),
      ...others("Calls", links.filter((link) => link.source === node.id), "target", graph, this.go),
    );
    const next = this.body.querySelectorAll("a, button")[place];
    if (place >= 0 && next instanceof HTMLElement) next.focus({ preventScroll: true });
    const opened = this.panel.hidden;
    this.panel.hidden = false;
    if (focus) this.panel.focus({ preventScroll: true });
    if (opened || this.charted !== node.id) this.charts.replaceChildren();
    this.charted = node.id;
    void this.#chart(node);
  }

  close() {
    this.panel.hidden = true;
    this.charted = "";
  }

  /** The last hour of it. @param {Node} node */
  async #chart(node) {
    const of = asked(node);
    if (!of) return;
    const lines = [];
    for (const [metric, words] of [["requests", "Requests per second, last hour"], ["p95", "p95, last hour"]]) {
      const answer = await fetch(`/data/series?${new URLSearchParams({ metric, of, since: "1h" })}`).catch(() => null);
      const values = answer?.ok ? (await answer.json()).series?.[0]?.values : null;
      if (values?.some((/** @type {number | null} */ value) => value)) lines.push(html("figure", {}, html("figcaption", { class: "quiet" }, words), sparkline(values, words)));
    }
    if (this.charted === node.id) this.charts.replaceChildren(...lines);
  }
}

/** A note beside the pointer. */
export class Note {
  /** @param {HTMLElement} stage */
  constructor(stage) {
    this.stage = stage;
    this.note = html("div", { class: "graph-note", role: "tooltip", id: "graph-note" });
    this.note.hidden = true;
    stage.append(this.note);
  }

  /** @param {Node[] | globalThis.Node[]} content @param {{x: number, y: number}} at in the stage */
  show(content, at) {
    this.note.replaceChildren(.../** @type {globalThis.Node[]} */ (content));
    this.note.hidden = false;
    const { clientWidth: wide, clientHeight: tall } = this.stage;
    const { offsetWidth: width, offsetHeight: height } = this.note;
    const right = at.x + 18 + width > wide;
    this.note.style.left = `${Math.max(4, right ? at.x - width - 14 : at.x + 18)}px`;
    this.note.style.top = `${Math.max(4, Math.min(tall - height - 4, at.y + 14))}px`;
  }

  hide() {
    this.note.hidden = true;
  }
}

/** A drawing's surface. @param {string} words */
export function surface(words) {
  const world = /** @type {SVGGElement} */ (svg("g"));
  const plot = /** @type {SVGSVGElement} */ (svg("svg", { class: "graph-plot", role: "group", "aria-label": words }, world));
  return { plot, world };
}
