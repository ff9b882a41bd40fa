"""Requests to the API: objects, watches, applications; its refusals as exceptions with a remedy."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec

from weft.client.locate import HOW_TO_START
from weft.client.server import Server
from weft.errors import Problem, Severity, WeftError

Wire = dict[str, Any]

_LINE_BYTES: Final = 16 * 1024 * 1024
_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 60
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API serves it. ``version`` is the preferred one."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    categories: tuple[str, ...]
    verbs: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """``virtualservices.networking.istio.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular_name(self) -> str:
        """``virtualservice.networking.istio.io``, as kubectl prints it."""
        return f"{self.singular}.{self.group}" if self.group else self.singular

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The path of a collection or of an object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{middle}/{self.plural}" + (f"/{name}" if name else "")

    def called(self, word: str) -> bool:
        """Whether somebody who writes ``word`` means this kind."""
        wanted, _, group = word.lower().partition(".")
        names = {self.plural, self.singular, self.kind.lower(), *self.short_names}
        return wanted in names and (not group or group == self.group)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``kind`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Wire


class RefusedError(WeftError):
    """The API said no. ``status`` is its answer (a Kubernetes ``Status``), ``code`` the HTTP status."""

    def __init__(self, code: int, status: Wire) -> None:
        hints = {
            401: "use the socket of the mesh as its owner, or a kubeconfig: --server FILE",
            403: "see what you may: kubectl auth can-i --list; an administrator may give you a role",
            429: "try again in a moment",
            410: "list again",
            503: "the control plane is starting or stopping: try again",
        }
        hint = str(status.get("hint") or hints.get(code, ""))
        super().__init__(str(status.get("message") or f"HTTP {code}"), hint=hint)
        self.code = code
        self.status = status
        self.reason = str(status.get("reason", ""))


class ApiClient:
    """A connection to one control plane; used as ``async with``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._base = server.url or "http://weft"
        connector: aiohttp.BaseConnector
        if server.socket_path is not None:
            connector = aiohttp.UnixConnector(str(server.socket_path))
        else:
            connector = aiohttp.TCPConnector(ssl=_tls(server))
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS, sock_connect=_CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {server.token}"} if server.token else None,
            connector=connector, timeout=timeout, read_bufsize=_LINE_BYTES, max_line_size=65536,
            max_field_size=65536,
        )  # fmt: skip
        self._resources: tuple[Resource, ...] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def _unreachable(self, error: BaseException) -> WeftError:
        return WeftError(
            f"the control plane does not answer at {self.server}: {error or type(error).__name__}",
            hint=f"is it running? {HOW_TO_START}",
        )

    async def raw(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None, seconds: float | None = None,
    ) -> Any:  # fmt: skip
        """One request; the decoded answer. ``seconds`` is how long it may take.

        Raises:
            RefusedError: when the API refuses.
            WeftError: when it cannot be reached.
        """
        sent = {"accept": "application/json", **(headers or {})}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            sent.setdefault("content-type", "application/json")
        timeout = aiohttp.ClientTimeout(total=seconds or _REQUEST_SECONDS, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._session.request(
                method, self._base + path, data=data, params=query, headers=sent, timeout=timeout
            ) as response:
                text = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        answer = _decode(text)
        if response.status >= 400:
            raise RefusedError(response.status, answer if isinstance(answer, dict) else {})
        return answer

    async def resources(self) -> tuple[Resource, ...]:
        """Every kind that the API serves, in its preferred version."""
        if self._resources is None:
            accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            found: list[Resource] = []
            for path in ("/api", "/apis"):
                answer = await self.raw("GET", path, headers={"accept": accept})
                for group in answer["items"]:
                    found += _group_resources(group)
            self._resources = tuple(found)
        return self._resources

    async def list(
        self, resource: Resource, namespace: str | None = None, *, selector: str = "", table: bool = False
    ) -> Wire:
        """A list, or a Table."""
        query = {"labelSelector": selector} if selector else None
        headers = {"accept": TABLE} if table else None
        answer: Wire = await self.raw("GET", resource.path(namespace), query=query, headers=headers)
        return answer

    async def get(self, resource: Resource, namespace: str | None, name: str, *, table: bool = False) -> Wire:
        """One object, or a Table with it."""
        headers = {"accept": TABLE} if table else None
        answer: Wire = await self.raw("GET", resource.path(namespace, name), headers=headers)
        return answer

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, force: bool = False,
        dry_run: bool = False,
    ) -> Wire | None:  # fmt: skip
        """Delete an object; None when there was none."""
        headers = {"weft-force": "true"} if force else None
        query = {"dryRun": "All"} if dry_run else None
        try:
            answer: Wire = await self.raw(
                "DELETE", resource.path(namespace, name), headers=headers, query=query
            )
        except RefusedError as refusal:
            if refusal.code == 404:
                return None
            raise
        return answer

    async def apply(
        self, objects: Sequence[Mapping[str, Any]], *, namespace: str = "default", dry_run: bool = False,
        force: bool = False, delete: bool = False, whole: bool = False, strict: bool = True,
        wait: bool = False, seconds: float = 30,
    ) -> Wire:  # fmt: skip
        """Apply (or delete) objects in one transaction; the answer of ``POST /weft/v1/apply``."""
        body = {
            "objects": objects, "namespace": namespace, "dryRun": dry_run, "force": force, "delete": delete,
            "whole": whole, "strict": strict,
        }  # fmt: skip
        query = {"wait": "converged", "timeout": f"{round(seconds * 1000)}ms"} if wait else None
        limit = _REQUEST_SECONDS + (seconds if wait else 0)
        answer: Wire = await self.raw("POST", "/weft/v1/apply", body, query=query, seconds=limit)
        return answer

    async def watch(
        self, resource: Resource, namespace: str | None = None, *, since: str = "", selector: str = "",
        table: bool = False, bookmarks: bool = False,
    ) -> AsyncGenerator[WatchEvent]:  # fmt: skip
        """Changes after ``since`` (empty: what is there, then changes), until the server ends it.

        Raises:
            RefusedError: 410 when ``since`` is too old.
        """
        query = {"watch": "true"} | ({"resourceVersion": since} if since else {})
        if selector:
            query["labelSelector"] = selector
        if bookmarks:
            query["allowWatchBookmarks"] = "true"
        headers = {"accept": TABLE if table else "application/json"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._session.get(
                self._base + resource.path(namespace), params=query, headers=headers, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise RefusedError(response.status, _decode(await response.read()) or {})
                async for line in response.content:
                    event = _decode(line)
                    if event["type"] == "ERROR":
                        raise RefusedError(int(event["object"].get("code", 500)), event["object"])
                    yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    async def lines(self, path: str, *, query: Mapping[str, str] | None = None) -> AsyncGenerator[Wire]:
        """An answer of one JSON object a line, as it comes, until the server ends it.

        Raises:
            RefusedError: when the API refuses.
            WeftError: when it cannot be reached, or goes away.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._session.get(self._base + path, params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise RefusedError(response.status, _decode(await response.read()) or {})
                async for line in response.content:
                    if isinstance(found := _decode(line), dict):
                        yield found
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error


def problems_of(refusal: RefusedError) -> list[tuple[int, Problem]]:
    """What an application was refused for: (index of the object, problem)."""
    return [(entry["index"], problem_of(entry)) for entry in refusal.status.get("problems", ())]


def problem_of(entry: Mapping[str, Any]) -> Problem:
    """A problem from its JSON."""
    return Problem(
        str(entry["code"]), str(entry["message"]), hint=str(entry.get("hint", "")),
        path=str(entry.get("path", "")), severity=Severity(entry.get("severity", "Error")),
    )  # fmt: skip


def _decode(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return None


def _tls(server: Server) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(server.ca_file) if server.ca_file else None)
        if server.ca_data:
            context = ssl.create_default_context(cadata=server.ca_data.decode())
        if server.certificate_file is not None:
            context.load_cert_chain(server.certificate_file, server.key_file)
        elif server.certificate_data:
            _load(context, server.certificate_data + b"\n" + server.key_data)
    except (OSError, ValueError) as error:
        raise WeftError(
            f"the credentials for {server} cannot be read: {error}",
            hint="set WEFT_CA_FILE, WEFT_CERT_FILE and WEFT_KEY_FILE to PEM files, or give a kubeconfig",
        ) from error
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL's Python binding reads keys from files only; this one is in memory."""
    descriptor = os.memfd_create("weft-client-key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _group_resources(group: Wire) -> list[Resource]:
    name = group["metadata"]["name"]
    found: dict[str, Resource] = {}
    for version in group["versions"]:  # the preferred comes first
        for entry in version["resources"]:
            found.setdefault(
                entry["resource"],
                Resource(
                    group=name, version=version["version"], kind=entry["responseKind"]["kind"],
                    plural=entry["resource"], singular=entry["singularResource"],
                    short_names=tuple(entry.get("shortNames", ())),
                    namespaced=entry["scope"] == "Namespaced", categories=tuple(entry.get("categories", ())),
                    verbs=tuple(entry["verbs"]),
                ),
            )  # fmt: skip
    return [resource for resource in found.values() if "list" in resource.verbs]
