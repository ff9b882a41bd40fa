"""Webhooks of Istio's injectors and validators (IST0139, IST0163, IST0164)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import product
from typing import Any, Final
from urllib.parse import urlsplit

from weft.analysis.analyzers.injection import WEBHOOK
from weft.analysis.objects import Object
from weft.analysis.scene import INJECT, INJECTION, REVISION, Found, Scene
from weft.analysis.selectors import matches
from weft.analysis.tree import at, pairs, rows, table, word, words

VALIDATING: Final = "admissionregistration.k8s.io/ValidatingWebhookConfiguration"
_DEFAULT_VALIDATOR: Final = "istiod-default-validator"

_Hook = tuple[Object, dict[str, Any]]


def injectors(scene: Scene) -> Iterator[Found]:
    """Injectors that overlap, so that pods get two sidecars, or whose service does not exist."""
    hooks: list[_Hook] = []
    revisions: set[str] = set()
    for item in scene.of(WEBHOOK):
        own = [hook for _, hook in rows(item.data, "webhooks")]
        named = set(_revisions(item, own))
        if named or any(word(hook, "name").endswith("istio.io") for hook in own):
            hooks += [(item, hook) for hook in own]
            revisions |= named
    yield from _overlaps(hooks, sorted(revisions))
    for item, hook in hooks:
        service = table(hook, "clientConfig", "service")
        if service and scene.find("/Service", word(service, "namespace"), word(service, "name")) is None:
            name = f"{word(service, 'namespace')}/{word(service, 'name')}"
            yield Found(item, "IST0139", f"its webhook calls the Service {name}, which does not exist")


def _overlaps(hooks: list[_Hook], revisions: list[str]) -> Iterator[Found]:
    told: set[tuple[str, ...]] = set()
    spaces = _labels(INJECTION, "enabled", "disabled", revisions)
    pods = _labels(INJECT, "true", "false", revisions)
    for above, own in product(spaces, pods):
        hit = {
            f"{item.name}/{word(hook, 'name')}": item
            for item, hook in hooks
            if matches(at(hook, "namespaceSelector"), above) and matches(at(hook, "objectSelector"), own)
        }
        for name, item in hit.items() if len(hit) > 1 else ():
            others = tuple(sorted(other for other in hit if other != name))
            if (name, *others) not in told:
                told.add((name, *others))
                yield Found(
                    item, "IST0139", f"it overlaps with {', '.join(others)}: pods may get two sidecars"
                )


def _labels(key: str, yes: str, no: str, revisions: list[str]) -> list[dict[str, str]]:
    """Every combination of labels that selectors of injectors tell apart."""
    base: list[dict[str, str]] = [{}, {key: yes}, {key: no}]
    return [*base, *({**labels, REVISION: revision} for revision in revisions for labels in base)]


def _revisions(item: Object, hooks: list[dict[str, Any]]) -> Iterator[str]:
    if REVISION in item.labels:
        yield item.labels[REVISION]
    for hook in hooks:
        for field in ("namespaceSelector", "objectSelector"):
            labels = pairs(hook, field, "matchLabels")
            if REVISION in labels:
                yield labels[REVISION]
            for _, demand in rows(hook, field, "matchExpressions"):
                if word(demand, "key") == REVISION:
                    yield from words(demand, "values")


def external(scene: Scene) -> Iterator[Found]:
    """Addresses of control planes that run elsewhere."""
    for kind in (VALIDATING, WEBHOOK):
        for item in scene.of(kind):
            validator = item.name == _DEFAULT_VALIDATOR or item.name.startswith("istio-validator")
            if not (validator if kind == VALIDATING else item.name.startswith("istio-sidecar-injector")):
                continue
            for index, hook in rows(item.data, "webhooks"):
                yield from _address(item, hook, ("webhooks", index, "clientConfig"))


def _address(item: Object, hook: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[Found]:
    name = word(hook, "name")
    url = at(hook, "clientConfig", "url")
    if isinstance(url, str):
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            yield Found(item, "IST0163", f"the webhook {name} calls {url!r}, which is no address", path)
            return
        try:
            ip_address(host)
        except ValueError:
            return
        yield Found(
            item, "IST0164", f"the webhook {name} calls {url}: a host name would outlive the IP", path
        )
    elif not isinstance(at(hook, "clientConfig", "service"), dict):
        yield Found(item, "IST0163", f"the webhook {name} has no address", path)
