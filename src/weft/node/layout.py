"""Where a node keeps its files, and what it owns on this host.

Everything that outlives a process (sidecars, rules, namespaces, routes) is written down here *before* it
is made, so that the next node can adopt it and ``weft clean`` can remove it whatever crashed in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from weft.errors import WeftError

DEFAULT_MESH: Final = "default"
_MESH: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
# sun_path holds 108 bytes with its final zero (unix(7)).
_SOCKET_PATH_MAX: Final = 107

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkloadPaths:
    """The files of one workload. ``directory`` belongs to the uid that its Envoy runs as."""

    directory: Path
    admin_socket: Path

    @property
    def bootstrap(self) -> Path:
        """What Envoy was started with."""
        return self.directory / "bootstrap.json"

    @property
    def secrets(self) -> Path:
        """The file SDS: key, chain and trust bundle."""
        return self.directory / "sds.json"

    @property
    def pid_file(self) -> Path:
        """Which process is its Envoy: pid, start time and boot, in JSON."""
        return self.directory / "envoy.pid"

    @property
    def proxy_log(self) -> Path:
        """Envoy's standard output and error."""
        return self.directory / "stdout.log"

    @property
    def access_log(self) -> Path:
        """Requests, one JSON object each, where a file is asked for."""
        return self.directory / "access.log"

    @property
    def app_log(self) -> Path:
        """The application's output, where the node started it."""
        return self.directory / "app.log"

    @property
    def hosts(self) -> Path:
        """The names of the mesh in the form of ``/etc/hosts``."""
        return self.directory / "hosts"


@dataclass(frozen=True, slots=True)
class Layout:
    """The two directories of a node: ``runtime`` is gone after a reboot, ``state`` stays."""

    mesh: str
    runtime: Path
    state: Path

    @classmethod
    def of(
        cls, mesh: str = DEFAULT_MESH, *, uid: int | None = None, environ: Mapping[str, str] = os.environ
    ) -> Self:
        """The directories of a user (default: the caller). Root's are ``/run/weft`` and ``/var/lib/weft``.

        Raises:
            WeftError: for a mesh's name that is no DNS label of at most 32 characters.
        """
        if not _MESH.fullmatch(mesh):
            raise WeftError(
                f"{mesh!r} is not a name for a mesh",
                hint="use at most 32 lower-case letters, digits and '-'",
            )
        uid = os.getuid() if uid is None else uid
        if uid == 0:
            return cls(mesh, Path("/run/weft") / mesh, Path("/var/lib/weft") / mesh)
        run = environ.get("XDG_RUNTIME_DIR")
        runtime = Path(run) / "weft" if run else Path(tempfile.gettempdir()) / f"weft-{uid}"
        home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME') or Path.home()}/.local/state"
        return cls(mesh, runtime / mesh, Path(home) / "weft" / mesh)

    @property
    def node_socket(self) -> Path:
        """Where the node listens."""
        return self.runtime / "node.sock"

    @property
    def workload_socket(self) -> Path:
        """Where applications fetch their identity: the SPIFFE Workload API."""
        return self.runtime / "workload.sock"

    @property
    def metrics_socket(self) -> Path:
        """Where the node shows the series of this host."""
        return self.runtime / "metrics.sock"

    @property
    def lock(self) -> Path:
        """Held (flock) by the one node of this runtime directory."""
        return self.runtime / "node.lock"

    @property
    def workloads(self) -> Path:
        """One directory a workload."""
        return self.runtime / "workloads"

    @property
    def records(self) -> Path:
        """What this node owns, one file each."""
        return self.runtime / "records"

    @property
    def dns(self) -> Path:
        """The DNS process's own: its table of names, its socket, its log. It belongs to the proxies' uid."""
        return self.runtime / "dns"

    def workload(self, namespace: str, name: str) -> WorkloadPaths:
        """The paths of one workload; nothing is created."""
        directory = self.workloads / f"{namespace}.{name}"
        admin = directory / "admin.sock"
        if len(os.fsencode(admin)) > _SOCKET_PATH_MAX:
            digest = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:16]
            admin = self.runtime / "admin" / f"{digest}.sock"
        return WorkloadPaths(directory, admin)

    def prepare(self, *, proxy_uid: int | None = None) -> None:
        """Make the directories. For root other users may walk through, to sockets that check who they are.

        Raises:
            WeftError: when a directory belongs to somebody else, or cannot be made.
        """
        outer = 0o711 if os.getuid() == 0 else 0o700
        for directory, mode in (
            # The state first: that of an ephemeral node lies in the runtime directory.
            (self.state.parent, 0o700),
            (self.state, 0o700),
            (self.runtime.parent, outer),
            (self.runtime, outer),
            (self.workloads, outer),
            (self.records, 0o700),
        ):
            _own_directory(directory, mode)
        for directory in (self.runtime / "admin", self.dns):
            _own_directory(directory, 0o700, owner=proxy_uid)

    def make_workload(self, namespace: str, name: str, *, owner: int | None = None) -> WorkloadPaths:
        """The paths of one workload, its directory made (0700) for the uid of its Envoy."""
        paths = self.workload(namespace, name)
        _own_directory(paths.directory, 0o700, owner=owner)
        return paths

    def write_record(self, kind: str, name: str, record: Mapping[str, Any]) -> None:
        """Note that this node owns something: ``kind`` as ``workload``, ``netns``, ``table``, ``dns``."""
        write_atomic(self.records / f"{kind}.{name}.json", json.dumps(record).encode())

    def drop_record(self, kind: str, name: str) -> None:
        """Forget it: it is gone."""
        (self.records / f"{kind}.{name}.json").unlink(missing_ok=True)

    def read_record(self, kind: str, name: str) -> Record | None:
        """What was noted, or None."""
        return read_json(self.records / f"{kind}.{name}.json")

    def read_records(self, kind: str) -> Iterator[tuple[str, Record]]:
        """All of a kind, by name. A torn or foreign file is skipped: writing is atomic, so it is not ours."""
        for path in sorted(self.records.glob(f"{kind}.*.json")):
            record = read_json(path)
            if record is not None:
                yield path.name.removeprefix(f"{kind}.").removesuffix(".json"), record

    def remove_runtime(self) -> None:
        """Delete what a node has there, then the directories that are empty: others may live there too."""
        mine = [self.workloads, self.records, self.dns, self.runtime / "admin"]
        if self.state.is_relative_to(self.runtime):
            mine.append(self.state)
        for directory in mine:
            shutil.rmtree(directory, ignore_errors=True)
        for file in (self.node_socket, self.workload_socket, self.metrics_socket, self.lock):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.runtime.rmdir()
            self.runtime.parent.rmdir()


def read_json(path: Path, *, owner: int | None = None) -> Record | None:
    """An object in JSON that this user (or ``owner``) wrote, or None when there is none to be read.

    In a directory of the proxy's only what we wrote is believed: which process to end, say.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_uid not in {os.getuid(), owner}:
                return None
            found = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _own_directory(path: Path, mode: int, *, owner: int | None = None) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise WeftError(f"{path} is not a directory", hint="remove it, or set XDG_RUNTIME_DIR")
        # Somebody else's directory in a shared /tmp could read our keys: never use it.
        if found.st_uid not in {os.getuid(), owner}:
            raise WeftError(f"{path} belongs to uid {found.st_uid}", hint="remove it, or set XDG_RUNTIME_DIR")
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)
        if owner is not None and found.st_uid != owner:
            os.chown(path, owner, owner)
    except OSError as error:
        raise WeftError(
            f"cannot use {path}: {error.strerror}", hint="run as root, or set XDG_RUNTIME_DIR"
        ) from error


def write_atomic(path: Path, body: bytes, *, mode: int = 0o600, owner: int | None = None) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    Raises:
        OSError: when the directory cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Nothing that lies there is opened: in a directory of the proxy's, a pipe would hold us up for ever.
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            if owner is not None and owner != os.getuid():
                os.fchown(file.fileno(), owner, owner)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
