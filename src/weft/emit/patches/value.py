"""The messages that patches bring along."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import ParseError

from weft.emit.patches.durations import in_seconds
from weft.errors import did_you_mean
from weft.ir.patch import Patch, Target
from weft.protos.pool import message_class
from weft.protos.wire import from_dict

if TYPE_CHECKING:
    from google.protobuf.message import Message

MESSAGES: Final = {
    Target.LISTENER: "envoy.config.listener.v3.Listener",
    Target.LISTENER_FILTER: "envoy.config.listener.v3.ListenerFilter",
    Target.FILTER_CHAIN: "envoy.config.listener.v3.FilterChain",
    Target.NETWORK_FILTER: "envoy.config.listener.v3.Filter",
    Target.HTTP_FILTER: "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    Target.ROUTE_CONFIGURATION: "envoy.config.route.v3.RouteConfiguration",
    Target.VIRTUAL_HOST: "envoy.config.route.v3.VirtualHost",
    Target.HTTP_ROUTE: "envoy.config.route.v3.Route",
    Target.CLUSTER: "envoy.config.cluster.v3.Cluster",
    Target.EXTENSION_CONFIG: "envoy.config.core.v3.TypedExtensionConfig",
    Target.BOOTSTRAP: "envoy.config.bootstrap.v3.Bootstrap",
}


_NO_FIELD: Final = re.compile(
    r'Message type "(?P<type>[^"]+)" has no field named "(?P<field>[^"]+)"[^\n]*\n[^\[]*\[(?P<known>[^\]]*)'
)


# What Python and protobuf say of a value of the wrong type, in words of the resource.
_PLAINLY: Final = (
    (re.compile(r"expected string or bytes-like object, got '(\w+)'"), "a text is expected, not {}"),
    (re.compile(r"Duration JSON value not a string: .*"), "a duration is expected, as 5s"),
    (
        re.compile(r"'(\w+)' object is not (?:iterable|subscriptable|a mapping).*"),
        "an object is expected, not {}",
    ),
    (re.compile(r"'(\w+)' object has no attribute .*"), "an object is expected, not {}"),
    (re.compile(r"repeated field \w+ must be in \[\] .*"), "a list is expected"),
    (re.compile(r"invalid literal for int\(\) with base 10: ('.*')"), "a number is expected, not {}"),
    (re.compile(r"[Cc]ouldn't parse (?:integer|float|number): (.*)"), "a number is expected, not {}"),
    (re.compile(r"Value out of range: (.*)"), "{} is out of range"),
    (re.compile(r"Can not find message descriptor by type_url: (.*)"), "this Envoy has no type {}"),
    (re.compile(r"Invalid enum value (\S+) for enum type (\S+)"), "{} is no value of {}"),
)
_TYPES: Final = {
    "str": "a text", "int": "a number", "float": "a number", "bool": "a boolean", "list": "a list",
    "dict": "an object", "NoneType": "nothing",
}  # fmt: skip


class PatchError(ValueError):
    """A patch cannot be applied; the text says why."""


def value_of(patch: Patch) -> Message | None:
    """The message of a patch, which must not be changed; None when it has none.

    Fields that this Envoy does not know are left out, as Istio does.

    Raises:
        PatchError: it is no such message, or holds a type that this Envoy does not know.
    """
    return _parsed(patch.target, patch.value) if patch.value else None


@functools.lru_cache(maxsize=512)
def _parsed(target: Target, text: str) -> Message:
    try:
        return from_dict(_read(target, text), MESSAGES[target], lenient=True)
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        raise PatchError(_said(str(error))) from error


def _read(target: Target, text: str) -> dict[str, Any]:
    value: dict[str, Any] = in_seconds(json.loads(text), message_class(MESSAGES[target]).DESCRIPTOR)
    return value


def unknown_fields(patch: Patch) -> str:
    """What of a patch's value this Envoy does not know, in words; empty when it knows everything."""
    if not patch.value:
        return ""
    try:
        from_dict(_read(patch.target, patch.value), MESSAGES[patch.target])
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        return _said(str(error))
    return ""


def _said(text: str) -> str:
    """protobuf's words without its own frame, and a name that is not there with the one that was meant."""
    if unknown := _NO_FIELD.search(text):
        field = unknown["field"]
        known = re.findall(r"\w+", unknown["known"])
        if "_" in field:
            known = [re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", name) for name in known]
        meant = did_you_mean(field, known)
        return f"{unknown['type']} has no field '{field}'{f' ({meant})' if meant else ''}"
    *fields, words = re.split(r"(?:Failed to parse )?([\w.@/\[\]]+) field: ", text)
    path = ".".join(filter(None, fields))
    words = re.sub(r" at [\w.\[\]]+$", "", words.removeprefix("Failed to parse ").rstrip("."))
    for pattern, plain in _PLAINLY:
        if found := pattern.match(words):
            words = plain.format(*(_TYPES.get(part, part) for part in found.groups()))
    return f"{path}: {words}" if path else words
