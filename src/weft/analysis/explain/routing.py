"""From a request to a route: what the connection manager changes, the virtual host, the first fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import paths
from weft.analysis.connection import within
from weft.analysis.explain.configuration import Table, without_port
from weft.analysis.match import MILLION, Scene, below, misfit, text
from weft.analysis.match_tree import Opened, decide

if TYPE_CHECKING:
    from weft.protos import hcm_v3, mutation_rules_v3, route_v3

_REJECT_HEADER, _DROP_HEADER = 1, 2  # HeadersWithUnderscoresAction
_REJECT, _REDIRECT, _FORWARD = 2, 3, 4  # PathWithEscapedSlashesAction
# What an edge takes from requests that come from outside (ConnectionManagerUtility::cleanInternalHeaders).
_INTERNAL: Final = (
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-hedge-on-per-try-timeout",
)
_EDGE_ONLY: Final = ("x-envoy-decorator-operation", "x-envoy-downstream-service-cluster")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The connection manager answers itself. ``location`` for a redirect to the normalised path.

    ``bare``: it does so before it knows what kind of request it is, so that gRPC gets no answer of its own.
    """

    status: int
    reason: str
    location: str = ""
    bare: bool = False


# What Envoy takes for a host (http/header_utility, authorityIsValid), and for a path.
_HOST: Final = re.compile(r"[\w.~!$&'()*+,;=:@%\[\]-]*", re.ASCII)
_VISIBLE: Final = re.compile("[!-~]*")
_HOP_BY_HOP: Final = ("keep-alive", "proxy-connection", "transfer-encoding")


def upgrade_of(scene: Scene) -> str:
    """What the client wants to change to, as ``websocket``; empty when nothing. h2c is never agreed to."""
    wanted = scene.first("upgrade").lower()
    connection = ",".join(scene.headers.get("connection", ())).lower()
    asked = "upgrade" in (token.strip() for token in connection.split(","))
    return wanted if asked and wanted != "h2c" else ""


def receive(hcm: hcm_v3.HttpConnectionManager, scene: Scene, opened: Opened) -> Refusal | None:
    """Change the request as the connection manager does before it looks for a route."""
    if not scene.first(":authority"):
        return Refusal(400, "the request names no host")
    if not _HOST.fullmatch(scene.first(":authority")):
        return Refusal(400, f"{scene.first(':authority')!r} cannot be a host")
    if not _VISIBLE.fullmatch(scene.path):
        return Refusal(400, "a path has visible characters of ASCII only")
    if _with_underscores(hcm, scene):
        return Refusal(400, "the name of a header has an underscore", bare=True)
    for row in hcm.early_header_mutation_extensions:
        config = opened(row.typed_config)
        for mutation in getattr(config, "mutations", ()):
            _take_away(mutation, scene)
    for name in _HOP_BY_HOP if upgrade_of(scene) else (*_HOP_BY_HOP, "connection", "upgrade"):
        scene.headers.pop(name, None)
    _forwarded(hcm, scene, opened)
    refusal = _path(hcm, scene)
    if refusal is not None:
        return refusal
    host = scene.first(":authority")
    if hcm.strip_trailing_host_dot:
        name = without_port(host)
        host = name.removesuffix(".") + host[len(name) :]
    bare = without_port(host)
    if hcm.strip_any_host_port or (
        hcm.strip_matching_host_port and host[len(bare) + 1 :] == str(scene.destination_port)
    ):
        host = bare
    scene.headers[":authority"] = [host]
    return None


def _with_underscores(hcm: hcm_v3.HttpConnectionManager, scene: Scene) -> bool:
    """Whether a header has one, and may not; those that are only dropped are, here."""
    action = int(hcm.common_http_protocol_options.headers_with_underscores_action)
    names = [name for name in scene.headers if "_" in name]
    if action == _DROP_HEADER:
        for name in names:
            del scene.headers[name]
    return action == _REJECT_HEADER and bool(names)


def _take_away(mutation: mutation_rules_v3.HeaderMutation, scene: Scene) -> None:
    if not mutation.HasField("remove_on_match"):
        scene.headers.pop(mutation.remove.lower(), None)
        return
    matcher = mutation.remove_on_match.key_matcher
    for name in [name for name in scene.headers if not name.startswith(":") and text(matcher, name)]:
        del scene.headers[name]


def _path(hcm: hcm_v3.HttpConnectionManager, scene: Scene) -> Refusal | None:
    path = original = scene.path
    if not path or (path == "*" and scene.first(":method") == "OPTIONS"):
        return None
    if "#" in path:
        return Refusal(400, "a path may not have a fragment")
    action = int(hcm.path_with_escaped_slashes_action)
    redirected = False
    if action in {_REJECT, _REDIRECT, _FORWARD} and paths.has_escaped_slashes(path):
        if action == _REJECT:
            return Refusal(400, "the path has escaped slashes")
        path = paths.unescape_slashes(path)
        redirected = action == _REDIRECT
    if hcm.normalize_path.value:
        made = paths.normalize(path)
        if made is None:
            return Refusal(400, f"the path {original!r} cannot be normalised")
        path = made
    if hcm.merge_slashes:
        path = paths.merge_slashes(path)
    if redirected:
        return Refusal(307, "the path has escaped slashes", path)
    scene.headers[":path"] = [path]
    return None


def _forwarded(hcm: hcm_v3.HttpConnectionManager, scene: Scene, opened: Opened) -> None:
    """``x-forwarded-*`` and what clients may not say. Without ``use_remote_address`` most is believed."""
    headers = scene.headers
    scheme = "https" if scene.tls else "http"
    edge = hcm.use_remote_address.value
    hops = hcm.xff_num_trusted_hops
    chain = [part.strip() for value in headers.get("x-forwarded-for", ()) for part in value.split(",")]
    if edge:
        if scene.source_ip and not hcm.skip_xff_append:
            headers["x-forwarded-for"] = [",".join((*headers.get("x-forwarded-for", ()), scene.source_ip))]
        scene.remote_ip = chain[-hops] if 0 < hops <= len(chain) else scene.source_ip
        if not hops or "x-forwarded-proto" not in headers:
            headers["x-forwarded-proto"] = [scheme]
        if hcm.append_x_forwarded_port and (not hops or "x-forwarded-port" not in headers):
            headers["x-forwarded-port"] = [str(scene.destination_port)]
    else:
        trusted = [
            block
            for row in hcm.original_ip_detection_extensions
            for block in getattr(getattr(opened(row.typed_config), "xff_trusted_cidrs", None), "cidrs", ())
        ]
        if trusted and not within(trusted, scene.source_ip):
            scene.remote_ip = scene.source_ip
            if scene.source_ip:
                headers["x-forwarded-for"] = [
                    ",".join((*headers.get("x-forwarded-for", ()), scene.source_ip))
                ]
        else:
            scene.remote_ip = chain[-1 - hops] if hops < len(chain) else scene.source_ip
        headers.setdefault("x-forwarded-proto", [scheme])
    scene.internal = within(hcm.internal_address_config.cidr_ranges, scene.remote_ip)
    if scene.internal:
        headers["x-envoy-internal"] = ["true"]
    else:
        if edge and scene.remote_ip:
            headers["x-envoy-external-address"] = [scene.remote_ip]
        for name in (*_INTERNAL, *(_EDGE_ONLY if edge else ())):
            headers.pop(name, None)
    said = scene.first("x-forwarded-proto").lower()
    headers[":scheme"] = [said if said in {"http", "https"} else scheme]


@dataclass(frozen=True, slots=True)
class Found:
    """What a route table says. ``near`` are routes that fit by path only, with the reason why not.

    ``shares`` are the routes that take the request, each with its share of such requests in millionths:
    one, unless chance decides. If they are less than a whole, the rest finds no route.
    """

    host: route_v3.VirtualHost | None
    shares: tuple[tuple[route_v3.Route, int], ...] = ()
    needs_tls: bool = False
    near: tuple[tuple[route_v3.Route, str], ...] = ()


def _matched(host: route_v3.VirtualHost, scene: Scene, opened: Opened) -> list[tuple[str, route_v3.Route]]:
    """Routes that a virtual host's matcher comes to: one, or a list to be tried in order."""
    action = decide(host.matcher, scene, opened)
    config: Any = opened(action.typed_config) if action is not None else None
    if config is None:
        return []
    return [("", route) for route in (config.routes if config.DESCRIPTOR.name == "RouteList" else [config])]


_EXTERNAL_ONLY, _ALL = 1, 2  # VirtualHost.TlsRequirementType
_NEAR: Final = 8


def find(table: Table, scene: Scene, opened: Opened) -> Found:
    """The route of a request. ``opened`` reads what is in an ``Any``."""
    host = table.host(scene)
    if host is None:
        return Found(None)
    plain = scene.first("x-forwarded-proto") != "https"
    if plain and (host.require_tls == _ALL or (host.require_tls == _EXTERNAL_ONLY and not scene.internal)):
        return Found(host, needs_tls=True)
    ignore = table.config.ignore_path_parameters_in_path_matching
    near: list[tuple[route_v3.Route, str]] = []
    shares: list[tuple[route_v3.Route, int]] = []
    taken = 0
    value = scene.path
    listed = _matched(host, scene, opened) if host.HasField("matcher") else table.candidates(host)
    for beginning, route in listed:
        if not value.startswith(beginning):
            continue
        reason = misfit(route.match, scene, ignore_parameters=ignore)
        if reason:
            if reason != "path" and len(near) < _NEAR:
                near.append((route, reason))
            continue
        bound = below(route.match)
        if bound > taken:
            shares.append((route, bound - taken))
            taken = bound
        if taken >= MILLION:
            break
    return Found(host, tuple(shares), near=tuple(near))
