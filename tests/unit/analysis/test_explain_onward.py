"""Both sides of a request: what its sender does, and what those decide whom it comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support import compiled

from weft import ir
from weft.analysis.explain.live import Running, bearer_of, identity_of
from weft.analysis.explain.mesh import Mesh
from weft.analysis.explain.request import read_request
from weft.cli.explain_text import lines
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.emit.bootstrap import Settings, bootstrap
from weft.emit.bundle import emit
from weft.emit.dump import config_dump
from weft.emit.static import assignments
from weft.model.parse import parse, unwrap
from weft.names import ProxyName
from weft.yaml import load

CLIENT = {"workload": "default/client"}
FILES = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {selector: {app: bare}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: bare}, annotations: {sidecar.istio.io/inject: "false"}}
spec: {containers: [{name: bare, image: bare, ports: [{containerPort: 8080}]}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: web-v1, labels: {app: web, version: v1}}
spec: {command: [web], ports: [{name: http, port: 8080}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: web-v2, labels: {app: web, version: v2}}
spec: {command: [web], ports: [{name: http, port: 8080}]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: client, labels: {app: client}}
spec: {command: [client], serviceAccount: client}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{rewrite: {uri: /inner}, route: [{destination: {host: web}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web, version: v2}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/other]}}]
  - to: [{operation: {paths: [/inner/open]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}]
---
apiVersion: weft.dev/v1alpha1
kind: RateLimit
metadata: {name: web}
spec: {selector: {matchLabels: {version: v1}}, limits: [{name: all, requests: 5}]}
---
"""
PLAIN = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
---
"""


def ask(text: str, **question: Any) -> dict[str, Any]:
    documents, problems = load(text, "mesh.yaml")
    assert not problems
    parts = [part for document in documents for part in unwrap(document)[0]]
    read = [(part, resource) for part in parts if (resource := parse(part, "default")[0]) is not None]
    return Mesh(parts, read).explain({"id": 1, "from": CLIENT, **question})


def at(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arrivals by the workloads that they are at."""
    return {
        " ".join(one["workload"] or str(one["address"]) for one in arrival["endpoints"]): arrival
        for arrival in found["arrivals"]
    }


def test_replicas_that_decide_otherwise_are_told_apart() -> None:
    found = ask(FILES, http={"host": "web", "path": "/"})
    assert (found["action"], found["delivered"]) == ("forward", "some")
    first, second = at(found)["default/web-v1"], at(found)["default/web-v2"]
    assert first["endpoints"] == [{"address": None, "port": 8080, "workload": "default/web-v1"}]
    there = first["answer"]
    assert (there["action"], there["status"], there["listener"]) == ("forward", 200, "virtualInbound")
    assert there["authn"]["peer"] == "spiffe://cluster.local/ns/default/sa/client"
    assert there["upstream"]["request"]["path"] == "/inner"  # as the sender rewrote it
    assert len(there["rateLimits"]) == 1
    assert second["detail"] == "denied: no rule of default/web allows it"
    assert (second["answer"]["action"], second["answer"]["status"]) == ("deny", 403)


def test_the_rule_that_lets_in_is_named() -> None:
    text = FILES.replace("rewrite: {uri: /inner}", "rewrite: {uri: /inner/open}")
    found = ask(text, http={"host": "web", "path": "/"})
    assert found["delivered"] == "all"
    assert at(found)["default/web-v2"]["detail"] == "let in by default/web rule 1"
    authz = at(found)["default/web-v2"]["answer"]["authz"]
    assert (authz["decision"], authz["policy"], authz["rule"]) == ("allow", "default/web", 1)


def test_bytes_to_a_workload_that_only_its_service_describes() -> None:
    found = ask(FILES, protocol="tcp", address="db", port=5432)
    assert (found["action"], found["delivered"]) == ("forward", "none")
    (arrival,) = found["arrivals"]
    assert arrival["detail"] == "denied by AuthorizationPolicy default/db rule 0"
    text = list(lines(found, colour=False))
    assert text[0] == "forward to db.default:5432: refused there by all"
    assert "at default/db: denied by AuthorizationPolicy default/db rule 0" in text
    (line,) = [line for line in text if line.strip().startswith("authz")]
    assert "mesh.yaml:" in line


def test_without_a_sidecar_the_application_decides() -> None:
    found = ask(FILES, http={"host": "bare", "path": "/"})
    assert (found["upstream"]["tls"], found["delivered"]) == ("none", None)
    (arrival,) = found["arrivals"]
    assert arrival["answer"] is None
    assert arrival["detail"] == "there is no sidecar: the application decides itself"
    assert arrival["endpoints"] == [{"address": None, "port": 8080, "workload": "default/bare"}]


def test_who_speaks_plainly_to_whom_wants_tls_does_not_arrive() -> None:
    found = ask(FILES + PLAIN, http={"host": "web", "path": "/"})
    assert (found["upstream"]["tls"], found["delivered"]) == ("none", "none")
    (arrival,) = found["arrivals"]  # both say the same
    assert len(arrival["endpoints"]) == 2
    assert arrival["answer"]["error"] == "no_filter_chain"


def test_what_is_not_sent_on_arrives_nowhere() -> None:
    for question in (
        {"http": {"host": "example.org"}},
        {"from": {"inbound": "default/web-v1"}, "port": 8080, "http": {"host": "web"}},
    ):
        found = ask(FILES, **question)
        assert (found["arrivals"], found["delivered"]) == ([], None)


def running(world: Any, kind: str, name: str, address: str, account: str, labels: str) -> Running:
    who = ir.ProxyIdentity(
        name=ProxyName(kind, address, name, "default"),
        service_account=account,
        labels=(("app", labels),),
        attachment=ir.Attachment(),
    )
    proxy = compile_proxy(world, who)[0]
    sets = [endpoint_set(world, one.name) for one in proxy.clusters if one.discovery is ir.Discovery.EDS]
    dump = config_dump(emit(proxy), assignments(sets, proxy), bootstrap(Settings(name=who.name)))
    return Running(json.loads(json.dumps(dump)))


@pytest.mark.parametrize(("account", "delivered"), [("client", "all"), ("other", "none")])
def test_proxies_that_run(account: str, delivered: str) -> None:
    world = compiled.world(
        compiled.service("web", 8080),
        compiled.instance("web-0", "web", "10.1.1.1", account="web", ports="{http: 8080}"),
        """
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: web}
        spec:
          selector: {matchLabels: {app: web}}
          rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}]
        """,
    )
    sender = running(world, "sidecar", "client-0", "10.1.1.9", account, "client")
    receiver = running(world, "sidecar", "web-0", "10.1.1.1", "web", "web")
    question = {"from": CLIENT, "http": {"host": "web:8080", "path": "/"}}
    shown = {"uri": f"spiffe://cluster.local/ns/default/sa/{account}"}
    certificates = {"certificates": [{"cert_chain": [{"subject_alt_names": [shown]}]}]}
    journey = sender.begin(read_request(question), question, identity_of(certificates))
    (arrival,) = journey.arrivals
    entries = [
        {
            "metadata": {"namespace": "default", "name": "x-0"},
            "spec": {"address": "10.1.1.1", "ports": {"a": 1}},
        },
        {
            "metadata": {"namespace": "default", "name": "web-0"},
            "spec": {"address": "10.1.1.1", "ports": {"http": 8080}},
        },
    ]
    assert bearer_of(arrival, entries) == "default/web-0"
    assert bearer_of(arrival, entries[:0]) is None
    receiver.arrive(journey, arrival, "default/web-0")
    found = journey.json()
    assert found["delivered"] == delivered
    assert found["arrivals"][0]["endpoints"] == [
        {"address": "10.1.1.1", "port": 8080, "workload": "default/web-0"}
    ]
