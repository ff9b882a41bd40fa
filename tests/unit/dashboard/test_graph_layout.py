"""What the graph shows and where everything stands: the dashboard's own modules, run by Node."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from tests.support.invented_mesh import InventedMesh, Json, city, service, shop, who

import weft.dashboard

STATIC: Final = Path(weft.dashboard.__file__).with_name("static")
DRIVER: Final = """
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0, "utf8"));
const load = (name) => import(`./${name}.js`);
const [model, layout] = [await load("graph-model"), await load("graph-layout")];
const scale = await load("charts-scale");
const plain = (key, value) => (value instanceof Map ? Object.fromEntries(value) : value);
const answers = given.calls.map((call) => {
  const code = new Function("model", "layout", "scale", "given", call.code);
  return code(model, layout, scale, call.given);
});
process.stdout.write(JSON.stringify(answers, plain));
"""

BUILD: Final = (
    "return model.build(given.told, {versions: given.versions, collapsed: new Set(given.collapsed)});"
)
LAYOUT: Final = """
const previous = given.previous ? new Map(Object.entries(given.previous)) : null;
return layout.layout(given.nodes, given.links, previous);
"""


def run(*calls: tuple[str, Any]) -> list[Any]:
    """What each piece of code returns, given its data."""
    node = shutil.which("node")
    assert node is not None, "Node is not installed: scripts/setup"
    asked = {"calls": [{"code": code, "given": given} for code, given in calls]}
    with TemporaryDirectory() as folder:
        for module in STATIC.glob("*.js"):
            shutil.copy(module, folder)
        # Node takes them for modules by this, browsers by their tag.
        Path(folder, "package.json").write_text('{"type": "module"}')
        Path(folder, "driver.js").write_text(DRIVER)
        done = subprocess.run(
            [node, f"{folder}/driver.js"], input=json.dumps(asked), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def told(mesh: InventedMesh) -> Json:
    return {"edges": mesh.edges, "workloads": mesh.workloads, "services": mesh.services}


def build(mesh: InventedMesh, *, versions: bool = False, collapsed: tuple[str, ...] = ()) -> Json:
    (graph,) = run((BUILD, {"told": told(mesh), "versions": versions, "collapsed": collapsed}))
    found: Json = graph
    return found


def items(graph: Json) -> tuple[list[Json], list[Json]]:
    """What is laid out of a graph."""
    nodes = [
        {"id": one["id"], "group": one["group"], "first": one["kind"] in {"client", "gateway"}}
        for one in graph["nodes"].values()
    ]
    links = [{name: one[name] for name in ("id", "source", "target")} for one in graph["links"].values()]
    return nodes, links


def laid(nodes: list[Json], links: list[Json], previous: Json | None = None) -> Json:
    (found,) = run((LAYOUT, {"nodes": nodes, "links": links, "previous": previous}))
    result: Json = found
    return result


def check(nodes: list[Json], links: list[Json], found: Json, wide: float = 172, tall: float = 50) -> None:
    """No node touches another, frames hold their own and nothing else, all of it is inside."""
    places = found["places"]
    assert set(places) == {one["id"] for one in nodes}
    for (first, a), (second, b) in combinations(places.items(), 2):
        apart = abs(a["x"] - b["x"]) >= wide or abs(a["y"] - b["y"]) >= tall
        assert apart, f"{first} and {second} overlap"
    for a, b in combinations(found["groups"], 2):
        apart = (
            a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
            or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
        )  # fmt: skip
        assert apart, f"{a['name']} and {b['name']} overlap"
    frames = {one["name"]: one for one in found["groups"]}
    for one in nodes:
        place = places[one["id"]]
        assert wide / 2 <= place["x"] <= found["width"]
        assert tall / 2 - 0.01 <= place["y"] <= found["height"] - tall / 2 + 0.01
        for name, frame in frames.items():
            inside = (
                frame["x"] <= place["x"] <= frame["x"] + frame["width"]
                and frame["y"] <= place["y"] - tall / 2
                and place["y"] + tall / 2 <= frame["y"] + frame["height"]
            )  # fmt: skip
            assert inside == (name == one["group"]), f"{one['id']} and the frame of {name}"
    assert set(found["paths"]) == {one["id"] for one in links}


def test_services_are_one_node_with_their_versions() -> None:
    graph = build(shop())
    reviews = graph["nodes"]["service:shop/reviews"]
    assert reviews["versions"] == ["v1", "v2", "v3"]
    assert reviews["rps"] == 18
    assert graph["nodes"]["gateway:istio-system/istio-ingressgateway"]["kind"] == "gateway"
    assert graph["nodes"]["client:"]["group"] == ""
    assert graph["nodes"]["external:api.cards.example.com"]["kind"] == "external"
    link = graph["links"]["service:shop/frontend service:shop/reviews"]
    assert (link["rps"], link["success"], link["secured"]) == (18, 1, True)
    assert not graph["links"]["service:shop/orders service:shop/stock"]["secured"]
    failing = graph["links"]["service:shop/orders service:bank/ledger"]
    assert failing["success"] == pytest.approx(0.8)


def test_versions_are_split_and_namespaces_collapse() -> None:
    split = build(shop(), versions=True)["nodes"]
    assert {"workload:shop/reviews-v1", "workload:shop/reviews-v2", "workload:shop/reviews-v3"} <= set(split)
    graph = build(shop(), collapsed=("shop",))
    assert {name for name, one in graph["nodes"].items() if one["namespace"] == "shop"} == {"namespace:shop"}
    assert graph["nodes"]["namespace:shop"]["members"] == 7
    assert set(graph["links"]) == {
        "client: gateway:istio-system/istio-ingressgateway",
        "gateway:istio-system/istio-ingressgateway namespace:shop",
        "namespace:shop service:bank/ledger",
        "service:bank/ledger external:api.cards.example.com",
    }


def test_a_call_that_reached_nobody_is_of_the_service_that_was_meant() -> None:
    mesh = shop()
    front = who("shop", "frontend-v1", app="frontend")
    nobody = {**who("", "", app="", version="", kind="workload"), "principal": ""}
    mesh.call(front, nobody, of=service("shop", "orders"), rps=1, failing=1, mtls=0)
    mesh.call(front, nobody, of=service("shop", "legacy"), rps=1, mtls=0)
    graph = build(mesh)
    meant = graph["links"]["service:shop/frontend service:shop/orders"]
    assert meant["rps"] == 5
    assert (meant["mtls"], meant["secured"]) == (1, True), "what was never sent was not sent in plain text"
    assert graph["nodes"]["service:shop/legacy"]["group"] == "shop"
    assert graph["nodes"]["service:shop/legacy"]["rps"] == 1


def test_what_pauses_keeps_its_place() -> None:
    code = """
      const how = {versions: false, collapsed: new Set()};
      return model.remember(model.build({...given, edges: []}, how), model.build(given, how));
    """
    (graph,) = run((code, told(shop())))
    assert set(graph["links"]) == set(build(shop())["links"])
    assert all(link["idle"] and link["rps"] == 0 for link in graph["links"].values())


def test_the_shop_is_read_from_the_left_to_the_right() -> None:
    nodes, links = items(build(shop()))
    found = laid(nodes, links)
    check(nodes, links, found)
    for link in links:
        assert found["places"][link["source"]]["x"] < found["places"][link["target"]]["x"], link["id"]


def test_a_hundred_services_are_readable() -> None:
    nodes, links = items(build(city(100)))
    assert len(nodes) == 101
    found = laid(nodes, links)
    check(nodes, links, found)
    # On a laptop's screen all of it is large enough for letters of 8 pixels (they are 22 high from afar).
    assert min(1150 / found["width"], 680 / found["height"]) * 22 > 8


def test_order_does_not_matter() -> None:
    nodes, links = items(build(city(60, 5)))
    mixed_nodes, mixed_links = list(nodes), list(links)
    random.Random(3).shuffle(mixed_nodes)
    random.Random(4).shuffle(mixed_links)
    assert laid(nodes, links) == laid(mixed_nodes, mixed_links)


def test_what_is_new_leaves_the_others_in_order() -> None:
    nodes, links = items(build(shop()))
    before = laid(nodes, links)["places"]
    new = {"id": "service:shop/new", "group": "shop", "first": False}
    link = {"id": "to the new", "source": "service:shop/frontend", "target": new["id"]}
    after = laid([*nodes, new], [*links, link], before)
    check([*nodes, new], [*links, link], after)
    for a, b in combinations(before, 2):
        old, now = before[a]["y"] - before[b]["y"], after["places"][a]["y"] - after["places"][b]["y"]
        if before[a]["x"] == before[b]["x"]:
            assert old * now > 0, f"{a} and {b} changed places"
    again = laid([*nodes, new], [*links, link], after["places"])
    assert again["places"].keys() == after["places"].keys()


def test_any_graph_at_all() -> None:
    """Cycles, loops, islands, lines twice: nothing overlaps, and none takes for ever."""
    calls: list[tuple[str, Json]] = []
    for seed in range(40):
        throw = random.Random(seed)
        count = throw.choice((1, 2, 5, 12, 40, 90))
        nodes = [
            {
                "id": f"n{number}",
                "group": throw.choice(("", "a", "b", "c", "d")),
                "first": throw.random() < 0.05,
            }
            for number in range(count)
        ]
        links = [
            {"id": f"l{number}", "source": throw.choice(nodes)["id"], "target": throw.choice(nodes)["id"]}
            for number in range(throw.randrange(0, count * 2))
        ]
        calls.append((LAYOUT, {"nodes": nodes, "links": links, "previous": None}))
    for (_, given), found in zip(calls, run(*calls), strict=True):
        check(given["nodes"], given["links"], found)


def test_axes_and_lines_of_charts() -> None:
    code = """
      return {
        ticks: scale.ticks(0, 87, 3),
        share: scale.ticks(0.9, 1, 3).map((value) => Math.round(value * 1000) / 1000),
        nothing: scale.ticks(0, 0, 3),
        times: scale.timeTicks(0, 3600000, 6).length,
        gap: scale.linePath([1, null, 2, 3], (place) => place, (value) => value),
        area: scale.areaPath([1, 2, null, 3], (place) => place, (value) => value, 9),
        words: [[0.9996, "share"], [1, "share"], [1234.5, "rate"], [1500, "ms"]].map(([value, unit]) =>
          scale.figure(value, unit)),
      };
    """
    (found,) = run((code, {}))
    assert found["ticks"] == [0, 50, 100]
    assert found["share"] == [0.9, 0.95, 1.0]
    assert found["nothing"] == [0, 1]
    assert 3 <= found["times"] <= 7
    assert found["gap"] == "M0.0 1.0h.01M2.0 2.0L3.0 3.0"
    assert found["area"] == "M0.0 9L0.0 1.0L1.0 2.0L1.0 9ZM3.0 9L3.0 3.0L3.0 9Z"
    assert found["words"] == ["99.96 %", "100 %", "1,235", "1.50 s"]
