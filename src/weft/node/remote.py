"""HTTPS to the control plane: who it must be, what its refusals mean, what to do about a failure."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from weft.errors import WeftError
from weft.identity.trust import split
from weft.names import CONTROL_PLANE_HOST

_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, connect=5)
_REPLY_MAX: Final = 4 * 1024 * 1024
_REJOIN: Final = (
    "its root was replaced while this host was away, join again with a new token: "
    "weft token create --node THIS-NODE"
)
# OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED (x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10


class Unreachable(WeftError):  # noqa: N818 - a state of the network, not a mistake
    """Nobody answers there now; it may be otherwise later."""


class Denied(WeftError):  # noqa: N818 - a decision of the control plane, as its message says
    """The control plane refused. ``status`` is HTTP's."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Disowned(WeftError):  # noqa: N818 - a state of the mesh, not a mistake
    """This host is no member any more: its certificates, or those it trusts, are of another root."""


def plain_context() -> ssl.SSLContext:
    """TLS that believes anybody. Only for what is public and verified by other means."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting_context(bundle: str, *, key: str = "", certificate: str = "") -> ssl.SSLContext:
    """TLS that believes the control plane of a bundle; with a key and chain (PEM) it says who we are.

    The name that is verified is the control plane's own, which its authority gives to nobody else: so any
    address may be dialled, and no workload can pass for the control plane.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=split(bundle)[0])
    if key:
        _load(context, key, certificate)
    return context


def serving_context(credential: Callable[[], tuple[str, str, str]]) -> ssl.SSLContext:
    """TLS of a port of ours: bundle, key and certificate (PEM) are asked for at each handshake.

    Whoever comes may show a certificate, which has to be of the bundle then.
    """
    shown, fresh = credential(), _serving(*credential())

    def freshen(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal shown, fresh
        if (now := credential()) != shown:
            shown, fresh = now, _serving(*now)
        connection.context = fresh

    # Roots can be added to a context and never removed: each handshake goes on with the newest one.
    context = _serving(*shown)
    context.sni_callback = freshen
    return context


def _serving(bundle: str, key: str, certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would keep a client whose root is trusted no more.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load(context, key, certificate)
    context.load_verify_locations(cadata=split(bundle)[0])
    return context


def _load(context: ssl.SSLContext, key: str, certificate: str) -> None:
    """OpenSSL's Python binding reads keys from files only; this one is in memory."""
    descriptor = os.memfd_create("weft-node-key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"{key}\n{certificate}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


async def call(
    http: aiohttp.ClientSession,
    method: str,
    url: str,
    context: ssl.SSLContext,
    body: dict[str, Any] | None = None,
) -> Any:
    """Send one request and read the JSON answer.

    Raises:
        Denied: the control plane says no, with its reason.
        Unreachable: nobody answers.
        WeftError: whoever answers is not the control plane, or no control plane.
    """
    try:
        async with http.request(
            method,
            url,
            json=body,
            ssl=context,
            server_hostname=CONTROL_PLANE_HOST,
            timeout=_TIMEOUT,
            allow_redirects=False,
        ) as reply:
            content = await reply.content.read(_REPLY_MAX)
            status = reply.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise explain(error, url) from error
    try:
        answer = json.loads(content)
        if status < 300:
            return answer
        raise Denied(str(answer["message"]), status=status, hint=str(answer.get("hint") or ""))
    except (ValueError, KeyError, TypeError) as error:
        raise WeftError(
            f"{url} answers {status}, but not as a control plane does",
            hint="is this its address (https://HOST:15017), is its version the same?",
        ) from error


def explain(error: BaseException, url: str) -> WeftError:
    """What a failed connection means, and what to do about it."""
    cause = getattr(error, "certificate_error", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in {_NOT_YET_VALID, _EXPIRED}:
            word = "not valid yet" if cause.verify_code == _NOT_YET_VALID else "expired"
            return WeftError(
                f"the certificate of {url} is {word} by this host's clock",
                hint="set the clocks of this host and of the control plane by NTP",
            )
        return Disowned(
            f"{url} is not this mesh's control plane: {cause.verify_message}",
            hint=f"compare the address; if the mesh was made anew, or {_REJOIN}",
        )
    if isinstance(cause, ssl.SSLError) or "SSL" in type(cause).__name__:
        return WeftError(
            f"{url} and this host cannot agree on TLS: {cause}",
            hint="has this node's certificate expired, or was it removed? join again with a new token",
        )
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    else:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Unreachable(
        f"the control plane does not answer at {url}: {reason}",
        hint="is it running ('weft control-plane'), and is the way to it open?",
    )


async def reason(http: aiohttp.ClientSession, api: str, bundle: str, error: WeftError) -> WeftError:
    """Why a connection with this host's certificate failed: a server that refuses one just hangs up.

    ``Disowned`` when the very same control plane answers whoever shows none; else ``error``.
    """
    if not isinstance(error, Unreachable):
        return error
    try:
        await call(http, "GET", f"{api}/weft/v1/bundle", trusting_context(bundle))
    except WeftError:
        return error
    return Disowned(f"{api} does not accept this node's certificate any more", hint=f"if {_REJOIN}")
