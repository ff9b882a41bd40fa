"""``status`` of Istio's resources, as far as only the control plane knows it.

ServiceEntries have the addresses that the mesh found for their hosts, as Istio tells them;
RequestAuthentications whether the keys of their issuers could be fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weft.compile.gatewayapi.conditions import KEYS_FETCHED, generation
from weft.compile.hosts import is_wildcard
from weft.compile.istio.service_entry import wants_vip
from weft.compile.key_sets import KeySet, KeySets, source_of
from weft.model.request_authentication import RequestAuthentication
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


def authentication_statuses(
    policies: Mapping[Key, RequestAuthentication], key_sets: KeySets
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Of each whether all keys that are to be fetched were; nothing where all are in the policy itself."""
    for key, policy in policies.items():
        wanted = [source for rule in policy.spec.jwt_rules or () if (source := source_of(rule)) is not None]
        if not wanted:
            yield key, {}
            continue
        known = {source: key_sets.get(source, KeySet()) for source in wanted}
        failures = [f"{source.uri}: {found.failure}" for source, found in known.items() if found.failure]
        missing = [source.uri for source, found in known.items() if not found.text]
        status, reason, message = "True", "Fetched", ""
        if failures:
            status, reason, message = "False", "FetchFailed", "; ".join(failures)
        elif missing:
            status, reason, message = "Unknown", "Pending", ", ".join(missing)
        yield (
            key,
            {
                "conditions": [
                    {
                        "type": KEYS_FETCHED,
                        "status": status,
                        "reason": reason,
                        "message": message,
                        "observedGeneration": generation(policy.metadata),
                    }
                ]
            },
        )
