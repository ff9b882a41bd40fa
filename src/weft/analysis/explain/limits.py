"""Rate limits on the way of a request: which descriptors it has, and which buckets count it.

Nobody knows how full a bucket is, so that a request is taken to be within its limits. Rules: the comments of
RateLimit.Action in route_components.proto and of local_rate_limit.proto.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import match
from weft.analysis.match import fraction

if TYPE_CHECKING:
    from weft.analysis.explain.passage import Passage
    from weft.analysis.match import Scene

Entries = tuple[tuple[str, str | None], ...]
"""Keys and values of a descriptor; None is a value that is known only when the request is made."""

_TOO_MANY: Final = 429
_DYNAMIC: Final = 0  # RateLimit.Action.MetaData.Source


def descriptors(rules: Iterable[Any], passage: Passage) -> list[Entries]:
    """The descriptors that rules give a request; where an action finds nothing, its rule gives none."""
    found: list[Entries] = []
    for rule in rules:
        entries: list[tuple[str, str | None]] = []
        for action in rule.actions:
            made = _entry(action, passage)
            if made is None:
                break
            entries += made
        else:
            if entries:
                found.append(tuple(entries))
    return found


def _entry(action: Any, passage: Passage) -> list[tuple[str, str | None]] | None:
    """What an action adds; None when the whole rule does not apply."""
    scene = passage.scene
    kind = action.WhichOneof("action_specifier")
    config: Any = getattr(action, kind or "generic_key")
    match kind:
        case "generic_key":
            return [(config.descriptor_key or "generic_key", config.descriptor_value)]
        case "header_value_match":
            holds = all(match.header(test, scene.headers) for test in config.headers)
            return _if_matched(config, "header_match", holds)
        case "query_parameter_value_match":
            holds = all(match.query(test, scene.query) for test in config.query_parameters)
            return _if_matched(config, "query_match", holds)
        case "request_headers":
            values = scene.headers.get(config.header_name.lower())
            if values:
                return [(config.descriptor_key, ",".join(values))]
            return [] if config.skip_if_absent else None
        case "metadata" if config.source == _DYNAMIC:
            found: Any = scene.metadata.get(config.metadata_key.key)
            for part in config.metadata_key.path:
                found = found.get(part.key) if isinstance(found, dict) else None
            value = found if isinstance(found, str) and found else config.default_value
            return [(config.descriptor_key, value)] if value else [] if config.skip_if_absent else None
        case "remote_address":
            return [("remote_address", scene.remote_ip or None)]
    if kind == "extension":
        made = passage.open(config.typed_config)
        text = getattr(made, "text", "")
        return [(getattr(made, "descriptor_key", "") or config.name, _evaluated(text, scene))]
    return [(kind or "", None)]


_TEXT: Final = r'"(?:[^"\\]|\\.)*"'
_PEER: Final = r"connection\.uri_san_peer_certificate"
_OF_PEER: Final = re.compile(rf"has\({_PEER}\) \? {_PEER} : ({_TEXT})")
_OF_HEADER: Final = re.compile(rf"\(({_TEXT}) in request\.headers\) \? request\.headers\[\1\] : ({_TEXT})")


def _evaluated(text: str, scene: Scene) -> str | None:
    """What weft's own expressions come to: a caller's identity or header, or a word for nobody."""
    if found := _OF_PEER.fullmatch(text):
        return scene.peer[0] if scene.peer else str(json.loads(found[1]))
    if found := _OF_HEADER.fullmatch(text):
        values = scene.headers.get(json.loads(found[1]))
        return ",".join(values) if values else str(json.loads(found[2]))
    return None


def _if_matched(config: Any, key: str, holds: bool) -> list[tuple[str, str | None]] | None:
    wanted = config.expect_match.value if config.HasField("expect_match") else True
    return [(config.descriptor_key or key, config.descriptor_value)] if holds == wanted else None


def local(passage: Passage, base: Any, overrides: list[Any]) -> None:
    """Say which buckets of the proxy's own count the request."""
    config = overrides[-1] if overrides else base
    if config.HasField("filter_enabled") and not fraction(config.filter_enabled.default_value):
        return
    status = int(config.status.code) or _TOO_MANY
    enforced = not config.HasField("filter_enforced") or fraction(config.filter_enforced.default_value) > 0
    counted = 0
    for entries in descriptors(_rules(config, passage), passage):
        for row in config.descriptors:
            if _fits(row.entries, entries):
                counted += 1
                _say(passage, _words(entries), row.token_bucket, status, enforced)
    if config.HasField("token_bucket") and not counted:
        _say(passage, "all requests", config.token_bucket, status, enforced)


def _rules(config: Any, passage: Passage) -> Iterable[Any]:
    """The filter's own rules; without any those of the route, else of its virtual host."""
    if config.rate_limits:
        return tuple(config.rate_limits)
    if passage.forwards and passage.route is not None and passage.route.route.rate_limits:
        return tuple(passage.route.route.rate_limits)
    return tuple(passage.host.rate_limits) if passage.host is not None else ()


def remote(passage: Passage, base: Any, overrides: list[Any]) -> None:
    """Say which service is asked, and about what."""
    config = overrides[-1] if overrides else base
    service = base.rate_limit_service.grpc_service.envoy_grpc.cluster_name
    enforced = not base.HasField("filter_enforced") or fraction(base.filter_enforced.default_value) > 0
    rules = config.rate_limits or _rules(base, passage)
    for entries in descriptors(rules, passage):
        shadow = "" if enforced else ", whose answer is only counted"
        text = f"{service} is asked about {_words(entries)} in {base.domain}{shadow}"
        passage.answer.say("rateLimit", text, passage.cause)
        passage.answer.limits.append({"descriptor": dict(entries), "service": service, "enforced": enforced})


def _fits(wanted: Any, entries: Entries) -> bool:
    """Whether a descriptor's bucket is for these entries; an empty value there takes any."""
    if len(wanted) != len(entries):
        return False
    return all(
        one.key == key and (not one.value or one.value == value)
        for one, (key, value) in zip(wanted, entries, strict=True)
    )


def _words(entries: Entries) -> str:
    return ", ".join(f"{key}={'?' if value is None else value}" for key, value in entries)


def _say(passage: Passage, what: str, bucket: Any, status: int, enforced: bool) -> None:
    from weft.analysis.explain.passage import duration

    more = bucket.tokens_per_fill.value if bucket.HasField("tokens_per_fill") else 1
    every = duration(bucket.fill_interval)
    then = f"then {status}" if enforced else "more are only counted"
    text = f"{what}: {more} every {every}, at most {bucket.max_tokens} at once, {then}"
    passage.answer.say("rateLimit", text, passage.cause)
    passage.answer.limits.append(
        {"descriptor": what, "requests": more, "per": every, "burst": bucket.max_tokens}
        | {"status": status, "enforced": enforced}
    )
