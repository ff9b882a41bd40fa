"""The generic matcher of xDS (``xds.type.matcher.v3.Matcher``): which action it comes to.

Rules: the comments of xds/type/matcher/v3/matcher.proto. A list takes the first predicate that holds; a tree
looks the input up, by prefix the longest first; where a nested matcher comes to nothing, so does the outer
one, and ``on_no_match`` is for what nothing took.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import match
from weft.analysis.connection import parse_ip
from weft.analysis.match import Scene

if TYPE_CHECKING:
    from weft.protos import well_known, xds_core_v3, xds_matcher_v3

Opened = Callable[["well_known.Any"], Any]
"""The message inside an ``Any``."""


def decide(
    matcher: xds_matcher_v3.Matcher, scene: Scene, opened: Opened
) -> xds_core_v3.TypedExtensionConfig | None:
    """The action for a request or a connection; None when there is none."""
    found = _matched(matcher, scene, opened)
    if found is None and matcher.HasField("on_no_match"):
        found = matcher.on_no_match
    if found is None:
        return None
    return decide(found.matcher, scene, opened) if found.HasField("matcher") else found.action


def _matched(
    matcher: xds_matcher_v3.Matcher, scene: Scene, opened: Opened
) -> xds_matcher_v3.Matcher.OnMatch | None:
    for row in matcher.matcher_list.matchers:
        if holds(row.predicate, scene, opened):
            return row.on_match
    if not matcher.HasField("matcher_tree"):
        return None
    tree = matcher.matcher_tree
    given = read(tree.input, scene, opened)
    if given is None:
        return None
    match tree.WhichOneof("tree_type"):
        case "exact_match_map":
            return tree.exact_match_map.map.get(given) if given in tree.exact_match_map.map else None
        case "prefix_match_map":
            fitting = [key for key in tree.prefix_match_map.map if given.startswith(key)]
            return tree.prefix_match_map.map[max(fitting, key=len)] if fitting else None
        case "custom_match":
            return _by_block(opened(tree.custom_match.typed_config), given)
    return None


def holds(predicate: xds_matcher_v3.Matcher.MatcherList.Predicate, scene: Scene, opened: Opened) -> bool:
    """Whether a predicate is true."""
    match predicate.WhichOneof("match_type"):
        case "and_matcher":
            return all(holds(one, scene, opened) for one in predicate.and_matcher.predicate)
        case "or_matcher":
            return any(holds(one, scene, opened) for one in predicate.or_matcher.predicate)
        case "not_matcher":
            return not holds(predicate.not_matcher, scene, opened)
        case "single_predicate":
            single = predicate.single_predicate
            given = read(single.input, scene, opened)
            if given is None or not single.HasField("value_match"):
                return False
            # The same fields as Envoy's own StringMatcher has.
            return match.text(single.value_match, given)  # type: ignore[arg-type]
    return False


def read(row: xds_core_v3.TypedExtensionConfig, scene: Scene, opened: Opened) -> str | None:
    """What an input gives; None when it has no value, or is not known here."""
    config = opened(row.typed_config)
    known = _INPUTS.get(config.DESCRIPTOR.name) if config is not None else None
    return known(config, scene) if known is not None else None


def _header(config: Any, scene: Scene) -> str | None:
    values = scene.headers.get(config.header_name.lower())
    return ",".join(values) if values else None


def _query(config: Any, scene: Scene) -> str | None:
    values = scene.query.get(config.query_param)
    return values[0] if values else None


_INPUTS: Final[dict[str, Callable[[Any, Scene], str | None]]] = {
    "HttpRequestHeaderMatchInput": _header,
    "HttpRequestQueryParamMatchInput": _query,
    "DestinationIPInput": lambda _, scene: scene.destination_ip or None,
    "DestinationPortInput": lambda _, scene: str(scene.destination_port),
    "DirectSourceIPInput": lambda _, scene: scene.source_ip or None,
    "SourceIPInput": lambda _, scene: scene.remote_ip or None,
    "ServerNameInput": lambda _, scene: scene.server_name or None,
    "TransportProtocolInput": lambda _, scene: "tls" if scene.tls else "raw_buffer",
    "UriSanInput": lambda _, scene: ",".join(scene.peer or ()) or None,
}


def _by_block(config: Any, given: str) -> xds_matcher_v3.Matcher.OnMatch | None:
    """``IPMatcher``: the longest prefix that holds the address."""
    ip = parse_ip(given)
    if config is None or config.DESCRIPTOR.name != "IPMatcher" or ip is None:
        return None
    best: tuple[int, Any] | None = None
    for row in config.range_matchers:
        for block in row.ranges:
            held = _network(block.address_prefix, block.prefix_len)
            if held is not None and ip in held and (best is None or held.prefixlen > best[0]):
                best = held.prefixlen, row.on_match
    return best[1] if best is not None else None


def _network(prefix: str, length: Any) -> Any:
    bits = length.value
    try:
        return ip_network(f"{prefix}/{bits}", strict=False)
    except ValueError:
        return None
