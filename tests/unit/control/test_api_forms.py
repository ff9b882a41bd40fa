from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from weft.compile.world import World
from weft.control.api.discovery import groups
from weft.control.api.negotiate import discovery_form, form_of
from weft.control.api.resources import warning_value
from weft.control.api.selectors import field_selector, label_selector
from weft.control.api.status import ApiError
from weft.control.api.table import age, look, render_list, renderer
from weft.control.cells import cells
from weft.model.catalog import KINDS, by_kind


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app=reviews", True),
        ("app==reviews", True),
        ("app!=reviews", False),
        ("app!=ratings", True),
        ("missing!=x", True),
        ("app in (ratings, reviews)", True),
        ("app notin (ratings,reviews)", False),
        ("missing notin (a)", True),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("!app", False),
        ("app=reviews,version in (v1,v2),!canary", True),
        ("app=reviews,version=v2", False),
        ("example.com/tier=", True),
    ],
)
def test_label_selector(text: str, selected: bool) -> None:
    labels = {"app": "reviews", "version": "v1", "example.com/tier": ""}
    assert label_selector(text)({"metadata": {"labels": labels}}) is selected


@pytest.mark.parametrize("text", ["app in reviews", "=x", "a=b=c", "app>3", "a,,b"])
def test_label_selector_that_is_none(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        label_selector(text)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("metadata.name=a", True),
        ("metadata.name==b", False),
        ("metadata.name!=b,metadata.namespace=default", True),
    ],
)
def test_field_selector(text: str, selected: bool) -> None:
    assert field_selector(text)({"metadata": {"name": "a", "namespace": "default"}}) is selected


def test_field_selector_refuses_other_fields() -> None:
    with pytest.raises(ApiError, match="not supported"):
        field_selector("spec.hosts=a")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "Object"),
        ("*/*", "Object"),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", "Object"),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "Metadata"),
        ("application/vnd.kubernetes.protobuf,application/json", "Object"),
        ("application/json;q=0.1,application/json;as=Table;g=meta.k8s.io;v=v1;q=0.9", "Table"),
    ],
)
def test_the_form_that_a_client_prefers(accept: str, form: str) -> None:
    assert form_of(accept) == form


def test_protobuf_alone_is_not_acceptable() -> None:
    with pytest.raises(ApiError) as refused:
        form_of("application/vnd.kubernetes.protobuf")
    assert refused.value.code == 406


def test_discovery_form() -> None:
    both = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList,application/json"
    assert discovery_form(both.format("v2")) == "v2"
    assert discovery_form(both.format("v2beta1")) == "v2beta1"
    assert discovery_form(both.format("v3")) is None
    assert discovery_form("application/json") is None


def test_groups_are_in_the_order_of_an_api_server() -> None:
    """The first group that knows a word has it: ``kubectl get gateway`` means the Gateway API's."""
    names = list(groups())
    own = ["authentication.k8s.io", "authorization.k8s.io", "discovery.k8s.io", "rbac.authorization.k8s.io"]
    assert names[:4] == own
    assert names[4:] == sorted(names[4:])
    assert names.index("gateway.networking.k8s.io") < names.index("networking.istio.io")


# k8s.io/apimachinery/pkg/util/duration: HumanDuration.
@pytest.mark.parametrize(
    ("since", "text"),
    [
        (timedelta(seconds=-3), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(seconds=302), "5m2s"),
        (timedelta(minutes=10, seconds=5), "10m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=4, minutes=7), "4h7m"),
        (timedelta(hours=47), "47h"),
        (timedelta(days=2), "2d"),
        (timedelta(days=3, hours=5), "3d5h"),
        (timedelta(days=9, hours=5), "9d"),
        (timedelta(days=800), "2y70d"),
        (timedelta(days=365 * 9), "9y"),
    ],
)
def test_age(since: timedelta, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert age((now - since).strftime("%Y-%m-%dT%H:%M:%SZ"), now) == text


def test_the_path_of_every_column_is_understood() -> None:
    paths = [column.path for row in KINDS for column in row.columns]
    assert len(paths) > 20
    for path in paths:
        assert list(look({}, path)) == []


def test_look() -> None:
    wire = {"status": {"conditions": [{"type": "A", "status": "x"}, {"type": "B", "status": "y"}]}}
    assert list(look(wire, '.status.conditions[?(@.type=="B")].status')) == ["y"]
    assert list(look(wire, ".status.conditions[*].type")) == ["A", "B"]
    with pytest.raises(ValueError, match="not a path"):
        list(look(wire, ".a..b"))


def test_a_warning_is_one_quoted_ascii_line() -> None:
    assert warning_value('say "hi"\n \\ → ü') == '299 - "say \\"hi\\" \\\\ ? ?"'


@pytest.mark.parametrize(
    ("wire", "ready"),
    [
        ({"spec": {}}, "0/1"),
        ({"spec": {"replicas": 3}, "status": {"readyReplicas": 2}}, "2/3"),
    ],
)
def test_replicas_are_counted_out_of_those_that_shall_be(wire: dict[str, Any], ready: str) -> None:
    row = by_kind("weft.dev/v1alpha1", "Workload")
    assert row is not None
    shown = renderer(row, "Table", "None")({"metadata": {"name": "web"}, **wire}, True)
    columns = [column["name"] for column in shown["columnDefinitions"]]
    assert shown["rows"][0]["cells"][columns.index("Ready")] == ready


@pytest.mark.parametrize(
    ("spec", "address", "kind"),
    [
        ({}, "240.240.1.2", "ClusterIP"),
        ({"clusterIP": "None"}, "None", "ClusterIP"),
        ({"clusterIP": "10.0.0.1", "type": "NodePort"}, "10.0.0.1", "NodePort"),
        ({"type": "ExternalName", "externalName": "example.com"}, None, "ExternalName"),
    ],
)
def test_a_service_shows_the_address_that_its_name_has(
    spec: dict[str, Any], address: str | None, kind: str
) -> None:
    row = by_kind("v1", "Service")
    assert row is not None
    world = World.build(vips={("shop", "web"): "240.240.1.2"})
    wire = {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}
    shown = render_list(row, "v1", [wire], {}, "Table", "Object", cells(lambda: world))
    columns = [column["name"] for column in shown["columnDefinitions"]]
    line = shown["rows"][0]
    assert line["cells"][columns.index("Cluster-IP")] == address
    assert line["cells"][columns.index("Type")] == kind
    assert line["object"] == wire
