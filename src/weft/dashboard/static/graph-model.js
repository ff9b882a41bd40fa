// @ts-check
// What the graph shows, out of telemetry's answers: nodes and links. No document here.

/** @typedef {{requests: number, rps: number, errors: number, success: number | null, p95: number | null,
 *   mtls: number | null, opened: number, connections: number}} Signals */
/** @typedef {{namespace: string, workload: string, app: string, version: string, principal: string, kind: string}} Who */
/** @typedef {Signals & {source: Who, destination: Who, service: {name: string, namespace: string, host: string},
 *   protocol: string, secured: boolean}} Edge */
/** @typedef {{namespace: string, workload: string, app: string, version: string, kind: string, principals: string[],
 *   services: string[], instances: number, inbound: Signals}} Workload */
/** @typedef {{edges: Edge[], workloads: Workload[], services: {name: string, namespace: string, inbound: Signals}[]}} Told */
/** `kind`: `service`, `gateway`, `client` (outside of the mesh, calls), `external` (outside, is called), `namespace`, `other`.
 * `requests` and what follows is of what came in.
 * @typedef {{id: string, kind: string, name: string, version: string, group: string, namespace: string, workloads: string[],
 *   services: string[], versions: string[], principals: string[], instances: number, requests: number, errors: number,
 *   rps: number, opened: number, success: number | null, p95: number | null, members: number, idle: boolean}} Node */
/** @typedef {{id: string, source: string, target: string, requests: number, errors: number, rps: number, opened: number,
 *   success: number | null, p95: number | null, mtls: number | null, carried: number, secured: boolean, inside: boolean, protocols: string[],
 *   callers: string[], idle: boolean}} Link */
/** @typedef {{nodes: Map<string, Node>, links: Map<string, Link>}} Graph */

const GOOD = 0.999;
const FAIR = 0.99;

/** `good`, `fair`, `bad`, or `none` where nothing is known. @param {number | null} success */
export function health(success) {
  if (success === null) return "none";
  return success >= GOOD ? "good" : success >= FAIR ? "fair" : "bad";
}

/** The ends of edges, of which the page says each once, in their places.
 * @param {any} said @returns {Told} */
export function unfold(said) {
  const edges = said.edges.map((/** @type {any} */ one) => ({
    ...one, source: said.whos[one.source], destination: said.whos[one.destination], service: said.called[one.service],
  }));
  return { ...said, edges };
}

/** `versions` splits a service into one node a version; `collapsed` are namespaces shown as one node.
 * @param {Told} told @param {{versions: boolean, collapsed: Set<string>}} how @returns {Graph} */
export function build(told, how) {
  /** @type {Graph} */
  const graph = { nodes: new Map(), links: new Map() };
  /** Which node a service's workloads are. @type {Map<string, string>} */
  const served = new Map();
  for (const one of told.workloads) {
    const node = place(graph, how, one);
    addWorkload(node, one);
    for (const name of one.services) if (!served.has(`${one.namespace}/${name}`)) served.set(`${one.namespace}/${name}`, node.id);
  }
  // A percentile of several workloads is none of theirs: the service's own is right.
  for (const service of told.services) {
    const node = graph.nodes.get(served.get(`${service.namespace}/${service.name}`) ?? "");
    if (node && node.kind === "service" && !how.versions && service.inbound.p95 !== null) node.p95 = service.inbound.p95;
  }
  for (const edge of told.edges) {
    const source = caller(graph, how, edge);
    const target = callee(graph, how, edge, served);
    if (source.id === target.id && (source.kind === "namespace" || source.kind === "other")) continue;
    addEdge(graph, source, target, edge);
  }
  finish(graph);
  return graph;
}

/** @param {Graph} graph @param {{versions: boolean, collapsed: Set<string>}} how @param {Who | Workload} who @returns {Node} */
function place(graph, how, who) {
  if (how.collapsed.has(who.namespace)) {
    return node(graph, `namespace:${who.namespace}`, { kind: "namespace", name: who.namespace, namespace: who.namespace });
  }
  const kind = who.kind === "gateway" ? "gateway" : "service";
  const name = who.app || who.workload;
  const base = { kind, name, namespace: who.namespace, group: who.namespace };
  if (!how.versions || kind === "gateway") return node(graph, `${kind}:${who.namespace}/${name}`, base);
  return node(graph, `workload:${who.namespace}/${who.workload}`, { ...base, version: who.version || who.workload });
}

/** @param {Graph} graph @param {{versions: boolean, collapsed: Set<string>}} how @param {Edge} edge */
function caller(graph, how, edge) {
  const { source } = edge;
  if (source.kind === "other") return node(graph, "other:", { kind: "other", name: "others" });
  if (source.kind === "outside" || !source.namespace) return node(graph, "client:", { kind: "client", name: "outside" });
  return place(graph, how, source.app || source.workload ? source : { ...source, app: account(source.principal) });
}

/** @param {Graph} graph @param {{versions: boolean, collapsed: Set<string>}} how @param {Edge} edge @param {Map<string, string>} served */
function callee(graph, how, edge, served) {
  const { destination, service } = edge;
  if (destination.kind === "other") return node(graph, "other:", { kind: "other", name: "others" });
  if (destination.workload && destination.kind !== "outside") return place(graph, how, destination);
  const known = graph.nodes.get(served.get(`${service.namespace}/${service.name}`) ?? "");
  if (known && !how.versions) return known;
  const inside = service.host.includes(".svc.") && service.namespace;
  if (inside) return place(graph, how, { ...destination, namespace: service.namespace, app: service.name, workload: service.name, kind: "workload" });
  const name = service.host || service.name || destination.app || "unknown";
  return node(graph, `external:${name}`, { kind: "external", name });
}

/** @param {string} principal */
function account(principal) {
  return principal.split("/").at(-1) || "unknown";
}

/** @param {Graph} graph @param {string} id @param {Partial<Node>} told @returns {Node} */
function node(graph, id, told) {
  let found = graph.nodes.get(id);
  if (!found) {
    found = {
      id, kind: "service", name: id, version: "", group: "", namespace: "", workloads: [], services: [], versions: [], principals: [],
      instances: 0, requests: 0, errors: 0, rps: 0, opened: 0, success: null, p95: null, members: 0, idle: true, ...told,
    };
    graph.nodes.set(id, found);
  }
  return found;
}

/** @param {Node} node @param {Workload} one */
function addWorkload(node, one) {
  node.members += 1;
  node.instances += one.instances;
  node.requests += one.inbound.requests;
  node.errors += one.inbound.errors;
  node.rps += one.inbound.rps;
  node.opened += one.inbound.opened;
  node.p95 = most(node.p95, one.inbound.p95);
  add(node.workloads, one.workload);
  for (const name of one.services) add(node.services, name);
  for (const principal of one.principals) add(node.principals, principal);
  if (one.version) add(node.versions, one.version);
}

/** @param {Graph} graph @param {Node} source @param {Node} target @param {Edge} edge */
function addEdge(graph, source, target, edge) {
  const id = `${source.id} ${target.id}`;
  let link = graph.links.get(id);
  if (!link) {
    link = {
      id, source: source.id, target: target.id, requests: 0, errors: 0, rps: 0, opened: 0, success: null, p95: null, mtls: null,
      carried: 0, secured: true, inside: source.kind !== "client" && target.kind !== "external", protocols: [], callers: [], idle: false,
    };
    graph.links.set(id, link);
  }
  // What reached nobody (a fault, no healthy endpoint) went over no connection at all.
  const nowhere = !edge.destination.workload && edge.success === 0;
  const weight = nowhere ? 0 : edge.requests + edge.opened;
  const before = link.carried;
  link.carried += weight;
  if (edge.mtls !== null && !nowhere) link.mtls = link.mtls === null ? edge.mtls : (link.mtls * before + edge.mtls * weight) / Math.max(1, before + weight);
  link.requests += edge.requests;
  link.errors += edge.errors;
  link.rps += edge.rps;
  link.opened += edge.opened;
  link.p95 = most(link.p95, edge.p95);
  link.secured &&= edge.secured || nowhere;
  add(link.protocols, edge.protocol);
  if (edge.source.principal) add(link.callers, edge.source.principal);
  if (edge.source.principal && source.kind !== "client") add(source.principals, edge.source.principal);
  if (edge.service.name && target.kind !== "external" && edge.service.namespace === target.namespace) add(target.services, edge.service.name);
}

/** Shares of sums, and what came in where nobody told but the callers. @param {Graph} graph */
function finish(graph) {
  for (const link of graph.links.values()) link.success = link.requests ? 1 - link.errors / link.requests : null;
  for (const one of graph.nodes.values()) {
    if (!one.requests) {
      for (const link of graph.links.values()) {
        if (link.target !== one.id || link.source === one.id) continue;
        one.requests += link.requests;
        one.errors += link.errors;
        one.rps += link.rps;
        one.opened += link.opened;
        one.p95 = most(one.p95, link.p95);
      }
    }
    one.success = one.requests ? 1 - one.errors / one.requests : null;
    one.versions.sort();
  }
  for (const link of graph.links.values()) {
    for (const id of [link.source, link.target]) /** @type {Node} */ (graph.nodes.get(id)).idle = false;
  }
}

/** What is there, and what was: traffic that pauses leaves its place empty, so that nothing jumps.
 * @param {Graph} now @param {Graph | null} before @returns {Graph} */
export function remember(now, before) {
  if (!before) return now;
  const nodes = new Map(now.nodes);
  const links = new Map(now.links);
  const rest = { requests: 0, errors: 0, rps: 0, opened: 0, success: null, p95: null, idle: true };
  for (const [id, one] of before.nodes) if (!nodes.has(id)) nodes.set(id, { ...one, ...rest });
  for (const [id, one] of before.links) if (!links.has(id)) links.set(id, { ...one, ...rest, mtls: null });
  return { nodes, links };
}

/** Without nodes that nothing is heard of. @param {Graph} graph @returns {Graph} */
export function busy(graph) {
  const nodes = new Map([...graph.nodes].filter(([, one]) => !one.idle));
  const links = new Map([...graph.links].filter(([, one]) => nodes.has(one.source) && nodes.has(one.target)));
  return { nodes, links };
}

/** @param {string[]} list @param {string} value */
function add(list, value) {
  if (!list.includes(value)) list.push(value);
}

/** @param {number | null} a @param {number | null} b */
function most(a, b) {
  return a === null ? b : b === null ? a : Math.max(a, b);
}
