"""Gateways with the same port on one host: each answers at its own address."""

from __future__ import annotations

import http.client
from contextlib import ExitStack

import pytest

from tests.envoy.mesh import run_compiled
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.dial import Connection
from tests.support.ports import free_port
from weft import ir
from weft.names import GATEWAY_NAME_LABEL, ProxyName

DOOR = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: weft
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {name}}}]
  rules:
  - filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {name}.example}}}}]
"""


def test_the_nearest_address_answers() -> None:
    of, port = world(DOOR.format(name="every"), DOOR.format(name="own")), free_port()
    with ExitStack() as stack:
        for name, address in (("every", "0.0.0.0"), ("own", "127.200.0.1")):
            identity = ir.ProxyIdentity(
                name=ProxyName("router", "127.0.0.1", name, "default"),
                labels=((GATEWAY_NAME_LABEL, name),),
                attachment=ir.Attachment(capture=ir.Capture.NONE, inbound_address=address, shared_ports=True),
                port_map=((80, port),),
            )
            stack.enter_context(run_compiled(of, identity, TestAuthority()))
        # What the other does not open at its address is not answered by who has the port everywhere.
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            Connection(("127.200.0.2", port)).ask()
        # Many connections: a kernel that would spread them over both would be found out.
        for address, name in (("127.0.0.1", "every"), ("127.200.0.1", "own")):
            for _ in range(20):
                connection = Connection((address, port))
                assert connection.ask().headers["location"] == f"http://{name}.example/"
                connection.close()
