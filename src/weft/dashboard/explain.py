"""Where a request would go, and what decides it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from weft.dashboard.page import Visit, together

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
ROLES: Final = {
    "workload": "leaving a workload",
    "inbound": "arriving at a workload",
    "gateway": "arriving at a gateway",
}
_SCHEMES: Final = {
    "http": ("http", "none", 80),
    "https": ("http", "tls", 443),
    "grpc": ("grpc", "none", 80),
    "tcp": ("tcp", "none", 80),
}
_CLASSES: Final = {
    "forward": "good",
    "passthrough": "fair",
    "redirect": "fair",
    "direct": "fair",
    "deny": "bad",
    "blackhole": "bad",
    "error": "bad",
}


class BadRequestError(Exception):
    """What was written in the form cannot be read; says what to write."""


async def explain(visit: Visit) -> Mapping[str, Any]:
    """The form, and the answer to what was asked with it."""
    query = visit.query
    answer, flaw, took = None, "", 0.0
    found = await visit.get("/weft/v1/proxies")
    names = sorted(f"{row['namespace']}/{row['name']}" for row in (found["proxies"] if found else ()))
    if query.get("url") and query.get("from"):
        try:
            question = question_of(query)
        except BadRequestError as error:
            flaw = str(error)
        else:
            began = time.monotonic()
            (answer,) = await together(visit.attempt(visit.readers.explain(question)))
            took = (time.monotonic() - began) * 1000
    return {
        "names": names,
        "methods": METHODS,
        "roles": ROLES,
        "flaw": flaw,
        "answer": answer or None,
        "took": took,
        "class_of": _CLASSES,
    }


def question_of(form: Mapping[str, str]) -> dict[str, Any]:
    """The question, as ``weft explain --requests`` takes it.

    Raises:
        BadRequestError: a field cannot be read.
    """
    role = form.get("role", "workload")
    sender = form.get("from", "").strip()
    if role not in ROLES or sender.count("/") != 1:
        raise BadRequestError(f"{sender!r} is no proxy: write NAMESPACE/NAME")
    url = form.get("url", "").strip()
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise BadRequestError(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise BadRequestError(f"{url!r} is no URL: write http://HOST/PATH, or https, grpc, tcp")
    protocol, tls, usual = _SCHEMES[parts.scheme]
    principal = form.get("principal", "").strip()
    if role == "inbound" and principal:
        tls = "mtls"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return {
        "id": None,
        "from": {role: sender},
        "address": "" if role == "gateway" else parts.hostname,
        "port": port or usual,
        "protocol": protocol,
        "tls": tls,
        "source": {"principal": principal, "namespace": "", "ip": form.get("ip", "").strip()},
        "http": {
            "method": form.get("method", "GET"),
            "host": parts.netloc.rpartition("@")[2],
            "path": path,
            "headers": _headers(form.get("headers", "")),
        },
    }


def _headers(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise BadRequestError(f"{line!r} is no header: write NAME: VALUE, one a line")
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found
