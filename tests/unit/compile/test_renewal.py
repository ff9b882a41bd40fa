"""An epoch changes what mutual TLS of the mesh passes through, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from tests.support.compiled import world

from weft import ir
from weft.compile.proxy import compile_proxy
from weft.compile.renewal import renewed
from weft.names import ProxyName

TEXT = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec:
  selector: {app: db}
  ports: [{name: tcp, port: 5432}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: default}
spec:
  hosts: [outside.example]
  addresses: [192.0.2.1]
  ports: [{number: 6379, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
"""


IDENTITY = ir.ProxyIdentity(name=ProxyName("sidecar", "10.0.0.1", "db", "default"), labels=(("app", "db"),))


def test_it_is_in_verified_chains_and_in_bytes_for_peers() -> None:
    of = world(TEXT)
    proxy, _ = compile_proxy(of, IDENTITY)
    assert renewed(proxy, 0, of.memo) is proxy
    after = renewed(proxy, 3, of.memo)
    changed = {new.name for old, new in zip(proxy.clusters, after.clusters, strict=True) if new is not old}
    assert "outbound|5432||db.default.svc.cluster.local" in changed
    assert not any("outside" in name or name.startswith(("inbound", "Pass", "Black")) for name in changed)
    for listener in after.listeners:
        for chain in (*listener.chains, *filter(None, (listener.default_chain,))):
            verified = chain.tls is not None and chain.tls.trust is not None
            passed = isinstance(chain.handler, ir.TcpHandler) and any(
                target.cluster in changed for target in chain.handler.destinations
            )
            assert chain.epoch == (3 if verified or passed else 0), (listener.name, chain.name)
    assert any(chain.epoch for listener in after.listeners for chain in listener.chains)


def test_equal_inputs_give_the_very_same_units() -> None:
    of = world(TEXT)
    proxy, _ = compile_proxy(of, IDENTITY)
    first, again = renewed(proxy, 1, of.memo), renewed(replace(proxy), 1, of.memo)
    assert first.clusters is again.clusters
    assert all(one is other for one, other in zip(first.listeners, again.listeners, strict=True))
