"""What a world's resources are told in their status, for tests of it."""

from __future__ import annotations

from typing import Any

from tests.support.certificates import TestAuthority
from weft.compile.gatewayapi.status import statuses
from weft.compile.world import World
from weft.model.resource import Key

GROUP = "gateway.networking.k8s.io"
AUTHORITY = TestAuthority()


def status(of: World, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
    """The status of a resource of the Gateway API."""
    return statuses(of.gateway_facts)[Key(f"{GROUP}/{kind}", namespace, name)]


def verdicts(conditions: list[dict[str, Any]]) -> dict[str, str]:
    """``Reason`` or ``!Reason`` by the type of the condition, as it holds or not."""
    return {item["type"]: f"{'' if item['status'] == 'True' else '!'}{item['reason']}" for item in conditions}


def listeners(of: dict[str, Any]) -> dict[str, dict[str, str]]:
    """``verdicts`` of each listener of a status."""
    return {item["name"]: verdicts(item["conditions"]) for item in of["listeners"]}


def gateway(listeners: str = "[{name: http, port: 80, protocol: HTTP}]", more: str = "") -> str:
    """The Gateway ``edge`` of class ``weft``, as YAML."""
    return f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: edge}}
spec: {{gatewayClassName: weft, listeners: {listeners}{more}}}
"""


def route(kind: str = "HTTPRoute", name: str = "web", namespace: str = "default", **spec: str) -> str:
    """A route to the service ``web`` at the Gateway ``edge``, as YAML; ``spec`` adds or replaces fields."""
    fields = {
        "parentRefs": "[{name: edge}]",
        "rules": "[{backendRefs: [{name: web, port: 80}]}]",
        **spec,
    }
    body = "".join(f"\n  {field}: {value}" for field, value in fields.items())
    meta = f"{{name: {name}, namespace: {namespace}}}"
    return f"\napiVersion: {GROUP}/v1\nkind: {kind}\nmetadata: {meta}\nspec:{body}\n"


def secret(name: str, namespace: str = "default") -> str:
    """A Secret with a certificate, as YAML."""
    pair = AUTHORITY.issue("a.example.com")
    return _object(
        "Secret",
        name,
        namespace,
        f"stringData: {{tls.crt: {_text(pair.certificate)}, tls.key: {_text(pair.key)}}}",
    )


def authorities(name: str, namespace: str = "default") -> str:
    """A ConfigMap with authorities, as YAML."""
    return _object("ConfigMap", name, namespace, f"data: {{ca.crt: {_text(AUTHORITY.pem)}}}")


def _object(kind: str, name: str, namespace: str, body: str) -> str:
    return f"\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n{body}\n"


def _text(pem: str) -> str:
    escaped = pem.replace("\n", "\\n")
    return f'"{escaped}"'
