"""What becomes of a request, gathered step by step, and its JSON form."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from weft.analysis.explain.origins import Cause
from weft.analysis.match import Values


class Action(StrEnum):
    """What the proxy does with it."""

    FORWARD = "forward"
    REDIRECT = "redirect"
    DIRECT = "direct"
    DENY = "deny"
    PASSTHROUGH = "passthrough"
    BLACKHOLE = "blackhole"
    ERROR = "error"


class Failure(StrEnum):
    """Why a request ends at the proxy. ``INVALID``: the question itself cannot be evaluated."""

    NO_LISTENER = "no_listener"
    NO_FILTER_CHAIN = "no_filter_chain"
    NO_VIRTUAL_HOST = "no_virtual_host"
    NO_ROUTE = "no_route"
    TLS_ERROR = "tls_error"
    MTLS_ERROR = "mtls_error"
    TLS_REDIRECT = "tls_redirect"
    PROTOCOL_ERROR = "protocol_error"
    NO_CLUSTER = "no_cluster"
    NO_HEALTHY_UPSTREAM = "no_healthy_upstream"


@dataclass(frozen=True, slots=True)
class Step:
    """One decision on the way: ``step`` names its place, ``detail`` says what was decided, and why."""

    step: str
    detail: str
    file: str | None = None
    line: int | None = None

    def json(self) -> dict[str, Any]:
        """As it is printed."""
        return {"step": self.step, "detail": self.detail, "file": self.file, "line": self.line}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One destination. ``service`` is a Kubernetes Service's short name, else a host; None is unknown.

    ``request`` and ``response`` are what its own header rules make of them, where it has such rules.
    Without a cluster it is a share of the requests that the proxy answers itself; ``outcome`` says how.
    """

    cluster: str | None
    service: str | None = None
    namespace: str | None = None
    port: int | None = None
    subset: str | None = None
    weight: int = 1
    failure: Failure | None = None
    status: int | None = None
    tls: str = "none"
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None

    def json(self) -> dict[str, Any]:
        """As it is printed; what is wrong with it only where something is."""
        shown: dict[str, Any] = {
            "service": self.service,
            "namespace": self.namespace,
            "port": self.port,
            "subset": self.subset,
            "weight": self.weight,
            "cluster": self.cluster,
        }
        if self.failure is not None:
            shown |= {"error": self.failure.value, "status": self.status}
        if self.outcome is not None:
            shown |= self.outcome
        if self.request is not None:
            shown["request"] = self.request
        if self.response is not None:
            shown["response"] = self.response
        return shown


_NO_ROUTE: dict[str, Any] = dict.fromkeys(("kind", "namespace", "name", "rule", "match", "file", "line"))


@dataclass(slots=True, kw_only=True)
class Answer:
    """All that is said of one request; docs/how-to/explain.md describes the fields.

    ``tls_ended``: what the client began as TLS is read here.
    """

    id: Any = None
    listener: str | None = None
    filter_chain: str | None = None
    route_config: str | None = None
    virtual_host: str | None = None
    route_name: str | None = None
    route: Cause | None = None
    action: Action | None = None
    error: str | None = None
    status: int | None = None
    grpc_status: int | None = None
    redirect: dict[str, Any] | None = None
    targets: list[Target] = field(default_factory=list)
    request: dict[str, Any] | None = None
    response_headers: Values = field(default_factory=dict)
    response_removed: list[str] = field(default_factory=list)
    mirrors: list[dict[str, Any]] = field(default_factory=list)
    timeout: str | None = None
    retries: dict[str, Any] | None = None
    fault: dict[str, Any] | None = None
    limits: list[dict[str, Any]] = field(default_factory=list)
    tls_ended: bool = False
    peer: str | None = None
    jwt: str = "none"
    decision: str = "allow"
    policy: str | None = None
    policy_rule: int | None = None
    provider: str | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    dry_run: str | None = None
    dry_run_policy: str | None = None
    dry_run_rule: int | None = None
    steps: list[Step] = field(default_factory=list)

    def say(self, step: str, detail: str, cause: Cause | None = None) -> None:
        """Add a step; with a cause it bears the file and line of that."""
        self.steps.append(Step(step, detail, cause.file if cause else None, cause.line if cause else None))

    def fail(self, failure: Failure, status: int | None, detail: str, step: str = "outcome") -> None:
        """It ends here."""
        self.action, self.error, self.status = Action.ERROR, failure.value, status
        self.say(step, detail)

    def json(self) -> dict[str, Any]:
        """The shape of ``weft explain -o json``."""
        cause = self.route
        tls = next((target.tls for target in self.targets if target.failure is None), None)
        shown: dict[str, Any] = {
            "id": self.id,
            "listener": self.listener,
            "filterChain": self.filter_chain,
            "routeConfig": self.route_config,
            "virtualHost": self.virtual_host,
            "route": {
                "kind": cause.kind,
                "namespace": cause.namespace,
                "name": cause.name,
                "rule": cause.rule,
                "match": cause.match,
                "file": cause.file,
                "line": cause.line,
            }
            if cause
            else dict(_NO_ROUTE),
            "routeName": self.route_name,
            "action": self.action.value if self.action else Action.ERROR.value,
            "error": self.error,
            "status": self.status,
        }
        if self.grpc_status is not None:
            shown["grpcStatus"] = self.grpc_status
        return shown | {
            "redirect": self.redirect,
            "upstream": {
                "destinations": [target.json() for target in self.targets],
                "tls": tls,
                "request": self.request,
            },
            "response": {"headers": self.response_headers, "removed": self.response_removed},
            "mirrors": self.mirrors,
            "timeout": self.timeout,
            "retries": self.retries,
            "fault": self.fault,
            "rateLimits": self.limits,
            "authn": {"peer": self.peer, "jwt": self.jwt},
            "authz": {
                "decision": self.decision,
                "policy": self.policy,
                "rule": self.policy_rule,
                "provider": self.provider,
                "checks": self.checks,
                "dryRun": self.dry_run,
                "dryRunPolicy": self.dry_run_policy,
                "dryRunRule": self.dry_run_rule,
            },
            "trace": [step.json() for step in self.steps],
        }
