"""AuthorizationPolicy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from weft.model.attributes import attribute, filled, network, path, port, service_account, trust_domain
from weft.model.base import Flaw, Shape, at_most_one, wire_name
from weft.model.istio import (
    DRY_RUN,
    IstioResource,
    IstioStatus,
    LabelsSelector,
    PolicyTargetReference,
    attached,
)
from weft.model.scalars import Text

_SOURCE: Final = {
    "ip_blocks": network,
    "namespaces": None,
    "principals": None,
    "remote_ip_blocks": network,
    "request_principals": None,
    "service_accounts": service_account,
    "trust_domains": trust_domain,
}
_OPERATION: Final = {"hosts": None, "methods": None, "paths": path, "ports": port}
_IDENTITIES: Final = ("namespaces", "service_accounts", "trust_domains", "principals", "request_principals")
_IDENTITY_KEYS: Final = frozenset(
    {"source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"}
)
_TCP_SOURCE: Final = tuple(
    full
    for name in ("principals", "ip_blocks", "namespaces", "remote_ip_blocks", "service_accounts")
    for full in (name, f"not_{name}")
)
# As Go's strconv.ParseBool reads them.
_BOOLEANS: Final = frozenset(
    ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"]
)


class ExtensionProvider(Shape):
    """The external authorizer, by its name in MeshConfig."""

    name: Text | None = None


class Source(Shape):
    """Who calls; all demands must hold."""

    ip_blocks: tuple[Text, ...] | None = None
    namespaces: tuple[Text, ...] | None = None
    not_ip_blocks: tuple[Text, ...] | None = None
    not_namespaces: tuple[Text, ...] | None = None
    not_principals: tuple[Text, ...] | None = None
    not_remote_ip_blocks: tuple[Text, ...] | None = None
    not_request_principals: tuple[Text, ...] | None = None
    not_service_accounts: (
        Annotated[tuple[Annotated[Text, Field(max_length=320)], ...], Field(max_length=16)] | None
    ) = None
    not_trust_domains: tuple[Text, ...] | None = None
    principals: tuple[Text, ...] | None = None
    remote_ip_blocks: tuple[Text, ...] | None = None
    request_principals: tuple[Text, ...] | None = None
    service_accounts: (
        Annotated[tuple[Annotated[Text, Field(max_length=320)], ...], Field(max_length=16)] | None
    ) = None
    trust_domains: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Service accounts say all of an identity; values have their form."""
        if not any(getattr(self, name) for name in type(self).model_fields):
            yield Flaw((), "the source is empty: it demands nothing", "leave from out to mean every caller")
        for name, check in _SOURCE.items():
            for full in (name, f"not_{name}"):
                yield from filled(wire_name(self, full), getattr(self, full), check)
        if self.service_accounts is not None or self.not_service_accounts is not None:
            for name in ("principals", "not_principals", "namespaces", "not_namespaces"):
                if getattr(self, name) is not None:
                    wire = wire_name(self, name)
                    yield Flaw((wire,), f"{wire} does not go with serviceAccounts", "keep one of them")


class From(Shape):
    """A source."""

    source: Source | None = None

    def flaws(self) -> Iterator[Flaw]:
        """There is one."""
        if self.source is None:
            yield Flaw(("source",), "source is missing", "add source")


class Operation(Shape):
    """What is called; all demands must hold."""

    hosts: tuple[Text, ...] | None = None
    methods: tuple[Text, ...] | None = None
    not_hosts: tuple[Text, ...] | None = None
    not_methods: tuple[Text, ...] | None = None
    not_paths: tuple[Text, ...] | None = None
    not_ports: tuple[Text, ...] | None = None
    paths: tuple[Text, ...] | None = None
    ports: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Something is demanded; values have their form."""
        if not any(getattr(self, name) for name in type(self).model_fields):
            yield Flaw((), "the operation is empty: it demands nothing", "leave to out to mean everything")
        for name, check in _OPERATION.items():
            for full in (name, f"not_{name}"):
                yield from filled(wire_name(self, full), getattr(self, full), check)


class To(Shape):
    """An operation."""

    operation: Operation | None = None

    def flaws(self) -> Iterator[Flaw]:
        """There is one."""
        if self.operation is None:
            yield Flaw(("operation",), "operation is missing", "add operation")


class WhenCondition(Shape):
    """A further demand on an attribute."""

    key: Text
    not_values: tuple[Text, ...] | None = None
    values: tuple[Text, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """An attribute that exists, with values of its form."""
        if not self.key:
            yield Flaw(("key",), "the key must not be empty", "as 'source.ip'")
            return
        if not (self.values or self.not_values):
            yield Flaw((), "values are missing", "add values or notValues")
        yield from attribute(self.key, "values", self.values)
        yield from attribute(self.key, "notValues", self.not_values)


class Rule(Shape):
    """Requests that are meant: from any of these, to any of these, when all of these hold."""

    from_: Annotated[tuple[From, ...], Field(max_length=512)] | None = Field(default=None, alias="from")
    to: tuple[To, ...] | None = None
    when: tuple[WhenCondition, ...] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """An empty list would mean everybody, or everything, where it looks like nobody."""
        for field, items, meaning in (
            ("from", self.from_, "every caller"),
            ("to", self.to, "every operation"),
        ):
            if items is not None and not items:
                yield Flaw((field,), f"{field} is empty", f"leave it out to mean {meaning}")

    @property
    def http_only(self) -> bool:
        """Whether nothing in it can be seen of a TCP connection; conditions do not count."""
        sources = [item.source for item in self.from_ or () if item.source is not None]
        operations = [item.operation for item in self.to or () if item.operation is not None]
        seen_from = any(getattr(source, name) for source in sources for name in _TCP_SOURCE)
        seen_to = any(item.ports or item.not_ports for item in operations)
        return bool((sources and not operations and not seen_from) or (operations and not seen_to))


class AuthorizationPolicySpec(Shape):
    """Who may call what."""

    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] | None = None
    provider: ExtensionProvider | None = None
    rules: Annotated[tuple[Rule, ...], Field(max_length=512)] | None = None
    selector: LabelsSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Workloads by labels, or what the policy is attached to; rules that fit the action."""
        yield from at_most_one(self, "selector", "target_ref", "target_refs")
        yield from attached(self.target_ref, self.target_refs)
        if self.provider is not None and self.action != "CUSTOM":
            yield Flaw(("provider",), "a provider goes with action CUSTOM only")
        if self.action in {"CUSTOM", "DENY"} and not self.rules:
            hint = "add rules; an empty one, {}, means every request"
            yield Flaw(("rules",), f"action {self.action} without rules does nothing", hint)
        elif self.action == "CUSTOM":
            yield from self._custom()
        for number, rule in enumerate(self.rules or ()):
            if self.action == "DENY" and rule.http_only:
                message = "the rule refuses all of TCP: it looks at HTTP only, which TCP never has"
                yield Flaw(("rules", number), message, "add ports to its operations", warns=True)

    def _custom(self) -> Iterator[Flaw]:
        """An external authorizer decides before identities and tokens are known to rules."""
        if self.provider is None or not self.provider.name:
            hint = "name one of MeshConfig's extensionProviders"
            yield Flaw(("provider",), "action CUSTOM needs a provider", hint)
        for number, rule in enumerate(self.rules or ()):
            for place, item in enumerate(rule.from_ or ()):
                for name in _IDENTITIES:
                    for full in (name, f"not_{name}"):
                        if item.source is not None and getattr(item.source, full):
                            field = wire_name(item.source, full)
                            where = ("rules", number, "from", place, "source", field)
                            yield Flaw(where, "action CUSTOM does not look at this", "remove it")
            for place, condition in enumerate(rule.when or ()):
                if condition.key in _IDENTITY_KEYS or condition.key.startswith("request.auth."):
                    path = ("rules", number, "when", place, "key")
                    yield Flaw(path, f"action CUSTOM does not look at {condition.key}", "remove it")


class AuthorizationPolicy(IstioResource):
    """Who may call what."""

    spec: AuthorizationPolicySpec = Field(default_factory=lambda: AuthorizationPolicySpec())
    status: IstioStatus | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Only ALLOW and DENY can be tried out."""
        yield from super().flaws()
        text = (self.metadata.annotations or {}).get(DRY_RUN)
        if text is None:
            return
        path = ("metadata", "annotations", DRY_RUN)
        if self.spec.action not in {None, "ALLOW", "DENY"}:
            yield Flaw(path, f"action {self.spec.action} cannot be tried out", "remove the annotation")
        elif text not in _BOOLEANS:
            yield Flaw(path, f"{text!r} is neither true nor false", 'write "true" or "false"')
