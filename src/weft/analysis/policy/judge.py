"""What a mesh would decide about a flow: its destination's configuration is made and walked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from weft.analysis.explain.configuration import Decoded
from weft.analysis.explain.mesh import Mesh
from weft.analysis.explain.proxies import Bearer, bearers
from weft.analysis.policy.bounds import bounded, known_of
from weft.analysis.policy.observed import PARAMETER, Example, Observed
from weft.model.parse import Part
from weft.model.resource import Resource
from weft.names import REPLICA, canonical_name

Read = tuple[tuple[Part, Resource], ...]
"""Every object of a mesh, as it is written and as it is understood."""

_RBAC: Final = frozenset(
    {"envoy.extensions.filters.http.rbac.v3.RBAC", "envoy.extensions.filters.network.rbac.v3.RBAC"}
)
# A segment that no policy names.
_ANYTHING: Final = "weft-any-value"


@dataclass(frozen=True, slots=True)
class Decision:
    """``allowed`` None: it depends on what was not recorded. ``policy`` is ``namespace/name`` or None.

    ``why`` says it in words; ``dry_run`` is what policies that are tried out come to.
    """

    allowed: bool | None
    policy: str | None = None
    rule: int | None = None
    why: str = ""
    dry_run: str | None = None
    dry_run_policy: str | None = None

    @property
    def word(self) -> str:
        """``allow``, ``deny`` or ``unknown``."""
        return "unknown" if self.allowed is None else "allow" if self.allowed else "deny"

    def json(self) -> dict[str, Any]:
        """As it is printed."""
        return {"decision": self.word, "policy": self.policy, "rule": self.rule, "why": self.why or None}


class _Bounded(Decoded):
    """Reads access rules with every unanswerable test answered in the request's favour, or against it."""

    __slots__ = ("_answerable", "_favour", "_made", "unknown")

    def __init__(self, *, favour: bool, addresses: bool) -> None:
        super().__init__()
        self._favour = favour
        self._answerable = known_of(addresses=addresses)
        self._made: dict[bytes, Any] = {}
        self.unknown = False

    def open(self, packed: Any) -> Any:
        config = super().open(packed)
        if config is None or config.DESCRIPTOR.full_name not in _RBAC:
            return config
        known = self._made.get(packed.value)
        if known is None:
            known = self._made[packed.value] = self._bounded(config)
        return known

    def _bounded(self, config: Any) -> Any:
        made = type(config)()
        made.CopyFrom(config)
        for name in ("rules", "shadow_rules"):
            if made.HasField(name):
                rules, changed = bounded(getattr(made, name), self._answerable, favour=self._favour)
                getattr(made, name).CopyFrom(rules)
                self.unknown |= changed
        return made


@dataclass
class Judge:
    """Decides for the mesh that ``read`` describes. Proxies are configured once."""

    read: Read
    _meshes: dict[tuple[bool, bool], tuple[Mesh, _Bounded]] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], Decision] = field(default_factory=dict)
    _bearers: dict[tuple[str, str], Bearer] = field(init=False)

    def __post_init__(self) -> None:
        self._bearers = bearers((part for part, _ in self.read), "default")

    def bearer(self, flow: Observed) -> Bearer | None:
        """The workload that was called, or another instance of it; None when there is none any more."""
        known = self._bearers.get((flow.namespace, flow.instance))
        if known is not None:
            return known
        alike = [
            one
            for one in self._bearers.values()
            if one.namespace == flow.namespace
            and (one.account or "default") == flow.account
            and canonical_name(dict(one.labels), REPLICA.sub("", one.name)) == flow.workload
        ]
        return min(alike, key=lambda one: one.name, default=None)

    def decide(self, flow: Observed) -> tuple[Decision, ...]:
        """About each example of a flow; then about a request with values that nobody named, where there were
        others than the examples.
        """
        if self.bearer(flow) is None:
            unclear = Decision(None, why=f"no workload {flow.workload} is in {flow.namespace} now")
            return tuple(unclear for _ in self.examples(flow))
        return tuple(self._one(flow, example) for example in self.examples(flow))

    @staticmethod
    def examples(flow: Observed) -> tuple[Example, ...]:
        """The requests that stand for the flow."""
        return (*flow.examples, _unnamed(flow)) if "paths" in flow.partial else flow.examples

    def _one(self, flow: Observed, example: Example) -> Decision:
        best = self._walk(flow, example, favour=True)
        worst = self._walk(flow, example, favour=False) if self._unsure(flow) else best
        if best.allowed == worst.allowed:
            return best
        deciding = worst if worst.policy is not None else best
        return Decision(
            None,
            deciding.policy,
            deciding.rule,
            "it depends on what is not recorded: headers, claims"
            + (", addresses" if "addresses" in flow.partial else ""),
        )

    def _unsure(self, flow: Observed) -> bool:
        return self._mesh(flow, favour=True)[1].unknown

    def _mesh(self, flow: Observed, *, favour: bool) -> tuple[Mesh, _Bounded]:
        key = favour, "addresses" not in flow.partial
        if key not in self._meshes:
            decoded = _Bounded(favour=favour, addresses=key[1])
            self._meshes[key] = Mesh([part for part, _ in self.read], self.read, decoded=decoded), decoded
        return self._meshes[key]

    def _walk(self, flow: Observed, example: Example, *, favour: bool) -> Decision:
        key = (flow.kind, flow.namespace, flow.workload, flow.instance, flow.port, flow.source, flow.tls,
               flow.sni, flow.protocol, example, favour, "addresses" in flow.partial)  # fmt: skip
        if key not in self._known:
            mesh, _ = self._mesh(flow, favour=favour)
            bearer = self.bearer(flow)
            name = bearer.name if bearer is not None else flow.workload
            answer = mesh.explain(_question(flow, example, name))
            if flow.kind == "router" and answer["error"] == "no_listener":
                # It was seen at a port that a port map made of the gateway's own.
                answer = mesh.explain(_question(flow, example, name, port=False))
            self._known[key] = _decision(answer)
        return self._known[key]


def _unnamed(flow: Observed) -> Example:
    """A request of the flow with values that nobody named."""
    first = flow.examples[0]
    path = flow.path.replace("{**}", _ANYTHING).replace(PARAMETER, _ANYTHING)
    return Example(
        method=first.method,
        host=first.host,
        path=path,
        source_ip=first.source_ip,
        remote_ip=first.remote_ip,
    )


def _question(flow: Observed, example: Example, name: str, *, port: bool = True) -> dict[str, Any]:
    role = "gateway" if flow.kind == "router" else "inbound"
    asked: dict[str, Any] = {
        "from": {role: f"{flow.namespace}/{name}", "serviceAccount": flow.account},
        "protocol": flow.protocol,
        "tls": flow.tls,
        "sni": flow.sni,
        "source": {"principal": flow.source, "ip": example.source_ip},
    }
    if port and flow.port:
        asked["port"] = flow.port
    if flow.protocol == "http":
        asked["http"] = {"method": example.method, "host": example.host, "path": example.path or "/"}
    return asked


def _decision(answer: Mapping[str, Any]) -> Decision:
    authz = answer["authz"]
    tried = {"dry_run": authz["dryRun"], "dry_run_policy": authz["dryRunPolicy"]}
    if authz["decision"] == "deny":
        return Decision(False, authz["policy"], authz["rule"], _said(answer, "authz"), **tried)
    if answer["error"] in {"no_filter_chain", "mtls_error", "tls_error", "protocol_error", "no_listener"}:
        return Decision(False, None, None, _said(answer, "") or str(answer["error"]))
    return Decision(True, authz["policy"], authz["rule"], _said(answer, "authz"), **tried)


def _said(answer: Mapping[str, Any], step: str) -> str:
    """The last detail of a step of the walk, of the last step without one."""
    rows = [row for row in answer["trace"] if not step or row["step"] == step]
    return str(rows[-1]["detail"]) if rows else ""


def replaced(read: Read, put: Iterable[tuple[Part, Resource]], removed: Iterable[str] = ()) -> Read:
    """The mesh after a change: objects of the same key are replaced, AuthorizationPolicies removed by name.

    ``removed``: ``namespace/name``.
    """
    new = {resource.key: (part, resource) for part, resource in put}
    gone = set(removed)
    kept = [
        (part, resource)
        for part, resource in read
        if resource.key not in new
        and not (
            resource.kind == "AuthorizationPolicy"
            and f"{resource.metadata.namespace}/{resource.metadata.name}" in gone
        )
    ]
    return (*kept, *new.values())
