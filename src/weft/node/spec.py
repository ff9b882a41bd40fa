"""What a node is asked to run, and where it puts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from weft.errors import UsageError
from weft.ir.proxy import Attachment, Capture
from weft.node.capture.choose import Choice, Mode
from weft.node.metrics.application import Scrape
from weft.node.probe import Probe

_NAME_MAX: Final = 63
_PORT_MAX: Final = 65535
_THREADS_MAX: Final = 256

_CAPTURES: Final = {
    Mode.NETNS: Capture.REDIRECT,
    Mode.NFT: Capture.REDIRECT,
    Mode.SECCOMP: Capture.SECCOMP,
    Mode.ENV: Capture.PROXY_ENV,
    Mode.NONE: Capture.NONE,
}


_RUN_FIELDS: Final = ("command", "workingDir", "env", "graceSeconds", "readinessProbe", "livenessProbe")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """One instance. ``ports`` by name; ``port_map`` (gateways) leads a listener's port to a host's port.

    ``shared_ports`` (gateways): others have the same ports at other addresses.
    ``own_network``: it gets an address of its own (``weft up``); else it shares the host's (``weft run``).
    ``command`` empty: somebody else runs the application; else ``told`` is how ``running`` was told of it.
    ``capture`` is ``auto`` or a ``Mode``. ``scrape``: where the application shows series of its own.
    """

    name: str
    namespace: str = "default"
    service_account: str = "default"
    service: str | None = None
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    capture: str = "auto"
    kind: str = "sidecar"
    own_network: bool = False
    address: str | None = None
    port_map: Mapping[int, int] = field(default_factory=dict)
    shared_ports: bool = False
    locality: str = ""
    network: str = ""
    concurrency: int = 2
    scrape: Scrape | None = None
    command: tuple[str, ...] = ()
    working_dir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    readiness: Probe | None = None
    liveness: Probe | None = None
    grace_s: float = 10.0
    told: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value in (
            ("name", self.name),
            ("namespace", self.namespace),
            ("service account", self.service_account),
        ):
            if not _is_name(value):
                raise UsageError(
                    f"{value!r} is not a {what}",
                    hint="write lower-case letters, digits, '-' and '.', at most 63 in all",
                )
        if "." in self.namespace:  # the name of a workload's directory would fit two workloads
            raise UsageError(f"{self.namespace!r} is not a namespace", hint="it has no '.'")
        if self.kind not in {"sidecar", "router"}:
            raise UsageError(f"{self.kind!r} is neither sidecar nor router")
        if not 0 < self.concurrency <= _THREADS_MAX:
            raise UsageError(f"a proxy with {self.concurrency} threads: at most {_THREADS_MAX} make sense")
        for name, port in (*self.ports.items(), *(("", host) for host in self.port_map.values())):
            if not 0 < port <= _PORT_MAX:
                raise UsageError(f"port {name} {port} is not between 1 and {_PORT_MAX}".replace("  ", " "))

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    def to_record(self) -> dict[str, Any]:
        """As JSON can hold it, but for what ``running`` adds."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "service": self.service,
            "group": self.group,
            "labels": dict(self.labels),
            "ports": dict(self.ports),
            "capture": self.capture,
            "kind": self.kind,
            "ownNetwork": self.own_network,
            "address": self.address,
            "portMap": {str(port): to for port, to in self.port_map.items()},
            "sharedPorts": self.shared_ports,
            "locality": self.locality,
            "network": self.network,
            "concurrency": self.concurrency,
            "scrape": self.scrape.to_dict() if self.scrape else None,
        }

    def running(self, told: Mapping[str, Any]) -> WorkloadSpec:
        """With the application that the node itself runs, as ``add`` says it. Not for untrusted callers.

        Raises:
            UsageError: a probe cannot be read.
        """
        readiness, liveness = told.get("readinessProbe"), told.get("livenessProbe")
        return replace(
            self,
            command=tuple(str(part) for part in told.get("command") or ()),
            working_dir=told.get("workingDir") or None,
            env={str(key): str(value) for key, value in dict(told.get("env") or {}).items()},
            grace_s=float(told.get("graceSeconds") or 10),
            readiness=Probe.parse(readiness) if readiness else None,
            liveness=Probe.parse(liveness) if liveness else None,
            told={key: told[key] for key in _RUN_FIELDS if key in told},
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> WorkloadSpec:
        """Read a request or a record.

        Raises:
            UsageError: a field is missing or of a wrong type.
        """
        try:
            labels = {str(key): str(value) for key, value in dict(record.get("labels") or {}).items()}
            notes = {str(key): str(value) for key, value in dict(record.get("annotations") or {}).items()}
            ports = {str(name): int(port) for name, port in dict(record.get("ports") or {}).items()}
            return cls(
                name=str(record["name"]),
                namespace=str(record.get("namespace") or "default"),
                service_account=str(record.get("serviceAccount") or "default"),
                service=record.get("service") or None,
                group=record.get("group") or None,
                labels=labels,
                ports=ports,
                capture=str(record.get("capture") or "auto"),
                kind=str(record.get("kind") or "sidecar"),
                own_network=bool(record.get("ownNetwork")),
                address=record.get("address") or None,
                port_map={int(port): int(to) for port, to in dict(record.get("portMap") or {}).items()},
                shared_ports=bool(record.get("sharedPorts")),
                locality=str(record.get("locality") or ""),
                network=str(record.get("network") or ""),
                concurrency=int(record.get("concurrency") or 2),
                scrape=Scrape.parse(record.get("scrape")) or Scrape.of({**labels, **notes}, ports),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"the request cannot be read: {error}") from error


def _is_name(value: str) -> bool:
    body = value.replace("-", "").replace(".", "")
    ends = value[:1] + value[-1:]
    return (
        0 < len(value) <= _NAME_MAX
        and body.isascii()
        and body.isalnum()
        and body.lower() == body
        and ends.isalnum()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a workload stands on this host. ``address`` is what its peers connect to.

    ``block``: first of its eight ports on the host's network. ``dns_port``: where its names are answered.
    ``gateway``: the host, seen from a network namespace.
    """

    choice: Choice
    address: str
    attachment: Attachment
    netns: Path | None = None
    app_cgroup: Path | None = None
    proxy_cgroup: Path | None = None
    block: int | None = None
    dns_port: int | None = None
    gateway: str | None = None

    @property
    def mode(self) -> Mode:
        """How it is captured."""
        return self.choice.mode

    def to_record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "mode": str(self.choice.mode),
            "because": self.choice.because,
            "address": self.address,
            "attachment": attachment_fields(self.attachment),
            "netns": str(self.netns) if self.netns else None,
            "appCgroup": str(self.app_cgroup) if self.app_cgroup else None,
            "proxyCgroup": str(self.proxy_cgroup) if self.proxy_cgroup else None,
            "block": self.block,
            "dnsPort": self.dns_port,
            "gateway": self.gateway,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], choice: Choice) -> Placement:
        """Read what ``to_record`` wrote."""

        def path(key: str) -> Path | None:
            return Path(record[key]) if record.get(key) else None

        fields = record["attachment"]
        attachment = Attachment(
            capture=Capture(fields["capture"]),
            outbound_address=fields["outboundAddress"],
            outbound_port=fields["outboundPort"],
            inbound_address=fields["inboundAddress"],
            inbound_port=fields["inboundPort"],
            app_address=fields["appAddress"],
            inbound_ports=tuple((int(app), int(to)) for app, to in fields["inboundPorts"].items()),
            http_proxy_port=fields["httpProxyPort"],
            shared_ports=bool(fields.get("sharedPorts")),
        )
        return cls(
            choice=choice,
            address=record["address"],
            attachment=attachment,
            netns=path("netns"),
            app_cgroup=path("appCgroup"),
            proxy_cgroup=path("proxyCgroup"),
            block=record.get("block"),
            dns_port=record.get("dnsPort"),
            gateway=record.get("gateway"),
        )


def capture_of(mode: Mode) -> Capture:
    """How a mode looks from the sidecar."""
    return _CAPTURES[mode]


def attachment_fields(attachment: Attachment) -> dict[str, Any]:
    """An attachment as node metadata and the node's socket have it."""
    return {
        "capture": str(attachment.capture),
        "outboundAddress": attachment.outbound_address,
        "outboundPort": attachment.outbound_port,
        "inboundAddress": attachment.inbound_address,
        "inboundPort": attachment.inbound_port,
        "appAddress": attachment.app_address,
        "inboundPorts": {str(app): to for app, to in attachment.inbound_ports},
        "httpProxyPort": attachment.http_proxy_port,
        "sharedPorts": attachment.shared_ports,
    }
