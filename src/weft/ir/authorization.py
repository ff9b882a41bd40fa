"""Who may do what: rules over the caller (principals) and over what is asked for (permissions)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from weft.ir.match import HeaderMatch, TextMatch


class RuleAction(StrEnum):
    """What becomes of a request that a rule fits: it may pass, it may not, or it is marked and passes.

    With ``ALLOW`` nothing else may pass.
    """

    ALLOW = "allow"
    DENY = "deny"
    LOG = "log"


class AddressOf(StrEnum):
    """Whose address: of who is connected (``PEER``), of the client in front of trusted proxies (``CLIENT``),
    or the one that was called.
    """

    PEER = "peer"
    CLIENT = "client"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrincipalMatch:
    """A test of the URI in the caller's certificate; who shows none never fits."""

    match: TextMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressMatch:
    """Whether an address is in a block, as ``10.0.0.0/8``."""

    of: AddressOf
    block: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMatch:
    """The port that was called."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerNameMatch:
    """A test of the name in the TLS handshake."""

    match: TextMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPathMatch:
    """A test of the path without its query."""

    match: TextMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTemplateMatch:
    """``*`` in the template is one segment of the path, ``**`` all that is left of it."""

    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMatch:
    """The value is a list, and one of its items fits."""

    item: ValueMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyValueMatch:
    """One of the tests fits."""

    tests: tuple[ValueMatch, ...]


ValueMatch = TextMatch | ListedMatch | AnyValueMatch
"""A test of a value that a filter found out; a text's test fits texts only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactMatch:
    """A test of what a filter found out about the request; ``path`` leads to it, outermost first."""

    filter: str
    path: tuple[str, ...]
    value: ValueMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AllOf:
    """Every test holds."""

    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """One of the tests holds."""

    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """The test does not hold."""

    test: Test


@dataclass(frozen=True, slots=True)
class Anything:
    """Always holds."""


Test = (
    AllOf
    | AnyOf
    | Not
    | Anything
    | PrincipalMatch
    | AddressMatch
    | PortMatch
    | ServerNameMatch
    | UrlPathMatch
    | PathTemplateMatch
    | FactMatch
    | HeaderMatch
)
"""A test of a request or connection. Principals look at the caller, headers and facts; permissions at
what was called, headers and facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule:
    """Fits when one of ``permissions`` and one of ``principals`` holds. ``name`` tells policy and rule."""

    name: str
    permissions: tuple[Test, ...]
    principals: tuple[Test, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Rules of one action; without any, ``ALLOW`` lets nothing pass and the others refuse nothing."""

    action: RuleAction
    rules: tuple[AccessRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """One stage of a request's way in; all stages must let it pass.

    ``shadow`` is only evaluated and counted (dry run); what it comes to is told under ``shadow_prefix``.
    """

    enforced: AccessRules | None = None
    shadow: AccessRules | None = None
    shadow_prefix: str = ""
