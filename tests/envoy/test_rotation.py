"""Certificates and roots are replaced under load, and no request fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.envoy import Envoy, running_envoy, short_directory
from tests.support.plane import Plane, eventually, plane
from tests.support.ports import free_port
from weft.identity.ca import Authority
from weft.node.enrolment import join
from weft.node.session import Session

_ROTATIONS = 20
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


def _secret(name: str, file: str) -> dict[str, Any]:
    source = {"path": file, "watched_directory": {"path": "."}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _tls(kind: str, **more: Any) -> dict[str, Any]:
    identity = {"exact": "spiffe://cluster.local/ns/shop/sa/web"}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}{kind}",
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [_secret("default", "sds.json")],
                "combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": identity}]
                    },
                    "validation_context_sds_secret_config": _secret("ROOTCA", "sds-rootca.json"),
                },
            },
            **more,
        },
    }


def _listener(name: str, port: int, route: dict[str, Any], **chain: Any) -> dict[str, Any]:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
        "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    filters = [{"name": "http", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [{"filters": filters, **chain}]}


def _pair(client: int, fresh: int, server: int) -> dict[str, Any]:
    """Plain in, mutual TLS to itself: by kept connections at ``client``, by new ones at ``fresh``."""

    def cluster(name: str, **options: Any) -> dict[str, Any]:
        endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": server}}}
        return {
            "name": name,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
            "transport_socket": _tls("UpstreamTlsContext"),
            **options,
        }

    once = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"max_requests_per_connection": 1},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }
    answer = {"direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    return {
        "node": {"id": "web", "cluster": "web"},
        "admin": {"address": {"pipe": {"path": "admin.sock", "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                _listener("client", client, {"route": {"cluster": "kept"}}),
                _listener("fresh", fresh, {"route": {"cluster": "fresh"}}),
                _listener(
                    "server",
                    server,
                    answer,
                    transport_socket=_tls("DownstreamTlsContext", require_client_certificate=True),
                ),
            ],
            "clusters": [cluster("kept"), cluster("fresh", typed_extension_protocol_options=once)],
        },
    }


class _Load:
    """Requests without a pause, until the block ends; ``outcomes`` counts statuses and failures."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    @asynccontextmanager
    async def on(self, *ports: int) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as http:
            tasks = [asyncio.create_task(self._run(http, f"http://127.0.0.1:{port}/")) for port in ports]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, http: aiohttp.ClientSession, url: str) -> None:
        while True:
            try:
                async with http.get(url) as reply:
                    body = await reply.text()
                    self.outcomes[str(reply.status) if body == "ok" else f"{reply.status} {body}"] += 1
            except aiohttp.ClientError as error:
                self.outcomes[repr(error)] += 1
            await asyncio.sleep(0.005)  # leave the machine to the others: 150 requests a second will do


def _serials(envoy: Envoy) -> set[str]:
    """What Envoy says that it shows to peers now."""
    return {
        chain["serial_number"]
        for row in json.loads(envoy.admin("/certs"))["certificates"]
        for chain in row["cert_chain"]
    }


def _roots(envoy: Envoy) -> set[str]:
    return {
        root["serial_number"]
        for row in json.loads(envoy.admin("/certs"))["certificates"]
        for root in row["ca_cert"]
    }


async def test_leaves_and_roots_are_replaced_under_load(tmp_path: Path) -> None:
    ports = free_port(), free_port(), free_port()
    lifetime = timedelta(seconds=2)
    with short_directory() as directory:
        async with plane(tmp_path / "control", lifetime=lifetime) as control:
            await _under_load(control, tmp_path, directory, ports)


async def _under_load(control: Plane, state: Path, directory: Path, ports: tuple[int, int, int]) -> None:
    member = await join(control.url, await control.token(), "host1", [], state)
    session = Session(member, state)
    running = asyncio.create_task(session.run())
    try:
        assert await session.wait_connected(10)
        await session.certify("shop", "web", directory, None)
        load = _Load()
        with running_envoy(directory, _pair(*ports)) as envoy:
            async with load.on(*ports[:2]):
                await _rotate(control, envoy)
        assert load.outcomes.keys() == {"200"}, load.outcomes
        assert load.outcomes["200"] > 1000
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await session.close()


async def _rotate(control: Plane, envoy: Envoy) -> None:
    """Twenty leaves, and on the way: old root, old and new, new."""
    old, successor = control.authority.roots[0], Authority.create(control.clock())
    steps = {
        5: lambda now: now.trust(*successor.roots),
        10: lambda now: now.succeed(successor),
        15: lambda now: now.distrust(old),
    }
    seen: set[str] = set()
    for rotation in range(_ROTATIONS):
        if step := steps.get(rotation):
            control.authority = step(control.authority)
            control.credentials.renew()
            await control.service.announce_bundle()
            want = {f"{root.serial_number:x}" for root in control.authority.roots}

            def loaded(want: set[str] = want) -> bool:
                return {serial.lstrip("0") for serial in _roots(envoy)} == want

            await eventually(loaded, 10, "Envoy to trust the new bundle")

        def rotated(seen: frozenset[str] = frozenset(seen)) -> bool:
            found = _serials(envoy)
            # Both contexts, the client's and the server's, show the same new certificate.
            return len(found) == 1 and not found <= seen

        await eventually(rotated, 10, f"rotation {rotation}")
        seen |= _serials(envoy)
    assert len(seen) >= _ROTATIONS
