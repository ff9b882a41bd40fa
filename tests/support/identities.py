"""Proxies as tests on one machine run them: a rootless sidecar beside an application, a gateway."""

from __future__ import annotations

from weft import ir
from weft.names import ProxyName

# To be formatted with the port of the application: in the mesh as a workload, for gateways as a host outside.
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: {app}}}]
---
"""
WEB = (
    SERVICE
    + """apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: back, namespace: default}}
spec:
  hosts: [back.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {app}}}]
  endpoints: [{{address: 127.0.0.1}}]
"""
)


def sidecar_of(name: str, app_port: int, inbound_port: int, outbound_port: int) -> ir.ProxyIdentity:
    """The sidecar of ``name`` in ``default``; what comes to ``inbound_port`` is for ``app_port``."""
    return ir.ProxyIdentity(
        name=ProxyName("sidecar", "127.0.0.1", name, "default"),
        labels=(("app", name),),
        service_account=name,
        attachment=ir.Attachment(
            capture=ir.Capture.SECCOMP,
            outbound_address="127.0.0.1",
            outbound_port=outbound_port,
            inbound_address="127.0.0.1",
            app_address="127.0.0.1",
            inbound_ports=((app_port, inbound_port),),
        ),
    )
