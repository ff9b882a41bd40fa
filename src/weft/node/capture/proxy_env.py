"""Capture by proxy variables: the fallback that asks the application to cooperate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Lower case for curl and wget, which read http_proxy only so; upper case for Go and others.
_NAMES: Final = ("http_proxy", "HTTP_PROXY")
_UNSET: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")

LIMITS: Final = (
    "only HTTP in clear text of programs that read http_proxy: curl, wget, Python's urllib and requests,"
    " Go's net/http; not Node's http and fetch, Java, or Python's http.client",
    "what the application listens on is reachable on this host without the mesh",
    "TCP and HTTPS connections go out directly",
)
# `weft up` without a network namespace and without rewriting of binds.
ADDRESS_LIMIT: Final = "programs must listen on $HOST:$PORT, an address of their own that they are told"


def variables(port: int, *, address: str, own: str = "") -> dict[str, str]:
    """The environment that sends an application's HTTP through its sidecar's proxy port.

    Loopback is reached directly, and ``own``, the application's address.
    """
    url = f"http://{address}:{port}"
    direct = ",".join(dict.fromkeys(("localhost", "127.0.0.1", "::1", *filter(None, (own,)))))
    return {**dict.fromkeys(_NAMES, url), "no_proxy": direct, "NO_PROXY": direct}


def listen(address: str, ports: Iterable[int]) -> dict[str, str]:
    """The environment that says where to listen: HOST, and PORT for the first of ``ports``."""
    first = next(iter(ports), None)
    return {"HOST": address} | ({"PORT": str(first)} if first is not None else {})


def unset() -> tuple[str, ...]:
    """Variables of the caller that would lead around the sidecar."""
    return _UNSET
