"""PeerAuthentication: which connections a workload's ports take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weft.compile.age import age
from weft.compile.inbound import PeerMode
from weft.compile.memo import Memo
from weft.compile.service import Labels
from weft.errors import Problem, Severity
from weft.model.peer_authentication import MutualTLS, PeerAuthentication
from weft.model.resource import Key

UNHEEDED: Final = "WEFT0102"
OVERRULED: Final = "WEFT0111"


@dataclass(frozen=True, slots=True)
class PeerModes:
    """``default`` for every port, but for those in ``ports`` (numbers of the workload's ports)."""

    default: PeerMode = PeerMode.PERMISSIVE
    ports: tuple[tuple[int, PeerMode], ...] = ()

    def of(self, port: int) -> PeerMode:
        """The mode of a port."""
        return next((mode for number, mode in self.ports if number == port), self.default)


def modes_of(
    rules: Mapping[Key, PeerAuthentication], namespace: str, labels: Labels, root: str, memo: Memo
) -> PeerModes:
    """The modes of a workload with these labels; the same object until they differ."""
    near = memo(_near, rules, namespace, root)
    modes = memo(peer_modes, near, namespace, frozenset(labels), root)
    return memo(PeerModes, modes.default, modes.ports)


def _near(
    rules: Mapping[Key, PeerAuthentication], namespace: str, root: str
) -> tuple[PeerAuthentication, ...]:
    return tuple(rule for key, rule in rules.items() if key.namespace in {namespace, root})


def peer_modes(
    rules: tuple[PeerAuthentication, ...],
    namespace: str,
    labels: frozenset[tuple[str, str]],
    root: str,
) -> PeerModes:
    """The modes of a workload: the rule for it, else its namespace's, else the mesh's; the oldest of each.

    ``UNSET`` asks the next wider one, never a younger one of the same width. Ports are named only by a rule
    for a workload; in a port's own ``UNSET`` the workload's mode holds. In the root namespace rules are for
    the whole mesh: one with a selector there is for nobody (Istio: pilot/pkg/security/authn).
    """
    ordered = sorted(rules, key=lambda rule: age(rule.metadata))
    default = PeerMode.PERMISSIVE
    for space in dict.fromkeys((root, namespace)):
        whole = (rule for rule in ordered if rule.metadata.namespace == space and not _selector(rule))
        if (oldest := next(whole, None)) is not None:
            default = _mode(oldest.spec.mtls) or default
    for rule in ordered:
        wanted, space = _selector(rule), rule.metadata.namespace
        if not wanted or space != namespace or space == root or not labels.issuperset(wanted.items()):
            continue
        default = _mode(rule.spec.mtls) or default
        ports = rule.spec.port_level_mtls or {}
        return PeerModes(
            default, tuple(sorted((int(number), _mode(tls) or default) for number, tls in ports.items()))
        )
    return PeerModes(default)


def either(old: PeerModes, new: PeerModes) -> PeerModes:
    """What takes clients that go by the old modes as well as those that go by the new ones."""
    numbers = sorted({number for number, _ in (*old.ports, *new.ports)})
    ports = tuple((number, _either(old.of(number), new.of(number))) for number in numbers)
    return PeerModes(_either(old.default, new.default), ports)


def _either(old: PeerMode, new: PeerMode) -> PeerMode:
    """Clients look at one thing only: whether mutual TLS is turned off."""
    return PeerMode.PERMISSIVE if (old is PeerMode.DISABLE) != (new is PeerMode.DISABLE) else new


def turns_off(rules: Mapping[Key, PeerAuthentication]) -> bool:
    """Whether a rule turns mutual TLS off anywhere."""
    return any(
        _mode(tls) is PeerMode.DISABLE
        for rule in rules.values()
        for tls in (rule.spec.mtls, *(rule.spec.port_level_mtls or {}).values())
    )


def problems(rules: Mapping[Key, PeerAuthentication], root: str) -> tuple[Problem, ...]:
    """Those that are for nobody."""
    found: list[Problem] = []
    oldest: dict[str, Key] = {}
    for key, rule in sorted(rules.items(), key=lambda row: age(row[1].metadata)):
        if _selector(rule):
            if key.namespace == root:
                message = f"in {root} a rule is for the whole mesh: one with a selector is for nobody"
                hint = "put it into the namespace of the workloads"
                found.append(_problem(UNHEEDED, key, message, "spec.selector", hint))
            continue
        first = oldest.setdefault(key.namespace, key)
        if first != key:
            message = f"{first.name} is for the same workloads and older: it alone counts"
            hint = "leave one of them, or select workloads"
            found.append(_problem(OVERRULED, key, message, "metadata.name", hint))
    return tuple(found)


def _problem(code: str, key: Key, message: str, path: str, hint: str) -> Problem:
    return Problem(code, message, None, hint, path, severity=Severity.WARNING, resource=str(key))


def _selector(rule: PeerAuthentication) -> Mapping[str, str]:
    selector = rule.spec.selector
    return (selector.match_labels or {}) if selector is not None else {}


def _mode(tls: MutualTLS | None) -> PeerMode | None:
    return PeerMode(tls.mode) if tls is not None and tls.mode in _MODES else None


_MODES = frozenset(PeerMode)
