"""SPIFFE identities (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")


def _check(value: str, form: re.Pattern[str], what: str) -> None:
    if not form.fullmatch(value) or value in {".", ".."}:
        raise ValueError(f"{value!r} is not a {what} of a SPIFFE ID")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """Who a workload is: ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``."""

    trust_domain: str
    namespace: str
    service_account: str

    def __post_init__(self) -> None:
        _check(self.trust_domain, _TRUST_DOMAIN, "trust domain")
        _check(self.namespace, _SEGMENT, "namespace")
        _check(self.service_account, _SEGMENT, "service account")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the URI form.

        Raises:
            ValueError: when the text is no workload identity.
        """
        match text.removeprefix("spiffe://").split("/") if text.startswith("spiffe://") else []:
            case [domain, "ns", namespace, "sa", account]:
                return cls(domain, namespace, account)
        raise ValueError(f"{text!r} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")


@dataclass(frozen=True, slots=True)
class NodeId:
    """Which host an agent runs on: ``spiffe://<trust domain>/weft/node/<name>``."""

    trust_domain: str
    name: str

    def __post_init__(self) -> None:
        _check(self.trust_domain, _TRUST_DOMAIN, "trust domain")
        _check(self.name, _SEGMENT, "node name")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/weft/node/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the URI form.

        Raises:
            ValueError: when the text is no node identity.
        """
        match text.removeprefix("spiffe://").split("/") if text.startswith("spiffe://") else []:
            case [domain, "weft", "node", name]:
                return cls(domain, name)
        raise ValueError(f"{text!r} is not spiffe://<trust domain>/weft/node/<name>")


@dataclass(frozen=True, slots=True)
class AdminId:
    """Who administers a mesh: ``spiffe://<trust domain>/weft/admin/<name>``. No node may ever host it."""

    trust_domain: str
    name: str

    def __post_init__(self) -> None:
        _check(self.trust_domain, _TRUST_DOMAIN, "trust domain")
        _check(self.name, _SEGMENT, "administrator's name")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/weft/admin/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the URI form.

        Raises:
            ValueError: when the text is no administrator's identity.
        """
        match text.removeprefix("spiffe://").split("/") if text.startswith("spiffe://") else []:
            case [domain, "weft", "admin", name]:
                return cls(domain, name)
        raise ValueError(f"{text!r} is not spiffe://<trust domain>/weft/admin/<name>")


@dataclass(frozen=True, slots=True)
class UserId:
    """Who uses the API: ``spiffe://<trust domain>/weft/user/<name>``. The name is for people only: what
    counts is the control plane's record of the certificate's serial number, where it can be revoked.
    """

    trust_domain: str
    name: str

    def __post_init__(self) -> None:
        _check(self.trust_domain, _TRUST_DOMAIN, "trust domain")
        _check(self.name, _SEGMENT, "user's name")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/weft/user/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the URI form.

        Raises:
            ValueError: when the text is no user's identity.
        """
        match text.removeprefix("spiffe://").split("/") if text.startswith("spiffe://") else []:
            case [domain, "weft", "user", name]:
                return cls(domain, name)
        raise ValueError(f"{text!r} is not spiffe://<trust domain>/weft/user/<name>")

    @classmethod
    def of(cls, trust_domain: str, user: str) -> Self:
        """For a user whose name may have letters that no SPIFFE ID has."""
        return cls(trust_domain, re.sub(r"[^A-Za-z0-9._-]", "-", user))
