"""Requests of the Gateway API's conformance suite, and what they shall come to.

The cases are data from outside of the project (see ``test_explain_samples``): one entry a test of the suite,
with its manifests and its requests, in the suite's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from weft.units import parse_duration

Json = dict[str, Any]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "conformance"
MISSING = "the sample cases are not here"
_ECHO_METHOD = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/Echo"


@dataclass(frozen=True, slots=True)
class Sample:
    """One request with its expectation. ``manifests`` are files; ``test`` is the suite's name.

    ``weights``: the shares of the backends that answer, where many such requests are sent.
    """

    test: str
    number: int
    manifests: tuple[Path, ...]
    case: Json
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """``HTTPRouteMatching-3``."""
        return f"{self.test}-{self.number}"

    @property
    def request(self) -> Json:
        """As ``weft explain --requests`` takes it."""
        case, made = self.case, {"id": self.id, "from": self._sender(), "port": self.case.get("port")}
        if case["kind"] == "tcp":
            return {**made, "protocol": "tcp", "tls": "tls", "sni": case["args"][1]}
        if case["kind"] == "grpc":
            metadata = (case["expected"].get("RequestMetadata") or {}).get("Metadata") or {}
            headers = {name: [value] for name, value in metadata.items()}
            http = {"path": _ECHO_METHOD, "headers": headers, "method": "POST"}
            authority = (case["expected"].get("RequestMetadata") or {}).get("Authority")
            return {**made, "protocol": "grpc", "http": {**http, "host": authority}}
        asked = case["request"]
        headers = {name: [value] for name, value in (asked["headers"] or {}).items()}
        scheme = {"tls": "tls"} if case.get("tls") else {}
        http = {"method": asked["method"], "host": asked["host"], "path": asked["path"], "headers": headers}
        return {**made, **scheme, "http": http}

    def _sender(self) -> Json:
        if "client" in self.case:
            client = self.case["client"]
            labels = dict(part.split("=", 1) for part in client["from"].split(","))
            return {"workload": f"{client['namespace']}/client", "labels": labels}
        return {"gateway": self.case["gateway"]["gateway"]}

    def differences(self, got: Json) -> Iterator[str]:
        """What of the answer is not as expected, in words."""
        if self.case["kind"] == "http":
            yield from _http(self.case["expect"], self.case["request"], got)
            return
        expected = self.case["expected"]
        code = (expected.get("Response") or {}).get("Code", 0)
        if self.case["kind"] == "grpc" and got.get("grpcStatus") != code:
            yield f"gRPC status {got.get('grpcStatus')}, not {code}"
        if not code:
            yield from _backend(expected.get("Backend"), expected.get("Namespace"), got)


def samples(root: Path = SHARED) -> list[Sample]:
    """All requests; none when the cases are not here."""
    file = root / "cases-sample.json"
    if not file.exists():
        return []
    found: list[Sample] = []
    for test in json.loads(file.read_text()):
        base = root / "manifests" / ("mesh" if test["suite"] == "mesh" else "base") / "manifests.yaml"
        own = (root / "manifests" / path.removeprefix("conformance/") for path in test["manifests"])
        manifests = (base, *own)
        weights: Mapping[str, float] = next(
            (said["weights"] for said in test["status"] if said["op"] == "weights"), {}
        )
        gateway: Json = {}
        for number, case in enumerate(test["cases"]):
            # The suite looks at an answer a second time: the request went where the one before did.
            gateway = {key: case[key] for key in ("gateway", "port") if key in case} or gateway
            found.append(Sample(test["test"], number, manifests, {**gateway, **case}, weights))
    return found


def prepared(text: str) -> str:
    """Manifests with weft's GatewayClass where the suite leaves it open."""
    return text.replace("{GATEWAY_CLASS_NAME}", "weft")


def _http(expect: Json, request: Json, got: Json) -> Iterator[str]:
    status = _status(got, request)
    if status not in expect["status"]:
        yield f"status {status} ({got['error'] or got['action']}), not {expect['status']}"
        return
    if expect.get("redirect"):
        wanted = {key: value for key, value in expect["redirect"].items() if value not in {None, ""}}
        for key, value in wanted.items():
            if str((got["redirect"] or {}).get(key)) != str(value):
                yield f"redirect {key} {(got['redirect'] or {}).get(key)}, not {value}"
    elif got["action"] == "forward":
        yield from _backend(expect.get("backend"), expect.get("namespace"), got)
        yield from _request(expect.get("backendRequest") or {}, got)
    elif expect.get("backend"):
        yield f"{got['action']}, not forward"
    yield from _response(expect, got)
    mirrors = [(mirror["service"], mirror["namespace"], mirror["percent"]) for mirror in got["mirrors"]]
    for mirror in expect.get("mirroredTo") or ():
        share = 100 if mirror.get("percent") is None else mirror["percent"]
        if (mirror["name"], mirror["namespace"], share) not in mirrors:
            yield f"mirrors {mirrors}, not {mirror}"


def _status(got: Json, request: Json) -> int:
    """What the client sees of the suite's backend, which does as the query says."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(request["path"]).query).items()}
    status = int(got["status"] or 0)
    if got["action"] != "forward" or status != 200:
        return status
    if "delay" in query and got["timeout"] is not None:
        waited = parse_duration(query["delay"])
        limit = parse_duration(got["timeout"])
        if waited > limit > timedelta(0):
            return 504
    if "responseCode" in query:
        code, needed = int(query["responseCode"]), int(query.get("succeedAfter", "0"))
        retries = got["retries"]
        attempts = retries["attempts"] if retries and code in retries["codes"] else 0
        return 200 if attempts >= needed > 0 else code
    return status


def _backend(name: str | None, namespace: str | None, got: Json) -> Iterator[str]:
    targets = got["upstream"]["destinations"]
    if not targets:
        yield f"{got['action']} ({got['error']}), not forward to {name}"
    for target in targets:
        if name and target["service"] != name:
            yield f"to {target['service']}, not {name}"
        if namespace and target["namespace"] != namespace:
            yield f"to the namespace {target['namespace']}, not {namespace}"


def _request(expected: Json, got: Json) -> Iterator[str]:
    sent = got["upstream"]["request"]
    if expected.get("path") and sent["path"] != expected["path"]:
        yield f"path {sent['path']}, not {expected['path']}"
    if expected.get("host") and sent["host"] != expected["host"]:
        yield f"host {sent['host']}, not {expected['host']}"
    if expected.get("method") and sent["method"] != expected["method"]:
        yield f"method {sent['method']}, not {expected['method']}"
    for name, value in (expected.get("headers") or {}).items():
        found = ",".join(sent["headers"].get(name.lower(), ()))
        if found != value:
            yield f"request header {name}: {found!r}, not {value!r}"
    for name in expected.get("absentHeaders") or ():
        if name.lower() in sent["headers"]:
            yield f"request header {name} is there"


def _response(expect: Json, got: Json) -> Iterator[str]:
    headers = got["response"]["headers"]
    bare = (lambda text: re.sub(r"\s", "", text)) if expect.get("responseIgnoreWhitespace") else str
    wanted = {name: [value] for name, value in (expect.get("responseHeaders") or {}).items()}
    for name, values in {**wanted, **(expect.get("responseValidHeaderValues") or {})}.items():
        found = bare(",".join(headers.get(name.lower(), ())))
        if found not in map(bare, values):
            yield f"response header {name}: {found!r}, not {' or '.join(values)}"
    for name in expect.get("responseAbsentHeaders") or ():
        if name.lower() in headers:
            yield f"response header {name} is there: {headers[name.lower()]}"
