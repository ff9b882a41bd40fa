"""The kubeconfig that lets kubectl and client libraries in: CA, certificate and key inline, 0600."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from weft.errors import WeftError


def kubeconfig(
    *, server: str, ca: bytes, certificate: bytes = b"", key: bytes = b"", token: str = "",
    user: str = "admin", name: str = "weft", namespace: str = "default",
) -> str:  # fmt: skip
    """The file's text (JSON, which is YAML). ``server`` is ``https://host:15017``, the rest is PEM.

    The user proves itself by certificate and key, or by the token.
    """
    credential: dict[str, str]

    def data(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    if token:
        credential = {"token": token}
    else:
        credential = {"client-certificate-data": data(certificate), "client-key-data": data(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": data(ca)}},
        ],
        "users": [
            {"name": user, "user": credential},
        ],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": user, "namespace": namespace}},
        ],
        "current-context": name,
    }
    return json.dumps(config, indent=2) + "\n"


def write_kubeconfig(path: Path, text: str) -> None:
    """Write it where only its owner may read it, in one step.

    Raises:
        WeftError: when it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise WeftError(
            f"cannot write {path}: {error.strerror}", hint="choose a directory of your own"
        ) from error
