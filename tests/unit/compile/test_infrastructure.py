"""Labels and annotations of a Gateway's proxy."""

from __future__ import annotations

from tests.support.compiled import proxy, world

from weft.compile.gatewayapi.gateway_flaws import problems
from weft.compile.gatewayapi.infrastructure import annotations_of, labels_of, parameters_flaw
from weft.compile.world import World
from weft.model.core import ConfigMap
from weft.model.gateway import Gateway

ROOT = "istio-system"
REF = "parametersRef: {group: '', kind: ConfigMap, name: more}"


def gateway(infrastructure: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, labels: {{own: label}}, annotations: {{own: note}}}}
spec:
  gatewayClassName: weft
  {infrastructure}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


def config_map(deployment: str, *, name: str = "more", namespace: str = "default", rest: str = "") -> str:
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}, labels: {{gateway.istio.io/defaults-for-class: weft}}}}
data:
  deployment: "{deployment}"
{rest}
"""


def borne(of: World) -> tuple[dict[str, str], dict[str, str]]:
    (one,), maps = of.all(Gateway).values(), of.all(ConfigMap)
    return labels_of(one, maps, ROOT), annotations_of(one, maps, ROOT)


def test_a_gateway_s_own_are_borne_unless_infrastructure_has_others() -> None:
    assert borne(world(gateway())) == ({"own": "label"}, {"own": "note"})
    assert borne(world(gateway("infrastructure: {labels: {a: b}}"))) == ({"a": "b"}, {"own": "note"})
    assert borne(world(gateway("infrastructure: {annotations: {}}"))) == ({"own": "label"}, {})


def test_config_maps_complete_them_the_gateway_s_last() -> None:
    of_class = config_map(
        "spec: {template: {metadata: {labels: {a: class, b: class}}}}", name="all", namespace=ROOT
    )
    own = config_map("spec: {template: {metadata: {labels: {b: own}, annotations: {note: own}}}}")
    labels, notes = borne(world(gateway(f"infrastructure: {{{REF}}}"), of_class, own))
    assert labels == {"own": "label", "a": "class", "b": "own"}
    assert notes == {"own": "note", "note": "own"}
    assert borne(world(gateway(), of_class, own))[0] == {"own": "label", "a": "class", "b": "class"}


def test_what_of_a_config_map_has_no_effect_is_told() -> None:
    own = config_map(
        "spec: {replicas: 4, template: {metadata: {labels: {b: own}}}}", rest="  service: 'spec: {}'"
    )
    of = world(gateway(f"infrastructure: {{{REF}}}"), own)
    said = [problem.message for problem in problems(of.gateway_facts)]
    assert [message.split(": ")[1].split(" in ")[0] for message in said] == [
        "deployment.spec.replicas",
        "service",
    ]


def test_a_config_map_that_cannot_be_read_is_an_invalid_parameter() -> None:
    of = world(gateway(f"infrastructure: {{{REF}}}"), config_map("[1"))
    (one,) = of.all(Gateway).values()
    assert "no YAML object" in parameters_flaw(one, of.all(ConfigMap))
    labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
    assert not proxy(of, "router~10.0.0.3~edge.default", labels=labels).listeners
