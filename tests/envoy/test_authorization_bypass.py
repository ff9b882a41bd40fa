"""Policies are not walked around: hostile requests, sent byte by byte to a real sidecar.

The requests, and what becomes of each, are in ``authorization_bypass.yaml``. What reaches the application is
judged by how an application reads it, and explain must foresee every answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
import yaml

from tests.envoy.mesh import run_compiled
from tests.support.backend import serving
from tests.support.certificates import TestAuthority
from tests.support.compiled import world
from tests.support.ports import free_ports
from tests.support.wire import Received, Recorder, dial, read_status, send, send_http2
from weft import ir
from weft.analysis.explain.answer import Answer
from weft.analysis.explain.configuration import Configuration, Decoded
from weft.analysis.explain.origins import Origins
from weft.analysis.explain.request import read_request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.explain.walk import Dialled, walk
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.bundle import emit
from weft.names import ProxyName

ADDRESS: Final = "127.0.0.1"
BASE: Final = "BASE"
DECODE: Final = "DECODE_AND_MERGE_SLASHES"
TABLE: Final[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("authorization_bypass.yaml").read_text()
)
_OPEN: Final = {"open", "params"}
_HOST: Final = "web"
_LISTS: Final = ("denied", "allowed", "unknown")

POLICIES: Final = """
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {{name: mesh, namespace: istio-system}}
spec: {{pathNormalization: {{normalization: {normalization}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  selector: {{app: web}}
  ports:
  - {{name: http-denied, port: {denied}}}
  - {{name: http-allowed, port: {allowed}}}
  - {{name: unknown, port: {unknown}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: denied, namespace: default}}
spec:
  action: DENY
  rules:
  - to:
    - operation:
        ports: ["{denied}"]
        paths: [/admin, /secret/*, "*.key", "/users/{{*}}/private", "/vault/{{**}}", /a+b, /caf%C3%A9, "/x y",
          /mail/me@home]
    - operation:
        ports: ["{denied}"]
        hosts: [admin.example, "*.internal", "ops.*", "exact.example:8080"]
    - operation: {{ports: ["{denied}"], methods: [DELETE]}}
  - to: [{{operation: {{ports: ["{denied}"]}}}}]
    when: [{{key: "request.headers[x-role]", values: [admin]}}]
  - to: [{{operation: {{ports: ["{denied}"]}}}}]
    when: [{{key: "request.headers[x-team]", values: ["ops-*"]}}]
  - to: [{{operation: {{ports: ["{denied}"]}}}}]
    when: [{{key: "request.headers[x-unit]", values: ["*-core"]}}]
  - to: [{{operation: {{ports: ["{unknown}"], paths: [/admin]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allowed, namespace: default}}
spec:
  rules:
  - to: [{{operation: {{ports: ["{denied}", "{unknown}"]}}}}]
  - to:
    - operation: {{ports: ["{allowed}"], paths: [/public/*, "*.css", "/teams/{{*}}/plan"]}}
"""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar that runs. ``ports`` are where it listens for the two lists."""

    normalization: str
    recorder: Recorder
    world: World
    identity: ir.ProxyIdentity
    ports: dict[str, int]
    inner: dict[str, int]

    def explain(self, listed: str, **request: Any) -> tuple[str, int | None]:
        """Action and status that explain foresees."""
        return explained(self.world, self.identity, self.inner[listed], request)


@cache
def _running(of: World, identity: ir.ProxyIdentity) -> Upstreams:
    proxy, _ = compile_proxy(of, identity)
    configuration = Configuration.of_bundle(emit(proxy), lambda name: None, Decoded())
    return Upstreams(configuration, lambda host: True, lambda cluster: False)


def explained(
    of: World, identity: ir.ProxyIdentity, port: int, request: dict[str, Any]
) -> tuple[str, int | None]:
    """What explain says of a request to a port of the workload."""
    question = read_request(
        {"from": {"inbound": "default/web-0"}, "port": port, "address": ADDRESS, "http": request}
    )
    answer = Answer()
    walk(question, Dialled(addresses=(ADDRESS,), port=port), _running(of, identity), Origins(), answer)
    return str(answer.action), answer.status


@contextmanager
def _sidecar(normalization: str) -> Iterator[Sidecar]:
    with ExitStack() as stack:
        inner = dict(zip(_LISTS, free_ports(len(_LISTS)), strict=True))
        ports = dict(zip(_LISTS, free_ports(len(_LISTS)), strict=True))
        recorder, *others = (stack.enter_context(serving(Recorder(ADDRESS, inner[name]))) for name in _LISTS)
        for other in others:
            other.received = recorder.received
        made = world(POLICIES.format(normalization=normalization, **inner))
        identity = ir.ProxyIdentity(
            name=ProxyName("sidecar", ADDRESS, "web-0", "default"), labels=(("app", "web"),),
            service_account="web",
            attachment=ir.Attachment(
                capture=ir.Capture.PROXY_ENV, inbound_address=ADDRESS, app_address=ADDRESS,
                inbound_ports=tuple((inner[name], ports[name]) for name in _LISTS),
            ),
        )  # fmt: skip
        stack.enter_context(run_compiled(made, identity, TestAuthority()))
        yield Sidecar(normalization, recorder, made, identity, ports, inner)


@pytest.fixture(scope="module", params=[BASE, DECODE])
def sidecar(request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    with _sidecar(request.param) as running:
        yield running


def meant(target: str) -> str:
    """The path that an application reads: decoded, normalised, and without parameters."""
    path = unquote(target.partition("?")[0]).replace("\\", "/")
    kept: list[str] = []
    for part in (part.partition(";")[0] for part in path.split("/")):
        if part == "..":
            kept = kept[:-1]
        elif part not in {"", "."}:
            kept.append(part)
    return "/" + "/".join(kept)


REFUSED: Final = re.compile(
    r"/admin|/secret/.*|.*\.key|/users/[^/]+/private|/vault/.*|/a\+b|/café|/x y|/mail/me@home"
)
LISTED: Final = re.compile(r"/public(/.*)?|.*\.css|/teams/[^/]+/plan")


def forbidden(listed: str, target: str) -> bool:
    """Whether a policy refuses the path that an application reads."""
    path = meant(target)
    return bool(REFUSED.fullmatch(path)) if listed == "denied" else not LISTED.fullmatch(path)


def ask(running: Sidecar, listed: str, request: bytes) -> tuple[int, list[Received]]:
    """The status of the first answer, and what reached the application until the connection has ended."""
    before = len(running.recorder.received)
    with dial((ADDRESS, running.ports[listed])) as connection:
        status = send(connection, request)
        if status == 200:
            # Whatever was hidden in the bytes comes before this, on this connection or not at all.
            send(connection, b"GET /public/end HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
            while read_status(connection):
                pass
    return status, [one for one in running.recorder.received[before:] if one.target != "/public/end"]


def head(target: str, *fields: str, method: str = "GET", host: str = _HOST) -> bytes:
    """A request without a body; texts are bytes in Latin-1."""
    lines = (f"{method} {target} HTTP/1.1", f"host: {host}", *fields, "", "")
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize("listed", ["denied", "allowed"])
def test_no_path_gets_around_a_policy(sidecar: Sidecar, listed: str) -> None:
    wrong = []
    for target, base, decode in TABLE[listed]:
        wanted = base if sidecar.normalization == BASE else decode
        passes = wanted in {200, *_OPEN}
        status, received = ask(sidecar, listed, head(target))
        reached = any(forbidden(listed, one.target) for one in received)
        foreseen = sidecar.explain(listed, host=_HOST, path=target)[1]
        if (status, reached, foreseen) != (200 if passes else wanted, wanted in _OPEN, status):
            wrong.append(f"{target!r}: {status}, not {wanted}; {received}; explain says {foreseen}")
    assert not wrong, "\n".join(wrong)


def test_with_escapes_decoded_and_slashes_merged_nothing_stays_open() -> None:
    assert not [row for row in (*TABLE["denied"], *TABLE["allowed"]) if row[2] == "open"]


def test_no_host_gets_around_a_policy(sidecar: Sidecar) -> None:
    for host, wanted in TABLE["hosts"]:
        status, received = ask(sidecar, "denied", head("/ok", host=host))
        assert (status, len(received)) == (wanted, wanted == 200), host
        assert sidecar.explain("denied", host=host, path="/ok")[1] == status, host


def test_no_header_gets_around_a_policy(sidecar: Sidecar) -> None:
    for fields, wanted in TABLE["headers"]:
        status, received = ask(sidecar, "denied", head("/ok", *fields))
        assert (status, len(received)) == (wanted, wanted == 200), fields
        if wanted != 400:
            headers: dict[str, list[str]] = {}
            for field in fields:
                name, _, value = field.replace("\r\n", "").partition(":")
                headers.setdefault(name.lower(), []).append(value.strip())
            assert sidecar.explain("denied", host=_HOST, path="/ok", headers=headers)[1] == status, fields


def test_no_method_gets_around_a_policy(sidecar: Sidecar) -> None:
    for method, wanted in TABLE["methods"]:
        status, received = ask(sidecar, "denied", head("/ok", method=method))
        assert (status, len(received)) == (wanted, wanted == 200), method


def test_no_other_request_is_hidden_in_one(sidecar: Sidecar) -> None:
    follow = head("/admin").decode("latin-1")
    requests = [case["send"].replace("{follow}", follow).encode("latin-1") for case in TABLE["raw"]]
    # All at once, as some connections are held open for a while. What reaches the application is of any.
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda request: ask(sidecar, "denied", request)[0], requests))
    wrong = [
        f"{case['name']}: {status}, not {case['status']}"
        for case, status in zip(TABLE["raw"], answers, strict=True)
        if status != case["status"]
    ]
    assert not wrong, "\n".join(wrong)
    assert "/admin" not in {one.target for one in sidecar.recorder.received}


def test_what_is_not_recognised_as_http_is_no_way_around(sidecar: Sidecar) -> None:
    """Of a port without a declared protocol: other bytes are a connection, of which a path is not known."""
    assert ask(sidecar, "unknown", head("/ok"))[0] == 200
    for request in (
        head("/admin"),
        b"\r\n" + head("/admin"),
        head("/admin", method="get"),
        b"\0" + head("/admin"),
    ):
        status, received = ask(sidecar, "unknown", request)
        assert (status in {0, 400, 403}, received) == (True, []), request


def test_http2_is_no_way_around(sidecar: Sidecar) -> None:
    def run(number: int) -> int:
        changes, fields, _ = TABLE["http2"][number]
        pseudo = {"method": "GET", "scheme": "http", "authority": _HOST, "path": "/ok", **changes}
        headers = [(f":{name}", value) for name, value in pseudo.items() if value is not None]
        texts = (*headers, *fields, ("x-case", str(number)))
        rows = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in texts]
        with dial((ADDRESS, sidecar.ports["denied"])) as connection:
            return send_http2(connection, rows)

    # All at once: Envoy holds each connection of a client that breaks the rules open for a second.
    with ThreadPoolExecutor(len(TABLE["http2"])) as pool:
        statuses = list(pool.map(run, range(len(TABLE["http2"]))))
    for number, (changes, fields, wanted) in enumerate(TABLE["http2"]):
        received = [one for one in sidecar.recorder.received if f"x-case: {number}" in one.fields]
        assert statuses[number] == wanted, (changes, fields, received)
        assert not [one for one in received if forbidden("denied", one.target)], (changes, fields)
        passes = wanted == 200 and changes.get("path", "/ok") == "/ok"
        assert len(received) == passes, (changes, fields)


def test_the_table_tells_readings_apart() -> None:
    assert meant("/x%2f..%2fadmin/?q") == "/admin"
    assert meant("/a;b/./c//d") == "/a/c/d"
    assert forbidden("denied", "/users/1;x/private")
    assert not forbidden("denied", "/%2561dmin")
    assert forbidden("allowed", "/public/..%5cadmin")
