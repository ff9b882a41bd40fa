"""ProxyConfig: how the proxy of a workload is to be started (Istio: EffectiveProxyConfig)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from weft.compile.age import age
from weft.model.proxy_config import ProxyConfig
from weft.model.proxy_settings import ProxySettings
from weft.start import ProxyStart
from weft.yaml import load

ANNOTATION: Final = "proxy.istio.io/config"


def start_of(
    defaults: ProxySettings | None,
    configs: Iterable[ProxyConfig],
    namespace: str,
    labels: Mapping[str, str],
    root: str,
    own_settings: ProxySettings | None = None,
) -> ProxyStart:
    """The mesh's default, then the root namespace's, the namespace's and the workload's own ProxyConfig.

    Of several that are for the same the oldest counts. Variables of all of them add up. ``own_settings``,
    by an annotation, go before all but the workload's own ProxyConfig.
    """
    found = sorted(configs, key=lambda one: age(one.metadata))
    start = ProxyStart()
    if defaults is not None:
        start = _over(start, defaults.concurrency, defaults.proxy_metadata)
    for space in dict.fromkeys((root, namespace)):
        whole = (one for one in found if one.metadata.namespace == space and one.spec.selector is None)
        start = _with(start, next(whole, None))
    if own_settings is not None:
        start = _over(start, own_settings.concurrency, own_settings.proxy_metadata)
    own = (
        one
        for one in found
        if one.metadata.namespace == namespace and one.spec.selector and _selects(one, labels)
    )
    return _with(start, next(own, None))


def annotated(annotations: Mapping[str, str]) -> ProxySettings | None:
    """What ``proxy.istio.io/config`` says; None when it says nothing, or cannot be read."""
    return settings_in(annotations.get(ANNOTATION, ""))


def settings_in(text: str) -> ProxySettings | None:
    """The same, of the annotation's text."""
    documents, _ = load(text, ANNOTATION)
    try:
        return ProxySettings.model_validate(documents[0].data) if documents else None
    except ValidationError:
        return None


def _selects(config: ProxyConfig, labels: Mapping[str, str]) -> bool:
    wanted = config.spec.selector.match_labels if config.spec.selector else None
    return bool(wanted) and (wanted or {}).items() <= labels.items()


def _with(start: ProxyStart, config: ProxyConfig | None) -> ProxyStart:
    return (
        start if config is None else _over(start, config.spec.concurrency, config.spec.environment_variables)
    )


def _over(start: ProxyStart, concurrency: int | None, variables: Mapping[str, str] | None) -> ProxyStart:
    return replace(
        start,
        concurrency=start.concurrency if concurrency is None else concurrency,
        environment={**start.environment, **(variables or {})},
    )
