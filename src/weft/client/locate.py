"""Where the control plane is: given, or found by its Unix socket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from weft.client.server import Server
from weft.errors import UsageError, WeftError

SERVER_VARIABLE: Final = "WEFT_SERVER"
RUNTIME_VARIABLE: Final = "WEFT_RUNTIME_DIR"
SOCKET_NAME: Final = "api.sock"
HOW_TO_START: Final = "start one: weft up FILE… (this machine) or weft control-plane"


def runtime_directories(environ: Mapping[str, str], uid: int) -> tuple[Path, ...]:
    """Where a mesh may have its sockets, the caller's own first."""
    if given := environ.get(RUNTIME_VARIABLE):
        return (Path(given),)
    own = environ.get("XDG_RUNTIME_DIR")
    user = Path(own) / "weft" if own else Path(tempfile.gettempdir()) / f"weft-{uid}"
    return (user, Path("/run/weft")) if uid else (Path("/run/weft"), user)


def locate(
    given: str | None = None, *, environ: Mapping[str, str] = os.environ, uid: int | None = None
) -> Server:
    """``given`` (``--server``), else ``WEFT_SERVER``, else the socket of the mesh that runs here.

    Of the last only a socket that the caller or root made, unless its directory is named: in /tmp anybody
    may make one.

    A server is ``https://host:15017`` (with ``WEFT_CA_FILE``, and ``WEFT_CERT_FILE`` and ``WEFT_KEY_FILE``
    or ``WEFT_TOKEN_FILE``), the path of a kubeconfig, or a socket's path.

    Raises:
        UsageError: for another form, or when several meshes run here.
        WeftError: when none is found; says where it looked.
    """
    text = given or environ.get(SERVER_VARIABLE)
    if text:
        return _parse(text, environ)
    uid = os.getuid() if uid is None else uid
    directories = runtime_directories(environ, uid)
    named = RUNTIME_VARIABLE in environ
    for directory in directories:
        sockets = (directory / SOCKET_NAME, *sorted(directory.glob(f"*/{SOCKET_NAME}")))
        found = [path for path in sockets if path.exists() and (named or path.lstat().st_uid in {0, uid})]
        if len(found) > 1:
            meshes = ", ".join(path.parent.name for path in found)
            raise UsageError(
                f"several meshes run here: {meshes}",
                hint=f"choose one: --server {found[0]}, or {SERVER_VARIABLE}",
            )
        if found:
            return Server(socket_path=found[0])
    looked = ", ".join(f"{directory}/" for directory in directories)
    raise WeftError(
        f"no control plane runs here (looked in {looked})",
        hint=f"{HOW_TO_START}; for another machine's: --server https://HOST:15017, or {SERVER_VARIABLE}",
    )


def _parse(text: str, environ: Mapping[str, str]) -> Server:
    if text.startswith("https://"):
        ca, certificate, key = (
            Path(environ[name]) if name in environ else None
            for name in ("WEFT_CA_FILE", "WEFT_CERT_FILE", "WEFT_KEY_FILE")
        )
        return Server(text.rstrip("/"), None, ca, certificate, key, token=_token(environ))
    if text.startswith("http://"):
        raise UsageError(f"{text} is not encrypted", hint="write https://, or the path of the Unix socket")
    path = Path(text.removeprefix("unix://"))
    if path.is_dir():
        path = path / SOCKET_NAME
    if path.is_file() and path.stat().st_size:
        from weft.client.kubeconfig import read_kubeconfig

        return read_kubeconfig(path)
    if not path.exists():
        raise WeftError(f"no control plane listens on {path}", hint=HOW_TO_START)
    return Server(socket_path=path)


def _token(environ: Mapping[str, str]) -> str:
    """Read from a file: the environment of a process is no place for it."""
    name = environ.get("WEFT_TOKEN_FILE")
    if not name:
        return ""
    try:
        return Path(name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WeftError(f"WEFT_TOKEN_FILE cannot be read: {error}") from error


def state_directory(environ: Mapping[str, str], uid: int) -> Path:
    """Where what must survive a reboot is kept, by mesh below it."""
    if not uid:
        return Path("/var/lib/weft")
    home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME') or Path.home()}/.local/state"
    return Path(home) / "weft"
