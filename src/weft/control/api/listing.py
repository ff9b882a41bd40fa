"""Lists: which state, which objects, which page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from weft.control.api.metadata import Wire, present
from weft.control.api.selectors import Predicate
from weft.control.api.status import ApiError, bad_request, expired
from weft.model.catalog import KindRow
from weft.store.interface import Store


def number(parameters: Mapping[str, str], name: str) -> int | None:
    """A whole number from the query.

    Raises:
        ApiError: 400 when it is none.
    """
    text = parameters.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise bad_request(f"invalid {name} {text!r}: write a whole number")
    return int(text)


def check_revision(parameters: Mapping[str, str], current: int) -> None:
    """Refuse a list at a state that is not at hand.

    Raises:
        ApiError: 410 for an exact past state, 504 for one to come, 400 for a contradiction.
    """
    wanted = number(parameters, "resourceVersion")
    match parameters.get("resourceVersionMatch", ""):
        case "" | "NotOlderThan":
            pass
        case "Exact":
            if not wanted:
                raise bad_request("resourceVersionMatch Exact needs a resourceVersion other than 0")
            if wanted < current:
                raise expired(f"the state at resource version {wanted} is no longer kept: list again")
        case other:
            raise bad_request(f"resourceVersionMatch {other!r} is neither Exact nor NotOlderThan")
    if wanted is not None and wanted > current:
        message = f"Too large resource version: {wanted}, current: {current}"
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        raise ApiError(504, message, details={"causes": causes, "retryAfterSeconds": 1})


async def page(
    store: Store, row: KindRow, version: str, namespace: str | None, selects: Predicate,
    parameters: Mapping[str, str],
) -> tuple[Sequence[Wire], Wire]:  # fmt: skip
    """The objects and the ``ListMeta`` of the answer.

    Later pages come from the present state but bear the first page's resourceVersion: a watch from there
    tells whatever changed between them.
    """
    limit = number(parameters, "limit") or 0
    token = parameters.get("continue", "")
    if token:
        revision, after = _decode_token(token)
    else:
        check_revision(parameters, store.revision)
        revision, after = store.revision, None
    wires: list[Wire] = []
    remaining = 0
    for stored in await store.list(row.id, namespace):
        place = (stored.key.namespace, stored.key.name)
        if after is not None and place <= after:
            continue
        wire = present(stored, row, version)
        if not selects(wire):
            continue
        if limit and len(wires) == limit:
            remaining += 1
        else:
            wires.append(wire)
    metadata: Wire = {"resourceVersion": str(revision)}
    if remaining:
        last = wires[-1]["metadata"]
        metadata["continue"] = _encode_token(revision, (last.get("namespace", ""), last["name"]))
        metadata["remainingItemCount"] = remaining
    return wires, metadata


def _encode_token(revision: int, place: tuple[str, str]) -> str:
    text = msgspec.json.encode([revision, *place])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _decode_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        revision, namespace, name = msgspec.json.decode(text, type=tuple[int, str, str])
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise bad_request("continue key is not valid") from error
    return revision, (namespace, name)


def as_list(row: KindRow, version: str, wires: Sequence[Wire], metadata: Mapping[str, Any]) -> Wire:
    """``VirtualServiceList``."""
    return {
        "apiVersion": row.api_version_of(version),
        "kind": f"{row.kind}List",
        "metadata": dict(metadata),
        "items": wires,
    }
