"""Requests as a workload would make them: through its sidecar, with its identity."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import math
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from weft.app.nodesocket import NodeSocket
from weft.errors import UsageError, WeftError, did_you_mean
from weft.node.capture.cgroup import Hierarchy
from weft.node.capture.seccomp_policy import Address, proxy_header

_CLONE_NEWNET: Final = 0x40000000
_TIMEOUT_S: Final = 30.0
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. ``headers`` keep their order; a ``host`` among them replaces the URL's."""

    url: SplitResult
    method: str = "GET"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = None

    @classmethod
    def of(cls, url: str, method: str | None, headers: Sequence[str], body: str | None) -> Request:
        """From a command line.

        Raises:
            UsageError: no http(s) URL, or a header without a colon.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            sound = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise UsageError(f"{url!r} cannot be called", hint="write a URL, as http://catalog:8080/products")
        pairs = []
        for header in headers:
            name, colon, value = header.partition(":")
            if not colon or not name.strip() or "\n" in header or "\r" in header:
                raise UsageError(f"-H {header!r} is no header", hint="write 'name: value'")
            pairs.append((name.strip(), value.strip()))
        data = None if body is None else body.encode()
        return cls(url=parts, method=method or ("GET" if data is None else "POST"), headers=pairs, body=data)

    @property
    def host(self) -> str:
        """The host of the URL."""
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        """Its port, by the scheme if it has none."""
        return self.url.port or _PORTS[self.url.scheme]

    @property
    def target(self) -> str:
        """Path and query."""
        return (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, or why there was none (``status`` 0 and ``error``). ``answered_by`` as far as it says."""

    status: int
    ms: float
    headers: Mapping[str, str]
    body: str = ""
    error: str = ""
    answered_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """As ``weft call -o json`` prints it."""
        return {
            "status": self.status,
            "ms": round(self.ms, 2),
            "headers": dict(self.headers),
            "body": self.body,
            "error": self.error or None,
            "answeredBy": self.answered_by or None,
        }


def summary(replies: Sequence[Reply]) -> dict[str, Any]:
    """Counts, and times in milliseconds of those that were answered (nearest rank)."""
    times = sorted(reply.ms for reply in replies if reply.status)

    def rank(share: float) -> float | None:
        return round(times[max(0, math.ceil(len(times) * share) - 1)], 2) if times else None

    return {
        "count": len(replies),
        "failed": sum(not reply.status for reply in replies),
        "statuses": dict(sorted(Counter(str(reply.status) for reply in replies if reply.status).items())),
        "answeredBy": dict(
            Counter(reply.answered_by for reply in replies if reply.answered_by).most_common()
        ),
        "p50Ms": rank(0.5),
        "p99Ms": rank(0.99),
    }


class Workload:
    """A workload of this host, and how one gets to its sidecar from here."""

    def __init__(self, node: NodeSocket, row: Mapping[str, Any], attachment: Mapping[str, Any]) -> None:
        self._node = node
        self._row = row
        self._attachment = attachment
        self._names: dict[str, str] = {}

    @classmethod
    async def find(cls, name: str, socket: Path) -> Workload:
        """By ``NAME``, ``NAMESPACE/NAME`` or ``NAME.NAMESPACE``, among those of the node at a socket.

        Raises:
            WeftError: no node, no such workload, several, or its sidecar does not answer.
        """
        node = NodeSocket(socket)
        rows = (await node.ask({"op": "list"}, "workloads"))["workloads"]
        found = [row for row in rows if name in {row["id"], row["name"], f"{row['name']}.{row['namespace']}"}]
        # A service with one replica is called by the service's name, too.
        found = found or [row for row in rows if name in {row.get("service"), row["labels"].get("app")}][:1]
        if len(found) != 1:
            known = [row["id"] for row in rows]
            what = f"several workloads are called {name!r}" if found else f"no workload is called {name!r}"
            hint = (
                f"write one of {', '.join(row['id'] for row in found)}"
                if found
                else did_you_mean(name, known)
            )
            raise WeftError(f"{what} on this host", hint=hint or "see weft ps")
        request = {"op": "admin", "id": found[0]["id"], "path": "/server_info"}
        reply = await node.ask(request, "reply")
        if reply.get("status") != 200:
            raise WeftError(f"the sidecar of {found[0]['id']} does not answer", hint="see weft logs --proxy")
        metadata = json.loads(reply["body"]).get("node", {}).get("metadata", {})
        workload = cls(node, found[0], metadata.get("WEFT") or {})
        workload._names = read_names(
            (await node.ask({"op": "names", "namespace": found[0]["namespace"]}, "names"))["hosts"]
        )
        return workload

    def enter(self) -> None:
        """Become a process of the workload, as far as its capture asks for it. There is no way back.

        Raises:
            WeftError: not permitted, or nothing of it is captured.
        """
        try:
            if self._row["capture"] == "netns":
                with Path(f"/proc/{self._row['proxyPid']}/ns/net").open() as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            elif self._row["capture"] == "nft":
                hierarchy = Hierarchy.find()
                group = hierarchy.of_process(int(self._row["pid"])) if hierarchy else None
                if group is None:
                    raise WeftError(f"{self._row['id']} is not running", hint="see weft ps")
                (group / "cgroup.procs").write_text("0")
        except OSError as error:
            raise WeftError(
                f"cannot join {self._row['id']}: {error.strerror}", hint="run as the user of its node"
            ) from error
        if self._row["capture"] == "none":
            raise WeftError(f"nothing of {self._row['id']} is captured", hint="call the URL with curl")

    def dial(self, request: Request) -> socket.socket:
        """A connection of the workload to where the request goes.

        Raises:
            OSError: refused, or the name is unknown.
        """
        if self._row["capture"] == "env":
            return _connected((self._attachment["outboundAddress"], int(self._attachment["httpProxyPort"])))
        ip = (
            self._names.get(request.host.lower().rstrip("."))
            or socket.getaddrinfo(request.host, request.port, type=socket.SOCK_STREAM)[0][4][0]
        )
        if self._row["capture"] != "seccomp":
            return _connected((str(ip), request.port))
        to = (self._attachment["outboundAddress"], int(self._attachment["outboundPort"]))
        connection = _connected(to)
        family = socket.AF_INET6 if ":" in str(ip) else socket.AF_INET
        destination = Address(socket.inet_pton(family, str(ip)), request.port)
        connection.sendall(proxy_header(connection.getsockname()[:2], destination))
        return connection

    def target(self, request: Request) -> str:
        """What stands in the request line: a proxy wants the whole URL."""
        if self._row["capture"] != "env":
            return request.target
        return f"{request.url.scheme}://{request.url.netloc.rpartition('@')[2]}{request.target}"


def read_names(hosts: str) -> dict[str, str]:
    """Text in the form of ``/etc/hosts`` -> the first address of each name."""
    names: dict[str, str] = {}
    for line in hosts.splitlines():
        address, *found = line.partition("#")[0].split() or [""]
        for name in found:
            names.setdefault(name.lower(), address)
    return names


def _connected(to: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(to, timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Connection(http.client.HTTPConnection):
    def __init__(self, workload: Workload, request: Request, insecure: bool) -> None:
        super().__init__(request.host, request.port, timeout=_TIMEOUT_S)
        self._workload, self._request, self._insecure = workload, request, insecure

    def connect(self) -> None:
        self.sock = self._workload.dial(self._request)
        if self._request.url.scheme == "https":
            context = ssl.create_default_context()
            if self._insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock, server_hostname=self._request.host)


class Caller:
    """Sends one request after another over a connection that is kept while it lives."""

    def __init__(self, workload: Workload, request: Request, *, insecure: bool = False) -> None:
        self._workload = workload
        self._request = request
        self._connection = _Connection(workload, request, insecure)

    def call(self) -> Reply:
        """One request; a failure is a reply, too."""
        asked, began = self._request, time.monotonic()
        try:
            self._connection.putrequest(
                asked.method,
                self._workload.target(asked),
                skip_host=any(name.lower() == "host" for name, _ in asked.headers),
                skip_accept_encoding=True,
            )
            for name, value in asked.headers:
                self._connection.putheader(name, value)
            if asked.body is not None:
                self._connection.putheader("content-length", str(len(asked.body)))
            self._connection.endheaders(asked.body)
            response = self._connection.getresponse()
            body = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
            return Reply(status=0, ms=(time.monotonic() - began) * 1000, headers={}, error=text)
        headers = {name.lower(): value for name, value in response.getheaders()}
        ms = (time.monotonic() - began) * 1000
        who = answered_by(headers, body)
        return Reply(status=response.status, ms=ms, headers=headers, body=body, answered_by=who)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def answered_by(headers: Mapping[str, str], body: str) -> str:
    """Who it was, if the answer says: ``x-served-by``, ``pod`` (weft echo) or ``servedBy``."""
    if headers.get("x-served-by"):
        return headers["x-served-by"]
    with contextlib.suppress(ValueError):
        found = json.loads(body)
        if isinstance(found, dict):
            served = found.get("servedBy")
            if isinstance(served, dict):
                return " ".join(str(served[key]) for key in ("instance", "version") if key in served)
            return str(found.get("pod") or "")
    return ""
