"""Istio Gateways: workloads, ports and conflicts (IST0101, IST0145, IST0162)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene, selects, shown
from weft.analysis.tree import number, pairs, rows, word, words
from weft.yaml import Path

GATEWAY: Final = "networking.istio.io/Gateway"


def selector_path(selector: Mapping[str, str]) -> Path:
    """Where the first label of a selector stands."""
    return ("spec", "selector", *sorted(selector)[:1])


def no_workload(gateway: Object, selector: Mapping[str, str]) -> Found:
    """A Gateway that nothing serves."""
    message = f"the selector {shown(selector)} chooses no workload: nothing serves this Gateway"
    return Found(gateway, "IST0101", message, selector_path(selector))


def ports(scene: Scene) -> Iterator[Found]:
    """Gateways that no workload serves, and ports that the Services of its workload do not lead to."""
    for gateway in scene.of(GATEWAY):
        selector = pairs(gateway.spec, "selector")
        chosen = [pod for pod in scene.pods if selects(selector, pod.labels)]
        if not chosen:
            yield no_workload(gateway, selector)
            continue
        offered: set[int] = set()
        found = not scene.ours
        for pod in chosen:
            for service in scene.services.get(pod.namespace, ()):
                wanted = pairs(service.spec, "selector")
                if not wanted or not selects(wanted, pod.labels):
                    continue
                found = found or not service.assumed
                for _, row in rows(service.spec, "ports"):
                    if word(row, "protocol") in {"", "TCP"}:
                        offered |= {number(row, "targetPort") or 0, number(row, "port") or 0} - {0}
        if not found:
            continue
        for index, server in rows(gateway.spec, "servers"):
            port = number(server, "port", "number")
            if port is not None and port not in offered:
                message = f"no Service leads to port {port} of the workloads with {shown(selector)}"
                yield Found(gateway, "IST0162", message, ("spec", "servers", index, "port"))


def conflicts(scene: Scene) -> Iterator[Found]:
    """Gateways with the same workload, port, host and address: only one of them can have it."""
    gateways = [(gateway, pairs(gateway.spec, "selector")) for gateway in scene.of(GATEWAY)]
    taken: dict[tuple[str, int], list[tuple[Object, dict[str, str]]]] = {}
    selectors: dict[str, dict[str, str]] = {}
    for gateway, selector in gateways:
        selectors[shown(selector)] = selector
        bound: dict[int, dict[str, str]] = {}
        for _, server in rows(gateway.spec, "servers"):
            hosts = bound.setdefault(number(server, "port", "number") or 0, {})
            hosts.update(dict.fromkeys(words(server, "hosts"), word(server, "bind")))
        for port, hosts in bound.items():
            taken.setdefault((shown(selector), port), []).append((gateway, hosts))
    same = {text: _same(selector, selectors, scene) for text, selector in selectors.items()}
    for gateway, selector in gateways:
        for index, server in rows(gateway.spec, "servers"):
            port, bind = number(server, "port", "number") or 0, word(server, "bind")
            wanted = words(server, "hosts")
            others = sorted(
                other.full_name
                for text in same[shown(selector)]
                for other, known in taken.get((text, port), ())
                if other is not gateway and any(known.get(host) == bind for host in wanted)
            )
            if others:
                message = (
                    f"{', '.join(others)} {'have' if len(others) > 1 else 'has'} the same workload "
                    f"({shown(selector)}), port {port} and hosts ({', '.join(wanted)})"
                )
                yield Found(gateway, "IST0145", message, ("spec", "servers", index))


def _same(selector: Mapping[str, str], selectors: Mapping[str, Mapping[str, str]], scene: Scene) -> list[str]:
    """Selectors that choose a workload which this one chooses too."""
    text = shown(selector)
    return [
        other
        for other, labels in selectors.items()
        if other == text
        or (
            (other in text or text in other)
            and any(selects(selector, pod.labels) and selects(labels, pod.labels) for pod in scene.pods)
        )
    ]
