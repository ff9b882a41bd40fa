// @ts-check
// Which column each node is in: cycles are broken, callers stand before the called, no column is too full.

/** @typedef {import("./graph-layout.js").Item} Item @typedef {import("./graph-layout.js").Line} Line */

/** @param {string} a @param {string} b */
export function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Each line in the direction in which it goes right: those that close a cycle are turned. @param {Item[]} nodes @param {Line[]} lines */
export function untangle(nodes, lines) {
  /** @type {Map<string, Line[]>} */
  const out = new Map(nodes.map((one) => [one.id, []]));
  const called = new Set();
  for (const line of lines) {
    if (line.source === line.target) continue;
    out.get(line.source)?.push(line);
    called.add(line.target);
  }
  const starts = [...nodes].sort((a, b) => Number(b.first ?? false) - Number(a.first ?? false) || Number(called.has(a.id)) - Number(called.has(b.id)) || compare(a.id, b.id));
  /** 1 on the way, 2 done. @type {Map<string, number>} */
  const state = new Map();
  /** @type {{id: string, from: string, to: string}[]} */
  const forward = [];
  for (const { id } of starts) {
    if (state.has(id)) continue;
    const stack = [{ id, next: 0 }];
    state.set(id, 1);
    while (stack.length) {
      const top = stack[stack.length - 1];
      const line = out.get(top.id)?.[top.next];
      if (!line) {
        state.set(top.id, 2);
        stack.pop();
        continue;
      }
      top.next += 1;
      if (state.get(line.target) === 1) {
        forward.push({ id: line.id, from: line.target, to: line.source });
        continue;
      }
      forward.push({ id: line.id, from: line.source, to: line.target });
      if (!state.has(line.target)) {
        state.set(line.target, 1);
        stack.push({ id: line.target, next: 0 });
      }
    }
  }
  return forward;
}

/** The layer of each: one more than that of its last caller. @param {Item[]} nodes @param {{from: string, to: string}[]} forward */
export function rank(nodes, forward) {
  /** @type {Map<string, string[]>} */
  const after = new Map(nodes.map((one) => [one.id, []]));
  const waiting = new Map(nodes.map((one) => [one.id, 0]));
  for (const { from, to } of forward) {
    after.get(from)?.push(to);
    waiting.set(to, (waiting.get(to) ?? 0) + 1);
  }
  const layers = new Map(nodes.map((one) => [one.id, 0]));
  const roots = nodes.filter((one) => !waiting.get(one.id)).map((one) => one.id);
  const queue = [...roots];
  for (let at = 0; at < queue.length; at += 1) {
    for (const to of after.get(queue[at]) ?? []) {
      layers.set(to, Math.max(layers.get(to) ?? 0, (layers.get(queue[at]) ?? 0) + 1));
      const left = (waiting.get(to) ?? 1) - 1;
      waiting.set(to, left);
      if (!left) queue.push(to);
    }
  }
  const first = new Set(nodes.filter((one) => one.first).map((one) => one.id));
  for (const id of roots) {
    // Who only calls stands just before the first whom it calls.
    const next = (after.get(id) ?? []).map((to) => layers.get(to) ?? 1);
    if (next.length && !first.has(id)) layers.set(id, Math.min(...next) - 1);
  }
  spread(nodes, forward, layers);
  return layers;
}

/** Layers with at most so many of one namespace: who finds no place comes later. @param {Item[]} nodes
 * @param {{from: string, to: string}[]} forward @param {Map<string, number>} layers @param {number} most @returns {Map<string, number>} */
export function divide(nodes, forward, layers, most) {
  /** @type {Map<string, string[]>} */
  const before = new Map();
  /** @type {Map<string, string[]>} */
  const after = new Map();
  for (const { from, to } of forward) {
    before.set(to, [...(before.get(to) ?? []), from]);
    after.set(from, [...(after.get(from) ?? []), to]);
  }
  /** @type {Map<string, number>} */
  const used = new Map();
  /** @type {Map<string, number>} */
  const made = new Map();
  const group = (/** @type {Item} */ one, /** @type {number} */ layer) => `${layer} ${one.group || one.id}`;
  const take = (/** @type {Item} */ one, /** @type {number} */ layer) => {
    used.set(group(one, layer), (used.get(group(one, layer)) ?? 0) + 1);
    made.set(one.id, layer);
  };
  const ordered = [...nodes].sort((a, b) => (layers.get(a.id) ?? 0) - (layers.get(b.id) ?? 0) || compare(a.id, b.id));
  for (const one of ordered) {
    let layer = Math.max(0, ...(before.get(one.id) ?? []).map((id) => (made.get(id) ?? 0) + 1));
    while ((used.get(group(one, layer)) ?? 0) >= most) layer += 1;
    take(one, layer);
  }
  for (const one of ordered) {
    const next = (after.get(one.id) ?? []).map((id) => made.get(id) ?? 0);
    if (one.first || before.has(one.id) || !next.length) continue;
    const old = made.get(one.id) ?? 0;
    let layer = Math.min(...next) - 1;
    while (layer > old && (used.get(group(one, layer)) ?? 0) >= most) layer -= 1;
    used.set(group(one, old), (used.get(group(one, old)) ?? 1) - 1);
    take(one, layer);
  }
  return made;
}

/** Those without any line fill the columns of their namespace, instead of one. @param {Item[]} nodes
 * @param {{from: string, to: string}[]} forward @param {Map<string, number>} layers */
function spread(nodes, forward, layers) {
  const linked = new Set(forward.flatMap((line) => [line.from, line.to]));
  /** @type {Map<string, number[]>} */
  const used = new Map();
  for (const { id, group } of nodes) {
    if (linked.has(id)) used.set(group, [...(used.get(group) ?? []), layers.get(id) ?? 0]);
  }
  /** @type {Map<string, number>} */
  const placed = new Map();
  for (const { id, group } of nodes) {
    if (linked.has(id)) continue;
    const columns = used.get(group) ?? [];
    const low = columns.length ? Math.min(...columns) : 0;
    const span = columns.length ? Math.max(...columns) - low + 1 : 4;
    const number = placed.get(group) ?? 0;
    placed.set(group, number + 1);
    layers.set(id, low + (number % span));
  }
}
