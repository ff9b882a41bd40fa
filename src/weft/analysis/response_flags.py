"""Envoy's response flags in words: what happened to a request, whose doing it was, and what helps.

Source: Envoy 1.40, ``stream_info.h`` and the access log's documentation. ``weft logs``, ``explain``, ``tap``,
``trace`` and the dashboard say the same by this table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Side(StrEnum):
    """Whose doing it was, seen from the proxy that wrote the flag."""

    CLIENT = "client"
    PROXY = "proxy"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Flag:
    """``long``: as ``%RESPONSE_FLAGS_LONG%`` has it. ``meaning`` and ``remedy`` are a sentence each."""

    short: str
    long: str
    side: Side
    meaning: str
    remedy: str


_C, _P, _S = Side.CLIENT, Side.PROXY, Side.SERVER

FLAGS: Final = {
    flag.short: flag
    for flag in (
        Flag(
            "DC",
            "DownstreamConnectionTermination",
            _C,
            "the client closed its connection before the answer was complete",
            "compare the duration with the client's own timeout; a slow server is the usual cause",
        ),
        Flag(
            "DF",
            "DnsResolutionFailed",
            _S,
            "the name of the server could not be looked up",
            "check the name in the ServiceEntry, and that this host's resolver knows it",
        ),
        Flag(
            "DI",
            "DelayInjected",
            _P,
            "a delay was injected, as a route asks",
            "remove fault.delay from the VirtualService if the test is over",
        ),
        Flag(
            "DO",
            "DropOverload",
            _P,
            "a share of the requests is dropped because the service is overloaded",
            "add capacity; the share is dropPercentage of its endpoints",
        ),
        Flag(
            "DPE",
            "DownstreamProtocolError",
            _C,
            "the client broke the rules of HTTP",
            "look at the details; often the port's protocol is declared wrong, or it is no HTTP at all",
        ),
        Flag(
            "DR",
            "DownstreamRemoteReset",
            _C,
            "the client took back its request (a reset of the stream)",
            "compare the duration with the client's own timeout or deadline",
        ),
        Flag(
            "DT",
            "DurationTimeout",
            _P,
            "the connection or request had lived as long as one may",
            "raise maxConnectionDuration of the DestinationRule if that is too short",
        ),
        Flag(
            "FI",
            "FaultInjected",
            _P,
            "the request was aborted on purpose, as a route asks",
            "remove fault.abort from the VirtualService if the test is over",
        ),
        Flag(
            "IH",
            "InvalidEnvoyRequestHeaders",
            _C,
            "an x-envoy-* header of the request has a value that is none",
            "let the client send no such header, or a valid one",
        ),
        Flag(
            "LH",
            "FailedLocalHealthCheck",
            _P,
            "this proxy's own health check fails",
            "'weft proxy status' tells whether it is draining or not ready",
        ),
        Flag(
            "LR",
            "LocalReset",
            _P,
            "this proxy broke off the request",
            "look at the details; an error of protocol or a limit of streams is the usual cause",
        ),
        Flag(
            "NC",
            "NoClusterFound",
            _P,
            "the route leads to a cluster that this proxy does not have",
            "apply the Service or the subset that the route names; a Sidecar or exportTo may hide it",
        ),
        Flag(
            "NFCF",
            "NoFilterConfigFound",
            _P,
            "the configuration of a filter did not come in time",
            "'weft proxy status' tells what the control plane sent",
        ),
        Flag(
            "NR",
            "NoRouteFound",
            _P,
            "no route is for this request, or no filter chain for this connection",
            "'weft explain' of the same request tells which host, path or server name nothing fits",
        ),
        Flag(
            "OM",
            "OverloadManager",
            _P,
            "this proxy has too much to do and refused the request",
            "give the sidecar more memory or CPU, or spread the load",
        ),
        Flag(
            "RFCF",
            "ResponseFromCacheFilter",
            _P,
            "the answer came from a cache",
            "nothing is wrong",
        ),
        Flag(
            "RL",
            "RateLimited",
            _P,
            "a limit of requests was reached (429)",
            "raise the limit in the RateLimit, or let the client wait and try again",
        ),
        Flag(
            "RLSE",
            "RateLimitServiceError",
            _P,
            "the service that counts requests could not be asked",
            "see that the service of the RateLimit runs, and that this proxy has a way to it",
        ),
        Flag(
            "SI",
            "StreamIdleTimeout",
            _P,
            "nothing was sent on the request for too long",
            "raise httpStreamIdleTimeout of connectionSettings, or send keep-alives",
        ),
        Flag(
            "UAEX",
            "UnauthorizedExternalService",
            _P,
            "a policy or an authorizer refused the request",
            "'weft explain' with the request's id names the policy and its rule",
        ),
        Flag(
            "UC",
            "UpstreamConnectionTermination",
            _S,
            "the server closed the connection in the midst of the request",
            "see whether the application crashed, or closes idle connections sooner than its callers: "
            "then lower idleTimeout of the DestinationRule, or retry on reset-before-request",
        ),
        Flag(
            "UDO",
            "UnconditionalDropOverload",
            _P,
            "all requests to the service are dropped, as its endpoints ask",
            "set dropPercentage of its endpoints below 100",
        ),
        Flag(
            "UF",
            "UpstreamConnectionFailure",
            _S,
            "no connection to the server could be made",
            "see that the application listens at that port, and that both sides agree on mTLS: "
            "the failure reason of the log line says which",
        ),
        Flag(
            "UH",
            "NoHealthyUpstream",
            _S,
            "no endpoint of the service is healthy",
            "'weft get workloadentries' tells which are there and ready; outlier detection may have "
            "ejected the others",
        ),
        Flag(
            "UMSDR",
            "UpstreamMaxStreamDurationReached",
            _P,
            "the request took longer than one may",
            "raise the route's timeout, or the client's deadline (grpc-timeout)",
        ),
        Flag(
            "UO",
            "UpstreamOverflow",
            _P,
            "a limit of connections or waiting requests was reached (circuit breaking)",
            "raise connectionPool of the DestinationRule, or add capacity",
        ),
        Flag(
            "UPE",
            "UpstreamProtocolError",
            _S,
            "the server broke the rules of HTTP",
            "see that the port's protocol is declared as what the application speaks",
        ),
        Flag(
            "UR",
            "UpstreamRemoteReset",
            _S,
            "the server took back its answer (a reset of the stream)",
            "look into the application's log; its proxy may have refused the stream",
        ),
        Flag(
            "URX",
            "UpstreamRetryLimitExceeded",
            _S,
            "all attempts failed, or a connection was tried as often as one may",
            "look at the flags and codes of the single attempts; more attempts rarely help",
        ),
        Flag(
            "UT",
            "UpstreamRequestTimeout",
            _S,
            "the server did not answer within the route's timeout",
            "raise timeout of the route, or find what is slow: 'weft trace --slow'",
        ),
    )
}
"""All flags of Envoy 1.40, by their short names."""

# Istio's text form: [time] "METHOD path protocol" code flags …
_TEXT: Final = re.compile(r'\[[^\]\s]+\] ".*?" \d+ ([A-Za-z,]+) ')
_LONG: Final = {flag.long: flag for flag in FLAGS.values()}


def flags_in(text: str | None) -> Iterator[Flag]:
    """The known flags of a log's field, as ``UF,URX`` or in their long names; none for ``-``."""
    for part in (text or "").split(","):
        flag = FLAGS.get(part.strip()) or _LONG.get(part.strip())
        if flag is not None:
            yield flag


def in_words(text: str | None) -> str:
    """What they mean, and what helps against the first; empty where there are none."""
    found = list(flags_in(text))
    if not found:
        return ""
    return f"{'; '.join(flag.meaning for flag in found)}: {found[0].remedy}"


def flags_of_line(line: str) -> tuple[Flag, ...]:
    """The flags of a line of an access log, JSON or Istio's text; none for a line of anything else."""
    if line.startswith("{"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return ()
        return tuple(flags_in(str(row.get("response_flags") or "")))
    found = _TEXT.match(line)
    return tuple(flags_in(found[1])) if found else ()
