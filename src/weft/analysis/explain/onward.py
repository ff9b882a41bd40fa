"""The other side of a request that a proxy sends on: who takes it there, and what that one decides.

A walk gives arrivals, one for each endpoint that may be chosen. Each bears the question to the proxy before
the endpoint: with the identity, the TLS and the headers that the sending proxy gives the request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from weft.analysis.explain.answer import Action, Answer, Target
from weft.analysis.explain.request import ClientTls, Request, Role, Sender
from weft.analysis.explain.upstream import Handshake, Upstreams

if TYPE_CHECKING:
    from weft.protos import endpoint_v3

MOST: Final = 5
"""Endpoints of a destination that are looked at: replicas of a workload decide alike."""

_SENT: Final = {Action.FORWARD, Action.PASSTHROUGH}
# What makes two arrivals different; their names and addresses do not.
_VERDICT: Final = ("action", "error", "status", "route", "redirect", "fault", "rateLimits", "authn", "authz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One endpoint of a destination.

    ``workload`` is ``namespace/name`` as the sending proxy has it, of a Workload rather than of its replica;
    empty when it does not know. ``question`` is for the proxy there, whose name is not in it yet. ``more``
    counts endpoints of the destination that are not looked at.
    """

    cluster: str
    address: str
    port: int
    workload: str
    question: Request
    more: int = 0

    def asking(self, name: str) -> Request:
        """The question to the proxy of a workload (``namespace/name``)."""
        namespace, _, name = name.rpartition("/")
        return replace(self.question, sender=Sender(role=Role.INBOUND, namespace=namespace, name=name))


def arrivals(question: Request, answer: Answer, upstreams: Upstreams, identity: str) -> Iterator[Arrival]:
    """What arrives where. ``identity`` is the SPIFFE URI that the sending proxy shows; empty: not known."""
    if answer.action not in _SENT or question.sender.role is Role.INBOUND or question.protocol == "udp":
        return
    for target in answer.targets:
        cluster = upstreams.running.cluster(target.cluster) if target.cluster else None
        if cluster is None or target.failure is not None or not target.weight:
            continue
        found = _first(upstreams.load(cluster))
        for one in found[:MOST]:
            shake = upstreams.handshake(cluster, one.metadata)
            about = one.metadata.filter_metadata
            known = about["weft"].fields if "weft" in about else {}
            place = one.endpoint.address.socket_address
            yield Arrival(
                cluster=cluster.name,
                address=place.address,
                port=place.port_value,
                workload=f"{known['namespace'].string_value}/{known['workload'].string_value}"
                if "workload" in known
                else "",
                question=replace(
                    _received(question, answer, target, shake, identity, http2=upstreams.is_http2(cluster)),
                    address=place.address,
                    port=place.port_value,
                ),
                more=len(found) - MOST if len(found) > MOST else 0,
            )


def _first(load: endpoint_v3.ClusterLoadAssignment | None) -> list[endpoint_v3.LbEndpoint]:
    """The endpoints of the first priority that has usable ones, as far as they have an address."""
    levels: dict[int, list[endpoint_v3.LbEndpoint]] = {}
    for group in load.endpoints if load is not None else ():
        for one in group.lb_endpoints:
            if Upstreams.usable(one) and one.endpoint.address.socket_address.address:
                levels.setdefault(group.priority, []).append(one)
    return levels[min(levels)] if levels else []


def _received(
    question: Request, answer: Answer, target: Target, shake: Handshake, identity: str, *, http2: bool | None
) -> Request:
    """The request as the sending proxy passes it on."""
    sent = target.request or answer.request
    mesh = shake.tls == "mtls"
    made = replace(
        question,
        tls=ClientTls(shake.tls),
        sni=shake.sni,
        alpn=shake.alpn if shake.tls != "none" else None,
        principal=identity if mesh else "",
        source_namespace="",
    )
    if sent is None:  # bytes: TLS that the client began goes on inside
        inside = question.tls is not ClientTls.NONE and not answer.tls_ended
        if inside and not mesh:
            return replace(made, tls=question.tls, sni=question.sni, alpn=question.alpn)
        return replace(made, protocol="tcp") if inside else made
    return replace(
        made,
        protocol=_spoken(question, http2=http2),
        method=sent["method"] or question.method,
        host=sent["host"] or "",
        path=sent["path"] or "/",
        headers={name: tuple(values) for name, values in sent["headers"].items()},
        jwt=None if "authorization" in sent["removed"] else question.jwt,
    )


def _spoken(question: Request, *, http2: bool | None) -> str:
    """``http2`` None: as the client does."""
    if question.is_grpc or http2 is None:
        return question.protocol
    return "http2" if http2 else "http"


@dataclass(slots=True)
class Journey:
    """A request from its sender to those who answer it: the sender's answer, then what its peers said."""

    answer: Answer
    arrivals: tuple[Arrival, ...] = ()
    _found: list[dict[str, Any]] = field(default_factory=list)

    def taken(self, arrival: Arrival, workload: str, there: Answer) -> None:
        """The proxy of a workload (``namespace/name``) has decided."""
        self._add(arrival, workload, _judged(there), there.json())

    def unjudged(self, arrival: Arrival, detail: str, workload: str | None = None) -> None:
        """No proxy is there that could be asked; ``detail`` says why."""
        self._add(arrival, workload, detail, None)

    def _add(self, arrival: Arrival, workload: str | None, detail: str, there: dict[str, Any] | None) -> None:
        endpoint = {"address": arrival.address or None, "port": arrival.port, "workload": workload}
        row = {
            "cluster": arrival.cluster,
            "endpoints": [endpoint],
            "more": arrival.more,
            "detail": detail,
            "answer": there,
        }
        for known in self._found:
            if _key(known) == _key(row):
                known["endpoints"].append(endpoint)
                return
        self._found.append(row)

    def json(self) -> dict[str, Any]:
        """The sender's answer with ``arrivals``, and whether it is ``delivered``: to ``all``, ``some`` or
        ``none`` of those that may be chosen; None when nobody could be asked.
        """
        judged = [_passed(row["answer"]) for row in self._found if row["answer"] is not None]
        delivered = ("all" if all(judged) else "some" if any(judged) else "none") if judged else None
        return {**self.answer.json(), "delivered": delivered, "arrivals": self._found}


def _passed(there: dict[str, Any]) -> bool:
    return there["action"] in {action.value for action in _SENT}


def _key(row: dict[str, Any]) -> str:
    there = row["answer"]
    verdict = row["detail"] if there is None else [there[field] for field in _VERDICT]
    return json.dumps([row["cluster"], verdict], default=str)


def _judged(there: Answer) -> str:
    """What was decided, in a few words."""
    if there.action in _SENT:
        by = f" by {there.policy}" if there.policy else ""
        rule = f" rule {there.policy_rule}" if there.policy and there.policy_rule is not None else ""
        return f"let in{by}{rule}"
    why = [step.detail for step in there.steps if step.step == "authz"] if there.action is Action.DENY else []
    return (why or [there.steps[-1].detail])[-1]
