"""ServiceEntries that cannot be told apart (IST0134, IST0177)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.analysis.hosts import ALL, scopes
from weft.analysis.objects import Object
from weft.analysis.scene import Found, Scene
from weft.analysis.tree import at, number, pairs, rows, word, words

ENTRY: Final = "networking.istio.io/ServiceEntry"


def addresses(scene: Scene) -> Iterator[Found]:
    """TCP ports without an address: all of them look the same on the wire."""
    metadata = pairs(scene.mesh, "defaultConfig", "proxyMetadata")
    given = metadata.get("ISTIO_META_DNS_CAPTURE") == "true" and "true" in {
        metadata.get("ISTIO_META_DNS_AUTO_ALLOCATE"),
        metadata.get("PILOT_ENABLE_IP_AUTOALLOCATE"),
    }
    if given or scene.ours:
        return
    for entry in scene.of(ENTRY):
        if isinstance(entry.spec.get("addresses"), list) or at(entry.data, "status", "addresses"):
            continue
        for index, row in rows(entry.spec, "ports"):
            if word(row, "protocol").upper() in {"", "TCP"}:
                message = (
                    f"port {word(row, 'number')} is TCP and the entry has no addresses: "
                    "without them connections cannot be told from others"
                )
                yield Found(entry, "IST0134", message, ("spec", "ports", index, "name"))


def protocols(scene: Scene) -> Iterator[Found]:
    """Several entries of one host and port that disagree about the protocol."""
    index: dict[tuple[str, str, int], list[tuple[str, Object]]] = {}
    for entry in scene.of(ENTRY):
        for scope in scopes(words(entry.spec, "exportTo"), entry.namespace):
            for host in words(entry.spec, "hosts"):
                for _, row in rows(entry.spec, "ports"):
                    key = (scope, host, number(row, "number") or 0)
                    index.setdefault(key, []).append((word(row, "protocol").upper(), entry))
    told: set[Object] = set()
    for (scope, host, port), group in index.items():
        everybody = [] if scope == ALL else index.get((ALL, host, port), [])
        members = [*group, *everybody]
        spoken = sorted({protocol for protocol, _ in members})
        if len(spoken) < 2:
            continue
        names = ", ".join(sorted({entry.full_name for _, entry in members}))
        for _, entry in members:
            if entry not in told:
                told.add(entry)
                message = f"{names} give port {port} of {host} different protocols: {', '.join(spoken)}"
                yield Found(entry, "IST0177", message, ("metadata", "name"))
