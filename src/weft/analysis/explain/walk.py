"""A connection through a proxy: the listener, the filter chain, TLS, and the filters behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from weft.analysis import match
from weft.analysis.connection import Connection, chain_of, inspected, is_udp, listener_at, parse_ip
from weft.analysis.explain import authorization, external
from weft.analysis.explain.answer import Action, Answer, Failure
from weft.analysis.explain.http import headers_of, serve
from weft.analysis.explain.origins import Origins
from weft.analysis.explain.request import ClientTls, Request, Role
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.match import Scene
from weft.analysis.match_tree import decide
from weft.names import (
    ALPN_MESH_H2,
    ALPN_MESH_HTTP1,
    ALPN_MESH_TCP,
    BLACKHOLE_CLUSTER,
    INBOUND_PASSTHROUGH_CLUSTER,
    PASSTHROUGH_CLUSTER,
    VIRTUAL_INBOUND,
)

if TYPE_CHECKING:
    from weft.protos import listener_v3, tls_v3, udp_proxy_v3

_NETWORK: Final = "envoy.extensions.filters.network"
_INBOUND, _OUTBOUND = 1, 2  # core.v3.TrafficDirection
_MESH_ALPN: Final = {"http": ALPN_MESH_HTTP1, "http2": ALPN_MESH_H2, "grpc": ALPN_MESH_H2}
_PLAIN: Final = {"http": ("http/1.1",), "http2": ("h2c",), "grpc": ("h2c",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialled:
    """Where the connection goes: the addresses that the name stands for, the best first, and the port."""

    addresses: tuple[str, ...]
    port: int
    source_ip: str = ""


def walk(question: Request, dialled: Dialled, upstreams: Upstreams, origins: Origins, answer: Answer) -> None:
    """Fill the answer with what the proxy does."""
    running = upstreams.running
    udp = question.protocol == "udp"
    listener, address = _listener(question, dialled, upstreams, answer, udp)
    if listener is None:
        answer.fail(
            Failure.NO_LISTENER,
            None,
            f"nothing listens on port {dialled.port}" + (" for UDP" if udp else ""),
            "listener",
        )
        return
    answer.listener = listener.name
    source = origins.cause(listener.metadata)
    answer.say("listener", listener.name, source)
    if is_udp(listener):
        answer.route = source if source is not None and source.kind == "UDPRoute" else None
        _datagram(listener, question, upstreams, answer)
        return
    connection = _connection(listener, question, dialled, address)
    chain = _chain(listener, connection, running.decoded.open)
    if chain is None:
        answer.fail(
            Failure.NO_FILTER_CHAIN,
            None,
            f"no filter chain takes {_words(connection)}: the connection is closed",
            "filterChain",
        )
        return
    answer.filter_chain = chain.name or None
    cause = origins.cause(chain.metadata, section=_section(chain))
    answer.say("filterChain", f"{chain.name or 'the only one'} takes {_words(connection)}", cause)
    http = _manager(chain, running.decoded.open)
    peer = _handshake(chain, question, running.decoded.open, answer, http is not None)
    if answer.error:
        return
    answer.peer = peer
    scene = Scene(
        headers=headers_of(question, _authority(question, dialled)) if question.is_http else {},
        destination_ip=address,
        destination_port=dialled.port,
        source_ip=dialled.source_ip,
        remote_ip=dialled.source_ip,
        server_name=connection.server_name if question.tls is not ClientTls.NONE else "",
        peer=(peer,) if peer else () if question.tls is ClientTls.MTLS else None,
        tls=question.tls is not ClientTls.NONE,
    )
    for row in chain.filters:
        config: Any = running.decoded.open(row.typed_config)
        kind = config.DESCRIPTOR.full_name if config is not None else ""
        match kind.removeprefix(f"{_NETWORK}."):
            case "http_connection_manager.v3.HttpConnectionManager":
                if not question.is_http:
                    answer.fail(Failure.PROTOCOL_ERROR, None, "HTTP is expected here, not other bytes")
                    return
                serve(config, question, scene, answer, upstreams, origins)
                return
            case "tcp_proxy.v3.TcpProxy":
                _stream(config, answer, upstreams, origins, chain)
                if answer.error is None and answer.action is not Action.BLACKHOLE:
                    _answered(question, chain, answer)
                return
            case "rbac.v3.RBAC":
                opened = running.decoded.open
                if authorization.judge(config, scene, answer, origins, opened, authorization.NETWORK):
                    answer.action = Action.DENY
                    answer.say("outcome", "the connection is closed")
                    return
            case "ext_authz.v3.ExtAuthz":
                if refusal := external.ask_of_connection(config, scene, answer, origins, upstreams):
                    answer.action = Action.DENY
                    answer.say("outcome", f"{refusal}: the connection is closed")
                    return
    answer.fail(Failure.NO_FILTER_CHAIN, None, "no filter of the chain handles the connection")


def _listener(
    question: Request, dialled: Dialled, upstreams: Upstreams, answer: Answer, udp: bool
) -> tuple[listener_v3.Listener | None, str]:
    """The listener that a connection comes to in the end, and the address that was dialled."""
    listeners = list(upstreams.running.listeners.values())
    first = dialled.addresses[0] if dialled.addresses else "0.0.0.0"
    if question.sender.role is Role.GATEWAY:
        bound = [one for one in listeners if not one.HasField("bind_to_port") or one.bind_to_port.value]
        for address in (*dialled.addresses, "0.0.0.0"):
            found = listener_at(bound, address, dialled.port, udp=udp)
            if found is not None:
                return found, address
        return _of_port(bound, dialled.port, udp), first
    if question.sender.role is Role.INBOUND:
        virtual = next((one for one in listeners if one.name == VIRTUAL_INBOUND), None)
        if virtual is not None:
            return virtual, first
        inbound = [one for one in listeners if one.traffic_direction == _INBOUND]
        found = listener_at(inbound, first, dialled.port, udp=udp)
        return found or _of_port(inbound, dialled.port, udp), first
    outbound = [one for one in listeners if one.HasField("bind_to_port") and not one.bind_to_port.value]
    for address in dialled.addresses:
        found = listener_at(outbound, address, dialled.port, udp=udp)
        if found is not None:
            answer.say("listener", f"virtualOutbound hands {address}:{dialled.port} over")
            return found, address
    captured = (one for one in listeners if one.use_original_dst.value)
    told = (one for one in listeners if one.traffic_direction == _OUTBOUND)  # of an explicit proxy
    return next(captured, None) or next(told, None), first


def _chain(
    listener: listener_v3.Listener, connection: Connection, opened: Callable[[Any], Any]
) -> listener_v3.FilterChain | None:
    """The chain that takes a connection, by the chains' own matches or by the listener's matcher."""
    if not listener.HasField("filter_chain_matcher"):
        return chain_of(listener, connection)
    scene = Scene(
        headers={},
        destination_ip=connection.address,
        destination_port=connection.port,
        source_ip=connection.source_ip,
        remote_ip=connection.source_ip,
        server_name=connection.server_name,
        tls=connection.transport == "tls",
    )
    action = decide(listener.filter_chain_matcher, scene, opened)
    name = opened(action.typed_config).value if action is not None else ""
    default = listener.default_filter_chain if listener.HasField("default_filter_chain") else None
    return next((chain for chain in listener.filter_chains if name and chain.name == name), default)


def _of_port(listeners: list[listener_v3.Listener], port: int, udp: bool) -> listener_v3.Listener | None:
    """The listener that bears a port in its name, wherever it is bound (a port map, rootless capture)."""
    return next((one for one in listeners if one.name.endswith(f"_{port}") and is_udp(one) == udp), None)


def _connection(
    listener: listener_v3.Listener, question: Request, dialled: Dialled, address: str
) -> Connection:
    """What the listener's inspectors see of it."""
    plain = Connection(address=address, port=dialled.port, source_ip=dialled.source_ip)
    if question.tls is not ClientTls.NONE:
        if not inspected(listener, "tls_inspector", dialled.port):
            return plain
        return replace(
            plain, transport="tls", server_name=_server_name(question), protocols=_offered(question)
        )
    if question.is_http and inspected(listener, "http_inspector", dialled.port):
        return replace(plain, protocols=_PLAIN[question.protocol])
    return plain


def _server_name(question: Request) -> str:
    if question.sni or question.sender.role is Role.INBOUND:
        return question.sni
    name = question.host.rpartition(":")[0] if question.host.rpartition(":")[2].isdecimal() else question.host
    name = name or question.address
    return "" if parse_ip(name.strip("[]")) else name.lower().rstrip(".")


def _offered(question: Request) -> tuple[str, ...]:
    """What the client offers in its handshake; a sidecar's client is a sidecar, as far as it shows."""
    if question.alpn is not None:
        return question.alpn
    if question.sender.role is Role.INBOUND and question.tls is ClientTls.MTLS:
        return (_MESH_ALPN.get(question.protocol, ALPN_MESH_TCP),)
    return {"http": ("http/1.1",), "http2": ("h2",), "grpc": ("h2",)}.get(question.protocol, ())


def _authority(question: Request, dialled: Dialled) -> str:
    """The host that a client names when nobody said which."""
    name = question.address or (dialled.addresses[0] if dialled.addresses else "")
    if ":" in name:
        name = f"[{name}]"
    usual = 80 if question.tls is ClientTls.NONE else 443
    return name if not name or dialled.port == usual else f"{name}:{dialled.port}"


def _words(connection: Connection) -> str:
    text = f"{connection.address}:{connection.port}, {connection.transport}"
    if connection.server_name:
        text += f" for {connection.server_name}"
    return f"{text}, {'/'.join(connection.protocols)}" if connection.protocols else text


def _manager(chain: listener_v3.FilterChain, opened: Any) -> Any:
    for row in chain.filters:
        if row.typed_config.type_url.endswith("HttpConnectionManager"):
            return opened(row.typed_config)
    return None


def _handshake(
    chain: listener_v3.FilterChain, question: Request, opened: Any, answer: Answer, http: bool
) -> str | None:
    """Who the client is, by its certificate; an error in the answer when no TLS comes about."""
    config = opened(chain.transport_socket.typed_config) if chain.HasField("transport_socket") else None
    if config is not None and config.DESCRIPTOR.name == "QuicDownstreamTransport":
        config = config.downstream_tls_context
    if config is None or config.DESCRIPTOR.name != "DownstreamTlsContext":
        if question.tls is not ClientTls.NONE and http:
            answer.fail(
                Failure.PROTOCOL_ERROR, None, "plain HTTP is expected here, and the client speaks TLS"
            )
        return None
    if question.tls is ClientTls.NONE:
        answer.fail(Failure.TLS_ERROR, None, "TLS is expected here, and the client speaks without")
        return None
    answer.tls_ended = True
    common = config.common_tls_context
    if config.require_client_certificate.value and question.tls is not ClientTls.MTLS:
        answer.fail(Failure.MTLS_ERROR, None, "the client must show a certificate, and has none")
        return None
    asked = common.WhichOneof("validation_context_type") is not None
    if question.tls is not ClientTls.MTLS or not asked:
        answer.say("tls", f"TLS ends here{_limited(common)}")
        return None
    context = common.validation_context
    if common.HasField("combined_validation_context"):
        context = common.combined_validation_context.default_validation_context
    names = context.match_typed_subject_alt_names
    if question.principal and names and not any(match.text(one.matcher, question.principal) for one in names):
        answer.fail(Failure.MTLS_ERROR, None, f"{question.principal} is nobody who may come in")
        return None
    who = question.principal or "known by its certificate"
    answer.say("tls", f"TLS ends here{_limited(common)}; the client is {who}")
    return question.principal or None


def _limited(common: tls_v3.CommonTlsContext) -> str:
    """Which key exchange is demanded, if not any that Envoy would agree to."""
    groups = ", ".join(common.tls_params.ecdh_curves)
    return f", with key exchange by {groups} only" if groups else ""


def _stream(
    config: Any,
    answer: Answer,
    upstreams: Upstreams,
    origins: Origins,
    chain: listener_v3.FilterChain,
) -> None:
    """Bytes to one of some clusters."""
    answer.route = origins.cause(chain.metadata, section=_section(chain))
    if config.WhichOneof("cluster_specifier") == "weighted_clusters":
        parts = [(part.name, part.weight) for part in config.weighted_clusters.clusters if part.weight]
    else:
        parts = [(config.cluster, 1)]
    _towards(parts, answer, upstreams, asked=config.HasField("on_demand"))


def _answered(question: Request, chain: listener_v3.FilterChain, answer: Answer) -> None:
    """HTTP among bytes that are only passed on: the client sees what the upstream answers."""
    ended = chain.HasField("transport_socket")
    if question.is_http and (ended or question.tls is ClientTls.NONE):
        answer.status = question.answer_status
        answer.response_headers = {name: list(values) for name, values in question.answer_headers.items()}


def _section(chain: listener_v3.FilterChain) -> str:
    """Which rules of a VirtualService a chain is named after: ``tls`` or ``tcp``."""
    return "tls" if "/tls-" in chain.name else "tcp"


def _towards(
    parts: list[tuple[str, int]], answer: Answer, upstreams: Upstreams, *, asked: bool = False
) -> None:
    answer.targets = [upstreams.target(name, weight, asked=asked) for name, weight in parts]
    for target in answer.targets:
        cause = answer.route or upstreams.declared(str(target.cluster))
        answer.say("cluster", str(target.cluster), cause)
    ready = [target for target in answer.targets if target.failure is None]
    if not ready:
        failure = answer.targets[0].failure if answer.targets else Failure.NO_CLUSTER
        answer.fail(failure or Failure.NO_CLUSTER, None, "nobody is there to take the connection")
        return
    cluster = ready[0].cluster
    if cluster in {PASSTHROUGH_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER}:
        answer.action = Action.PASSTHROUGH
        answer.say("outcome", "the connection goes to where the client wanted")
    elif cluster == BLACKHOLE_CLUSTER:
        answer.action = Action.BLACKHOLE
        answer.say("outcome", "the connection is closed: only declared destinations may be called")
    else:
        answer.action = Action.FORWARD
        answer.say("outcome", "the connection goes through")


def _datagram(
    listener: listener_v3.Listener, question: Request, upstreams: Upstreams, answer: Answer
) -> None:
    """UDP: Envoy's udp_proxy is a listener filter."""
    for row in listener.listener_filters:
        config: udp_proxy_v3.UdpProxyConfig | None = upstreams.running.decoded.open(row.typed_config)
        if config is None or config.DESCRIPTOR.name != "UdpProxyConfig":
            continue
        if config.HasField("matcher"):
            _towards(_by_hash(config.matcher, upstreams.running.decoded.open), answer, upstreams)
        else:
            _towards([(config.cluster, 1)], answer, upstreams)
        return
    answer.fail(Failure.NO_FILTER_CHAIN, None, "no filter of the listener handles datagrams")


def _by_hash(matcher: Any, opened: Callable[[Any], Any]) -> list[tuple[str, int]]:
    """Clusters of a matcher that divides by a hash, each with its share: the last threshold is met first."""
    found: list[tuple[str, int]] = []
    reached = 0
    for row in matcher.matcher_list.matchers:
        test = opened(row.predicate.single_predicate.custom_match.typed_config)
        route = opened(row.on_match.action.typed_config)
        if test is None or route is None or test.DESCRIPTOR.name != "ConsistentHashing":
            continue
        reached = reached or test.modulo
        found.append((route.cluster, reached - test.threshold))
        reached = test.threshold
    rest = opened(matcher.on_no_match.action.typed_config)
    if rest is not None and (reached or not found):
        found.insert(0, (rest.cluster, reached or 1))
    return [part for part in found if part[1] > 0]
