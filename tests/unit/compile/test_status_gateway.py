"""Status of GatewayClasses, Gateways and their listeners, as the Gateway API words it."""

# ruff: noqa: E501  (resources stand on one line)

from __future__ import annotations

import pytest
from tests.support.compiled import proxy, service, world
from tests.support.judged import authorities, gateway, listeners, route, secret, status, verdicts

from weft.compile.gatewayapi.status import Waiting, statuses
from weft.model.gateway_class import GatewayClassStatus
from weft.model.resource import Key

EDGE = Key("gateway.networking.k8s.io/Gateway", "default", "edge")
WEB = service("web", 80)
ROUTER, LABELS = "router~10.0.0.3~edge-1.default", {"gateway.networking.k8s.io/gateway-name": "edge"}


def gateway_class(more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: weft, generation: 7}}
spec: {{controllerName: weft.dev/gateway-controller{more}}}
"""


def test_a_class_of_ours_is_accepted_and_lists_its_features() -> None:
    said = status(world(gateway_class()), "GatewayClass", "weft", "")
    assert verdicts(said["conditions"]) == {
        "Accepted": "Accepted",
        "SupportedVersion": "SupportedVersion",
    }
    assert {item["observedGeneration"] for item in said["conditions"]} == {7}
    names = [item["name"] for item in said["supportedFeatures"]]
    assert names == sorted(set(names))
    assert {"Gateway", "HTTPRoute", "ReferenceGrant"} <= set(names)
    dated = [{**item, "lastTransitionTime": "2026-01-01T00:00:00Z"} for item in said["conditions"]]
    GatewayClassStatus.model_validate({**said, "conditions": dated})


def test_a_class_that_asks_for_parameters_is_refused() -> None:
    of = world(gateway_class(", parametersRef: {group: example.com, kind: Config, name: c}"))
    said = status(of, "GatewayClass", "weft", "")
    assert verdicts(said["conditions"])["Accepted"] == "!InvalidParameters"


def test_a_class_of_another_controller_is_its_own_to_judge() -> None:
    alien = gateway_class().replace("weft.dev/gateway-controller", "example.com/other")
    assert statuses(world(alien, gateway()).gateway_facts) == {}


HTTP = "{name: http, port: 80, protocol: HTTP}"
HTTPS = (
    "{{name: tls, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {{certificateRefs: [{refs}]}}}}"
)
FINE = {"Accepted": "Accepted", "Conflicted": "!NoConflicts", "Programmed": "Programmed", "ResolvedRefs": "ResolvedRefs"}  # fmt: skip


@pytest.mark.parametrize(
    ("made", "wanted", "each"),
    [
        (f"[{HTTP}]", {"Accepted": "Accepted", "Programmed": "Programmed", "ResolvedRefs": "ResolvedRefs"}, {"http": FINE}),
        (
            f"[{HTTP}, {HTTPS.format(refs='{name: nobody}')}]",
            {"Accepted": "ListenersNotValid", "Programmed": "Programmed", "ResolvedRefs": "!ListenersNotResolved"},
            {"http": FINE, "tls": {**FINE, "Programmed": "!Invalid", "ResolvedRefs": "!InvalidCertificateRef"}},
        ),
        (
            f"[{HTTPS.format(refs='{name: cert, namespace: other}')}]",
            {"Accepted": "!ListenersNotValid", "Programmed": "!Invalid", "ResolvedRefs": "!ListenersNotResolved"},
            {"tls": {**FINE, "Programmed": "!Invalid", "ResolvedRefs": "!RefNotPermitted"}},
        ),
        (
            f"[{HTTPS.format(refs='{name: cert}')}]",
            {"Accepted": "Accepted", "Programmed": "Programmed", "ResolvedRefs": "ResolvedRefs"},
            {"tls": FINE},
        ),
        (
            "[{name: odd, port: 80, protocol: example.com/odd}]",
            {"Accepted": "!ListenersNotValid", "Programmed": "!Invalid", "ResolvedRefs": "ResolvedRefs"},
            {"odd": {**FINE, "Accepted": "!UnsupportedProtocol", "Programmed": "!Invalid"}},
        ),
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}, {name: c, port: 81, protocol: HTTP}]",
            {"Accepted": "ListenersNotValid", "Programmed": "Programmed", "ResolvedRefs": "ResolvedRefs"},
            {
                **{key: {**FINE, "Accepted": "!ProtocolConflict", "Conflicted": "ProtocolConflict", "Programmed": "!ProtocolConflict"} for key in "ab"},
                "c": FINE,
            },
        ),
        (
            "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}}]",
            {"Accepted": "!ListenersNotValid", "Programmed": "!Invalid", "ResolvedRefs": "!ListenersNotResolved"},
            {"a": {**FINE, "Programmed": "!Invalid", "ResolvedRefs": "!InvalidRouteKinds"}},
        ),
        (
            "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}]",
            {"Accepted": "Accepted", "Programmed": "Programmed", "ResolvedRefs": "!ListenersNotResolved"},
            {"a": {**FINE, "ResolvedRefs": "!InvalidRouteKinds"}},
        ),
    ],
)  # fmt: skip
def test_listeners_and_what_they_make_of_their_gateway(
    made: str, wanted: dict[str, str], each: dict[str, dict[str, str]]
) -> None:
    of = world(secret("cert"), secret("cert", "other"), gateway(made))
    said = status(of, "Gateway", "edge")
    assert verdicts(said["conditions"]) == wanted
    assert listeners(said) == each


def test_kinds_that_a_listener_takes() -> None:
    made = """[{name: http, port: 80, protocol: HTTP},
      {name: none, port: 81, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}},
      {name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}},
      {name: tcp, port: 90, protocol: TCP}, {name: udp, port: 90, protocol: UDP}]"""
    said = status(world(gateway(made)), "Gateway", "edge")
    kinds = {item["name"]: [kind["kind"] for kind in item["supportedKinds"]] for item in said["listeners"]}
    assert kinds == {
        "http": ["HTTPRoute", "GRPCRoute"],
        "none": [],
        "pass": ["TLSRoute"],
        "tcp": ["TCPRoute"],
        "udp": ["UDPRoute"],
    }


def test_listeners_whose_tls_hosts_meet_say_so() -> None:
    hosts = {
        "any": "*.example.com",
        "one": "one.example.com",
        "other": "example.org",
        "apart": "two.example.com",
    }
    ports = {"apart": 8443}
    made = ", ".join(
        f"{{name: {name}, port: {ports.get(name, 443)}, protocol: HTTPS, hostname: '{host}', tls: {{certificateRefs: [{{name: cert}}]}}}}"
        for name, host in hosts.items()
    )
    said = listeners(status(world(secret("cert"), gateway(f"[{made}]")), "Gateway", "edge"))
    assert {name: item.get("OverlappingTLSConfig") for name, item in said.items()} == {
        "any": "OverlappingHostnames",
        "one": "OverlappingHostnames",
        "other": None,
        "apart": None,
    }


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (", infrastructure: {parametersRef: {group: example.com, kind: Config, name: c}}", "!InvalidParameters"),
        (", infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: nobody}}", "!InvalidParameters"),
        (", infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: ca}}", "Accepted"),
        (", addresses: [{type: example.com/named, value: x}]", "!UnsupportedAddress"),
        (", addresses: [{value: 192.0.2.1}]", "Accepted"),
    ],
)  # fmt: skip
def test_what_a_gateway_as_a_whole_may_not_ask_for(more: str, wanted: str) -> None:
    of = world(authorities("ca"), gateway(more=more))
    said = status(of, "Gateway", "edge")
    assert verdicts(said["conditions"])["Accepted"] == wanted
    served = wanted == "Accepted"
    assert verdicts(said["conditions"])["Programmed"].startswith("Programmed" if served else "!")
    assert listeners(said) == {"http": FINE if served else {**FINE, "Programmed": "!Invalid"}}
    assert bool(proxy(of, ROUTER, labels=LABELS).listeners) is served


@pytest.mark.parametrize(
    ("asked", "addresses", "found", "programmed"),
    [
        ("[]", None, None, "Programmed"),
        ("[]", ("192.0.2.7",), [("IPAddress", "192.0.2.7")], "Programmed"),
        ("[{type: IPAddress}]", ("192.0.2.7",), [("IPAddress", "192.0.2.7")], "Programmed"),
        ("[{value: 192.0.2.7}]", None, [("IPAddress", "192.0.2.7")], "Programmed"),
        ("[{value: 192.0.2.7}]", ("192.0.2.7", "192.0.2.8"), [("IPAddress", "192.0.2.7")], "Programmed"),
        ("[{value: 192.0.2.9}]", ("192.0.2.7",), None, "!AddressNotUsable"),
        ("[{type: Hostname, value: web}]", None, [("Hostname", "web.default.svc.cluster.local")], "Programmed"),
        ("[{type: Hostname, value: web.default.svc.cluster.local}]", ("192.0.2.7",), [("IPAddress", "192.0.2.7"), ("Hostname", "web.default.svc.cluster.local")], "Programmed"),
        ("[{type: Hostname, value: nobody}]", None, None, "!AddressNotUsable"),
        ("[{type: Hostname, value: other}]", None, None, "!AddressNotUsable"),
    ],
)  # fmt: skip
def test_addresses(
    asked: str, addresses: tuple[str, ...] | None, found: list[tuple[str, str]] | None, programmed: str
) -> None:
    of = world(WEB, service("other", 81), gateway(more=f", addresses: {asked}"))
    given = None if addresses is None else {EDGE: addresses}
    said = statuses(of.gateway_facts, addresses=given)[EDGE]
    shown = [(item["type"], item["value"]) for item in said.get("addresses", ())]
    assert shown == (found or [])
    assert verdicts(said["conditions"])["Programmed"] == programmed


def test_a_gateway_whose_proxy_is_late_is_accepted_and_pending() -> None:
    late = Waiting("Pending", "the proxy has not taken this Gateway yet")
    said = statuses(world(gateway()).gateway_facts, waiting={EDGE: late})[EDGE]
    assert verdicts(said["conditions"])["Programmed"] == "!Pending"
    assert listeners(said)["http"] == {**FINE, "Programmed": "!Pending"}


FRONTEND = ", tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{ref}]{more}}}}}}}}}"


@pytest.mark.parametrize(
    ("ref", "accepted", "resolved"),
    [
        ("{group: '', kind: ConfigMap, name: ca}", "Accepted", "ResolvedRefs"),
        ("{group: '', kind: ConfigMap, name: nobody}", "!NoValidCACertificate", "!InvalidCACertificateRef"),
        ("{group: x.io, kind: Bundle, name: ca}", "!NoValidCACertificate", "!InvalidCACertificateKind"),
        ("{group: '', kind: ConfigMap, name: ca, namespace: other}", "!NoValidCACertificate", "!RefNotPermitted"),
    ],
)  # fmt: skip
def test_whom_clients_must_be_known_to(ref: str, accepted: str, resolved: str) -> None:
    made = f"[{HTTP}, {HTTPS.format(refs='{name: cert}')}]"
    more = FRONTEND.format(ref=ref, more="")
    said = status(world(secret("cert"), authorities("ca"), gateway(made, more)), "Gateway", "edge")
    own = listeners(said)
    assert own["http"] == FINE
    assert (own["tls"]["Accepted"], own["tls"]["ResolvedRefs"]) == (accepted, resolved)
    assert own["tls"]["Programmed"] == ("Programmed" if accepted == "Accepted" else "!Invalid")


def test_clients_that_need_no_certificate_are_warned_of() -> None:
    made = f"[{HTTPS.format(refs='{name: cert}')}]"
    ref = "{group: '', kind: ConfigMap, name: ca}"
    of = world(
        secret("cert"),
        authorities("ca"),
        gateway(made, FRONTEND.format(ref=ref, more=", mode: AllowInsecureFallback")),
    )
    said = verdicts(status(of, "Gateway", "edge")["conditions"])
    assert said["InsecureFrontendValidationMode"] == "ConfigurationChanged"


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ("{name: cert}", "ResolvedRefs"),
        ("{name: nobody}", "!InvalidClientCertificateRef"),
        ("{name: cert, kind: ConfigMap}", "!InvalidClientCertificateRef"),
        ("{name: cert, namespace: other}", "!RefNotPermitted"),
    ],
)
def test_the_certificate_that_backends_are_shown(ref: str, wanted: str) -> None:
    of = world(
        secret("cert"),
        secret("cert", "other"),
        gateway(more=f", tls: {{backend: {{clientCertificateRef: {ref}}}}}"),
    )
    said = verdicts(status(of, "Gateway", "edge")["conditions"])
    assert (said["ResolvedRefs"], said["Accepted"]) == (wanted, "Accepted")


def test_attached_routes_are_those_that_are_accepted() -> None:
    made = """[{name: one, port: 80, protocol: HTTP, hostname: one.example.com},
      {name: two, port: 80, protocol: HTTP, hostname: two.example.com},
      {name: tcp, port: 90, protocol: TCP}]"""
    of = world(
        gateway(made),
        route(name="both", hostnames='["*.example.com"]'),
        route(
            name="one",
            parentRefs="[{name: edge, sectionName: one, port: 80}, {name: edge, sectionName: tcp, port: 90}]",
        ),
        route(name="none", hostnames="[example.org]"),
        route("TCPRoute", name="tcp", rules="[{backendRefs: [{name: web, port: 80}]}]"),
    )
    said = status(of, "Gateway", "edge")
    counts = {item["name"]: item["attachedRoutes"] for item in said["listeners"]}
    assert counts == {"one": 2, "two": 1, "tcp": 1}
