"""Whose tokens a proxy believes, and where it looks for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtHeader:
    """A header that may bear a token behind ``prefix``."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """One issuer. The empty ``issuer`` is anybody whose tokens ``keys``, a JSON web key set, verify.

    ``keys`` None: they are not known; empty: none can be used. Either way none of its tokens is believed.
    Without ``headers``, ``params`` and ``cookies`` a token is looked for where OAuth 2 puts it.
    ``claim_headers`` are (claim, header) pairs; what is in ``payload_header`` and in those when a request
    comes is not believed. ``required``: a request without such a token is refused.
    """

    issuer: str
    keys: str | None
    audiences: tuple[str, ...] = ()
    headers: tuple[JwtHeader, ...] = ()
    params: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    forward: bool = False
    payload_header: str = ""
    claim_headers: tuple[tuple[str, str], ...] = ()
    space_delimited: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthentication:
    """A token that is there must be a good one. ``reroute``: routes may depend on what it claims."""

    rules: tuple[JwtRule, ...]
    reroute: bool = False
