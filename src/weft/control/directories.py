"""The two directories of a control plane: what stays, and the sockets of now. Only their owner gets in."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from weft.errors import WeftError
from weft.private import make_directory, secure

_log = logging.getLogger(__name__)


def make_state(path: Path) -> None:
    """The directory of what stays, with everything in it.

    Raises:
        WeftError: it, or something in it, belongs to another user, or cannot be made.
    """
    try:
        make_directory(path)
    except OSError as error:
        hint = "run as root, or choose another --state-dir"
        raise WeftError(f"cannot use {path}: {error.strerror}", hint=hint) from error
    secure(path)


def make_runtime(path: Path) -> None:
    """The directory of the sockets. Whoever owns it, or the one above, could put others in their place.

    Raises:
        WeftError: it belongs to another user, or cannot be made.
    """
    hint = "remove it, set XDG_RUNTIME_DIR, or choose another --runtime-dir"
    try:
        make_directory(path)
        for directory in (path.parent, path):
            owner = directory.stat().st_uid if directory == path.parent else directory.lstat().st_uid
            if owner not in {0, os.geteuid()}:
                raise WeftError(f"{directory} belongs to uid {owner}", hint=hint)
        # The node of root lets other users walk through, to sockets that check who they are.
        if path.stat().st_mode & 0o022:
            path.chmod(0o700)
            _log.warning("others could write to %s: closed to them", path)
    except OSError as error:
        raise WeftError(f"cannot use {path}: {error.strerror}", hint=hint) from error
