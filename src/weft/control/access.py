"""Who may speak to the API: by the Unix socket's peer, or by the certificate that TLS has verified."""

from __future__ import annotations

import os
from collections.abc import Callable

from starlette.requests import HTTPConnection

from weft.control.api.subject import Authenticate, Role, Subject, client_certificate, unix_peer
from weft.identity.server import caller_of
from weft.spiffe import AdminId, NodeId

ADMIN_GROUP = "system:masters"
NODE_GROUP = "system:nodes"


def authenticator(
    trust_domain: Callable[[], str], revoked: Callable[[bytes], bool] = lambda certificate: False
) -> Authenticate:
    """Root and the control plane's own user administer by the socket; ``AdminId`` certificates by TLS.

    A node's certificate proves who it is and opens nothing but the node's own paths. A workload's opens
    nothing, and neither does one (DER) that was ``revoked``.
    """

    async def authenticate(connection: HTTPConnection) -> Subject | None:
        if (peer := unix_peer(connection)) is not None:
            if peer.uid in {0, os.geteuid()}:
                return Subject(name=f"uid:{peer.uid}", role=Role.ADMIN, groups=(ADMIN_GROUP,))
            return None
        certificate = client_certificate(connection)
        caller = caller_of(certificate) if certificate is not None and not revoked(certificate) else None
        if caller is None or caller.trust_domain != trust_domain():
            return None
        if isinstance(caller, AdminId):
            return Subject(name=caller.name, role=Role.ADMIN, groups=(ADMIN_GROUP,))
        if isinstance(caller, NodeId):
            return Subject(name=f"system:node:{caller.name}", groups=(NODE_GROUP,))
        return None

    return authenticate
