"""VirtualService ``headers``: what is set, added and removed, and the Host that may hide among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weft import ir
from weft.model.virtual_service import HeaderOperations, Headers


@dataclass(frozen=True, slots=True)
class Edits:
    """``authority``: a Host set among the request's headers, which Envoy changes elsewhere."""

    request: ir.HeaderEdit = ir.NO_EDIT
    response: ir.HeaderEdit = ir.NO_EDIT
    authority: str | None = None


NO_EDITS = Edits()


def header_edits(headers: Headers | None) -> Edits:
    """Both directions of a ``headers`` block. Pseudo headers are left out: Envoy refuses to change them."""
    if headers is None:
        return NO_EDITS
    return Edits(_edit(headers.request), _edit(headers.response), _authority(headers.request))


def joined(first: ir.HeaderEdit, second: ir.HeaderEdit) -> ir.HeaderEdit:
    """Both, the second after the first."""
    if second == ir.NO_EDIT:
        return first
    return ir.HeaderEdit(
        set=first.set + second.set, add=first.add + second.add, remove=first.remove + second.remove
    )


def _edit(operations: HeaderOperations | None) -> ir.HeaderEdit:
    if operations is None:
        return ir.NO_EDIT
    return ir.HeaderEdit(
        set=_pairs(operations.set),
        add=_pairs(operations.add),
        remove=tuple(name for name in operations.remove or () if not _internal(name)),
    )


def _pairs(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in (headers or {}).items() if not _internal(name)))


def _authority(operations: HeaderOperations | None) -> str | None:
    for headers in (operations.set, operations.add) if operations else ():
        for name, value in (headers or {}).items():
            if name.lower() in {":authority", "host"}:
                return value
    return None


def _internal(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"
