"""A workload's card: what its certificate says of it beside the identity. For telemetry, and nothing else.

The control plane writes it, from what it has registered; a proxy reads it from its peer's certificate, and so
knows who calls without asking anybody and without believing a header. No policy looks at it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from weft.names import CLUSTER_ID, CLUSTER_LABEL, canonical_name, canonical_revision, workload_name

OID: Final = "2.25.190818333796665989583555172556909931641"
"""Under which it stands in a certificate. Below 2.25 anybody may use a UUID's number (ITU-T X.667, 7)."""
FORM: Final = "weft1"
"""What begins its text; another form begins otherwise."""
WORD: Final = "[A-Za-z0-9._-]"
"""What its values are made of: the characters of names and labels."""
UNKNOWN: Final = "unknown"
"""Istio's word for what is not known."""
_LONGEST: Final = 253
_WORD: Final = re.compile(f"{WORD}+")


REMEMBERED: Final = "weft.caller"
"""What the filter state of a connection calls its caller's card; the fields stand under it, with a dot."""
NAMESPACE: Final = "workload_namespace"
"""A field that is not in the card: the identity says it."""


def caller(field: str) -> str:
    """The command that writes what a proxy knows of who calls: a field of a card, or ``NAMESPACE``.

    Empty for a caller without a certificate, and for one whose certificate does not say.
    """
    return f"%FILTER_STATE({REMEMBERED}.{field}:PLAIN)%"


class Card(NamedTuple):
    """What is not known, or is no label's value, is ``unknown``: Istio's word."""

    workload: str = UNKNOWN
    app: str = UNKNOWN
    version: str = UNKNOWN
    cluster: str = UNKNOWN
    canonical_service: str = UNKNOWN
    canonical_revision: str = UNKNOWN

    @classmethod
    def of(cls, name: str, labels: Mapping[str, str]) -> Self:
        """The card of an instance with this name and these labels."""
        workload = workload_name(labels, name)
        said = (
            workload,
            labels.get("app", ""),
            labels.get("version", ""),
            labels.get(CLUSTER_LABEL) or CLUSTER_ID,
            canonical_name(labels, workload),
            canonical_revision(labels),
        )
        return cls(*(value if _fits(value) else UNKNOWN for value in said))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the text form; None for what is none. A newer one may say more at its end."""
        form, *values = text.split("/")
        if form != FORM or len(values) < len(cls._fields):
            return None
        said = values[: len(cls._fields)]
        return cls(*said) if all(map(_fits, said)) else None

    def __str__(self) -> str:
        """``weft1/reviews-v1/reviews/v1/weft/reviews/v1``, in the order of the fields."""
        return "/".join((FORM, *self))


def _fits(value: str) -> bool:
    return len(value) <= _LONGEST and _WORD.fullmatch(value) is not None
