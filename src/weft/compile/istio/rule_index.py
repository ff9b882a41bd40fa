"""Which DestinationRules a client obeys for a host: Istio's index (push_context.go: setDestinationRules)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from weft.compile.settings import Settings
from weft.model.destination_rule import DestinationRule
from weft.model.resource import Key
from weft.names import expand_host

Labels = tuple[tuple[str, str], ...]
Rules = tuple[DestinationRule, ...]

_PRIVATE = frozenset({"."})


@dataclass(frozen=True, slots=True)
class _Entry:
    """Rules for one host that are one. ``selector`` None: they are for all workloads."""

    rules: Rules
    export: frozenset[str]
    selector: Labels | None


Pool = dict[str, list[_Entry]]
"""Entries by host."""


class RuleIndex:
    """DestinationRules by namespace and host; looked up without walking them."""

    __slots__ = ("_exported", "_local", "_private_root", "_subsets", "selective")

    def __init__(self, rules: Mapping[Key, DestinationRule], settings: Settings) -> None:
        self._local: dict[str, Pool] = {}
        self._exported: dict[str, Pool] = {}
        self._private_root: Pool = {}
        self._subsets: dict[str, list[tuple[str, Labels]]] = {}
        self.selective = False
        hidden = "." in settings.export_destination_rules
        for rule in sorted(rules.values(), key=_order):
            namespace = rule.metadata.namespace
            host = expand_host(rule.spec.host, namespace, settings.domain).lower()
            selective = rule.spec.workload_selector is not None
            self.selective = self.selective or selective
            # A rule for certain workloads is never seen elsewhere.
            export = _PRIVATE if selective else frozenset(rule.spec.export_to or ())
            if not export or export & {"*", ".", namespace}:
                _add(self._local.setdefault(namespace, {}), host, rule, export)
            if not (hidden if not export else export in (_PRIVATE, frozenset({namespace}))):
                _add(self._exported.setdefault(namespace, {}), host, rule, export)
            elif namespace == settings.root_namespace:
                _add(self._private_root, host, rule, export)
            for part in rule.spec.subsets or ():
                labels = tuple(sorted((part.labels or {}).items()))
                self._subsets.setdefault(host, []).append((part.name, labels))

    def find(
        self, host: str, owner: str, client: str, labels: frozenset[tuple[str, str]], settings: Settings
    ) -> Rules:
        """The rules that a client obeys for a host: its namespace's, else the service's, else the root's.

        In each the most specific host counts alone, whether or not its rules are for this client.
        """
        if not self._local and not self._exported and not self._private_root:
            return ()
        root = settings.root_namespace
        local = self._private_root if client == root else self._local.get(client, {})
        found = _most_specific(local, host)
        if found is None:
            for namespace in dict.fromkeys((owner, root)):
                exported = _most_specific(self._exported.get(namespace, {}), host) or ()
                found = [entry for entry in exported if not entry.export or entry.export & {"*", client}]
                if found:
                    break
        return _chosen(found or (), client, labels)

    def contested(self, host: str) -> frozenset[str]:
        """Subsets that rules for a host, whosever, define in different ways."""
        known: dict[str, Labels] = {}
        found: set[str] = set()
        for pattern in _patterns(host):
            for name, labels in self._subsets.get(pattern, ()):
                if known.setdefault(name, labels) != labels:
                    found.add(name)
        return frozenset(found)

    def subset(self, host: str, name: str) -> Labels | None:
        """Labels of a subset that all rules agree on, none if they do not; None when no rule has it."""
        found = {
            labels
            for pattern in _patterns(host)
            for known, labels in self._subsets.get(pattern, ())
            if known == name
        }
        return None if not found else found.pop() if len(found) == 1 else ()


def find_subset(index: RuleIndex, host: str, subset: str) -> Labels | None:
    """``RuleIndex.subset`` as a function, to be remembered."""
    return index.subset(host, subset)


def _order(rule: DestinationRule) -> tuple[bool, str, str, str]:
    """Rules for certain workloads first, then the older, then by name."""
    metadata = rule.metadata
    created = str(metadata.creation_timestamp or "")
    return (rule.spec.workload_selector is None, created, metadata.name, metadata.namespace)


def _selector(rule: DestinationRule) -> Labels | None:
    selector = rule.spec.workload_selector
    return None if selector is None else tuple(sorted((selector.match_labels or {}).items()))


def _add(pool: Pool, host: str, rule: DestinationRule, export: frozenset[str]) -> None:
    """Join a rule with those before it, or put it beside them (destination_rule.go: mergeDestinationRule).

    A rule for all workloads also completes those for certain ones.
    """
    selector = _selector(rule)
    entries = pool.setdefault(host, [])
    beside = True
    for place, entry in enumerate(entries):
        beside = True
        if export != entry.export and not (entry.export and export > entry.export):
            continue
        if selector != entry.selector and None not in {selector, entry.selector}:
            continue
        beside = selector != entry.selector
        entries[place] = replace(entry, rules=(*entry.rules, rule))
    if beside:
        entries.append(_Entry((rule,), export, selector))


def _most_specific(pool: Pool, host: str) -> list[_Entry] | None:
    return next((pool[pattern] for pattern in _patterns(host) if pattern in pool), None) if pool else None


def _chosen(entries: Iterable[_Entry], client: str, labels: frozenset[tuple[str, str]]) -> Rules:
    """The first that names this very workload, else the last for all."""
    everybody: Rules = ()
    for entry in entries:
        if entry.selector is None:
            everybody = entry.rules
        elif entry.rules[0].metadata.namespace == client and labels.issuperset(entry.selector):
            return entry.rules
    return everybody


def _patterns(host: str) -> Iterator[str]:
    """The host, then wildcards over it, the longest first."""
    yield host
    parts = host.removeprefix("*.").split(".")
    for start in range(1, len(parts)):
        yield "*." + ".".join(parts[start:])
    yield "*"
