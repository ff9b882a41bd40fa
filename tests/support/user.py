"""An ordinary user for tests: a uid that nobody else has, a home, an interpreter that it may execute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.mesh import ROOT, WEFT

_FIRST_UID = 300_000


@dataclass(frozen=True)
class User:
    """``prefix`` and ``env`` go before, and around, whatever shall run as this user."""

    uid: int
    home: Path

    @property
    def prefix(self) -> Sequence[str]:
        """Ends in a shell that puts an interpreter of this user's before the arguments of ours."""
        swap = ("sh", "-c", f'shift; exec {interpreter(self.uid)} "$@"', "sh")
        return (*as_uid(self.uid), *swap)

    @property
    def env(self) -> Mapping[str, str]:
        """Home, runtime directory and where Python finds weft and what it needs."""
        path = (str(ROOT / "src"), *(part for part in sys.path if part.endswith("site-packages")))
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime_root.parent),
            "PYTHONPATH": ":".join(path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def runtime_root(self) -> Path:
        """Where the runtime directories of this user's meshes are."""
        return self.home / "run" / "weft"

    def weft(self, *argv: str) -> list[str]:
        """A command line of weft's as this user; run it with ``env``."""
        return [*self.prefix, *WEFT, *argv]

    def run(
        self, *argv: str, stdin: str | None = None, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``weft …`` as this user, with what it said."""
        return subprocess.run(
            self.weft(*argv), input=stdin, capture_output=True, text=True, timeout=timeout, cwd=self.home,
            env={**os.environ, **self.env, **(env or {})}, check=False,
        )  # fmt: skip

    def write(self, name: str, text: str) -> Path:
        """A file in its home that it may read."""
        path = self.home / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def processes(self) -> dict[int, str]:
        """Command lines of all that runs as this user, by process id; zombies are none."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if path.stat().st_uid == self.uid and (line := (path / "cmdline").read_bytes()):
                    found[int(path.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
        if os.getuid() == self.uid:  # a developer's own machine: only what is of weft's tests
            found = {pid: line for pid, line in found.items() if str(self.home) in line}
        return found


def as_uid(uid: int) -> tuple[str, ...]:
    """The command as this user, with no group and no rights of ours."""
    if os.getuid() == uid:
        return ()
    drop = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all")
    return (*road(ROOT), *drop)


def road(root: Path) -> tuple[str, ...]:
    """Makes a clone reachable for other users, under its own name, where a directory on the way is closed.

    In a mount namespace of the command's own the closed directory is covered by an empty one, in which the
    clone's parts are mounted again; the machine sees nothing of it.
    """
    way = (*reversed(root.parents), root)
    closed = next((folder for folder in way if not folder.stat().st_mode & 0o001), None)
    if closed is None or os.getuid():
        return ()
    script = (
        "root=$1 closed=$2; shift 2; aside=$(mktemp -d); "
        "for part in src tests examples .venv; do "
        'mkdir "$aside/$part" && mount --bind "$root/$part" "$aside/$part" || exit 9; done; '
        'mount -t tmpfs -o mode=755 weft-test "$closed" || exit 9; '
        "for part in src tests examples .venv; do "
        'mkdir -p "$root/$part" && mount --move "$aside/$part" "$root/$part" && '
        'rmdir "$aside/$part" || exit 9; '
        'done; rmdir "$aside"; exec "$@"'
    )
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(root), str(closed))


def interpreter(uid: int) -> str:
    """A Python of this version that the user can execute: ours may lie in root's home.

    Raises:
        FileNotFoundError: there is none.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, shutil.which(name, path="/usr/local/bin:/usr/bin")):
        # By a shell: setpriv itself still has root's rights when it looks a program up.
        probe = [*as_uid(uid), "sh", "-c", f"exec {path} -I -S -c '' 2>/dev/null"]
        if path and subprocess.run(probe, check=False).returncode == 0:
            return path
    raise FileNotFoundError(f"no {name} that an ordinary user can execute")


@contextmanager
def ordinary_user() -> Iterator[User]:
    """A user with an empty home; at the end nothing of it runs any more, whatever happened."""
    uid = _FIRST_UID + os.getpid() % 1_000_000 if os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory(prefix="weft-user-", dir="/tmp") as made:
        user = User(uid, Path(made))
        user.runtime_root.parent.mkdir(mode=0o700)
        if os.getuid() == 0:
            for path in (user.home, user.runtime_root.parent):
                os.chown(path, uid, uid)
        try:
            yield user
        finally:
            for pid in user.processes():
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
