"""An application that fetches its identity with SPIFFE's own client: ``spiffe_client.py SOCKET``.

Each line of standard input is a request in JSON, answered by one line on standard output:

- ``{"x509": true}`` -> ``{"id", "serial", "roots": {domain: count}}``
- ``{"bundles": true}`` -> ``{"roots": {domain: count}}``
- ``{"jwt": [AUDIENCE…], "subject": ID?}`` -> ``{"token", "id", "audience"}``
- ``{"keys": true}`` -> ``{"keys": {domain: [kid]}}``
- ``{"validate": TOKEN, "audience": AUDIENCE}`` -> ``{"id", "claims"}``
- ``{"raw": METHOD, "metadata": [[NAME, VALUE]]}`` -> ``{"bytes": N}``
- ``{"follow": METHOD, "metadata": …}`` -> a line ``{"bytes": N}`` for each message, until the call ends

A call that fails is answered by ``{"error": TEXT, "code": NAME?}``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# pem, which spiffe uses, takes along a pyOpenSSL of the system that does not fit this cryptography.
sys.modules["OpenSSL"] = None  # type: ignore[assignment]

import grpc  # noqa: E402
from spiffe import WorkloadApiClient  # noqa: E402
from spiffe.spiffe_id.spiffe_id import SpiffeId  # noqa: E402

_TIMEOUT_S = 20.0


def roots(bundles: Any) -> dict[str, int]:
    """How many roots each trust domain has."""
    return {bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in bundles.bundles}


def say(told: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def raw(path: str, method: str, metadata: list[list[str]], *, follow: bool = False) -> dict[str, Any]:
    """One call as a client makes it that knows nothing of SPIFFE; what came first, unless all is wanted."""
    with grpc.insecure_channel(path) as channel:
        call = channel.unary_stream(
            method, request_serializer=lambda body: body, response_deserializer=lambda body: body
        )
        for answer in call(b"", metadata=[(name, value) for name, value in metadata], timeout=_TIMEOUT_S):
            if not follow:
                return {"bytes": len(answer)}
            say({"bytes": len(answer)})
    return {"bytes": 0}


def answer(client: WorkloadApiClient, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Do what one line says."""
    match asked:
        case {"x509": _}:
            context = client.fetch_x509_context(timeout=_TIMEOUT_S)
            svid = context.default_svid
            serial = f"{svid.leaf.serial_number:x}"
            return {"id": str(svid.spiffe_id), "serial": serial, "roots": roots(context.x509_bundle_set)}
        case {"bundles": _}:
            return {"roots": roots(client.fetch_x509_bundles(timeout=_TIMEOUT_S))}
        case {"jwt": audience}:
            subject = SpiffeId(asked["subject"]) if asked.get("subject") else None
            token = client.fetch_jwt_svid(set(audience), subject=subject, timeout=_TIMEOUT_S)
            return {"token": token.token, "id": str(token.spiffe_id), "audience": sorted(token.audience)}
        case {"keys": _}:
            found = client.fetch_jwt_bundles(timeout=_TIMEOUT_S)
            return {"keys": {one.trust_domain.name: sorted(one.jwt_authorities) for one in found.bundles}}
        case {"validate": token}:
            believed = client.validate_jwt_svid(token, asked["audience"], timeout=_TIMEOUT_S)
            return {"id": str(believed.spiffe_id), "audience": sorted(believed.audience)}
        case {"follow": method}:
            return raw(path, method, asked.get("metadata") or [], follow=True)
        case {"raw": method}:
            return raw(path, method, asked.get("metadata") or [])
    raise ValueError(f"{asked} is no request")


def main() -> None:
    """Answer line by line until standard input ends."""
    path = f"unix://{sys.argv[1]}"
    with WorkloadApiClient(path) as client:
        for line in sys.stdin:
            told: dict[str, Any]
            try:
                told = answer(client, path, json.loads(line))
            except Exception as error:
                cause = error.__cause__ or error.__context__
                code = error.code() if isinstance(error, grpc.RpcError) else None
                if code is None and isinstance(cause, grpc.RpcError):
                    code = cause.code()
                told = {"error": str(error), "code": code.name if code is not None else None}
            say(told)


if __name__ == "__main__":
    main()
