"""ProxyConfig: how the proxy of a workload is to be started (Istio: EffectiveProxyConfig)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from weft.compile.age import age
from weft.model.proxy_config import ProxyConfig
from weft.model.proxy_settings import ProxySettings
from weft.start import ProxyStart


def start_of(
    defaults: ProxySettings | None,
    configs: Iterable[ProxyConfig],
    namespace: str,
    labels: Mapping[str, str],
    root: str,
) -> ProxyStart:
    """The mesh's default, then the root namespace's, the namespace's and the workload's own ProxyConfig.

    Of several that are for the same the oldest counts. Variables of all of them add up.
    """
    found = sorted(configs, key=lambda one: age(one.metadata))
    start = ProxyStart()
    if defaults is not None:
        start = _over(start, defaults.concurrency, defaults.proxy_metadata)
    for space in dict.fromkeys((root, namespace)):
        whole = (one for one in found if one.metadata.namespace == space and one.spec.selector is None)
        start = _with(start, next(whole, None))
    own = (
        one
        for one in found
        if one.metadata.namespace == namespace and one.spec.selector and _selects(one, labels)
    )
    return _with(start, next(own, None))


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
