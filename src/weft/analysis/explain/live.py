"""Explains requests to a proxy that runs, by what its Envoy says that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from weft.analysis.connection import listens_on, parse_ip
from weft.analysis.explain.answer import Answer
from weft.analysis.explain.configuration import Configuration, Decoded
from weft.analysis.explain.mesh import unanswered
from weft.analysis.explain.onward import Arrival, Journey, arrivals
from weft.analysis.explain.origins import Origins
from weft.analysis.explain.proxies import NOWHERE
from weft.analysis.explain.request import ClientTls, Request, Role, read_request
from weft.analysis.explain.upstream import Upstreams
from weft.analysis.explain.walk import Dialled, walk
from weft.names import WORKLOAD_LABEL, ClusterName, ProxyName

if TYPE_CHECKING:
    from weft.protos import listener_v3

OUTSIDE: Final = "no workload that is registered: it decides itself"
_IN_CLUSTER: Final = ".svc."


class Running:
    """One proxy. ``dump`` is its Envoy's ``/config_dump?include_eds``."""

    def __init__(self, dump: Mapping[str, Any]) -> None:
        """Read the dump.

        Raises:
            ValueError: when it cannot be read.
        """
        self.configuration = Configuration.of_dump(dump, Decoded())
        self.name = node_of(dump)
        self._upstreams = Upstreams(self.configuration, _is_kubernetes, lambda cluster: False, offline=False)

    def explain(self, data: object) -> dict[str, Any]:
        """What becomes of a request here, both as JSON; what cannot be read is told as ``error``."""
        try:
            question = read_request(data)
        except ValueError as error:
            return unanswered(data, error)
        return self.begin(question, data).json()

    def begin(self, question: Request, data: object, identity: str = "") -> Journey:
        """What becomes of a request at this proxy, and where it goes from there.

        ``data`` is the question as JSON; ``identity`` the SPIFFE URI that the proxy shows.
        """
        answer = Answer(id=data.get("id") if isinstance(data, Mapping) else None)
        self._walk(question, answer)
        return Journey(answer, tuple(arrivals(question, answer, self._upstreams, identity)))

    def arrive(self, journey: Journey, arrival: Arrival, proxy: str) -> None:
        """This is the proxy that a request comes to."""
        answer = Answer()
        self._walk(arrival.asking(proxy), answer)
        journey.taken(arrival, proxy, answer)

    def _walk(self, question: Request, answer: Answer) -> None:
        answer.say("proxy", f"what {self.name or 'the proxy'} runs now")
        walk(question, self._dialled(question, answer), self._upstreams, Origins(), answer)

    def _dialled(self, question: Request, answer: Answer) -> Dialled:
        usual = 80 if question.tls is ClientTls.NONE else 443
        host, _, written = question.host.rpartition(":")
        apart = bool(host) and written.isdecimal()
        port = question.port or (int(written) if apart and not question.address else usual)
        own = self.name.address if self.name else NOWHERE
        if question.sender.role is not Role.WORKLOAD:
            ip = question.address if parse_ip(question.address) else own
            return Dialled(addresses=(ip,), port=port, source_ip=question.source_ip)
        name = question.address or (host if apart else question.host)
        found = tuple(dict.fromkeys(self._resolve(name.strip("[]").lower().rstrip("."), port)))
        if not found:
            answer.say("address", f"{name} is no name that the proxy knows: dialled outside of the mesh")
        elif parse_ip(name) is None:
            answer.say("address", f"{name} is {found[0]}")
        return Dialled(addresses=found or (NOWHERE,), port=port, source_ip=question.source_ip or own)

    def _resolve(self, name: str, port: int) -> Iterator[str]:
        """Addresses that the proxy itself knows for a name: its tables and its listeners bear both."""
        if parse_ip(name) is not None:
            yield name
            return
        hosts = {name}
        for table in self.configuration.tables():
            for host in table.virtual_hosts:
                if name in host.domains:
                    hosts.update(host.domains)
                    yield from (part for part in (d.strip("[]") for d in host.domains) if parse_ip(part))
        for listener in self.configuration.listeners.values():
            for address, number in listens_on(listener):
                if number == port and parse_ip(address) and hosts & set(_hosts_behind(listener)):
                    yield address


def _is_kubernetes(host: str) -> bool:
    return _IN_CLUSTER in host


def _hosts_behind(listener: listener_v3.Listener) -> Iterator[str]:
    """Hosts, and their short names, of the clusters that the chains of a listener are named after."""
    chains = [*listener.filter_chains]
    if listener.HasField("default_filter_chain"):
        chains.append(listener.default_filter_chain)
    for chain in chains:
        cluster = ClusterName.parse(chain.name)
        if cluster is not None:
            yield cluster.host
            short, found, _ = cluster.host.partition(_IN_CLUSTER)
            if found:
                yield from (short, f"{short}.svc", short.partition(".")[0])


def identity_of(certificates: Mapping[str, Any]) -> str:
    """The SPIFFE URI in an Envoy's ``/certs``; empty when it has none."""
    return next(
        (
            str(name["uri"])
            for pair in certificates.get("certificates", ())
            for certificate in pair.get("cert_chain", ())
            for name in certificate.get("subject_alt_names", ())
            if str(name.get("uri", "")).startswith("spiffe://")
        ),
        "",
    )


def bearer_of(arrival: Arrival, entries: Iterable[Mapping[str, Any]]) -> str | None:
    """Whose endpoint it is, as ``namespace/name``, among WorkloadEntries as JSON; None: nobody's.

    Workloads of one host may share its address: then the port tells, or the Workload that they are of.
    """
    found = [one for one in entries if (one.get("spec") or {}).get("address") == arrival.address]
    for fits in (_has_port, _is_of):
        found = [one for one in found if fits(one, arrival)] or found
    if not found:
        return None
    metadata = found[0]["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def _has_port(entry: Mapping[str, Any], arrival: Arrival) -> bool:
    return arrival.port in (entry["spec"].get("ports") or {}).values()


def _is_of(entry: Mapping[str, Any], arrival: Arrival) -> bool:
    metadata = entry["metadata"]
    name = (metadata.get("labels") or {}).get(WORKLOAD_LABEL) or metadata["name"]
    return f"{metadata['namespace']}/{name}" == arrival.workload


def node_of(dump: Mapping[str, Any]) -> ProxyName | None:
    """Whose dump it is; None when it does not say."""
    for section in dump.get("configs", ()):
        node = (section.get("bootstrap") or {}).get("node") or {}
        try:
            return ProxyName.parse(str(node["id"]))
        except (KeyError, ValueError):
            continue
    return None
