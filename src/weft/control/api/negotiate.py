"""What a client accepts and sends: JSON, as objects, as a table, or as metadata alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from weft.control.api import protobuf
from weft.control.api.status import ApiError, bad_request

JSON: Final = "application/json"
_META: Final = "meta.k8s.io"
_FORMS: Final = {
    "Table": "Table",
    "PartialObjectMetadata": "Metadata",
    "PartialObjectMetadataList": "Metadata",
}


@dataclass(frozen=True, slots=True)
class MediaType:
    """One entry of an Accept header. ``name`` is lower case, without parameters."""

    name: str
    parameters: dict[str, str]


def media_types(header: str) -> list[MediaType]:
    """The entries of an Accept or Content-Type header, best first."""
    found: list[tuple[float, MediaType]] = []
    for part in header.split(","):
        name, *rest = (piece.strip() for piece in part.split(";"))
        if name:
            parameters = dict(piece.split("=", 1) for piece in rest if "=" in piece)
            quality = parameters.pop("q", "1")
            found.append((-_number(quality), MediaType(name.lower(), parameters)))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def form_of(accept: str) -> str:
    """How the client wants objects: ``Object``, ``Table`` or ``Metadata``.

    Raises:
        ApiError: 406 when it takes nothing that weft speaks.
    """
    for entry in media_types(accept or "*/*"):
        if entry.name not in {JSON, "*/*", "application/*"}:
            continue
        wanted = entry.parameters.get("as")
        if wanted is None:
            return "Object"
        if wanted in _FORMS and entry.parameters.get("g") == _META and entry.parameters.get("v") == "v1":
            return _FORMS[wanted]
    raise not_acceptable()


def discovery_form(accept: str) -> str | None:
    """The version of aggregated discovery that the client prefers, None for the plain form.

    Raises:
        ApiError: 406.
    """
    for entry in media_types(accept or "*/*"):
        if entry.name not in {JSON, "*/*", "application/*"}:
            continue
        parameters = entry.parameters
        if "as" not in parameters:
            return None
        if parameters["as"] == "APIGroupDiscoveryList" and parameters.get("v") in {"v2", "v2beta1"}:
            return parameters["v"]
    raise not_acceptable()


def not_acceptable() -> ApiError:
    """406."""
    return ApiError(406, f"only the following media types are accepted: {JSON}")


def read_json(body: bytes, content_type: str) -> Any:
    """The body of a request.

    Raises:
        ApiError: 415 for a form that is neither JSON nor protobuf, 400 for a broken body.
    """
    name = content_type.partition(";")[0].strip().lower()
    if name == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    if name not in {"", JSON}:
        raise ApiError(
            415, f"the body of the request was in an unknown format - accepted media types include: {JSON}"
        )
    return decode_json(body)


def decode_json(body: bytes) -> Any:
    """Any JSON.

    Raises:
        ApiError: 400 for anything else.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise bad_request("the body is nested too deeply") from error
