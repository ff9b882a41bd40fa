// @ts-check
// The live service graph: what the page was told last, laid out, drawn, looked at, asked.
import { Camera } from "./graph-camera.js";
import { WIDE, layout } from "./graph-layout.js";
import { build, busy, remember, unfold } from "./graph-model.js";
import { Note, Panel, noteOfLink, noteOfNode, surface } from "./graph-panel.js";
import { Drawing } from "./graph-view.js";

/** @typedef {import("./graph-model.js").Graph} Graph @typedef {import("./graph-model.js").Told} Told */

const GLIDE_MS = 400;
const MANY = 80;

/** @template {typeof HTMLElement} T @param {string} id @param {T} kind @returns {InstanceType<T>} */
function part(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`there is no ${id}`);
  return /** @type {InstanceType<T>} */ (found);
}

class Page {
  constructor() {
    this.stage = part("graph-stage", HTMLDivElement);
    this.sheet = part("graph", HTMLDivElement);
    this.versions = part("graph-versions", HTMLInputElement);
    this.idle = part("graph-idle", HTMLInputElement);
    this.search = part("graph-search", HTMLInputElement);
    const { plot, world } = surface("Who calls whom. Tab goes through services, Enter opens one, arrow keys go to the next, plus and minus zoom.");
    this.plot = plot;
    this.stage.append(plot);
    this.camera = new Camera(plot, world);
    this.drawing = new Drawing(world);
    this.note = new Note(this.stage);
    this.panel = new Panel(this.stage, (id) => this.choose(id, true), () => this.close(true));
    /** @type {Graph | null} */
    this.graph = null;
    /** @type {Graph | null} */
    this.shown = null;
    /** @type {import("./graph-layout.js").Layout | null} */
    this.places = null;
    this.shape = "";
    this.text = "";
    /** @type {string | null} */
    this.chosen = null;
    const address = new URLSearchParams(location.search);
    this.collapsed = new Set((address.get("collapsed") ?? "").split(",").filter(Boolean));
    this.versions.checked = address.has("versions");
    this.wanted = address.get("node");
    this.#listen();
    this.read(true);
  }

  /** Take in what the page holds now. @param {boolean} [anew] forget what was before */
  read(anew = false) {
    const text = document.getElementById("graph-data")?.textContent ?? "";
    if (text === this.text && !anew) return;
    this.text = text;
    const told = unfold(JSON.parse(text));
    const empty = !told.edges.length && !told.workloads.length && !this.graph?.nodes.size;
    this.sheet.hidden = empty;
    if (empty) return;
    this.graph = remember(build(told, { versions: this.versions.checked, collapsed: this.collapsed }), anew ? null : this.graph);
    this.draw(anew);
  }

  /** @param {boolean} [anew] */
  draw(anew = false) {
    if (!this.graph) return;
    const graph = this.idle.checked ? this.graph : busy(this.graph);
    this.shown = graph;
    const items = [...graph.nodes.values()].map(({ id, group, kind }) => ({ id, group, first: kind === "client" || kind === "gateway" }));
    const lines = [...graph.links.values()].map(({ id, source, target }) => ({ id, source, target }));
    const shape = JSON.stringify([items.map((one) => one.id).sort(), lines.map((one) => one.id).sort()]);
    // Only when something is new or gone is anything moved.
    if (shape !== this.shape || !this.places) {
      this.places = layout(items, lines, anew ? null : this.places?.places ?? null);
      this.shape = shape;
      this.camera.size = { width: this.places.width, height: this.places.height };
    }
    this.plot.toggleAttribute("data-many", graph.links.size > MANY);
    this.drawing.show(graph, this.places, this.collapsed);
    if (anew || !this.camera.held) this.camera.fit();
    this.find();
    if (this.wanted && graph.nodes.has(this.wanted)) {
      this.choose(this.wanted, false);
      this.wanted = null;
    }
    const chosen = this.chosen && graph.nodes.get(this.chosen);
    if (chosen) this.panel.show(chosen, graph, false);
    else if (this.chosen) this.close(false);
    this.drawing.light(graph, this.chosen);
  }

  /** @param {string} id @param {boolean} reveal */
  choose(id, reveal) {
    const node = this.shown?.nodes.get(id);
    const place = this.places?.places.get(id);
    if (!node || !place || !this.shown) return;
    this.chosen = id;
    this.note.hide();
    for (const [name, drawn] of this.drawing.nodes) drawn.classList.toggle("chosen", name === id);
    this.drawing.light(this.shown, id);
    this.panel.show(node, this.shown, true);
    if (reveal) this.camera.reveal(place);
    const near = [...this.shown.links.values()].filter((link) => link.source === id || link.target === id);
    const places = [id, ...near.flatMap((link) => [link.source, link.target])].map((name) => this.places?.places.get(name) ?? place);
    const hidden = this.panel.panel.offsetWidth;
    // On a phone the panel is a sheet at the bottom.
    if (hidden > this.stage.clientWidth / 2) this.camera.above(place, this.panel.panel.offsetHeight);
    else this.camera.uncover(places.flatMap(({ x, y }) => [{ x: x - WIDE / 2, y }, { x: x + WIDE / 2, y }]), hidden);
    this.#address("node", id);
  }

  /** @param {boolean} back whether the focus goes back to the node */
  close(back) {
    const drawn = this.chosen ? this.drawing.nodes.get(this.chosen) : null;
    this.chosen = null;
    this.panel.close();
    drawn?.classList.remove("chosen");
    if (this.shown) this.drawing.light(this.shown, null);
    if (back) drawn?.focus({ preventScroll: true });
    this.#address("node", "");
  }

  /** Light up what has every word that was typed. @param {boolean} [go] */
  find(go = false) {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let first = "";
    for (const [id, drawn] of this.drawing.nodes) {
      const node = this.shown?.nodes.get(id);
      const text = node ? [node.name, node.version, node.namespace, ...node.workloads, ...node.principals].join(" ").toLowerCase() : "";
      const found = words.length > 0 && words.every((word) => text.includes(word));
      drawn.classList.toggle("found", found);
      if (found && !first) first = id;
    }
    this.plot.toggleAttribute("data-finding", words.length > 0);
    const place = this.places?.places.get(first);
    if (go && place) {
      this.camera.reveal(place);
      this.drawing.nodes.get(first)?.focus({ preventScroll: true });
    }
  }

  /** @param {string} namespace */
  fold(namespace) {
    if (!this.collapsed.delete(namespace)) this.collapsed.add(namespace);
    this.#address("collapsed", [...this.collapsed].join(","));
    this.read(true);
    this.drawing.nodes.get(`namespace:${namespace}`)?.focus({ preventScroll: true });
  }

  /** @param {string} name @param {string} value */
  #address(name, value) {
    const address = new URL(location.href);
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
    history.replaceState(null, "", address);
  }

  /** @param {EventTarget | null} target */
  #under(target) {
    const drawn = target instanceof Element ? target.closest("[data-node], [data-link], [data-fold]") : null;
    return drawn instanceof SVGElement ? drawn : null;
  }

  /** @param {MouseEvent} event */
  #hover(event) {
    const { node, link } = this.#under(event.target)?.dataset ?? {};
    const box = this.stage.getBoundingClientRect();
    const at = { x: event.clientX - box.left, y: event.clientY - box.top };
    const shown = this.shown;
    if (!shown || this.camera.fingers.size) return;
    const one = node ? shown.nodes.get(node) : undefined;
    const line = link ? shown.links.get(link) : undefined;
    if (one) this.note.show(noteOfNode(one), at);
    else if (line) this.note.show(noteOfLink(line, shown), at);
    else this.note.hide();
    if (!this.chosen) this.drawing.light(shown, node ?? null);
  }

  #listen() {
    const { plot, camera } = this;
    document.addEventListener("weft:page", () => this.read());
    this.versions.addEventListener("change", () => {
      this.#address("versions", this.versions.checked ? "1" : "");
      this.read(true);
    });
    this.idle.addEventListener("change", () => this.draw(true));
    this.search.addEventListener("input", () => this.find());
    this.search.addEventListener("keydown", (event) => event.key === "Enter" && this.find(true));
    part("graph-in", HTMLButtonElement).addEventListener("click", () => camera.zoom(1.3));
    part("graph-out", HTMLButtonElement).addEventListener("click", () => camera.zoom(1 / 1.3));
    part("graph-fit", HTMLButtonElement).addEventListener("click", () => camera.fit(true));
    plot.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#hover(event));
    plot.addEventListener("pointerleave", () => {
      this.note.hide();
      if (!this.chosen && this.shown) this.drawing.light(this.shown, null);
    });
    plot.addEventListener("click", (event) => {
      if (camera.dragged) return;
      this.#open(this.#under(event.target));
    });
    plot.addEventListener("keydown", (event) => {
      const drawn = this.#under(event.target);
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.#open(drawn);
      } else if (event.key.startsWith("Arrow") && drawn?.dataset.node) {
        event.preventDefault();
        this.#walk(drawn.dataset.node, event.key);
      }
    });
    plot.addEventListener("focusin", (event) => {
      const place = this.places?.places.get(this.#under(event.target)?.dataset.node ?? "");
      if (place && plot.querySelector(":focus-visible")) camera.reveal(place);
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.chosen && this.close(true));
    new ResizeObserver(() => camera.held || camera.fit()).observe(this.stage);
    // The first picture stands still; what changes later glides.
    setTimeout(() => plot.classList.add("gliding"), GLIDE_MS);
  }

  /** @param {SVGElement | null} drawn */
  #open(drawn) {
    const { node, fold } = drawn?.dataset ?? {};
    if (fold) this.fold(fold);
    else if (node?.startsWith("namespace:") && this.chosen === node) this.fold(node.slice("namespace:".length));
    else if (node) this.choose(node, false);
    else if (this.chosen) this.close(false);
  }

  /** To the nearest in a direction. @param {string} id @param {string} key */
  #walk(id, key) {
    const here = this.places?.places.get(id);
    if (!here || !this.places) return;
    const across = key === "ArrowLeft" || key === "ArrowRight";
    const sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
    let best = "";
    let least = Infinity;
    for (const [name, place] of this.places.places) {
      const [ahead, aside] = across ? [place.x - here.x, place.y - here.y] : [place.y - here.y, place.x - here.x];
      if (ahead * sign <= 1) continue;
      const far = Math.abs(ahead) + 2.2 * Math.abs(aside);
      if (far < least) [best, least] = [name, far];
    }
    this.drawing.nodes.get(best)?.focus({ preventScroll: true });
  }
}

if (document.getElementById("graph-stage")) new Page();
