"""``weft status``: the same resources with their status, and what an earlier one keeps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.support.api_server import api_server

from weft.cli.status import status
from weft.client import ApiClient, locate
from weft.errors import WeftError
from weft.model.parse import UNKNOWN_KIND, parse_object

FILE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: public}
spec: {controllerName: example.com/public}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: weft
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: shop}
stringData: {tls.key: hush}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {}
"""
THEIRS = {
    "controllerName": "example.com/other",
    "parentRef": {"name": "elsewhere"},
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
         "lastTransitionTime": "2020-01-01T00:00:00Z"}
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What a run printed. ``code`` is what ``main`` makes of its outcome."""

    code: int
    stdout: str
    stderr: str


def _run(*arguments: str, stdin: str = "") -> Done:
    made = CliRunner().invoke(status, arguments, input=stdin, standalone_mode=False)
    if isinstance(made.exception, WeftError):
        return Done(made.exception.exit_code, made.stdout, made.exception.message)
    if made.exception is not None:
        raise made.exception
    return Done(made.return_value, made.stdout, made.stderr)


def _items(*arguments: str, stdin: str = FILE) -> dict[tuple[str, str], dict[str, Any]]:
    done = _run("-", "-o", "yaml", *arguments, stdin=stdin)
    assert done.code == 0, done.stderr
    return {
        (item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(done.stdout) if item
    }


def _condition(conditions: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(one for one in conditions if one["type"] == kind)


def test_the_same_resources_come_back_with_their_status() -> None:
    found = _items()
    assert [kind for kind, _ in found] == [
        "GatewayClass", "Gateway", "Service", "HTTPRoute", "Secret", "Deployment",
    ]  # fmt: skip
    gateway, route = found["Gateway", "edge"], found["HTTPRoute", "web"]
    assert gateway["spec"]["listeners"] == [{"name": "http", "port": 80, "protocol": "HTTP"}]
    assert _condition(gateway["status"]["conditions"], "Programmed")["status"] == "True"
    assert gateway["status"]["listeners"][0]["attachedRoutes"] == 1
    (parent,) = route["status"]["parents"]
    assert parent["controllerName"] == "weft.dev/gateway-controller"
    assert {one["type"]: one["status"] for one in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }
    assert all(one["observedGeneration"] == 1 for one in parent["conditions"])
    assert "status" not in found["Service", "web"]
    assert found["Secret", "cert"]["stringData"] == {"tls.key": ""}


def test_a_class_of_another_controller_is_ours_when_it_is_named() -> None:
    text = FILE.replace("gatewayClassName: weft", "gatewayClassName: public")
    assert "status" not in _items(stdin=text)["GatewayClass", "public"]
    assert _items(stdin=text)["HTTPRoute", "web"]["status"] == {"parents": []}
    found = _items("--controller-name", "example.com/public", stdin=text)
    assert _condition(found["GatewayClass", "public"]["status"]["conditions"], "Accepted")["status"] == "True"
    (parent,) = found["HTTPRoute", "web"]["status"]["parents"]
    assert parent["controllerName"] == "example.com/public"


def test_the_output_is_the_same_every_time_and_holds_as_an_earlier_state(tmp_path: Path) -> None:
    first = _run("-", "-o", "yaml", stdin=FILE).stdout
    state = tmp_path / "state.yaml"
    state.write_text(first)
    assert _run("-", "-o", "yaml", stdin=FILE).stdout == first
    assert _run("-", "-o", "yaml", "--state", str(state), stdin=FILE).stdout == first
    assert _run(str(state), "-o", "yaml").stdout == first


def test_an_earlier_state_keeps_times_and_what_others_said(tmp_path: Path) -> None:
    earlier = _items("--time", "2026-01-01T00:00:00+01:00")
    earlier["HTTPRoute", "web"]["status"]["parents"].insert(0, THEIRS)
    earlier["HTTPRoute", "web"]["metadata"]["generation"] = 4
    state = tmp_path / "state.json"
    state.write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": list(earlier.values())}, indent=1)
    )
    changed = FILE.replace("{name: web, port: 80}]}]", "{name: nobody, port: 80}]}]")
    found = _items("--state", str(state), stdin=changed)
    other, own = found["HTTPRoute", "web"]["status"]["parents"]
    assert other == THEIRS
    accepted, resolved = (_condition(own["conditions"], kind) for kind in ("Accepted", "ResolvedRefs"))
    assert (accepted["lastTransitionTime"], accepted["observedGeneration"]) == ("2025-12-31T23:00:00Z", 5)
    assert (resolved["status"], resolved["reason"]) == ("False", "BackendNotFound")
    assert resolved["lastTransitionTime"] == "2025-12-31T23:00:01Z"
    gateway = found["Gateway", "edge"]["status"]["conditions"]
    assert {one["lastTransitionTime"] for one in gateway} == {"2025-12-31T23:00:00Z"}
    assert {one["observedGeneration"] for one in gateway} == {1}


def test_a_route_that_leaves_loses_what_we_said_of_it(tmp_path: Path) -> None:
    state = tmp_path / "state.yaml"
    state.write_text(_run("-", "-o", "yaml", stdin=FILE).stdout)
    moved = FILE.replace("parentRefs: [{name: edge}]", "parentRefs: [{name: elsewhere}]")
    assert _items("--state", str(state), stdin=moved)["HTTPRoute", "web"]["status"] == {"parents": []}


def test_json_is_a_list() -> None:
    made = json.loads(_run("-", "-o", "json", stdin=FILE).stdout)
    assert (made["apiVersion"], made["kind"], len(made["items"])) == ("v1", "List", 6)


def test_people_get_a_table() -> None:
    done = _run("-", stdin=FILE.replace("{name: web, port: 80}]}]", "{name: nobody, port: 80}]}]"))
    assert done.code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["RESOURCE", "PART", "STATUS"]
    assert ["Gateway", "shop/edge", "Accepted", "Programmed", "ResolvedRefs"] in lines
    assert ["listener", "http,", "1", "route", "Accepted", "Programmed", "ResolvedRefs"] in lines
    assert ["HTTPRoute", "shop/web", "Gateway", "edge", "Accepted", "!ResolvedRefs(BackendNotFound)"] in lines
    assert ["there", "is", "no", "Service", "shop/nobody"] in lines


@pytest.mark.parametrize(
    ("text", "arguments", "code"),
    [
        (FILE, ("--strict",), 0),
        (FILE.replace("{name: web, port: 80}]}]", "{name: nobody, port: 80}]}]"), ("--strict",), 1),
        (FILE.replace("rules:", "ruules:"), (), 1),
        (FILE, ("--time", "soon"), 2),
        (FILE, ("--state", "/nowhere.yaml"), 2),
    ],
)
def test_exit_codes(text: str, arguments: tuple[str, ...], code: int) -> None:
    done = _run("-", *arguments, stdin=text)
    assert done.code == code, done.stderr


def test_a_document_with_errors_is_left_out_and_the_rest_is_judged() -> None:
    done = _run("-", "-o", "yaml", stdin=FILE.replace("rules:", "ruules:"))
    assert "-:24:3: spec.ruules" in done.stderr
    found = {item["kind"]: item for item in yaml.safe_load_all(done.stdout)}
    assert "status" not in found["HTTPRoute"]
    assert found["Gateway"]["status"]["listeners"][0]["attachedRoutes"] == 0


def test_a_wrong_name_is_reported_and_keeps_nothing_from_being_judged() -> None:
    done = _run("-", "-o", "yaml", stdin=FILE.replace("metadata: {name: web,", "metadata: {name: Web,"))
    assert done.code == 1
    assert "'Web' is not a DNS name" in done.stderr
    found = {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(done.stdout)}
    (parent,) = found["HTTPRoute", "Web"]["status"]["parents"]
    assert _condition(parent["conditions"], "Accepted")["status"] == "True"
    assert found["Gateway", "edge"]["status"]["listeners"][0]["attachedRoutes"] == 1


ISTIO = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop, generation: 4}
spec:
  hosts: [web]
  gateways: [nobody]
  http: [{route: [{destination: {host: web}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web}
status: {conditions: [{type: example.com/Theirs, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web, namespace: shop}
spec: {address: 192.0.2.1, labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example.com], ports: [{name: https, number: 443, protocol: TLS}], resolution: DNS}
"""


def test_istios_resources_are_told_what_the_analysis_found() -> None:
    found = _items(stdin=ISTIO)
    said = found["VirtualService", "web"]["status"]
    passed = _condition(said["conditions"], "PassedAnalysis")
    assert (passed["status"], passed["reason"], passed["observedGeneration"]) == ("False", "ErrorsFound", 4)
    assert passed["message"].startswith("IST0101: ")
    assert said["validationMessages"][0] == {
        "type": {"name": "ReferencedResourceNotFound", "code": "IST0101"},
        "level": "ERROR",
        "documentationUrl": "https://istio.io/latest/docs/reference/config/analysis/ist0101/",
    }
    assert said["observedGeneration"] == 4
    sound = found["DestinationRule", "web"]["status"]
    assert [(one["type"], one["status"]) for one in sound["conditions"]] == [
        ("example.com/Theirs", "True"),
        ("PassedAnalysis", "True"),
    ]
    assert "validationMessages" not in sound
    (address,) = found["ServiceEntry", "api"]["status"]["addresses"]
    assert (address["host"], address["value"][:8]) == ("api.example.com", "240.240.")


def test_a_status_is_one_that_the_api_takes() -> None:
    for text in (FILE, ISTIO):
        for item in _items(stdin=text).values():
            resource, problems = parse_object(item)
            assert not [one for one in problems if one.code != UNKNOWN_KIND], item
            assert resource is not None or problems


def test_without_files_the_running_mesh_is_asked(tmp_path: Path) -> None:
    route = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web"
    with api_server(tmp_path):
        socket = str(tmp_path / "api.sock")

        async def tell() -> None:
            async with ApiClient(locate(socket)) as client:
                await client.apply(
                    [item for item in yaml.safe_load_all(FILE) if item["kind"] != "Deployment"]
                )
                stored = await client.raw("GET", route)
                stored["status"] = {"parents": [THEIRS]}
                await client.raw("PUT", f"{route}/status", stored)

        asyncio.run(tell())
        done = _run("--server", socket)
        shown = yaml.safe_load_all(_run("--server", socket, "-o", "yaml").stdout)
    assert done.code == 0
    assert ["HTTPRoute", "shop/web", "Gateway", "elsewhere", "Accepted"] in [
        line.split() for line in done.stdout.splitlines()
    ]
    assert [item["status"] for item in shown if item["kind"] == "HTTPRoute"] == [{"parents": [THEIRS]}]


def test_options_that_need_files() -> None:
    assert _run("--time", "now").code == 2
