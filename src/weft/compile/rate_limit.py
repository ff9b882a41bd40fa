"""RateLimit: the limits that a proxy keeps on its way in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from weft import ir
from weft.compile.age import age
from weft.compile.attachment import Bounds, attached
from weft.compile.istio.request_match import text_match
from weft.compile.memo import Memo
from weft.compile.registry import Services
from weft.compile.service import Labels
from weft.errors import Problem, Severity
from weft.model.rate_limit import Limit, LimitKey, LimitMatch, RateLimit, RateLimitService
from weft.model.request_match import StringMatch
from weft.model.resource import Key
from weft.names import expand_host, outbound_cluster

UNHEEDED: Final = "WEFT0102"
_SECOND: Final = timedelta(seconds=1)
_TIMEOUT: Final = timedelta(milliseconds=20)
# A path is compared as people write it; what Envoy compares has the query behind it.
_QUERY: Final = r"(\?.*)?"


def limits_of(
    resources: Mapping[Key, RateLimit], namespace: str, labels: Labels, root: str, domain: str
) -> tuple[ir.RateLimit, ...]:
    """The limits of a proxy: those of the root namespace, then its namespace's, the oldest first."""
    found = attached(resources.values(), _bounds, namespace, labels, root)
    found.sort(key=lambda one: (one.metadata.namespace != root, age(one.metadata)))
    return tuple(_limit(resource, domain) for resource in found)


def _bounds(resource: RateLimit) -> Bounds:
    selector = resource.spec.selector
    return selector.match_labels if selector else None, resource.spec.target_refs


def shared(resources: Mapping[Key, RateLimit]) -> bool:
    """Whether some limit is divided among replicas, who must be known then."""
    return any(one.spec.service is None and one.spec.scope != "PROXY" for one in resources.values())


def problems(resources: Mapping[Key, RateLimit], services: Services, domain: str) -> tuple[Problem, ...]:
    """Services that shall count and are not there."""
    found: list[Problem] = []
    for key, resource in sorted(resources.items()):
        service = resource.spec.service
        if service is None:
            continue
        host = expand_host(service.host, key.namespace, domain)
        known = services.by_host.get(host, ())
        if not any(one.port(service.port) for one in known):
            message = f"there is no service {host!r} with port {service.port}: {_without(service)}"
            hint = "apply it, or a ServiceEntry for it"
            found.append(
                Problem(
                    UNHEEDED,
                    message,
                    hint=hint,
                    path="spec.service",
                    severity=Severity.WARNING,
                    resource=str(key),
                )
            )
    return tuple(found)


def _without(service: RateLimitService) -> str:
    return "every request is refused" if service.fail_open is False else "nothing is limited"


def limited(
    listeners: tuple[ir.Listener, ...], limits: tuple[ir.RateLimit, ...], memo: Memo
) -> tuple[ir.Listener, ...]:
    """Listeners of which those on the way in keep the limits."""
    return tuple(
        memo(_limited, listener, limits) if listener.direction is not ir.Direction.OUTBOUND else listener
        for listener in listeners
    )


def _limited(listener: ir.Listener, limits: tuple[ir.RateLimit, ...]) -> ir.Listener:
    return listener.with_chains(lambda chain: _chain(chain, limits))


def _chain(chain: ir.FilterChain, limits: tuple[ir.RateLimit, ...]) -> ir.FilterChain:
    if not isinstance(chain.handler, ir.HttpHandler):
        return chain
    return replace(chain, handler=replace(chain.handler, rate_limits=limits))


def _limit(resource: RateLimit, domain: str) -> ir.RateLimit:
    spec, metadata = resource.spec, resource.metadata
    return ir.RateLimit(
        name=f"{metadata.namespace}/{metadata.name}",
        buckets=tuple(_bucket(limit) for limit in spec.limits),
        shared=spec.scope != "PROXY",
        shadow=spec.mode == "SHADOW",
        status=spec.status or 429,
        tell=spec.headers != "NONE",
        service=_service(spec.service, metadata.namespace, domain) if spec.service else None,
    )


def _service(service: RateLimitService, namespace: str, domain: str) -> ir.LimitService:
    host = expand_host(service.host, namespace, domain)
    return ir.LimitService(
        cluster=outbound_cluster(host, service.port),
        domain=service.domain,
        timeout=service.timeout or _TIMEOUT,
        fail_open=service.fail_open is not False,
    )


def _bucket(limit: Limit) -> ir.Bucket:
    return ir.Bucket(
        name=limit.name,
        tokens=limit.requests,
        interval=limit.interval or _SECOND,
        burst=limit.burst or limit.requests,
        match=tuple(_tests(limit.match)) if limit.match else (),
        per=tuple(_key(key) for key in limit.per or ()),
    )


def _tests(match: LimitMatch) -> Iterator[ir.HeaderMatch]:
    if match.path is not None:
        yield ir.HeaderMatch(name=":path", match=_path(match.path))
    if match.methods:
        methods = "|".join(re.escape(method) for method in match.methods)
        yield ir.HeaderMatch(name=":method", match=ir.TextMatch(test=ir.TextTest.REGEX, value=methods))
    for name, test in sorted((match.headers or {}).items()):
        yield ir.HeaderMatch(name=name.lower(), match=text_match(test))


def _path(test: StringMatch) -> ir.TextMatch:
    if test.exact is not None:
        return ir.TextMatch(test=ir.TextTest.REGEX, value=re.escape(test.exact) + _QUERY)
    if test.regex is not None:
        return ir.TextMatch(test=ir.TextTest.REGEX, value=f"(?:{test.regex}){_QUERY}")
    return text_match(test)


def _key(key: LimitKey) -> ir.CallerKey:
    if key.header is not None:
        return ir.CallerKey(by=ir.CallerBy.HEADER, path=(key.header.lower(),))
    if key.claim is not None:
        return ir.CallerKey(by=ir.CallerBy.CLAIM, path=tuple(key.claim.split(".")))
    return ir.CallerKey(by=ir.CallerBy.ADDRESS if key.source == "IP" else ir.CallerBy.PRINCIPAL)
