from __future__ import annotations

import copy
from typing import Any

import pytest

from weft.control.api.patch import json_patch, merge_patch, strategic_merge, three_way
from weft.control.api.status import ApiError


# The examples of RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == result
    assert target == before


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2]}),
        ([{"op": "add", "path": "/a/-", "value": 9}], {"a": [1, 2, 9]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a/1", "value": 9}], {"a": [1, 9]}),
        ([{"op": "move", "from": "/a", "path": "/x"}], {"x": [1, 2]}),
        ([{"op": "copy", "from": "/a/0", "path": "/x"}], {"a": [1, 2], "x": 1}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
        ([{"op": "add", "path": "/x~1y~0", "value": 1}], {"a": [1, 2], "x/y~": 1}),
        ([{"op": "replace", "path": "", "value": {"z": 1}}], {"z": 1}),
    ],
)
def test_json_patch(operations: list[Any], result: Any) -> None:
    target = {"a": [1, 2]}
    assert json_patch(target, operations) == result
    assert target == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "remove", "path": "/b"}], 422),
        ([{"op": "test", "path": "/a/0", "value": 2}], 422),
        ([{"op": "test", "path": "/a/0", "value": True}], 422),
        ([{"op": "add", "path": "/a/7", "value": 2}], 422),
        ([{"op": "replace", "path": "/b", "value": 2}], 422),
        ([{"op": "add", "path": "/a/01", "value": 2}], 422),
        ([{"op": "add", "path": "b", "value": 2}], 400),
        ([{"op": "jump", "path": "/b"}], 400),
        ([{"op": "add", "path": "/b"}], 400),
        ({"op": "add"}, 400),
    ],
)
def test_json_patch_that_does_not_fit(operations: Any, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        json_patch({"a": [1, 2]}, operations)
    assert refused.value.code == code


SERVICE = {
    "metadata": {"name": "a", "labels": {"app": "a"}, "finalizers": ["x"]},
    "spec": {
        "ports": [{"port": 80, "name": "http", "targetPort": 8080}, {"port": 443, "name": "https"}],
        "selector": {"app": "a"},
    },
}


def ports(patch: list[Any], **more: Any) -> Any:
    return strategic_merge("Service", SERVICE, {"spec": {"ports": patch, **more}})["spec"]["ports"]


def test_strategic_merge_joins_ports_by_number() -> None:
    assert ports([{"port": 80, "targetPort": 9090}, {"port": 81}]) == [
        {"port": 80, "name": "http", "targetPort": 9090},
        {"port": 443, "name": "https"},
        {"port": 81},
    ]


def test_strategic_merge_deletes_and_replaces_elements() -> None:
    assert ports([{"port": 80, "$patch": "delete"}]) == [{"port": 443, "name": "https"}]
    assert ports([{"port": 1}, {"$patch": "replace"}]) == [{"port": 1}]


def test_strategic_merge_keeps_the_order_that_is_asked_for() -> None:
    order = {"$setElementOrder/ports": [{"port": 443}, {"port": 80}]}
    assert [port["port"] for port in ports([{"port": 80, "name": "web"}], **order)] == [443, 80]


def test_strategic_merge_of_maps_and_plain_lists() -> None:
    patch = {
        "metadata": {"labels": {"app": None, "x": "y"}, "finalizers": ["y"]},
        "spec": {"selector": {"$patch": "replace", "only": "this"}},
    }
    result = strategic_merge("Service", SERVICE, patch)
    assert result["metadata"] == {"name": "a", "labels": {"x": "y"}, "finalizers": ["x", "y"]}
    assert result["spec"]["selector"] == {"only": "this"}
    gone = strategic_merge("Service", SERVICE, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}})
    assert gone["metadata"]["finalizers"] == []


def test_strategic_merge_is_refused_for_other_kinds() -> None:
    with pytest.raises(ApiError) as refused:
        strategic_merge("networking.istio.io/VirtualService", {}, {})
    assert refused.value.code == 415


def test_three_way_removes_only_what_was_applied_before() -> None:
    last = {"spec": {"a": 1, "b": {"c": 1, "d": 1}}}
    live = {"spec": {"a": 1, "b": {"c": 1, "d": 1, "by-others": 1}}, "status": {"ok": True}}
    desired = {"spec": {"b": {"c": 2}}}
    assert three_way(last, live, desired) == {
        "spec": {"b": {"c": 2, "by-others": 1}},
        "status": {"ok": True},
    }


def test_three_way_takes_null_as_removal() -> None:
    assert three_way({}, {"a": 1, "b": 1}, {"a": None}) == {"b": 1}
