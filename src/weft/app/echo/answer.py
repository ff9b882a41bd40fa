"""What the test backend answers. The JSON is that of the Gateway API's conformance backend."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from weft.units import parse_duration

_DELAY_MAX: Final = timedelta(minutes=5)
_STATUS_PATH: Final = re.compile(r"/status/([2-5]\d\d)")
_KEYS_MAX: Final = 10_000
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. ``proto`` is ``HTTP/1.1`` or ``HTTP/2.0``; ``target`` is path and query as sent."""

    method: str
    target: str
    host: str
    proto: str
    headers: Headers
    port: int
    tls: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer; ``delay`` comes first. ``broken``: the connection breaks instead."""

    status: int
    headers: Headers
    body: bytes
    delay: timedelta = timedelta()
    broken: bool = False


@dataclass(slots=True, kw_only=True)
class Echo:
    """Who answers, and how often each request of ``succeedAfter`` has come."""

    name: str = "echo"
    namespace: str = "default"
    pod: str = "echo"
    _tries: Counter[str] = field(default_factory=Counter)

    def reply(self, asked: Asked) -> Reply:
        """The request in JSON.

        Queries: ``delay=250ms``, ``responseCode=503``, ``succeedAfter=2`` (the first two requests with this
        target, or of this ``x-request-id``, fail with ``responseCode``, or break without one), after
        ``delayRetry=300ms``. ``/status/404`` too.
        """
        url = urlsplit(asked.target)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            code, fails = _whole(query, "responseCode", 200, 599), self._fails(asked, query)
            delay = _delay(query.get("delay")) + _delay(query.get("delayRetry") if fails else None)
        except ValueError as error:
            return self._json(400, {"message": str(error)}, [])
        if match := _STATUS_PATH.fullmatch(url.path):
            code = int(match[1])
        if fails and code is None:
            return Reply(status=500, headers=[], body=b"", delay=delay, broken=True)
        status = 200 if fails is False else code or 200
        found: dict[str, Any] = {
            "path": asked.target,
            "host": asked.host,
            "method": asked.method,
            "proto": asked.proto,
            "headers": _grouped(asked.headers),
            "httpPort": str(asked.port),
            "namespace": self.namespace,
            "ingress": "",
            "service": self.name,
            "pod": self.pod,
        }
        if asked.tls is not None:
            found["tls"] = dict(asked.tls)
        wanted = [value for name, value in asked.headers if name.lower() == "x-echo-set-header"]
        return self._json(status, found, _set_headers(wanted), delay)

    def _fails(self, asked: Asked, query: Mapping[str, str]) -> bool | None:
        """Whether this try is one of those that fail; None where nothing is said of tries."""
        after = _whole(query, "succeedAfter", 0, 1000)
        if after is None:
            return None
        ids = [value for name, value in asked.headers if name.lower() == "x-request-id"]
        key = f"{asked.target} {ids[0] if ids else ''}"
        if len(self._tries) >= _KEYS_MAX:
            self._tries.clear()
        self._tries[key] += 1
        return self._tries[key] <= after

    @staticmethod
    def _json(status: int, body: object, headers: Headers, delay: timedelta = timedelta()) -> Reply:
        data = json.dumps(body, indent=1).encode()
        fixed = [("content-type", "application/json"), ("x-content-type-options", "nosniff")]
        if status in {204, 304}:
            data, fixed = b"", []
        return Reply(status=status, headers=[*fixed, *headers], body=data, delay=delay)


def _whole(query: Mapping[str, str], key: str, least: int, most: int) -> int | None:
    text = query.get(key)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ValueError(f"{key}={text}: write a whole number from {least} to {most}")
    return int(text)


def _delay(text: str | None) -> timedelta:
    if not text:
        return timedelta()
    delay = parse_duration(text)
    if delay > _DELAY_MAX:
        raise ValueError(f"delay={text}: at most 5m")
    return delay


def _grouped(headers: Headers) -> dict[str, list[str]]:
    """By name as Go writes it (``X-Request-Id``); ``Host`` stands apart."""
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        if name.lower() != "host":
            grouped.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    return grouped


def _set_headers(wanted: Iterable[str]) -> Headers:
    """``a:1, b:2`` -> both; a name given twice becomes one list. What no header can be is left out."""
    found: dict[str, str] = {}
    for pair in (pair for value in wanted for pair in value.split(",")):
        name, _, value = pair.strip().partition(":")
        if _TOKEN.fullmatch(name) and name.lower() not in {
            "content-length",
            "transfer-encoding",
            "connection",
        }:
            found[name] = f"{found[name]},{value.strip()}" if name in found else value.strip()
    return list(found.items())
