"""Private files: whose they are and who may read them, looked at before they are used.

As ssh does: what belongs to somebody else, and a key that others could read, is refused; whatever else is
open to others is closed, with a warning. Nothing here follows a symbolic link.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from weft.errors import WeftError

_log = logging.getLogger(__name__)

_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_KEYS: Final = (".key",)


def secure(directory: Path, *, also: frozenset[int] = frozenset()) -> None:
    """Make sure that nobody else can read or replace what is in a directory; one that is missing is fine.

    ``also`` are uids that files in it may belong to, beside root and this process's own.

    Raises:
        WeftError: something belongs to another user, or a key can be read by others.
    """
    if not directory.exists():
        return
    owners = also | {0, os.geteuid()}
    check_way(directory)
    closed: list[Path] = []
    try:
        for path in (directory.resolve(), *_inside(directory.resolve())):
            found = path.lstat()
            if found.st_uid not in owners:
                raise _foreign(path, found.st_uid)
            if stat.S_ISLNK(found.st_mode) or not found.st_mode & _OTHERS:
                continue
            if path.suffix in _KEYS:
                raise WeftError(
                    f"{path} can be read by others, so it is no secret any more",
                    hint=f"replace the key; if nobody can have read it: chmod 600 {path}",
                )
            path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
            closed.append(path)
    except OSError as error:
        raise WeftError(
            f"cannot look at {error.filename or directory}: {error.strerror}",
            hint="run as the owner of that directory, or choose another",
        ) from error
    for path in closed[:10]:
        _log.warning("%s could be read by others: closed to them (chmod go=)", path)
    if len(closed) > 10:
        _log.warning("and %d more below %s", len(closed) - 10, directory)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing, for this user alone (0700).

    ``Path.mkdir`` leaves those above to the umask.

    Raises:
        OSError: it cannot be made.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def check_way(path: Path) -> None:
    """Refuse a path on which somebody else could put another directory in the place of one.

    Raises:
        WeftError: a directory above is another user's, or anybody may write to it.
    """
    trusted = {0, os.geteuid()} | _unmapped()
    for above in path.absolute().resolve().parents:
        found = above.stat()
        if found.st_uid not in trusted:
            raise _foreign(above, found.st_uid)
        if found.st_mode & stat.S_ISVTX:
            continue  # as /tmp: everybody may write, but only to what is theirs
        if found.st_mode & stat.S_IWOTH:
            raise WeftError(
                f"anybody can write to {above}, and so replace {path}",
                hint=f"chmod o-w {above}, or choose another directory",
            )
        if found.st_mode & stat.S_IWGRP and found.st_gid not in {0, os.getegid()}:
            _log.warning("the group %d can write to %s, and so replace %s", found.st_gid, above, path)


def _unmapped() -> set[int]:
    """How a user namespace shows the owner of what was there before it: mostly root, who cannot be named."""
    try:
        if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
            return set()
        return {int(Path("/proc/sys/kernel/overflowuid").read_text())}
    except (OSError, ValueError):
        return set()


def check_readable_by_owner_only(file: Path) -> None:
    """Warn of a key that is given to us and that others can read: it is not ours to change."""
    try:
        found = file.stat()
    except OSError:
        return  # whoever reads it says why it cannot be read
    if found.st_mode & _OTHERS:
        _log.warning("%s is a private key and can be read by others: chmod 600 %s", file, file)


def _inside(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            yield Path(folder, name)


def _foreign(path: Path, owner: int) -> WeftError:
    return WeftError(
        f"{path} belongs to uid {owner}",
        hint=f"if that is a mistake: chown {os.geteuid()} {path}; else choose another directory",
    )
