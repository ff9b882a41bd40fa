"""EnvoyFilters that do harm, on a running mesh: what proxies refuse costs nobody, and says who it was.

One sidecar is meant by the filter, another is not. Both have traffic; the control plane names the resource.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.envoy.control import ControlPlane
from tests.envoy.test_on_demand import HERE, Application, entry, istio, service
from tests.support.backend import HttpBackend, serving
from tests.support.certificates import TestAuthority
from tests.support.envoy import wait_until
from tests.support.ports import free_port
from tests.support.streams import put
from weft.control.verdicts import blamed
from weft.model.resource import Key

FILTER = Key("networking.istio.io/EnvoyFilter", "default", "hard")
TYPE = "type.googleapis.com/envoy.extensions"
MANAGER = "envoy.filters.network.http_connection_manager"


@dataclass
class Mesh:
    """``meant``: whom the filters are for; ``other``: nobody's business but its own."""

    plane: ControlPlane
    meant: Application
    other: Application

    def patch(self, *patches: dict[str, Any]) -> int:
        """Store a filter with these patches; the revision that has it."""
        spec = {"workloadSelector": {"labels": {"app": "meant"}}, "configPatches": list(patches)}
        wire = {**istio("EnvoyFilter", "hard", **spec), "apiVersion": "networking.istio.io/v1alpha3"}
        return self.plane.ask(self.plane.store.transact([put(wire)]))

    def reached(self, revision: int) -> None:
        """Until both have it, or what of it they take."""

        def done() -> bool:
            found = self.plane.status.convergence(revision)
            return found.published and not found.missing

        wait_until(done, 30, "the proxies settle")

    def refusals(self) -> dict[Key, tuple[str, ...]]:
        return dict(blamed(self.plane.status.rejections()))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with ExitStack() as stack:
        web = stack.enter_context(serving(HttpBackend(HERE, 0, "web")))
        plane = stack.enter_context(ControlPlane(tmp_path_factory.mktemp("plane"), TestAuthority()))
        plane.apply(service("web"), entry("web-1", "http", "v1", web.server_address[1]))
        applications = []
        for name, address in (("meant", "127.0.0.11"), ("other", "127.0.0.12")):
            port = free_port()
            weft = {"outboundAddress": HERE, "outboundPort": port, "inboundAddress": address}
            envoy = stack.enter_context(plane.sidecar(name, address, weft))
            applications.append(Application(plane, envoy, port))
        plane.settle(2)
        yield Mesh(plane, *applications)


def cluster(**value: Any) -> dict[str, Any]:
    return {"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": value}}


def listener(name: str, port: int, **value: Any) -> dict[str, Any]:
    proxy = {
        "@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "x",
        "cluster": "BlackHoleCluster",
    }
    chains = [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}]
    address = {"socket_address": {"address": HERE, "port_value": port}}
    made = {"name": name, "address": address, "filter_chains": chains, **value}
    return {"applyTo": "LISTENER", "patch": {"operation": "ADD", "value": made}}


def unknown_filter() -> dict[str, Any]:
    """The router's place is at the end: one more behind it is refused with the whole listener."""
    router = {"@type": f"{TYPE}.filters.http.router.v3.Router"}
    return {
        "applyTo": "HTTP_FILTER",
        "match": {"context": "SIDECAR_OUTBOUND", "listener": {"filterChain": {"filter": {"name": MANAGER}}}},
        "patch": {"operation": "ADD", "value": {"name": "behind", "typed_config": router}},
    }


REFUSED = {
    "a cluster that is none": (cluster(name="bad", type="STATIC", lb_policy="CLUSTER_PROVIDED"),),
    "a cluster of an unknown certificate": (
        cluster(
            name="bad",
            type="STATIC",
            transport_socket={
                "name": "tls",
                "typed_config": {
                    "@type": f"{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": {
                        "validation_context": {"trusted_ca": {"filename": "/nowhere/at-all.pem"}}
                    },
                },
            },
        ),
    ),
    "a listener without chains": (listener("bad", 1, filter_chains=[]),),
    "a filter behind the last one": (unknown_filter(),),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_costs_nobody_and_says_who_it_was(mesh: Mesh, name: str) -> None:
    mesh.reached(mesh.patch(*REFUSED[name]))
    wait_until(lambda: FILTER in mesh.refusals(), 30, "a refusal")
    assert list(mesh.refusals()) == [FILTER], mesh.refusals()
    assert all("meant.default refuses" in said for said in mesh.refusals()[FILTER])
    assert mesh.meant.get("web").status == 200  # it goes on with what it had
    assert mesh.other.get("web").status == 200
    mesh.reached(mesh.patch())
    wait_until(lambda: not mesh.refusals(), 30, "the end of the refusal")


def test_the_rest_of_a_change_goes_on_beside_a_refusal(mesh: Mesh) -> None:
    mesh.reached(mesh.patch(*REFUSED["a cluster that is none"], cluster(name="good", type="STATIC")))
    wait_until(lambda: FILTER in mesh.refusals(), 30, "a refusal")
    wait_until(lambda: '"good"' in mesh.meant.envoy.admin("/config_dump"), 30, "the good cluster")
    assert '"good"' not in mesh.other.envoy.admin("/config_dump")
    mesh.reached(mesh.patch())
    wait_until(lambda: not mesh.refusals(), 30, "the end of the refusal")


def test_an_address_that_is_taken_twice(mesh: Mesh) -> None:
    port = free_port()
    mesh.reached(mesh.patch(listener("one", port), listener("two", port)))
    wait_until(lambda: FILTER in mesh.refusals(), 30, "a refusal")
    assert mesh.meant.get("web").status == 200
    assert mesh.other.get("web").status == 200
    mesh.reached(mesh.patch())
    wait_until(lambda: not mesh.refusals(), 30, "the end of the refusal")


def test_whoever_takes_everything_away_takes_it_from_the_meant_only(mesh: Mesh) -> None:
    everything = [
        {"applyTo": kind, "patch": {"operation": "REMOVE"}}
        for kind in ("LISTENER", "CLUSTER", "VIRTUAL_HOST")
    ]
    mesh.reached(mesh.patch(*everything))
    assert mesh.other.get("web").status == 200
    mesh.reached(mesh.patch())
    wait_until(lambda: _status(mesh.meant) == 200, 30, "everything back")
    assert not mesh.refusals()


def _status(application: Application) -> int:
    try:
        return application.get("web").status
    except OSError:  # its port is not open yet
        return 0
