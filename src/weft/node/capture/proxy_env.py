"""Capture by proxy variables: the fallback that asks the application to cooperate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Lower case for curl and wget, which read http_proxy only so; upper case for Go and others.
_NAMES: Final = ("http_proxy", "HTTP_PROXY")
_UNSET: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")

LIMITS: Final = (
    "only HTTP in clear text of programs that read http_proxy: curl, wget, Python's urllib and requests,"
    " Go's net/http; not Node's fetch, Java, or Python's http.client",
    "what the application listens on is reachable without the mesh",
    "TCP and HTTPS connections go out directly",
)


def variables(port: int, *, address: str = "127.0.0.1", bypass: Iterable[str] = ()) -> dict[str, str]:
    """The environment that sends an application's HTTP through its sidecar's proxy port.

    ``bypass`` are hosts it shall reach directly; loopback always is.
    """
    url = f"http://{address}:{port}"
    direct = ",".join(("localhost", "127.0.0.1", "::1", *bypass))
    return {**dict.fromkeys(_NAMES, url), "no_proxy": direct, "NO_PROXY": direct}


def unset() -> tuple[str, ...]:
    """Variables of the caller that would lead around the sidecar."""
    return _UNSET
