"""What peers are verified by: the roots of the own trust domain with what they revoked, and those of others.

One value travels from the control plane over the nodes to the files of every Envoy, and its ``version`` comes
back as what they have loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from weft.errors import WeftError

_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)
_LIST: Final = "X509 CRL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """``pem``: the roots, the signing one first, then revocation lists if anything was revoked.

    ``domains`` is empty while there is only one trust domain. Else it has each that is trusted, the own one
    too, with the PEM that vouches for it and for no other. ``issuer`` is the hash of the key that signs now;
    it is no part of the version, since nothing is verified by it.
    """

    pem: str
    domains: tuple[tuple[str, str], ...] = ()
    issuer: str = ""

    @property
    def version(self) -> str:
        """A hash of all that is verified by; equal values have equal ones."""
        return hashlib.sha256(json.dumps([self.pem, self.domains]).encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; what is empty is left out."""
        said: dict[str, Any] = {"pem": self.pem}
        if self.domains:
            said["domains"] = dict(self.domains)
        if self.issuer:
            said["issuer"] = self.issuer
        return said

    @classmethod
    def parse(cls, body: Mapping[str, Any], field: str = "pem") -> Self:
        """Read the JSON form; ``field`` is where the PEM stands in it.

        Raises:
            WeftError: when it is none.
        """
        pem, domains = body.get(field), body.get("domains") or {}
        if not isinstance(pem, str) or not isinstance(domains, Mapping):
            raise WeftError("the control plane's answer holds no trust bundle", hint="compare the versions")
        pairs = tuple(sorted((str(name), str(text)) for name, text in domains.items()))
        return cls(pem=pem, domains=pairs, issuer=str(body.get("issuer") or ""))


def split(pem: str) -> tuple[str, str]:
    """The certificates and the revocation lists of a PEM text."""
    blocks = [(found[1], found[0].rstrip("\n") + "\n") for found in _BLOCK.finditer(pem)]
    return (
        "".join(text for kind, text in blocks if kind != _LIST),
        "".join(text for kind, text in blocks if kind == _LIST),
    )
