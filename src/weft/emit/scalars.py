"""Small values in protobuf's clothes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from weft.ir.match import TextMatch, TextTest
from weft.protos import core_v3, matcher_v3, type_v3, well_known

if TYPE_CHECKING:
    from weft.ir.route import HeaderEdit, Source

_MICROSECOND: Final = timedelta(microseconds=1)
# Envoy counts nanoseconds in 64 bits and refuses what comes near the end of them, in 292 years.
_LONGEST: Final = timedelta(seconds=2**63 // 10**9 - 1)
_UINT32_MAX: Final = 2**32 - 1
_UNIX: Final = "unix://"


def duration(value: timedelta) -> well_known.Duration:
    """Exact to the microsecond; what nobody lives to see is cut off."""
    seconds, rest = divmod(min(value, _LONGEST) // _MICROSECOND, 1_000_000)
    return well_known.Duration(seconds=seconds, nanos=rest * 1000)


def maybe_duration(value: timedelta | None) -> well_known.Duration | None:
    """None stays None: Envoy's default."""
    return None if value is None else duration(value)


def uint32(value: int) -> well_known.UInt32Value:
    """A number that may be absent."""
    return well_known.UInt32Value(value=value)


def shares(weights: Sequence[int]) -> Sequence[int]:
    """The same weights, or smaller ones in proportion: Envoy wants their sum to fit into 32 bits."""
    total = sum(weights)
    if total <= _UINT32_MAX:
        return weights
    room = _UINT32_MAX - len(weights)
    return [max(1, weight * room // total) if weight else 0 for weight in weights]


def maybe_uint32(value: int | None) -> well_known.UInt32Value | None:
    """None stays None: Envoy's default."""
    return None if value is None else uint32(value)


def boolean(value: bool) -> well_known.BoolValue:
    """A boolean that may be absent."""
    return well_known.BoolValue(value=value)


def fraction(millionths: int) -> type_v3.FractionalPercent:
    """A share in millionths."""
    return type_v3.FractionalPercent(
        numerator=millionths, denominator=type_v3.FractionalPercent.DenominatorType.MILLION
    )


def regex(pattern: str) -> matcher_v3.RegexMatcher:
    """An RE2 pattern, matched against the whole value."""
    return matcher_v3.RegexMatcher(regex=pattern)


def text(match: TextMatch) -> matcher_v3.StringMatcher:
    """A test of a text. ``PRESENT`` has no such form: its callers have a field of their own for it."""
    case = match.ignore_case
    match match.test:
        case TextTest.EXACT:
            return matcher_v3.StringMatcher(exact=match.value, ignore_case=case)
        case TextTest.PREFIX:
            return matcher_v3.StringMatcher(prefix=match.value, ignore_case=case)
        case TextTest.SUFFIX:
            return matcher_v3.StringMatcher(suffix=match.value, ignore_case=case)
        case TextTest.CONTAINS:
            return matcher_v3.StringMatcher(contains=match.value, ignore_case=case)
        case TextTest.REGEX | TextTest.PRESENT:
            pattern = match.value if match.test is TextTest.REGEX else ".*"
            return matcher_v3.StringMatcher(safe_regex=regex(f"(?i:{pattern})" if case else pattern))


def address(host: str, port: int) -> core_v3.Address:
    """``host`` is an IP, a name, or ``unix:///path``."""
    if host.startswith(_UNIX):
        return core_v3.Address(pipe=core_v3.Pipe(path=host.removeprefix(_UNIX)))
    return core_v3.Address(socket_address=core_v3.SocketAddress(address=host, port_value=port))


def cidr(block: str) -> core_v3.CidrRange:
    """``10.0.0.0/8``; an address alone is itself only."""
    prefix, _, bits = block.partition("/")
    length = int(bits) if bits else (128 if ":" in prefix else 32)
    return core_v3.CidrRange(address_prefix=prefix, prefix_len=uint32(length))


def headers_to_add(edit: HeaderEdit) -> list[core_v3.HeaderValueOption]:
    """``set`` overwrites, ``add`` appends."""
    action = core_v3.HeaderValueOption.HeaderAppendAction
    return [
        core_v3.HeaderValueOption(header=core_v3.HeaderValue(key=name, value=value), append_action=how)
        for pairs, how in (
            (edit.set, action.OVERWRITE_IF_EXISTS_OR_ADD),
            (edit.add, action.APPEND_IF_EXISTS_OR_ADD),
        )
        for name, value in pairs
    ]


def struct(pairs: Iterable[tuple[str, str]]) -> well_known.Struct:
    """Texts by key; those without a value are left out."""
    made = well_known.Struct()
    for key, value in pairs:
        if value:
            made.fields[key].string_value = value
    return made


def source_metadata(source: Source | None) -> core_v3.Metadata | None:
    """Istio's ``filter_metadata.istio.config``: the resource that asked for this."""
    if source is None:
        return None
    metadata = core_v3.Metadata()
    fields = metadata.filter_metadata["istio"].fields
    fields["config"].string_value = source.path
    if source.rule is not None:
        fields["rule"].number_value = source.rule
    if source.match is not None:
        fields["match"].number_value = source.match
    return metadata
