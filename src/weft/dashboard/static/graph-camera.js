// @ts-check
// Looks at a part of a drawing: wheel, drag, two fingers and keys. Tells CSS how far away it is.

const LEAST = 0.12;
const MOST = 2.5;
const FAR = 0.68;
const STEP = 1.25;
const MARGIN = 18;
const CLICK = 5;

export class Camera {
  /** @param {SVGSVGElement} plot @param {SVGGElement} world */
  constructor(plot, world) {
    this.plot = plot;
    this.world = world;
    this.size = { width: 1, height: 1 };
    this.at = { x: 0, y: 0, scale: 1 };
    /** Whether somebody chose what to look at. */
    this.held = false;
    /** Whether the last press was a drag: its click is none. */
    this.dragged = false;
    /** @type {Map<number, {x: number, y: number}>} */
    this.fingers = new Map();
    this.#listen();
  }

  /** All of it in view. @param {boolean} [asked] */
  fit(asked = false) {
    const { clientWidth: wide, clientHeight: tall } = this.plot;
    if (!wide || !tall) return;
    const scale = Math.min(1.15, (wide - 2 * MARGIN) / this.size.width, (tall - 2 * MARGIN) / this.size.height);
    // Where all of it would be too small to read, begin with where traffic comes in.
    const readable = asked ? scale : Math.max(scale, Math.min(0.42, (tall - 2 * MARGIN) / this.size.height));
    this.at = { scale: readable, x: Math.max(MARGIN, (wide - this.size.width * readable) / 2), y: (tall - this.size.height * readable) / 2 };
    this.held = false;
    this.#apply();
  }

  /** Nearer by a factor, around a point of the stage. @param {number} factor @param {{x: number, y: number}} [around] */
  zoom(factor, around) {
    const { clientWidth: wide, clientHeight: tall } = this.plot;
    const point = around ?? { x: wide / 2, y: tall / 2 };
    const scale = Math.max(LEAST, Math.min(MOST, this.at.scale * factor));
    const by = scale / this.at.scale;
    this.at = { scale, x: point.x - (point.x - this.at.x) * by, y: point.y - (point.y - this.at.y) * by };
    this.held = true;
    this.#apply();
  }

  /** @param {number} x @param {number} y */
  pan(x, y) {
    this.at = { ...this.at, x: this.at.x + x, y: this.at.y + y };
    this.held = true;
    this.#apply();
  }

  /** Have a point of the world in view, away from the edges. @param {{x: number, y: number}} place @param {boolean} [centre] */
  reveal(place, centre = false) {
    const { clientWidth: wide, clientHeight: tall } = this.plot;
    const x = place.x * this.at.scale + this.at.x;
    const y = place.y * this.at.scale + this.at.y;
    const [dx, dy] = [Math.min(110, wide / 3), Math.min(50, tall / 3)];
    if (centre) return this.pan(wide / 2 - x, tall / 2 - y);
    const move = (/** @type {number} */ at, /** @type {number} */ room, /** @type {number} */ size) => (at < room ? room - at : at > size - room ? size - room - at : 0);
    const [by_x, by_y] = [move(x, dx, wide), move(y, dy, tall)];
    if (by_x || by_y) this.pan(by_x, by_y);
  }

  /** Have a box of the world in view, as far as what is at the right hides none of it. @param {{x: number, y: number}[]} places @param {number} hidden */
  uncover(places, hidden) {
    const right = Math.max(...places.map((place) => place.x)) * this.at.scale + this.at.x;
    const left = Math.min(...places.map((place) => place.x)) * this.at.scale + this.at.x;
    const over = right - (this.plot.clientWidth - hidden - MARGIN);
    const room = left - MARGIN;
    if (over > 0 && room > 0) this.pan(-Math.min(over, room), 0);
  }

  /** A point of the world in the middle of what is free above a sheet. @param {{x: number, y: number}} place @param {number} hidden */
  above(place, hidden) {
    const { clientWidth: wide, clientHeight: tall } = this.plot;
    this.pan(wide / 2 - place.x * this.at.scale - this.at.x, (tall - hidden) / 2 - place.y * this.at.scale - this.at.y);
  }

  #apply() {
    const { x, y, scale } = this.at;
    this.world.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${scale.toFixed(4)})`);
    this.plot.toggleAttribute("data-far", scale < FAR);
  }

  /** @param {MouseEvent} event */
  #point(event) {
    const box = this.plot.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #listen() {
    const { plot, fingers } = this;
    plot.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      this.zoom(Math.exp(-event.deltaY * lines * 0.0016), this.#point(event));
    }, { passive: false });
    /** @type {{x: number, y: number}} */
    let begun = { x: 0, y: 0 };
    plot.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      begun = this.#point(event);
      if (!fingers.size) this.dragged = false;
      fingers.set(event.pointerId, begun);
    });
    addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = this.#point(event);
      if (!this.dragged && Math.hypot(now.x - begun.x, now.y - begun.y) < CLICK) return;
      this.dragged = true;
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const factor = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
        this.zoom(factor, { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
      } else this.pan(now.x - before.x, now.y - before.y);
      fingers.set(event.pointerId, now);
    });
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) addEventListener(name, (event) => fingers.delete(event.pointerId));
    plot.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") this.zoom(STEP);
      else if (event.key === "-") this.zoom(1 / STEP);
      else if (event.key === "0") this.fit(true);
    });
  }
}
