"""Which identities a node may host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from weft.errors import WeftError

_NAME: Final = r"(?:\*|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
_PATTERN: Final = re.compile(f"{_NAME}/{_NAME}")


@dataclass(frozen=True, slots=True)
class Scope:
    """``patterns`` are ``namespace/service-account``; either side may be ``*``. Sorted, without repeats."""

    patterns: tuple[str, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Self:
        """Read patterns; a namespace alone stands for all its service accounts.

        Raises:
            WeftError: for a text of another form, and for none at all.
        """
        found = {text if "/" in text else f"{text}/*" for text in patterns}
        for text in sorted(found):
            if not _PATTERN.fullmatch(text):
                raise WeftError(
                    f"{text!r} does not name service accounts",
                    hint="write NAMESPACE/SERVICE-ACCOUNT, NAMESPACE/* or */*",
                )
        if not found:
            raise WeftError("a node must be allowed to host something", hint="name at least one namespace")
        return cls(tuple(sorted(found)))

    def allows(self, namespace: str, account: str) -> bool:
        """Whether an identity is inside."""
        wanted = {f"{namespace}/{account}", f"{namespace}/*", f"*/{account}", "*/*"}
        return not wanted.isdisjoint(self.patterns)

    def __str__(self) -> str:
        return ", ".join(self.patterns)


EVERYTHING: Final = Scope(("*/*",))
