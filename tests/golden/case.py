"""One golden case: resources, a proxy, and the parts of its configuration that the case shows.

``in.yaml`` is applicable as it is. Comment lines that begin with ``#:`` say who asks and what is shown::

    #: proxy: sidecar~10.0.0.1~web-0.default
    #: labels: {app: web}
    #: attachment: {capture: seccomp, app_address: 127.20.0.1}
    #: show: {rds: ["9080"], cds: ["outbound|9080|*"]}

Without ``show`` everything is shown.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from weft import ir
from weft.cli.documents import read_resources
from weft.cli.placeholder import placeholders
from weft.compile.endpoints import endpoint_set
from weft.compile.proxy import compile_proxy
from weft.compile.world import World
from weft.emit.bootstrap import Settings
from weft.emit.bundle import Bundle, emit
from weft.emit.static import assignments, bundle_secrets, message, static_bootstrap
from weft.names import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, ProxyName

# Logs and metrics are the same in every listener: cases with `telemetry: [logs, metrics, tracing]` show them.
_QUIET = ir.Telemetry(client=ir.Reports(metrics=None), server=ir.Reports(metrics=None))
_TYPES = {"cds": CLUSTER_TYPE, "lds": LISTENER_TYPE, "rds": ROUTE_TYPE}


class Case:
    """A directory with ``in.yaml`` and ``out.yaml``."""

    def __init__(self, directory: Path) -> None:
        self.out = directory / "out.yaml"
        path = directory / "in.yaml"
        lines = path.read_text().splitlines()
        asked = yaml.safe_load("\n".join(line[2:].strip() for line in lines if line.startswith("#:")))
        self._show: Mapping[str, list[str]] | None = asked.get("show")
        resources, problems = read_resources([str(path)])
        name = ProxyName.parse(asked["proxy"])
        router = name.kind == "router"
        attachment = dict(asked.get("attachment", {}))
        capture = ir.Capture(attachment.pop("capture", "none" if router else "redirect"))
        ports = tuple((int(port), int(at)) for port, at in attachment.pop("inbound_ports", {}).items())
        identity = ir.ProxyIdentity(
            name=name,
            labels=tuple(sorted(asked.get("labels", {}).items())),
            service_account=asked.get("account", "default"),
            attachment=ir.Attachment(capture=capture, inbound_ports=ports, **attachment),
        )
        self.resources, self.identity = resources, identity
        self.world = world = World.build(resources)
        proxy, found = compile_proxy(world, identity)
        self.problems = [str(problem).replace(f"{directory}/", "") for problem in (*problems, *found)]
        self._proxy = replace(proxy, telemetry=_told(proxy.telemetry, asked.get("telemetry", [])))
        self.bundle: Bundle = emit(self._proxy)
        self._endpoints = [
            endpoint_set(world, cluster.name)
            for cluster in proxy.clusters
            if cluster.discovery is ir.Discovery.EDS
        ]

    def bootstrap(self) -> dict[str, Any]:
        """Everything in one bootstrap, for a real Envoy."""
        secrets = placeholders(*bundle_secrets(self.bundle))
        settings = Settings(name=self._proxy.identity.name)
        return static_bootstrap(self.bundle, self._endpoints, settings, secrets, self._proxy)

    def _all(self) -> dict[str, dict[str, Any]]:
        shown: dict[str, dict[str, Any]] = {
            kind: {name: message(unit) for name, unit in self.bundle.resources[url].items()}
            for kind, url in _TYPES.items()
        }
        made = assignments(self._endpoints, self._proxy)
        shown["eds"] = {unit.name: message(unit) for unit in made}
        return shown

    def text(self) -> str:
        """What the case shows, as YAML."""
        shown: dict[str, Any] = {}
        for kind, units in self._all().items():
            patterns = ["*"] if self._show is None else self._show.get(kind, [])
            for pattern in patterns:
                matched = {name: units[name] for name in units if fnmatch.fnmatchcase(name, pattern)}
                shown.setdefault(kind, {}).update(matched or {pattern: None})
        if self.problems:
            shown["problems"] = self.problems
        return yaml.dump(_plain(shown), sort_keys=False, width=110, allow_unicode=True)


def _told(telemetry: ir.Telemetry, parts: list[str]) -> ir.Telemetry:
    """These parts of it: logs, metrics, tracing."""
    left_out = {name: getattr(_QUIET.client, name) for name in {"logs", "metrics", "tracing"} - set(parts)}
    return ir.Telemetry(
        client=replace(telemetry.client, **left_out), server=replace(telemetry.server, **left_out)
    )


def _plain(value: Any) -> Any:
    """The same in plain dictionaries, which YAML writes without tags."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value
