"""Replacing the authority in three steps, none of which fails a connection. Pure: a state, what is loaded
where and the time in; the next state out.

1. *trust-new*: everybody trusts old and new roots, and has both authorities' revocation lists.
2. *sign-with-new*: the new one signs; every node and workload gets a new certificate.
3. *drop-old*: the old root is trusted no more.

A step is over when every node has said that its Envoys, and it itself, have loaded what the step asks for.
The whole state is one record, so that a control plane that stops anywhere goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from weft.identity.ca import Authority
from weft.identity.pem import AuthorityError
from weft.identity.revocation import issuer_key

AGENT: Final = ""
"""The name of the node's agent among the parts of a node; the others are its proxies."""


class Phase(StrEnum):
    """What is being waited for."""

    TRUST = "trust-new"
    SIGN = "sign-with-new"
    DROP = "drop-old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One that is under way. ``since`` is when its phase began.

    ``skip``: nodes that are not waited for. ``timeout``: how long a phase waits for nodes that are away;
    None is for ever.
    """

    phase: Phase
    predecessor: Authority
    successor: Authority
    started: datetime
    since: datetime
    skip: tuple[str, ...] = ()
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Who signs and what is trusted now, and the rotation that this is a step of."""

    authority: Authority
    rotation: Rotation | None = None
    sequence: int = 1
    """Grows with each change."""
    retired: tuple[str, ...] = ()
    """Hashes of the keys of authorities that were replaced: whoever still hands one over is behind."""

    @property
    def signers(self) -> tuple[Authority, ...]:
        """Whose certificates may be met now, who signs first."""
        rotation = self.rotation
        if rotation is None:
            return (self.authority,)
        other = rotation.successor if rotation.phase is Phase.TRUST else rotation.predecessor
        return (self.authority, other)

    def begin(
        self,
        successor: Authority,
        now: datetime,
        *,
        skip: Iterable[str] = (),
        timeout: timedelta | None = None,
        exact: bool = False,
    ) -> State:
        """The first step. What is trusted in the end: the successor's roots, and unless they are ``exact``
        those that stand beside the present root, too.

        Raises:
            AuthorityError: another rotation is under way, or this authority signs already.
        """
        if self.rotation is not None:
            raise AuthorityError(
                "the authority is being replaced already", hint="follow it with 'weft ca status'"
            )
        if issuer_key(successor) == issuer_key(self.authority):
            raise AuthorityError("this authority signs already", hint="give a new one, with a key of its own")
        if not exact:
            successor = successor.trust(*self.authority.roots[1:])
        rotation = Rotation(
            phase=Phase.TRUST,
            predecessor=self.authority,
            successor=successor,
            started=now,
            since=now,
            skip=tuple(sorted(set(skip))),
            timeout=timeout,
        )
        return self._next(self.authority.trust(*successor.roots), rotation)

    def advance(self, now: datetime) -> State:
        """The next step, whoever is missing; as it is when there is nothing to do."""
        rotation = self.rotation
        if rotation is None:
            return self
        match rotation.phase:
            case Phase.TRUST:
                authority = self.authority.succeed(rotation.successor)
                return self._next(authority, replace(rotation, phase=Phase.SIGN, since=now))
            case Phase.SIGN:
                authority = self.authority
                # A new intermediate under the same root takes no root away.
                for root in authority.roots:
                    if root not in rotation.successor.roots:
                        authority = authority.distrust(root)
                return self._next(authority, replace(rotation, phase=Phase.DROP, since=now))
            case Phase.DROP:
                done = self._next(self.authority, None)
                return replace(done, retired=(*self.retired, issuer_key(rotation.predecessor)))

    def _next(self, authority: Authority, rotation: Rotation | None) -> State:
        return State(authority, rotation, self.sequence + 1, self.retired)

    def to_json(self) -> bytes:
        """As it is stored, private keys included."""
        body: dict[str, Any] = {
            "authority": self.authority.to_pem().decode(),
            "sequence": self.sequence,
            "retired": self.retired,
        }
        if (rotation := self.rotation) is not None:
            body["rotation"] = {
                "phase": rotation.phase,
                "predecessor": rotation.predecessor.to_pem().decode(),
                "successor": rotation.successor.to_pem().decode(),
                "started": rotation.started.isoformat(),
                "since": rotation.since.isoformat(),
                "skip": rotation.skip,
                "timeout": rotation.timeout.total_seconds() if rotation.timeout is not None else None,
            }
        return json.dumps(body).encode()

    @classmethod
    def from_json(cls, body: bytes, trust_domain: str) -> Self:
        """Read what ``to_json`` wrote, or an authority alone.

        Raises:
            AuthorityError: for anything else.
        """
        if body.startswith(b"-----"):
            return cls(Authority.from_pem(body, trust_domain))
        try:
            fields = json.loads(body)
            authority = Authority.from_pem(fields["authority"].encode(), trust_domain)
            said = fields.get("rotation")
            sequence, retired = int(fields.get("sequence") or 1), tuple(fields.get("retired") or ())
            if said is None:
                return cls(authority, None, sequence, retired)
            seconds = said["timeout"]
            rotation = Rotation(
                phase=Phase(said["phase"]),
                predecessor=Authority.from_pem(said["predecessor"].encode(), trust_domain),
                successor=Authority.from_pem(said["successor"].encode(), trust_domain),
                started=datetime.fromisoformat(said["started"]),
                since=datetime.fromisoformat(said["since"]),
                skip=tuple(said["skip"]),
                timeout=timedelta(seconds=seconds) if seconds is not None else None,
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise AuthorityError(
                "the stored authority is damaged", hint="restore it from a backup"
            ) from error
        return cls(authority, rotation, sequence, retired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one part of a node has said: the version of its trust, and of its certificate the hash of the
    issuer's key, the serial number (hexadecimal) and the end.
    """

    trust: str
    issuer: str = ""
    serial: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node as the control plane sees it. ``parts``: its agent and its proxies, by name."""

    connected: bool
    parts: frozenset[str] = frozenset({AGENT})
    loaded: Mapping[str, Loaded] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """Who is waited for, and why."""

    node: str
    part: str
    why: str


def missing(state: State, version: str, members: Mapping[str, Member], now: datetime) -> tuple[Missing, ...]:
    """Who has not loaded what this phase asks for; ``version`` is that of the trust of now."""
    rotation = state.rotation
    if rotation is None:
        return ()
    late = rotation.timeout is not None and now - rotation.since > rotation.timeout
    signer = issuer_key(state.authority) if rotation.phase is not Phase.TRUST else ""
    found: list[Missing] = []
    for node, member in sorted(members.items()):
        if node in rotation.skip:
            continue
        if not member.connected:
            if not late:
                found.append(Missing(node, AGENT, "is away"))
            continue
        for part in sorted(member.parts):
            loaded = member.loaded.get(part)
            if loaded is None:
                found.append(Missing(node, part, "has not said what it has loaded"))
            elif loaded.trust != version:
                found.append(Missing(node, part, "has not loaded the trust bundle"))
            elif signer and loaded.issuer != signer:
                found.append(Missing(node, part, "has no certificate of the new authority"))
    return tuple(found)


def step(state: State, version: str, members: Mapping[str, Member], now: datetime) -> State:
    """The next state, or the same one while somebody is missing."""
    return state if missing(state, version, members, now) else state.advance(now)
