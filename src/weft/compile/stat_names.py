"""What statistics call a cluster: ``inboundClusterStatName``, ``outboundClusterStatName`` of MeshConfig."""

from __future__ import annotations

from weft.compile.service import Port, Service


def stat_name(pattern: str, service: Service, port: Port, subset: str = "", target: int = 0) -> str:
    """The pattern with what stands for its words; empty for an empty one.

    Words: istio pilot/pkg/networking/telemetry. A Service of Kubernetes is called by its name and namespace,
    any other by its host. ``target`` is the application's port, where it is known.
    """
    if not pattern:
        return ""
    whole = f"{service.name}.{service.namespace}" if service.kubernetes else service.host
    for word, value in (
        ("%SERVICE%", whole),
        ("%SERVICE_NAME%", service.name if service.kubernetes else service.host),
        ("%SERVICE_FQDN%", service.host),
        ("%SUBSET_NAME%", subset),
        ("%TARGET_PORT%", str(target)),
        ("%SERVICE_PORT%", str(port.number)),
        ("%SERVICE_PORT_NAME%", port.name),
    ):
        pattern = pattern.replace(word, value)
    return pattern
