// @ts-check
// Keeps <main> as the server has it: the stream of the page's own address brings its content whenever it
// became different, and only what differs is put into the document.

/** @type {{createHTML(text: string): any}} */
const escaped =
  // @ts-ignore: not in every browser yet
  globalThis.trustedTypes?.createPolicy("weft", { createHTML: (/** @type {string} */ text) => text }) ?? {
    createHTML: (/** @type {string} */ text) => text,
  };

/** @type {EventSource | undefined} */
let stream;
let over = false;
/** When the mesh was last heard of. */
let heard = new Date();
let opened = 0;
const SILENT_MS = 20_000;

/** Follow this page until it is left; a hidden page rests. */
export function follow() {
  open();
  setInterval(() => {
    // A stream may be open and silent: somebody behind it does not answer.
    if (!stream || document.hidden || Date.now() - Math.max(heard.getTime(), opened) < SILENT_MS) return;
    pulse("lost", "not live");
    stale("The mesh does not answer.");
  }, 1000);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
}

function open() {
  if (stream || over) return;
  opened = Date.now();
  stream = new EventSource(location.pathname + location.search);
  stream.addEventListener("page", (event) => {
    const template = document.createElement("template");
    template.innerHTML = escaped.createHTML(JSON.parse(event.data));
    const main = document.getElementById("main");
    if (main) {
      const active = document.activeElement;
      morphChildren(main, template.content);
      document.dispatchEvent(new CustomEvent("weft:page"));
      if (active instanceof HTMLElement && active !== document.activeElement && active.isConnected) {
        active.focus({ preventScroll: true });
      }
    }
  });
  stream.addEventListener("tick", () => {
    heard = new Date();
    pulse("live", "live");
    stale("");
    document.dispatchEvent(new CustomEvent("weft:tick"));
  });
  stream.addEventListener("lost", (event) => {
    pulse("lost", "not live");
    stale(`${JSON.parse(event.data)}.`);
  });
  stream.addEventListener("gone", () => {
    over = true;
    close();
    pulse("lost", "no longer there");
    stale("There is no such thing any more.");
  });
  stream.addEventListener("error", () => {
    pulse("lost", "connection lost");
    stale("The dashboard does not answer. If it was started again, open the address that it printed.");
    if (stream?.readyState === EventSource.CLOSED) {
      close();
      setTimeout(() => document.hidden || open(), 3000);
    }
  });
}

function close() {
  stream?.close();
  stream = undefined;
}

/** @param {string} state @param {string} words */
function pulse(state, words) {
  const shown = document.getElementById("pulse");
  if (!shown || shown.dataset.state === state) return;
  shown.dataset.state = state;
  shown.textContent = words;
}

/** Say that what is shown is old, and why; nothing takes it away. @param {string} why */
function stale(why) {
  const note = document.getElementById("stale");
  if (!note) return;
  const words = why && `${why} What is shown is of ${heard.toLocaleTimeString()}.`;
  if (note.hidden !== !why) note.hidden = !why;
  if (why && note.dataset.why !== why) {
    note.dataset.why = why;
    const head = document.createElement("strong");
    head.textContent = "Not live: ";
    note.replaceChildren(head, words);
  }
}

/** @param {Node} node */
function keyOf(node) {
  return node instanceof Element ? (node.id || node.getAttribute("data-key")) : null;
}

/** @param {Node} old @param {Node} next */
function morph(old, next) {
  if (!(old instanceof Element) || !(next instanceof Element)) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    // What a reader opened stays open, what was sorted is told by table.js.
    if (!next.hasAttribute(name) && name !== "open" && name !== "data-sorted") old.removeAttribute(name);
  }
  if (!old.hasAttribute("data-keep")) morphChildren(old, next);
}

/**
 * The next node without a key that is of the same sort; what is passed over is taken away in the end.
 * @param {Node} next @param {ChildNode | null} from @param {Set<ChildNode>} stale
 */
function like(next, from, stale) {
  for (let node = from; node; node = node.nextSibling) {
    if (stale.has(node) && !keyOf(node) && node.nodeName === next.nodeName) return node;
  }
  return null;
}

/** @param {Node} parent @param {Node} wanted */
function morphChildren(parent, wanted) {
  /** @type {Map<string | null, ChildNode>} */
  const known = new Map();
  for (const node of parent.childNodes) if (keyOf(node)) known.set(keyOf(node), node);
  const ordered = !(parent instanceof Element && parent.hasAttribute("data-sorted"));
  const stale = new Set(parent.childNodes);
  let place = parent.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    const match = key ? known.get(key) : like(next, place, stale);
    if (!match || match.nodeName !== next.nodeName) {
      parent.insertBefore(document.importNode(next, true), ordered ? place : null);
      continue;
    }
    stale.delete(match);
    if (ordered && key && match !== place) parent.insertBefore(match, place);
    else if (ordered || match === place) place = match.nextSibling;
    morph(match, next);
  }
  for (const node of stale) node.remove();
}
