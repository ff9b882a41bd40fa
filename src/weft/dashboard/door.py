"""Who may come in: a link that works once, then a cookie; only from this machine's own names.

A page that a browser shows from elsewhere must learn nothing: the name in the URL is checked (a stranger's
name may resolve to a loopback address), requests that another site causes are refused, and the cookie is
sent with none of them.
"""

from __future__ import annotations

import hmac
import secrets
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENTRANCE: Final = "/enter"
_OPEN: Final = "/static/"
_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_BYTES: Final = 32

_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>weft</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/style.css">'
    '<main class="door">{}</main></html>\n'
)
_COME_IN: Final = _PAGE.format(
    '<meta http-equiv="refresh" content="0;url=/"><a href="/">Go on to the dashboard</a>'
)
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types weft",
    )
)
"""No inline script or style, nothing from elsewhere, no HTML from text but by live.js."""

_HEADERS: Final = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Door:
    """The outermost application. ``token`` is what the link bears, until somebody came in with it."""

    def __init__(self, inside: ASGIApp, *, cookie_name: str) -> None:
        self.token = secrets.token_urlsafe(_BYTES)
        self._inside = inside
        self._name = cookie_name
        self._cookie = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let in; everything that goes out bears the security headers."""
        if scope["type"] != "http":
            return  # there are no WebSockets here

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._inside)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead of the page; None for who may see it."""
        headers = Headers(scope=scope)
        if _host(headers.get("host", "")) not in _NAMES:
            return _words(421, "This is not the name of the dashboard. Open the address that weft printed.")
        if scope["method"] not in {"GET", "HEAD"}:
            return _words(405, "The dashboard changes nothing.")
        path = scope["path"]
        if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and not _navigates(headers):
            return _words(403, "Another site asked for this.")
        if path.startswith(_OPEN):
            return None
        if path == ENTRANCE:
            return self._enter(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0])
        if not self._knows(headers):
            return _words(
                401, "This page is for whoever started it: open the address that `weft dashboard` printed. "
                "It works once; for another one, start `weft dashboard` again."
            )  # fmt: skip
        return None

    def _enter(self, token: str) -> Response:
        """Take the token for a cookie."""
        if not self.token or not hmac.compare_digest(token.encode(), self.token.encode()):
            return _words(
                401, "This link was used already, or is not whole. For another one, start `weft dashboard`."
            )  # fmt: skip
        self.token, self._cookie = "", secrets.token_urlsafe(_BYTES)
        # Not a redirect: for one that began on another site the browser would withhold the cookie.
        answer = HTMLResponse(_COME_IN)
        answer.set_cookie(self._name, self._cookie, httponly=True, samesite="strict", path="/")
        return answer

    def _knows(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        given = cookie[self._name].value if self._name in cookie else ""
        return bool(self._cookie) and hmac.compare_digest(given.encode(), self._cookie.encode())


def _navigates(headers: Headers) -> bool:
    """Whether a person follows a link: it comes without our cookie, but may bear the token."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _host(text: str) -> str:
    """The name in a Host header, without its port: a tunnel may have another one."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0].lower() if ":" in text else text.lower()


def _words(status: int, text: str) -> Response:
    """A page that says why there is none."""
    return HTMLResponse(_PAGE.format(escape(text)), status_code=status)
