"""A kubeconfig as the address of a control plane: kubectl's file works for weft's commands too.

Read of it is what weft or kubectl writes: the current context with its cluster and its user's certificate or
token, inline or as files. What starts programs (``exec``) or passwords is refused.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.client.server import Server
from weft.errors import WeftError


def read_kubeconfig(path: Path) -> Server:
    """The server of its current context.

    Raises:
        WeftError: it cannot be read, is none, or others may read the key or token in it.
    """
    import yaml

    try:
        with path.open() as file:
            mode, owner = (found := os.fstat(file.fileno())).st_mode, found.st_uid
            config = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WeftError(f"{path} cannot be read as a kubeconfig: {error}") from error
    try:
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"] or {}
        url = str(cluster["server"])
    except (KeyError, TypeError, LookupError) as error:
        raise WeftError(
            f"{path} is no kubeconfig with a current context",
            hint="make one: weft user create NAME --kubeconfig FILE",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and owner == os.geteuid():
        raise WeftError(f"{path} can be read by others, and holds a credential", hint=f"chmod 600 {path}")
    if not url.startswith("https://"):
        raise WeftError(f"{path}: {url} is not encrypted", hint="use a server that begins with https://")
    if unknown := {"exec", "auth-provider", "username", "password"} & user.keys():
        hint = "make one with weft user create NAME --kubeconfig FILE"
        raise WeftError(f"{path}: {min(unknown)} is not supported", hint=hint)
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = _file(path, user["tokenFile"]).decode().strip()
    return Server(
        url=url.rstrip("/"),
        ca_data=_data(path, cluster, "certificate-authority"),
        certificate_data=_data(path, user, "client-certificate"),
        key_data=_data(path, user, "client-key"),
        token=token,
    )


def _named(entries: Any, name: Any) -> Mapping[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            found: Mapping[str, Any] = entry
            return found
    raise LookupError(name)


def _data(path: Path, where: Mapping[str, Any], name: str) -> bytes:
    if inline := where.get(f"{name}-data"):
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error as error:
            raise WeftError(f"{path}: {name}-data is not base64") from error
    return _file(path, where[name]) if where.get(name) else b""


def _file(path: Path, name: Any) -> bytes:
    """A file that it names; relative to the kubeconfig's folder."""
    try:
        return (path.parent / str(name)).read_bytes()
    except OSError as error:
        raise WeftError(f"{path}: {name} cannot be read: {error.strerror}") from error
