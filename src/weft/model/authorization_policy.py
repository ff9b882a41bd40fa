"""AuthorizationPolicy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from weft.model.base import Flaw, Shape, at_most_one
from weft.model.istio import IstioStatus, LabelsSelector, PolicyTargetReference
from weft.model.resource import Resource
from weft.model.scalars import Text


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
        """Service accounts say all of an identity."""
        if self.service_accounts or self.not_service_accounts:
            for name in ("principals", "not_principals", "namespaces", "not_namespaces"):
                if getattr(self, name):
                    wire = type(self).model_fields[name].alias or name
                    yield Flaw((wire,), f"{wire} does not go with serviceAccounts", "keep one of them")


class From(Shape):
    """A source."""

    source: Source | None = None


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


class To(Shape):
    """An operation."""

    operation: Operation | None = None


class WhenCondition(Shape):
    """A further demand on an attribute."""

    key: Text
    not_values: tuple[Text, ...] | None = None
    values: tuple[Text, ...] | None = None


class Rule(Shape):
    """Requests that are meant: from any of these, to any of these, when all of these hold."""

    from_: Annotated[tuple[From, ...], Field(max_length=512)] | None = Field(default=None, alias="from")
    to: tuple[To, ...] | None = None
    when: tuple[WhenCondition, ...] | None = None


class AuthorizationPolicySpec(Shape):
    """Who may call what."""

    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] | None = None
    provider: ExtensionProvider | None = None
    rules: Annotated[tuple[Rule, ...], Field(max_length=512)] | None = None
    selector: LabelsSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)] | None = None

    def flaws(self) -> Iterator[Flaw]:
        """Workloads by labels, or what the policy is attached to."""
        yield from at_most_one(self, "selector", "target_ref", "target_refs")
        if self.provider is not None and self.action != "CUSTOM":
            yield Flaw(("provider",), "a provider goes with action CUSTOM only")
        if self.action == "CUSTOM" and self.provider is None:
            yield Flaw(
                ("provider",), "action CUSTOM needs a provider", "name one of MeshConfig's extensionProviders"
            )


class AuthorizationPolicy(Resource):
    """Who may call what."""

    spec: AuthorizationPolicySpec = Field(default_factory=lambda: AuthorizationPolicySpec())
    status: IstioStatus | None = None
