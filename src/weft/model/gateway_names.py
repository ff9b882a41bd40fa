"""Names of Istio's Gateways in VirtualServices: ``namespace/name``, ``name``, or ``mesh``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.model.base import Flaw
from weft.model.hosts import fqdn, is_label


def gateways(names: Sequence[str]) -> Iterator[Flaw]:
    """What is wrong with ``gateways``. None is looked at after one without namespace, as in Istio."""
    for number, text in enumerate(names):
        path = ("gateways", number)
        namespace, slash, name = text.partition("/")
        if not slash:
            first, dot, rest = text.partition(".")
            if dot:
                better = f"{rest.partition('.')[0]}/{first}"
                yield Flaw(path, f"{text!r} is the old form of a name", f"write {better!r}", warns=True)
            if wrong := fqdn(text):
                yield Flaw(path, wrong, "write 'namespace/name'")
            return
        for part, what in ((namespace, "namespace"), (name, "name of a Gateway")):
            if not is_label(part):
                yield Flaw(path, f"{part!r} is not a {what}", "write 'namespace/name'")
