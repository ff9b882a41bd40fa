"""An explanation for people: one line a step, with the place in a file that decided it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

_COLOURS = {"forward": "green", "passthrough": "green", "redirect": "cyan", "direct": "cyan"}


def lines(answer: dict[str, Any], colour: bool) -> Iterator[str]:
    """The explanation, line by line."""

    def paint(text: str, **how: Any) -> str:
        return click.style(text, **how) if colour else text

    arrivals = answer.get("arrivals", ())
    refused = answer.get("delivered") in {"some", "none"}
    yield paint(summary(answer), fg="red" if refused else _COLOURS.get(answer["action"], "red"), bold=True)
    yield from _steps(answer, paint)
    for arrival in arrivals:
        there = arrival["answer"]
        title = f"at {_whom(arrival)}: {arrival['detail']}"
        if there is None:
            yield paint(title, dim=True)
            continue
        if there["status"] is not None:
            title += f", {there['status']}"
        yield paint(title, fg=_COLOURS.get(there["action"], "red"), bold=True)
        yield from _steps(there, paint)


def _steps(answer: dict[str, Any], paint: Callable[..., str]) -> Iterator[str]:
    steps = answer["trace"]
    width = max((len(step["step"]) for step in steps), default=0)
    for step in steps:
        place = f"  {step['file']}:{step['line']}" if step["file"] and step["line"] else ""
        yield f"  {paint(step['step'].ljust(width), dim=True)}  {step['detail']}{paint(place, dim=True)}"
    yield from (f"  {paint(name.ljust(width), dim=True)}  {text}" for name, text in _details(answer))


def _whom(arrival: dict[str, Any]) -> str:
    """Those that decide alike."""
    ends = arrival["endpoints"]
    names = list(dict.fromkeys(one["workload"] or f"{one['address']}:{one['port']}" for one in ends))
    more = f" and {arrival['more']} more of {arrival['cluster']}" if arrival["more"] else ""
    return ", ".join(names) + more


def summary(answer: dict[str, Any]) -> str:
    """The outcome in one line: ``forward to reviews.default:9080 (v1): 200``."""
    status = f": {answer['status']}" if answer["status"] is not None else ""
    if answer.get("grpcStatus") is not None:
        status += f", gRPC {answer['grpcStatus']}"
    action = answer["action"]
    if action == "redirect" and answer["redirect"]:
        return f"redirect to {answer['redirect']['location']}{status}"
    if answer["error"]:
        return f"{action}: {answer['error']}{status}"
    targets = answer["upstream"]["destinations"]
    if action in {"forward", "passthrough"} and targets:
        total = sum(target["weight"] for target in targets) or 1
        shown = (
            _target(target) + (f" {target['weight'] / total:.0%}" if len(targets) > 1 else "")
            for target in targets
        )
        return f"{action} to {', '.join(shown)}{_refused(answer) or status}"
    return f"{action}{status}"


def _refused(answer: dict[str, Any]) -> str:
    """What the client sees where those that it comes to do not let it in."""
    if answer.get("delivered") not in {"some", "none"}:
        return ""
    there = [one["answer"] for one in answer["arrivals"] if one["answer"] is not None]
    codes = sorted(
        {str(one["status"]) for one in there if one["action"] not in {"forward", "passthrough"}} - {"None"}
    )
    who = "all" if answer["delivered"] == "none" else "some"
    return f": refused there by {who}" + (f", {', '.join(codes)}" if codes else "")


def _target(target: dict[str, Any]) -> str:
    if target["service"] is None:
        return str(target["cluster"])
    name = str(target["service"])
    if target["namespace"] and "." not in name:
        name += f".{target['namespace']}"
    subset = f" ({target['subset']})" if target["subset"] else ""
    return f"{name}:{target['port']}{subset}" if target["port"] else f"{name}{subset}"


def _details(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    upstream = answer["upstream"]
    if upstream["destinations"] and answer["action"] in {"forward", "passthrough"}:
        if upstream["tls"]:
            yield "upstream", {"mtls": "mutual TLS", "tls": "TLS", "none": "no TLS"}[upstream["tls"]]
        request = upstream["request"]
        if request:
            yield "request", f"{request['method']} {request['host']} {request['path'] or ''}".rstrip()
            for name, values in request["headers"].items():
                yield "", f"{name}: {', '.join(values)}"
            if request["removed"]:
                yield "", f"without {', '.join(request['removed'])}"
        if answer["timeout"]:
            yield "timeout", answer["timeout"]
        if retries := answer["retries"]:
            on = ", ".join((*retries["on"], *map(str, retries["codes"])))
            each = f", {retries['perTryTimeout']} each" if retries["perTryTimeout"] else ""
            yield "retries", f"{retries['attempts']} on {on}{each}"
    for check in answer["authz"]["checks"]:
        body = f", up to {check['bodyBytes']} bytes of body" if check["bodyBytes"] else ""
        shown = f"{check['method']} {check['host']} {check['path']}{body}"
        yield "shown", f"to {check['provider']}: {shown}; headers {', '.join(check['headers']) or 'none'}"
    for name, values in answer["response"]["headers"].items():
        yield "response", f"{name}: {', '.join(values)}"
    if answer["response"]["removed"]:
        yield "response", f"without {', '.join(answer['response']['removed'])}"
