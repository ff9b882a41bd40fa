"""Scalars of the public schemas. Nothing is coerced in silence, and each says what to write instead."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from weft import units
from weft.yaml import kind_of

Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Float = Annotated[float, Field(strict=False), BeforeValidator(lambda value: _number(value))]
Text = Annotated[str, Strict()]
Json = dict[str, Any]


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _whole(value: object) -> object:
    """JSON does not tell 80.0 from 80, and the schemas of CRDs take both; a number in quotes is a text."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# By protobuf's types: what does not fit into a proxy's numbers is refused where it was written.
_Whole = Annotated[int, Strict(), BeforeValidator(_whole)]
ProtoInt = Annotated[_Whole, Field(ge=-(2**31), le=2**31 - 1)]
Count = Annotated[_Whole, Field(ge=0, le=2**31 - 1)]
UInt = Annotated[_Whole, Field(ge=0, le=2**32 - 1)]
UInt64 = Annotated[_Whole, Field(ge=0, le=2**64 - 1)]
Port = Annotated[Int, Field(ge=1, le=65535)]


def _quoted(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch("-?[0-9]{1,20}", value) else _whole(value)


# Where no schema stands before protobuf's JSON, which takes numbers in quotes too (mesh configuration).
ProtoJsonInt = Annotated[int, Strict(), BeforeValidator(_quoted), Field(ge=-(2**31), le=2**31 - 1)]
ProtoJsonUInt = Annotated[int, Strict(), BeforeValidator(_quoted), Field(ge=0, le=2**32 - 1)]
ProtoPort = Annotated[_Whole, Field(ge=1, le=65535)]


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a text: a pattern (Rust's and RE2's common part), and what people call it."""

    pattern: str
    what: str
    longest: int = 0
    shortest: int = 1
    format: str = ""

    def check(self, value: str) -> str:
        """The value itself.

        Raises:
            ValueError: when it has another form.
        """
        if self.longest and len(value) > self.longest:
            raise ValueError(f"{_short(value)} is too long: at most {self.longest} characters")
        if len(value) < self.shortest:
            raise ValueError(f"must not be empty: write {self.what}")
        if not _compiled(self.pattern).fullmatch(value):
            raise ValueError(f"{_short(value)} is not {self.what}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        found: Json = dict(handler(schema))
        if self.pattern != ".*":
            found["pattern"] = f"^{self.pattern}$"
        if self.longest:
            found["maxLength"] = self.longest
        if self.shortest:
            found["minLength"] = self.shortest
        return found


_PATTERNS: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _PATTERNS:
        _PATTERNS[pattern] = re.compile(pattern, re.DOTALL)
    return _PATTERNS[pattern]


def _short(value: str) -> str:
    return repr(value if len(value) <= 60 else f"{value[:57]}...")


LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{LABEL}(?:\.{LABEL})*"
QUALIFIED: Final = r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_HEADER: Final = r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+"

DnsLabel = Annotated[
    Text, Form(LABEL, "a DNS label: lower-case letters, digits and '-', as 'reviews-v1'", longest=63)
]
DnsName = Annotated[
    Text,
    Form(SUBDOMAIN, "a DNS name: lower-case letters, digits, '-' and '.', as 'reviews.default'", longest=253),
]
Hostname = Annotated[
    Text,
    Form(
        rf"(?:\*\.)?{SUBDOMAIN}",
        "a host name: lower-case, as 'shop.example.com' or '*.example.com'",
        longest=253,
    ),
]
PreciseHostname = Annotated[
    Text, Form(SUBDOMAIN, "a host name without wildcard, lower-case, as 'shop.example.com'", longest=253)
]
GroupName = Annotated[
    Text, Form(rf"(?:{SUBDOMAIN})?", "an API group, as 'gateway.networking.k8s.io'", longest=253, shortest=0)
]
KindName = Annotated[Text, Form(r"[a-zA-Z](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?", "a kind, as 'Service'", longest=63)]
ObjectName = Annotated[Text, Form(".*", "the name of an object", longest=253)]
SectionName = Annotated[
    Text, Form(SUBDOMAIN, "a section's name: lower-case letters, digits, '-' and '.'", longest=253)
]
ControllerName = Annotated[
    Text,
    Form(
        rf"{SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+",
        "a controller's name: a domain and a path, as 'example.com/gateway'",
        longest=253,
    ),
]
HeaderName = Annotated[
    Text, Form(_HEADER, "a header's name: letters, digits and '-', as 'x-user'", longest=256)
]
AnyText = Annotated[Text, Form(".*", "text")]
HeaderValue = Annotated[
    Text,
    Form(r"[!-~]+(?:[\t ]?[!-~]+)*", "a header's value: printable ASCII, no space at the ends", longest=4096),
]
Uri = Annotated[
    Text,
    Form(
        r"[^:/?#]+://[^/?#]*[^?#]*(?:\?[^#]*)?(?:#.*)?",
        "a URI, as 'spiffe://cluster.local/ns/a/sa/b'",
        longest=253,
    ),
]
UrlPath = Annotated[
    Text,
    Form(
        r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+", "a path, as '/check'", longest=1024, shortest=0
    ),
]
CorsOrigin = Annotated[
    Text,
    Form(
        r"\*|https?://(?:(?:\*\.)?(?:[a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+|\*)(?::[0-9]{1,5})?",
        "an origin, as 'https://shop.example.com', 'https://*.example.com' or '*'",
        longest=253,
    ),
]
WellKnown = Annotated[
    Text,
    Form(rf"System|{SUBDOMAIN}/[A-Za-z0-9][-A-Za-z0-9_.]{{0,62}}", "'System', or 'domain/name'", longest=253),
]
AddressType = Annotated[
    Text,
    Form(
        rf"Hostname|IPAddress|NamedAddress|{SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+",
        "a type of address: Hostname, IPAddress or NamedAddress",
        longest=253,
    ),
]
ListenerProtocol = Annotated[
    Text,
    Form(
        rf"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?|{SUBDOMAIN}/[A-Za-z0-9]+",
        "a protocol: HTTP, HTTPS, TLS, TCP or UDP",
        longest=255,
    ),
]

_QUALIFIED: Final = re.compile(
    rf"(?:(?P<prefix>{SUBDOMAIN})/)?(?P<name>[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?)"
)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def _qualified(value: str) -> str:
    found = _QUALIFIED.fullmatch(value)
    if found is None or len(found["prefix"] or "") > 253:
        raise ValueError(
            f"{_short(value)} is not a label's key: write 'name' or 'domain/name', the name at most 63 long"
        )
    return value


def _label_value(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(_quote(value))
    if not _LABEL_VALUE.fullmatch(value):
        raise ValueError(
            f"{_short(value)} is not a label's value: at most 63 letters, digits, '-', '_' and '.', "
            "beginning and ending with a letter or digit"
        )
    return value


def _quote(value: object) -> str:
    hint = ""
    if isinstance(value, bool):
        hint = ": YAML takes yes, on, y and their like for booleans, put the text in quotes"
    elif isinstance(value, int | float):
        hint = f': write it in quotes, "{value}"'
    return f"must be text, not {kind_of(value)}{hint}"


def plain_text(value: object) -> str:
    """A text, never a number that looks like one."""
    if not isinstance(value, str):
        raise ValueError(_quote(value))
    return value


LabelKey = Annotated[str, BeforeValidator(_qualified), WithJsonSchema({"type": "string"})]
LabelValue = Annotated[str, BeforeValidator(_label_value), WithJsonSchema({"type": "string"})]
Labels = dict[LabelKey, LabelValue]


def _in_any_case(value: str) -> str:
    """The key of an annotation, which Kubernetes looks at without case."""
    _qualified(value.lower())
    return value


AnnotationKey = Annotated[str, BeforeValidator(_in_any_case), WithJsonSchema({"type": "string"})]
Annotations = dict[AnnotationKey, Annotated[str, BeforeValidator(plain_text)]]


class Duration(timedelta):
    """A duration that remembers how it was written."""

    text: str

    @classmethod
    def of(cls, value: timedelta, text: str) -> Self:
        """``value``, to be written as ``text``."""
        made = cls(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
        made.text = text
        return made


def _written(value: timedelta) -> str:
    return value.text if isinstance(value, Duration) else units.format_duration(value)


def _reader(parse: Callable[[object], timedelta]) -> Callable[[object], timedelta]:
    def read(value: object) -> timedelta:
        if isinstance(value, timedelta):
            return value
        return Duration.of(parse(value), str(value))

    return read


_MS: Final = 1_000_000  # in nanoseconds


def _proto_duration(value: object) -> timedelta:
    found = units.parse_duration(value)
    if found < timedelta(0):
        raise ValueError(f"{value!r} is negative: write a duration like '250ms'")
    return found


def _positive_duration(value: object) -> timedelta:
    found = units.nanoseconds(value)
    if found < _MS:
        raise ValueError(f"{value!r} is too short: at least '1ms'")
    if found % _MS:
        raise ValueError(f"{value!r} is too fine: whole milliseconds only")
    return units.parse_duration(value)


def _fine_duration(value: object) -> timedelta:
    if units.nanoseconds(value) < _MS:
        raise ValueError(f"{value!r} is too short: at least '1ms'")
    return units.parse_duration(value)


def _optional_duration(value: object) -> timedelta:
    return timedelta(0) if abs(units.nanoseconds(value)) < _MS else _positive_duration(value)


def _duration_of(parse: Callable[[object], timedelta]) -> Any:
    return PlainValidator(_reader(parse))


_WRITTEN: Final = PlainSerializer(_written, return_type=str)
_AS_TEXT: Final = WithJsonSchema({"type": "string"})
ProtoDuration = Annotated[timedelta, _duration_of(_proto_duration), _WRITTEN, _AS_TEXT]
PositiveDuration = Annotated[timedelta, _duration_of(_positive_duration), _WRITTEN, _AS_TEXT]
FineDuration = Annotated[timedelta, _duration_of(_fine_duration), _WRITTEN, _AS_TEXT]
OptionalDuration = Annotated[timedelta, _duration_of(_optional_duration), _WRITTEN, _AS_TEXT]
GatewayDuration = Annotated[timedelta, _duration_of(units.parse_gateway_duration), _WRITTEN, _AS_TEXT]


def _int_or_string(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a number or a name")
    return value


IntOrString = Annotated[
    int | str,
    PlainValidator(_int_or_string),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "oneOf": [{"type": "integer"}, {"type": "string"}]}),
]


def _base64(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(_quote(value))
    try:
        base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64: encode it, or put the plain text under stringData") from error
    return value


Base64 = Annotated[str, BeforeValidator(_base64), WithJsonSchema({"type": "string", "format": "byte"})]


def is_ip(value: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _ip(value: str) -> str:
    if not is_ip(value):
        raise ValueError(f"{_short(value)} is not an IP address")
    return value


@dataclass(frozen=True, slots=True)
class _Check:
    """A validator that keeps the field's JSON schema."""

    check: Callable[[str], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


IpAddress = Annotated[Text, _Check(_ip)]


_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _time(value: str) -> str:
    try:
        if not _RFC3339.fullmatch(value):
            raise ValueError(value)
        datetime.fromisoformat(re.sub(r"\.[0-9]+", "", value.upper()).replace("Z", "+00:00"))
    except ValueError as error:
        raise ValueError(f"{_short(value)} is not a time: write it like '2026-01-31T12:00:00Z'") from error
    return value


Time = Annotated[Text, _Check(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
