// @ts-check
// Where everything stands: layers from callers to the called, namespaces as boxes that never overlap. The same
// graph always looks the same. Sugiyama's way: break cycles, layers by the longest path, few crossings by medians.
import { compare, divide, rank, untangle } from "./graph-layers.js";

/** @typedef {{id: string, group: string, first?: boolean}} Item `first`: traffic comes in here */
/** @typedef {{id: string, source: string, target: string}} Line */
/** @typedef {{x: number, y: number}} Point */
/** Places are the middles of nodes. @typedef {{places: Map<string, Point & {layer: number}>, paths: Map<string, Point[]>,
 *   groups: {name: string, x: number, y: number, width: number, height: number}[], width: number, height: number}} Layout */
/** One in a column: a node, or where a long line passes. @typedef {{id: string, group: string, layer: number, tall: number, y: number,
 *   before: Cell[], after: Cell[]}} Cell */
/** @typedef {{name: string, framed: boolean, columns: Map<number, Cell[]>, cells: Cell[], low: number, high: number, y: number,
 *   height: number}} Box */

export const WIDE = 172;
export const TALL = 50;
const GAP = 12;
const COLUMN = 84;
const PASSING = -2;
const PAD = 11;
const HEAD = 26;
const BETWEEN = 16;
const SWEEPS = 10;
const MOST = [8, 6, 5, 4, 3, 2, 1];
const SCREEN = { width: 1150, height: 680 };
const PORT = 9;

/** @param {Item[]} items @param {Line[]} lines @param {Map<string, Point> | null} [previous] where they stood: order is kept @returns {Layout} */
export function layout(items, lines, previous = null) {
  const nodes = [...items].sort((a, b) => compare(a.id, b.id));
  const known = new Set(nodes.map((one) => one.id));
  const drawn = lines.filter((one) => known.has(one.source) && known.has(one.target)).sort((a, b) => compare(a.id, b.id));
  const forward = untangle(nodes, drawn);
  const { cells, boxes, chains } = shape(nodes, forward, rank(nodes, forward));
  order(boxes, cells, previous);
  settle(boxes);
  return measure(nodes, drawn, cells, boxes, chains);
}

/** Of the ways to divide full columns, the one that is largest on a screen. @param {Item[]} nodes
 * @param {{id: string, from: string, to: string}[]} forward @param {Map<string, number>} layers */
function shape(nodes, forward, layers) {
  let best = arrange(nodes, forward, layers);
  let largest = scale(best.boxes);
  for (const most of MOST) {
    if (largest >= 1) break;
    const divided = arrange(nodes, forward, divide(nodes, forward, layers, most));
    const now = scale(divided.boxes);
    if (now > largest * 1.05) [best, largest] = [divided, now];
  }
  return best;
}

/** How large it can be shown. @param {Box[]} boxes */
function scale(boxes) {
  boxes.sort((a, b) => a.low - b.low || compare(a.name, b.name));
  pile(boxes);
  const width = (1 + Math.max(0, ...boxes.map((box) => box.high))) * (WIDE + COLUMN);
  return Math.min(SCREEN.width / width, SCREEN.height / Math.max(1, ...boxes.map((box) => box.y + box.height)));
}

/** Cells in columns in boxes; long lines pass between the nodes of the boxes that they come from and go to.
 * @param {Item[]} nodes @param {{id: string, from: string, to: string}[]} forward @param {Map<string, number>} layers */
function arrange(nodes, forward, layers) {
  /** @type {Map<string, Cell>} */
  const cells = new Map();
  /** @type {Map<string, Box>} */
  const boxes = new Map();
  const put = (/** @type {Cell} */ cell) => {
    const name = cell.group || `\u0000${cell.id}`;
    /** @type {Box} */
    const box = boxes.get(name) ?? { name, framed: Boolean(cell.group), columns: new Map(), cells: [], low: Infinity, high: 0, y: 0, height: 0 };
    boxes.set(name, box);
    box.cells.push(cell);
    box.columns.set(cell.layer, [...(box.columns.get(cell.layer) ?? []), cell]);
    box.low = Math.min(box.low, cell.layer);
    box.high = Math.max(box.high, cell.layer);
    cells.set(cell.id, cell);
    return cell;
  };
  for (const { id, group } of nodes) put({ id, group, layer: layers.get(id) ?? 0, tall: TALL, y: 0, before: [], after: [] });
  const extent = new Map([...boxes.values()].map(({ name, low, high }) => [name, { low, high }]));
  /** @type {Map<string, Cell[]>} */
  const chains = new Map();
  for (const line of forward) {
    const [from, to] = [/** @type {Cell} */ (cells.get(line.from)), /** @type {Cell} */ (cells.get(line.to))];
    /** @type {Cell[]} */
    const chain = [from];
    for (let layer = from.layer + 1; layer < to.layer; layer += 1) {
      const group = [to.group, from.group].find((name) => name && (extent.get(name)?.low ?? Infinity) <= layer && layer <= (extent.get(name)?.high ?? -1));
      if (group) chain.push(put({ id: `\u0001${line.id} ${layer}`, group, layer, tall: PASSING, y: 0, before: [], after: [] }));
    }
    chain.push(to);
    for (let place = 1; place < chain.length; place += 1) {
      chain[place - 1].after.push(chain[place]);
      chain[place].before.push(chain[place - 1]);
    }
    chains.set(line.id, chain);
  }
  for (const box of boxes.values()) {
    const tallest = Math.max(...[...box.columns.values()].map(stack));
    box.height = tallest + (box.framed ? HEAD + PAD : 0);
  }
  return { cells, boxes: [...boxes.values()], chains };
}

/** @param {Cell[]} column */
function stack(column) {
  return column.reduce((sum, cell) => sum + cell.tall + GAP, -GAP);
}

/** Sweeps of medians; the best order that was met stays. @param {Box[]} boxes @param {Map<string, Cell>} cells @param {Map<string, Point> | null} previous */
function order(boxes, cells, previous) {
  if (previous) {
    for (const cell of cells.values()) cell.y = previous.get(cell.id)?.y ?? NaN;
    for (const cell of cells.values()) {
      if (Number.isNaN(cell.y)) cell.y = median([...cell.before, ...cell.after].map((one) => one.y).filter((y) => !Number.isNaN(y))) ?? 1e6;
    }
    for (const box of boxes) for (const column of box.columns.values()) column.sort((a, b) => a.y - b.y || compare(a.id, b.id));
    boxes.sort((a, b) => middle(a) - middle(b) || compare(a.name, b.name));
    pile(boxes);
    return;
  }
  boxes.sort((a, b) => a.low - b.low || compare(a.name, b.name));
  pile(boxes);
  let best = { score: Infinity, boxes: [...boxes], columns: /** @type {Cell[][]} */ ([]) };
  for (let sweep = 0; sweep <= SWEEPS; sweep += 1) {
    const score = cost(cells);
    if (score < best.score) best = { score, boxes: [...boxes], columns: boxes.flatMap((box) => [...box.columns.values()].map((column) => [...column])) };
    if (sweep === SWEEPS) break;
    const right = sweep % 2 === 0;
    const layers = [...new Set(boxes.flatMap((box) => [...box.columns.keys()]))].sort((a, b) => (right ? a - b : b - a));
    for (const layer of layers) {
      for (const box of boxes) {
        const column = box.columns.get(layer);
        if (!column) continue;
        const wish = new Map(column.map((cell) => [cell, median((right ? cell.before : cell.after).map((one) => one.y)) ?? cell.y]));
        column.sort((a, b) => (wish.get(a) ?? 0) - (wish.get(b) ?? 0) || a.y - b.y);
        lay(box, column);
      }
    }
    const wish = new Map(boxes.map((box) => [box, pull(box) ?? middle(box)]));
    boxes.sort((a, b) => (wish.get(a) ?? 0) - (wish.get(b) ?? 0) || compare(a.name, b.name));
    pile(boxes);
  }
  boxes.splice(0, boxes.length, ...best.boxes);
  for (const column of best.columns) boxes.find((box) => box.cells.includes(column[0]))?.columns.set(column[0].layer, column);
  pile(boxes);
}

/** Stack boxes without overlap, each as far up as it goes in the columns that it has. @param {Box[]} boxes */
function pile(boxes) {
  /** @type {Map<number, number>} */
  const reached = new Map();
  for (const box of boxes) {
    let top = 0;
    for (let layer = box.low; layer <= box.high; layer += 1) top = Math.max(top, reached.get(layer) ?? 0);
    box.y = top;
    for (let layer = box.low; layer <= box.high; layer += 1) reached.set(layer, top + box.height + BETWEEN);
    for (const column of box.columns.values()) lay(box, column);
  }
}

/** A column in the middle of its box. @param {Box} box @param {Cell[]} column */
function lay(box, column) {
  const inside = box.height - (box.framed ? HEAD + PAD : 0);
  let y = box.y + (box.framed ? HEAD : 0) + (inside - stack(column)) / 2;
  for (const cell of column) {
    cell.y = y + cell.tall / 2;
    y += cell.tall + GAP;
  }
}

/** Crossings, and a little for length. @param {Map<string, Cell>} cells */
function cost(cells) {
  const lines = [...cells.values()].flatMap((from) => from.after.map((to) => ({ from, to })));
  let crossings = 0;
  let length = 0;
  for (let a = 0; a < lines.length; a += 1) {
    length += Math.abs(lines[a].from.y - lines[a].to.y);
    for (let b = a + 1; b < lines.length; b += 1) if (cross(lines[a], lines[b])) crossings += 1;
  }
  return crossings * 60 + length;
}

/** @param {{from: Cell, to: Cell}} a @param {{from: Cell, to: Cell}} b */
function cross(a, b) {
  const left = Math.max(a.from.layer, b.from.layer);
  const right = Math.min(a.to.layer, b.to.layer);
  if (left >= right || a.from === b.from || a.to === b.to) return false;
  return (at(a, left) - at(b, left)) * (at(a, right) - at(b, right)) < 0;
}

/** @param {{from: Cell, to: Cell}} line @param {number} layer */
function at({ from, to }, layer) {
  return from.y + ((to.y - from.y) * (layer - from.layer)) / (to.layer - from.layer);
}

/** @param {number[]} values */
function median(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** @param {Box} box */
function middle(box) {
  return box.cells.reduce((sum, cell) => sum + cell.y, 0) / box.cells.length;
}

/** Where those that a box is linked with would have it. @param {Box} box */
function pull(box) {
  const own = new Set(box.cells);
  return median(box.cells.flatMap((cell) => [...cell.before, ...cell.after].filter((one) => !own.has(one)).map((one) => one.y)));
}

/** Straighten lines: boxes sink to where they are pulled, cells go towards their neighbours. Order and distances stay. @param {Box[]} boxes */
function settle(boxes) {
  for (let pass = 0; pass < 6; pass += 1) {
    for (const box of boxes) for (const column of box.columns.values()) relax(box, column);
    const bottom = Math.max(0, ...boxes.map((box) => box.y + box.height));
    /** @type {Map<number, number>} */
    const free = new Map();
    for (const box of [...boxes].sort((a, b) => b.y - a.y || compare(a.name, b.name))) {
      let limit = bottom;
      for (let layer = box.low; layer <= box.high; layer += 1) limit = Math.min(limit, free.get(layer) ?? bottom);
      const wish = (pull(box) ?? middle(box)) - (middle(box) - box.y);
      const y = Math.max(box.y, Math.min(wish, limit - box.height));
      for (const cell of box.cells) cell.y += y - box.y;
      box.y = y;
      for (let layer = box.low; layer <= box.high; layer += 1) free.set(layer, y - BETWEEN);
    }
  }
}

/** As near to the medians of their neighbours as order and box allow (pooling adjacent violators). @param {Box} box @param {Cell[]} column */
function relax(box, column) {
  const top = box.y + (box.framed ? HEAD : 0);
  const room = box.height - (box.framed ? HEAD + PAD : 0) - stack(column);
  /** @type {{sum: number, many: number}[]} */
  const pools = [];
  let offset = top;
  const offsets = column.map((cell) => {
    const mine = offset + cell.tall / 2;
    offset += cell.tall + GAP;
    return mine;
  });
  column.forEach((cell, place) => {
    pools.push({ sum: (median([...cell.before, ...cell.after].map((one) => one.y)) ?? cell.y) - offsets[place], many: 1 });
    while (pools.length > 1 && pools[pools.length - 2].sum / pools[pools.length - 2].many > pools[pools.length - 1].sum / pools[pools.length - 1].many) {
      const last = /** @type {{sum: number, many: number}} */ (pools.pop());
      pools[pools.length - 1].sum += last.sum;
      pools[pools.length - 1].many += last.many;
    }
  });
  let place = 0;
  for (const { sum, many } of pools) {
    const shift = Math.max(0, Math.min(room, sum / many));
    for (let number = 0; number < many; number += 1, place += 1) column[place].y = offsets[place] + shift;
  }
}

/** @param {Item[]} nodes @param {Line[]} lines @param {Map<string, Cell>} cells @param {Box[]} boxes @param {Map<string, Cell[]>} chains @returns {Layout} */
function measure(nodes, lines, cells, boxes, chains) {
  const x = (/** @type {number} */ layer) => PAD + WIDE / 2 + layer * (WIDE + COLUMN);
  /** @type {Layout["places"]} */
  const places = new Map();
  for (const { id } of nodes) {
    const cell = /** @type {Cell} */ (cells.get(id));
    places.set(id, { x: x(cell.layer), y: cell.y, layer: cell.layer });
  }
  const groups = boxes.filter((box) => box.framed).map((box) => ({
    name: box.name, x: x(box.low) - WIDE / 2 - PAD, y: box.y, width: (box.high - box.low) * (WIDE + COLUMN) + WIDE + 2 * PAD, height: box.height,
  }));
  const width = Math.max(WIDE, ...[...places.values()].map((place) => place.x + WIDE / 2 + PAD));
  const height = Math.max(TALL, ...boxes.map((box) => box.y + box.height));
  return { places, paths: route(lines, places, chains, x), groups, width, height };
}

/** The points of each line: out of one side of a node, into the side of another, each at a place of its own.
 * @param {Line[]} lines @param {Layout["places"]} places @param {Map<string, Cell[]>} chains @param {(layer: number) => number} x */
function route(lines, places, chains, x) {
  /** @type {Map<string, {line: Line, end: "source" | "target", far: number}[]>} */
  const sides = new Map();
  for (const line of lines) {
    if (line.source === line.target) continue;
    const [from, to] = [/** @type {Point} */ (places.get(line.source)), /** @type {Point} */ (places.get(line.target))];
    const right = to.x > from.x;
    const join = (/** @type {string} */ id, /** @type {boolean} */ onRight, /** @type {"source" | "target"} */ end, /** @type {number} */ far) => {
      const key = `${id} ${onRight}`;
      sides.set(key, [...(sides.get(key) ?? []), { line, end, far }]);
    };
    join(line.source, right, "source", to.y);
    join(line.target, !right, "target", from.y);
  }
  /** @type {Map<string, number>} */
  const shifts = new Map();
  for (const ends of sides.values()) {
    ends.sort((a, b) => a.far - b.far || compare(a.line.id, b.line.id));
    const step = Math.min(PORT, (TALL - 16) / Math.max(1, ends.length - 1));
    ends.forEach((one, place) => shifts.set(`${one.line.id} ${one.end}`, (place - (ends.length - 1) / 2) * step));
  }
  /** @type {Map<string, Point[]>} */
  const paths = new Map();
  for (const line of lines) {
    const [from, to] = [/** @type {Point} */ (places.get(line.source)), /** @type {Point} */ (places.get(line.target))];
    if (line.source === line.target) {
      const top = from.y - TALL / 2;
      paths.set(line.id, [{ x: from.x + 24, y: top }, { x: from.x - 24, y: top }]);
      continue;
    }
    const way = to.x > from.x ? 1 : -1;
    const chain = (chains.get(line.id) ?? []).slice(1, -1);
    if (way < 0) chain.reverse();
    paths.set(line.id, [
      { x: from.x + (way * WIDE) / 2, y: from.y + (shifts.get(`${line.id} source`) ?? 0) },
      ...chain.flatMap((cell) => [{ x: x(cell.layer) - (way * WIDE) / 2, y: cell.y }, { x: x(cell.layer) + (way * WIDE) / 2, y: cell.y }]),
      { x: to.x - (way * WIDE) / 2, y: to.y + (shifts.get(`${line.id} target`) ?? 0) },
    ]);
  }
  return paths;
}
