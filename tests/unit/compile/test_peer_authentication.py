"""Which PeerAuthentication holds for a workload: width, age, inheritance, ports. After Istio's own cases."""

from __future__ import annotations

import pytest
from tests.support.compiled import identity, resources, world

from weft.compile.inbound import PeerMode
from weft.compile.istio.peer_authentication import peer_modes
from weft.compile.proxy import compile_proxy
from weft.model.peer_authentication import PeerAuthentication

ROOT = "istio-system"
LABELS = frozenset({("app", "web"), ("version", "v1")})
S, P, D = PeerMode.STRICT, PeerMode.PERMISSIVE, PeerMode.DISABLE


def rule(
    namespace: str, mode: str | None, *, day: int = 1, name: str = "", selector: str = "", ports: str = ""
) -> str:
    """One, made on a day of May; ``mode`` None leaves mtls out."""
    spec = [f"mtls: {{mode: {mode}}}"] if mode else []
    spec += [f"selector: {{matchLabels: {selector}}}"] if selector else []
    spec += [f"portLevelMtls: {ports}"] if ports else []
    return f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: {name or f"r{day}"}
  namespace: {namespace}
  creationTimestamp: "2026-05-{day:02}T00:00:00Z"
spec: {{{", ".join(spec)}}}
"""


WEB, OTHER = "{app: web}", "{app: other}"
CASES: dict[str, tuple[list[str], PeerMode, dict[int, PeerMode]]] = {
    "nothing": ([], P, {}),
    "mesh": ([rule(ROOT, "STRICT")], S, {}),
    "mesh, unset": ([rule(ROOT, "UNSET")], P, {}),
    "mesh, without mtls": ([rule(ROOT, None)], P, {}),
    "mesh, disabled": ([rule(ROOT, "DISABLE")], D, {}),
    "namespace before mesh": ([rule(ROOT, "STRICT"), rule("shop", "DISABLE")], D, {}),
    "namespace before mesh, though younger": (
        [rule(ROOT, "STRICT", day=1), rule("shop", "PERMISSIVE", day=9)], P, {},
    ),
    "namespace unset asks the mesh": ([rule(ROOT, "STRICT"), rule("shop", "UNSET")], S, {}),
    "namespace without mtls asks the mesh": ([rule(ROOT, "DISABLE"), rule("shop", None)], D, {}),
    "another namespace": ([rule("bank", "STRICT")], P, {}),
    "workload before namespace": (
        [rule(ROOT, "STRICT"), rule("shop", "STRICT"), rule("shop", "DISABLE", selector=WEB)], D, {},
    ),
    "workload unset asks the namespace": (
        [rule("shop", "STRICT"), rule("shop", "UNSET", selector=WEB)], S, {},
    ),
    "workload without mtls asks the mesh": ([rule(ROOT, "STRICT"), rule("shop", None, selector=WEB)], S, {}),
    "another workload": ([rule("shop", "STRICT", selector=OTHER)], P, {}),
    "all labels must be there": ([rule("shop", "STRICT", selector="{app: web, tier: x}")], P, {}),
    "an empty selector is the namespace": ([rule("shop", "STRICT", selector="{}")], S, {}),
    "a selector in the root namespace is for nobody": ([rule(ROOT, "STRICT", selector=WEB)], P, {}),
    "the oldest of the mesh": ([rule(ROOT, "DISABLE", day=3), rule(ROOT, "STRICT", day=2)], S, {}),
    "the oldest of the mesh, unset": ([rule(ROOT, "STRICT", day=3), rule(ROOT, "UNSET", day=2)], P, {}),
    "the oldest of the namespace": ([rule("shop", "DISABLE", day=3), rule("shop", "STRICT", day=2)], S, {}),
    "the oldest of the namespace, unset": (
        [rule(ROOT, "DISABLE"), rule("shop", "STRICT", day=3), rule("shop", "UNSET", day=2)], D, {},
    ),
    "the oldest of the workload": (
        [rule("shop", "DISABLE", day=3, selector=WEB), rule("shop", "STRICT", day=2, selector=WEB)], S, {},
    ),
    "the oldest of the workload, unset": (
        [rule("shop", "STRICT", day=3, selector=WEB), rule("shop", "UNSET", day=2, selector=WEB)], P, {},
    ),
    "of the same age the first by name": (
        [rule("shop", "DISABLE", name="b"), rule("shop", "STRICT", name="a")], S, {},
    ),
    "ports": (
        [rule("shop", "STRICT", selector=WEB, ports="{80: {mode: DISABLE}, 90: {mode: PERMISSIVE}}")],
        S, {80: D, 90: P, 70: S},
    ),
    "ports without a mode of the workload": (
        [rule(ROOT, "STRICT"), rule("shop", None, selector=WEB, ports="{80: {mode: DISABLE}}")],
        S, {80: D, 70: S},
    ),
    "a port unset asks the workload": (
        [rule(ROOT, "DISABLE"), rule("shop", "STRICT", selector=WEB, ports="{80: {mode: UNSET}, 90: {}}")],
        S, {80: S, 90: S},
    ),
    "a port unset asks through to the mesh": (
        [rule(ROOT, "STRICT"), rule("shop", "UNSET", selector=WEB, ports="{80: {mode: UNSET}}")],
        S, {80: S},
    ),
    "ports of the oldest only": (
        [
            rule("shop", "STRICT", day=2, selector=WEB),
            rule("shop", "DISABLE", day=3, selector=WEB, ports="{80: {mode: DISABLE}}"),
        ],
        S, {80: S},
    ),
}  # fmt: skip


def modes(texts: list[str], namespace: str) -> tuple[PeerMode, dict[int, PeerMode]]:
    rules = tuple(one for one in resources(*texts) if isinstance(one, PeerAuthentication))
    found = peer_modes(rules, namespace, LABELS, ROOT)
    return found.default, {port: found.of(port) for port in (70, 80, 90)}


@pytest.mark.parametrize(("texts", "default", "ports"), CASES.values(), ids=CASES.keys())
def test_the_mode_of_a_workload(texts: list[str], default: PeerMode, ports: dict[int, PeerMode]) -> None:
    for order in (texts, texts[::-1]):
        found, by_port = modes(order, "shop")
        assert (found, {port: by_port[port] for port in ports}) == (default, ports)


def test_in_the_root_namespace_the_meshs_rule_holds_and_no_other() -> None:
    texts = [
        rule(ROOT, "STRICT", day=2),
        rule(ROOT, "DISABLE", day=1, selector=WEB, ports="{80: {mode: DISABLE}}"),
    ]
    assert modes(texts, ROOT) == (S, {70: S, 80: S, 90: S})


def test_rules_that_are_for_nobody_are_told() -> None:
    of = world(
        rule(ROOT, "STRICT", day=1, name="mesh"),
        rule(ROOT, "STRICT", day=2, name="selects", selector=WEB),
        rule("shop", "STRICT", day=3, name="first"),
        rule("shop", "DISABLE", day=4, name="second"),
        rule("shop", "DISABLE", day=5, name="workload", selector=WEB),
    )
    _, problems = compile_proxy(of, identity("sidecar~10.0.0.1~web-0.shop", dict(LABELS)))
    assert [(one.code, one.resource, one.path) for one in problems] == [
        ("WEFT0102", f"PeerAuthentication {ROOT}/selects", "spec.selector"),
        ("WEFT0111", "PeerAuthentication shop/second", "metadata.name"),
    ]
