"""``status`` of ServiceEntries: the addresses that the mesh found for their hosts, as Istio tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weft.compile.hosts import is_wildcard
from weft.compile.istio.service_entry import wants_vip
from weft.model.resource import Key
from weft.model.service_entry import ServiceEntry


def entry_statuses(
    entries: Mapping[Key, ServiceEntry], vips: Mapping[tuple[str, str], str]
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Of each its addresses, none where it has some itself. ``vips``: by namespace and host."""
    for key, entry in entries.items():
        hosts = dict.fromkeys(entry.spec.hosts) if wants_vip(entry) else ()
        found = [
            {"value": vips[key.namespace, host], "host": host}
            for host in hosts
            if not is_wildcard(host) and (key.namespace, host) in vips
        ]
        yield key, {"addresses": found} if found else {}
