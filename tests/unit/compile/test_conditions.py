"""A status laid over an earlier one: times, order, and what belongs to others."""

from __future__ import annotations

from typing import Any

from weft.compile.gatewayapi.conditions import merged

OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
OURS = frozenset({"weft.dev/gateway-controller"})


def one(kind: str, holds: str = "True", **more: str) -> dict[str, Any]:
    return {"type": kind, "status": holds, "reason": kind, "message": "", "observedGeneration": 1, **more}


def test_a_condition_keeps_its_time_while_its_status_is_the_same() -> None:
    first = merged({"conditions": [one("Accepted"), one("Programmed")]}, None, OLD, OURS, "a")
    assert {item["lastTransitionTime"] for item in first["conditions"]} == {OLD}
    changed = {"conditions": [one("Accepted", reason="Other"), one("Programmed", "False")]}
    second = merged(changed, first, NEW, OURS, "a")
    assert [(item["reason"], item["lastTransitionTime"]) for item in second["conditions"]] == [
        ("Other", OLD),
        ("Programmed", NEW),
    ]
    assert merged(changed, second, "2026-03-01T00:00:00Z", OURS, "a") == second


def test_conditions_of_others_stay_in_their_places_and_ours_go_when_they_are_over() -> None:
    theirs = one("example.com/Special", lastTransitionTime=OLD)
    before = {"conditions": [theirs, one("OverlappingTLSConfig"), one("Accepted", lastTransitionTime=OLD)]}
    made = merged({"conditions": [one("Programmed"), one("Accepted")]}, before, NEW, OURS, "a")
    assert [item["type"] for item in made["conditions"]] == ["example.com/Special", "Accepted", "Programmed"]
    assert made["conditions"][0] == theirs


def test_listeners_are_told_apart_by_name() -> None:
    before = {
        "listeners": [
            {"name": "b", "attachedRoutes": 3, "conditions": [one("Accepted", lastTransitionTime=OLD)]},
            {"name": "gone", "attachedRoutes": 0, "conditions": []},
        ]
    }
    new = {
        "listeners": [{"name": name, "attachedRoutes": 1, "conditions": [one("Accepted")]} for name in "ab"]
    }
    made = merged(new, before, NEW, OURS, "a")
    assert [
        (item["name"], item["attachedRoutes"], item["conditions"][0]["lastTransitionTime"])
        for item in made["listeners"]
    ] == [("a", 1, NEW), ("b", 1, OLD)]


def entry(ref: dict[str, Any], controller: str = "weft.dev/gateway-controller") -> dict[str, Any]:
    return {"parentRef": ref, "controllerName": controller, "conditions": [one("Accepted")]}


def test_entries_of_other_controllers_stay_and_stale_ones_of_ours_go() -> None:
    theirs = entry({"name": "theirs"}, "example.com/other")
    stale = entry({"name": "left"})
    full = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "a", "name": "edge"}
    kept = entry(full)
    kept["conditions"][0]["lastTransitionTime"] = OLD
    new = {"parents": [entry({"name": "more"}), entry({"name": "edge"})]}
    made = merged(new, {"parents": [stale, theirs, kept]}, NEW, OURS, "a")
    assert [item["parentRef"]["name"] for item in made["parents"]] == ["theirs", "edge", "more"]
    assert made["parents"][0] == theirs
    assert made["parents"][1]["conditions"][0]["lastTransitionTime"] == OLD
    assert merged({"parents": []}, made, NEW, OURS, "a") == {"parents": [theirs]}


def test_a_list_holds_no_more_than_the_api_takes() -> None:
    theirs = [
        {"ancestorRef": {"name": f"x{number}"}, "controllerName": "example.com/other", "conditions": []}
        for number in range(16)
    ]
    own = {
        "ancestorRef": {"name": "edge"},
        "controllerName": "weft.dev/mesh-controller",
        "conditions": [one("Accepted")],
    }
    assert merged({"ancestors": [own]}, {"ancestors": theirs}, NEW, OURS, "a") == {"ancestors": theirs}
    shown = merged({"ancestors": [own]}, {"ancestors": theirs[1:]}, NEW, OURS, "a")
    assert shown["ancestors"][-1]["ancestorRef"] == {"name": "edge"}
    assert merged({"ancestors": []}, shown, NEW, OURS, "a") == {"ancestors": theirs[1:]}
