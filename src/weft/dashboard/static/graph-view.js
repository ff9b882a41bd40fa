// @ts-check
// Draws a graph that was laid out, and keeps the drawing: what is there already is moved, never made anew.
import { health } from "./graph-model.js";
import { TALL, WIDE } from "./graph-layout.js";
import { html, svg } from "./charts-draw.js";
import { milliseconds, rate, share } from "./charts-scale.js";

/** @typedef {import("./graph-model.js").Graph} Graph @typedef {import("./graph-model.js").Node} Node */
/** @typedef {import("./graph-model.js").Link} Link @typedef {import("./graph-layout.js").Layout} Layout */
/** @typedef {import("./graph-layout.js").Point} Point */

const FEW = 40;
const FREE = 42;
const MOVING = 60;
const SPEEDS = 6;

const ruler = document.createElement("canvas").getContext("2d");

/** As much of a name as fits into a width, and its version. @param {Node} node @param {number} size of the letters @param {number} width */
function cut(node, size, width) {
  const end = node.version ? ` ${node.version.slice(0, 12)}` : "";
  if (!ruler) return node.name.slice(0, Math.floor(width / size / 0.6) - end.length) + end;
  ruler.font = `600 ${size}px ${getComputedStyle(document.body).fontFamily}`;
  if (ruler.measureText(node.name + end).width <= width) return node.name + end;
  let shown = node.name.slice(0, 64);
  while (shown && ruler.measureText(`${shown}…${end}`).width > width) shown = shown.slice(0, -1);
  return `${shown}…${end}`;
}

/** What a node is, for who cannot see it. @param {Node} node */
export function spoken(node) {
  const kinds = { gateway: "gateway", client: "clients outside of the mesh", external: "external service", namespace: "namespace", other: "what was not told apart", service: "service" };
  const what = `${node.name}${node.version ? ` ${node.version}` : ""}, ${kinds[/** @type {keyof typeof kinds} */ (node.kind)]}${node.group ? ` in ${node.group}` : ""}`;
  return node.requests ? `${what}: ${rate(node.rps)} requests per second, ${share(node.success)} successful${node.p95 === null ? "" : `, p95 ${milliseconds(node.p95)}`}` : `${what}: no requests`;
}

export class Drawing {
  /** @param {SVGGElement} world */
  constructor(world) {
    this.world = world;
    this.layers = ["graph-groups", "graph-links", "graph-nodes"].map((name) => svg("g", { class: name }));
    world.append(...this.layers);
    /** @type {Map<string, SVGElement>} */
    this.nodes = new Map();
    /** @type {Map<string, SVGElement>} */
    this.links = new Map();
    /** @type {Map<string, SVGElement>} */
    this.groups = new Map();
  }

  /** @param {Graph} graph @param {Layout} layout @param {Set<string>} collapsed namespaces that are one node */
  show(graph, layout, collapsed) {
    this.#keep(this.groups, layout.groups.map((group) => group.name));
    for (const group of layout.groups) this.#group(group);
    this.#keep(this.links, graph.links.keys());
    const busiest = [...graph.links.values()].sort((a, b) => b.rps - a.rps).slice(0, MOVING);
    const moving = new Set(busiest.map((link) => link.id));
    for (const link of graph.links.values()) {
      const path = layout.paths.get(link.id);
      if (path) this.#link(link, path, moving.has(link.id), graph.links.size <= FEW);
    }
    this.#keep(this.nodes, graph.nodes.keys());
    // Tab goes from the callers to the called, from above.
    const order = [...graph.nodes.values()].map((node) => ({ node, place: layout.places.get(node.id) }))
      .sort((a, b) => (a.place?.layer ?? 0) - (b.place?.layer ?? 0) || (a.place?.y ?? 0) - (b.place?.y ?? 0));
    const focused = document.activeElement;
    /** @type {SVGElement | null} */
    let after = null;
    for (const { node, place } of order) {
      if (!place) continue;
      const drawn = this.#node(node, place, collapsed.has(node.namespace));
      /** @type {ChildNode | null} */
      const wanted = after ? after.nextSibling : this.layers[2].firstChild;
      if (drawn !== wanted) this.layers[2].insertBefore(drawn, wanted);
      after = drawn;
    }
    if (focused instanceof SVGElement && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }

  /** @param {Map<string, SVGElement>} drawn @param {Iterable<string>} wanted */
  #keep(drawn, wanted) {
    const stay = new Set(wanted);
    for (const [id, element] of drawn) {
      if (stay.has(id)) continue;
      element.remove();
      drawn.delete(id);
    }
  }

  /** @param {Layout["groups"][number]} group */
  #group(group) {
    let made = this.groups.get(group.name);
    if (!made) {
      made = svg("g", { class: "graph-group" }, svg("rect", { rx: 12 }),
        svg("g", { class: "fold", tabindex: 0, role: "button", "aria-label": `Namespace ${group.name}: show as one`, "data-fold": group.name },
          svg("rect", { class: "hit", rx: 5, x: 4, y: 3, height: 20, width: 26 + group.name.length * 7 }),
          svg("path", { d: "M12 10l4 4 4-4" }), svg("text", { x: 26, y: 17 }, group.name)));
      this.groups.set(group.name, made);
      this.layers[0].append(made);
    }
    move(made, group);
    const frame = /** @type {SVGElement} */ (made.firstChild);
    set(frame, { width: group.width, height: group.height });
  }

  /** @param {Node} node @param {Point} place @param {boolean} folded */
  #node(node, place, folded) {
    let made = this.nodes.get(node.id);
    if (!made) {
      const round = node.kind === "gateway" || node.kind === "client" ? TALL / 2 : 10;
      made = svg("g", { tabindex: 0, role: "button", "data-node": node.id });
      const frame = svg("rect", { class: "frame", x: -WIDE / 2, y: -TALL / 2, width: WIDE, height: TALL, rx: round });
      if (folded) made.append(svg("rect", { class: "frame behind", x: -WIDE / 2 + 5, y: -TALL / 2 + 5, width: WIDE, height: TALL, rx: round }));
      const left = -WIDE / 2 + 16;
      made.append(frame, svg("circle", { class: "health", cx: left + 2, cy: -8, r: 4.5 }),
        svg("text", { class: "name", "aria-hidden": "true", x: left + 14, y: -4 }, cut(node, 13, WIDE - 40)),
        svg("text", { class: "name large", "aria-hidden": "true", x: left + 11, y: 7.5 }, cut(node, 22, WIDE - 36)),
        svg("text", { class: "told", "aria-hidden": "true", x: left - 2, y: 15 }), svg("text", { class: "spoken", x: left, y: 0 }));
      this.nodes.set(node.id, made);
    }
    set(made, { class: `graph-node ${node.kind} ${node.idle ? "idle" : health(node.success)}${made.classList.contains("chosen") ? " chosen" : ""}${made.classList.contains("dim") ? " dim" : ""}${made.classList.contains("found") ? " found" : ""}` });
    move(made, place);
    // What is drawn may be cut short; what is said is not.
    const said = /** @type {SVGElement} */ (made.querySelector(".spoken"));
    if (said.textContent !== spoken(node)) said.textContent = spoken(node);
    const told = /** @type {SVGElement} */ (made.querySelector(".told"));
    const words = node.requests ? `${rate(node.rps)}/s · ${share(node.success)}${node.p95 === null ? "" : ` · ${milliseconds(node.p95)}`}`
      : node.opened ? `${node.opened} connections` : folded ? `${node.members} workloads` : node.kind === "client" ? "calls in" : "no traffic";
    if (told.textContent !== words) told.textContent = words;
    return made;
  }

  /** @param {Link} link @param {Point[]} path @param {boolean} moving @param {boolean} few */
  #link(link, path, moving, few) {
    let made = this.links.get(link.id);
    if (!made) {
      made = svg("g", { "data-link": link.id }, svg("path", { class: "hit" }), svg("path", { class: "way" }), svg("path", { class: "flow" }), svg("path", { class: "point" }),
        svg("g", { class: "lock" }, svg("circle", { r: 8 }), svg("path", { class: "body", d: "M-4-1h8v6h-8z" }), svg("path", { class: "bow" })),
        svg("text", { class: "failing" }));
      this.links.set(link.id, made);
      this.layers[1].append(made);
    }
    const speed = link.rps > 0 ? Math.max(1, Math.min(SPEEDS, Math.round(2 + Math.log10(link.rps) * 1.6))) : 0;
    const known = link.mtls !== null && link.inside;
    const classes = ["graph-link", link.idle ? "idle" : link.requests ? health(link.success) : "tcp", moving && speed ? `speed-${speed}` : "still",
      known ? (link.secured ? "secured" : "plain") : "unsure", few ? "few" : "", ...["dim", "near"].filter((one) => made?.classList.contains(one))];
    set(made, { class: classes.filter(Boolean).join(" ") });
    const d = curve(path);
    const [way, middle] = [/** @type {SVGElement} */ (made.children[1]), between(path)];
    if (way.getAttribute("d") !== d) for (const place of [0, 1, 2]) set(/** @type {SVGElement} */ (made.children[place]), { d });
    // By steps, so that small changes of the rate leave the picture alone.
    const width = (1.25 + Math.round(Math.log10(1 + link.rps) * 4) / 2.5).toFixed(2);
    way.style.strokeWidth = `${width}px`;
    const [end, before] = [path[path.length - 1], path[path.length - 2]];
    const way_x = path.length === 2 && end.y === before.y && end.x < before.x && Math.abs(end.x - before.x) < 60 ? 0 : Math.sign(end.x - before.x);
    set(/** @type {SVGElement} */ (made.children[3]), { d: way_x ? `M${end.x} ${end.y}l${-8 * way_x}-4.500v9z` : `M${end.x} ${end.y}l-4.500-8h9z` });
    const lock = /** @type {SVGElement} */ (made.children[4]);
    set(lock, { transform: `translate(${middle.x.toFixed(1)} ${middle.y.toFixed(1)})` });
    set(/** @type {SVGElement} */ (lock.children[2]), { d: link.secured ? "M-2.500-1v-2a2.500 2.500 0 0 1 5 0v2" : "M-2.500-1v-2a2.500 2.500 0 0 1 4.800-1" });
    const failing = /** @type {SVGElement} */ (made.children[5]);
    set(failing, { x: middle.x.toFixed(1), y: (middle.y - 12).toFixed(1) });
    const words = link.errors && link.success !== null && link.success < 0.99 ? `${share(1 - link.success)} fail` : "";
    if (failing.textContent !== words) failing.textContent = words;
  }

  /** Light up a node with what it calls and is called by; null ends it. @param {Graph} graph @param {string | null} id */
  light(graph, id) {
    const near = new Set(id ? [id] : []);
    for (const link of graph.links.values()) {
      const touches = id !== null && (link.source === id || link.target === id);
      if (touches) near.add(link.source).add(link.target);
      const drawn = this.links.get(link.id);
      drawn?.classList.toggle("near", touches);
      drawn?.classList.toggle("dim", id !== null && !touches);
    }
    for (const [name, drawn] of this.nodes) drawn.classList.toggle("dim", id !== null && !near.has(name));
  }
}

/** @param {Node} node */
export function title(node) {
  return node.version ? `${node.name} ${node.version}` : node.name;
}

/** @param {SVGElement} element @param {Record<string, string | number>} attributes */
function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    const text = String(value);
    if (element.getAttribute(key) !== text) element.setAttribute(key, text);
  }
}

/** By CSS, so that it glides where motion is welcome. @param {SVGElement} element @param {Point} place */
function move(element, place) {
  const wanted = `translate(${place.x.toFixed(1)}px, ${place.y.toFixed(1)}px)`;
  if (element.dataset.at === wanted) return;
  element.dataset.at = wanted;
  element.style.transform = wanted;
}

/** @param {Point[]} path */
function curve(path) {
  let d = `M${path[0].x} ${path[0].y.toFixed(1)}`;
  for (let place = 1; place < path.length; place += 1) {
    const [from, to] = [path[place - 1], path[place]];
    if (path.length === 2 && from.y === to.y && Math.abs(from.x - to.x) < 60) {
      d += `C${from.x + 10} ${from.y - 34} ${to.x - 10} ${to.y - 34} ${to.x} ${to.y - 1}`;
      continue;
    }
    const bend = (to.x - from.x) / 2;
    d += `C${(from.x + bend).toFixed(1)} ${from.y.toFixed(1)} ${(to.x - bend).toFixed(1)} ${to.y.toFixed(1)} ${to.x} ${to.y.toFixed(1)}`;
  }
  return d;
}

/** A point of the first curve that is between two columns, where no node hides it. @param {Point[]} path */
function between(path) {
  const [from, to] = path;
  const [wide, tall] = [to.x - from.x, to.y - from.y];
  const wanted = Math.min(0.5, FREE / Math.max(1, Math.abs(wide)));
  let at = wanted / 1.5;
  for (let step = 0; step < 6; step += 1) at += wanted - (1.5 * at - 1.5 * at * at + at ** 3);
  return { x: from.x + wide * wanted, y: from.y + tall * (3 * at * at - 2 * at ** 3) };
}

/** Words and values of a node or a link, as a list. @param {[string, string][]} rows */
export function facts(rows) {
  const list = html("dl", { class: "facts" });
  for (const [word, value] of rows) if (value) list.append(html("dt", {}, word), html("dd", {}, value));
  return list;
}
