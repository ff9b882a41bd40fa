"""Namespaces that the mesh looks at, and ServiceEntries that may not be seen as widely as they ask."""

from __future__ import annotations

import pytest
from tests.support.compiled import resources, service, world

from weft.compile.discovery import capped
from weft.compile.world import World
from weft.model.resource import Key
from weft.model.service import Service


def space(name: str, **labels: str) -> str:
    return f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {labels or "{}"}}}
"""


def mesh(spec: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: default, namespace: istio-system}}
spec: {{{spec}}}
"""


def entry(namespace: str, export: str = "") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: {namespace}}}
spec:
  hosts: [ext.{namespace}.example]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: DNS
  {export}
"""


SELECTING = mesh(
    "discoverySelectors: [{matchLabels: {mesh: 'yes'}}, {matchLabels: {kubernetes.io/metadata.name: c}}]"
)
ALL = (space("a", mesh="yes"), space("b"), service("one", namespace="a"), service("two", namespace="b"))


def hosts(of: World) -> set[str]:
    return {host.split(".", maxsplit=1)[0] for host in of.services.by_host}


def test_only_chosen_namespaces_are_looked_at() -> None:
    of = world(SELECTING, *ALL, service("three", namespace="c"))
    assert hosts(of) == {"one", "three"}
    assert {key.name for key in of.all(Service)} == {"one", "three"}
    assert ("b", "two") not in of.vips
    unseen = Key("/Service", "b", "two")
    assert unseen in of.held(Service)
    assert {unseen} <= of.keys()


def test_a_label_and_a_selector_may_change() -> None:
    of = world(*ALL)
    assert hosts(of) == {"one", "two"}
    chosen = of.replace(resources(SELECTING))
    assert hosts(chosen) == {"one"}
    both = chosen.replace(resources(space("b", mesh="yes")))
    assert hosts(both) == {"one", "two"}
    again = both.replace(resources(space("b")))
    assert hosts(again) == {"one"}
    added = again.replace(resources(service("late", namespace="b"), service("new", namespace="a")))
    assert hosts(added) == {"one", "new"}
    free = added.replace(removed=[Key("weft.dev/MeshConfig", "istio-system", "default")])
    assert hosts(free) == {"one", "two", "late", "new"}
    assert hosts(free.replace(removed=[Key("/Service", "b", "two")])) == {"one", "late", "new"}


def test_what_is_built_at_once_equals_what_was_changed_step_by_step() -> None:
    at_once, stepwise = world(SELECTING, *ALL), world()
    for text in (*ALL, SELECTING):
        stepwise = stepwise.replace(resources(text))
    assert at_once.services.by_host.keys() == stepwise.services.by_host.keys()


RULE = (
    "serviceEntryVisibility: {{applyToSidecars: {applied}, defaultVisibility: {default}, "
    "policies: [{{visibility: PUBLIC, "
    "matchingRules: [{{namespaceSelector: {{matchLabels: {{team: net}}}}}}]}}]}}"
)


@pytest.mark.parametrize(
    ("default", "applied", "seen"),
    [
        ("NAMESPACE", "true", {"net", "own"}),
        ("NONE", "true", {"net"}),
        ("PUBLIC", "true", {"net", "own", "other"}),
        ("NONE", "false", {"net", "own", "other"}),
    ],
)
def test_entries_are_no_wider_than_their_namespace_may(default: str, applied: str, seen: set[str]) -> None:
    spaces = (space("net", team="net"), space("own"), space("other"))
    rule = mesh(RULE.format(default=default, applied=applied))
    of = world(rule, *spaces, entry("net"), entry("own"), entry("other"))
    view = of.view("own")
    assert {service.namespace for service in view.services} == seen
    assert hosts(world(rule, service("kept", namespace="own"))) == {"kept"}


def test_policies_follow_labels() -> None:
    rule = mesh(RULE.format(default="NAMESPACE", applied="true"))
    of = world(rule, space("a"), entry("a"))
    assert not of.view("b").services
    assert of.replace(resources(space("a", team="net"))).view("b").services


@pytest.mark.parametrize(
    ("asked", "cap", "made"),
    [
        (("*",), "NAMESPACE", (".",)),
        (("own",), "NAMESPACE", (".",)),
        (("b",), "NAMESPACE", ("~",)),
        (("~",), "NAMESPACE", ("~",)),
        (("b",), "NONE", ("~",)),
        (("b",), "PUBLIC", ("b",)),
    ],
)
def test_a_cap_only_narrows(asked: tuple[str, ...], cap: str, made: tuple[str, ...]) -> None:
    assert capped(asked, "own", {"own": cap}) == made
