"""The text of a join token, as an operator carries it to a host. Both ends read it; none stores it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self

from weft.errors import WeftError

_FORM: Final = re.compile(r"weft1\.([a-z0-9]{10})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")
_LENGTH_MAX: Final = 256


class TokenError(WeftError):
    """A join token cannot be used."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """``weft1.<id>.<secret>.<pin>``.

    ``id`` may be shown and logged. ``secret`` is 256 random bits, base64url. ``pin`` is the SHA-256 of the
    root's public key (SubjectPublicKeyInfo), base64url: with it the very first contact is authenticated.
    """

    id: str
    secret: str = field(repr=False)
    pin: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token; white space around it is ignored.

        Raises:
            TokenError: for another form. The message does not repeat the text: it may be most of a secret.
        """
        text = text.strip()
        match = _FORM.fullmatch(text) if len(text) <= _LENGTH_MAX else None
        if match is None:
            raise TokenError(
                "this is not a join token: it looks like weft1.<id>.<secret>.<hash>",
                hint="copy the whole line that 'weft token create' printed",
            )
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"weft1.{self.id}.{self.secret}.{self.pin}"
