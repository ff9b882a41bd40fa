"""The audit log: who did what, from where, what was decided, and what changed; see docs/reference/audit.md.

What cannot be recorded is not done: ``write`` raises, and a change is written before it is durable in the
store. Secrets are never in it: their values appear as fingerprints under a key of the store's.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from weft.control.api.permission import Access
from weft.control.api.rules import Ask
from weft.control.api.subject import Subject
from weft.control.api.writes import Options, Write
from weft.control.chain import Link, end_of, files
from weft.errors import WeftError
from weft.store.interface import Put

_log = logging.getLogger(__name__)

MAX_BYTES: Final = 32 << 20
KEEP_FILES: Final = 16
_VALUE_MAX: Final = 64 << 10
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# So many refusals of one caller or address at once, and so many a second after that.
_BURST: Final = 50
_REFILL_PER_S: Final = 1.0
_CALLERS_MAX: Final = 4096


class AuditError(WeftError):
    """Something could not be recorded, and so it was not done."""


class AuditLog:
    """Appends to ``path`` (0600); every line is one write. May be used from several threads.

    Args:
        key: of the fingerprints that stand for secret values.
        max_bytes: a file that is longer is put aside; ``keep`` of those stay.
        clock: the time (UTC).

    Raises:
        WeftError: when the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: bytes = b"",
        max_bytes: int = MAX_BYTES,
        keep: int = KEEP_FILES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._key = key or os.urandom(32)
        self._max = max_bytes
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._refusals = _Allowance()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor, self._size = _open(path)
        self._end: Link = end_of(path)

    @property
    def end(self) -> Link:
        """The end of the chain."""
        return self._end

    def write(self, event: str, *abouts: Mapping[str, Any], sync: bool = False) -> None:
        """Record what happens, before it does: a line for each. ``sync`` waits until the disk has it.

        Raises:
            AuditError: when it cannot be written; then it must not be done.
        """
        with self._lock:
            end, lines = self._end, list[bytes]()
            for about in abouts:
                plain = {name: _plain(value) for name, value in about.items()}
                head = {"time": plain.pop("time", None) or _plain(self._clock()), "event": event}
                line, end = end.append({**head, **plain})
                lines.append(line)
            self._append(b"".join(lines), sync=sync)
            self._end = end
            if self._size >= self._max:
                self._rotate()

    def changes(self, writes: Sequence[Write], options: Options, revision: int) -> None:
        """Record who changes what through the API, a line for each object; called by the store's thread.

        Raises:
            AuditError: when it cannot be written.
        """
        lines = []
        for write in writes:
            operation, key, before = write.operation, write.operation.key, write.before
            if isinstance(operation, Put):
                if before is not None and (before.body, before.owner) == (operation.body, operation.owner):
                    continue
                verb = "update" if before is not None else "create"
            else:
                verb = "delete"
            old = self._shown(key.kind, before.body) if before is not None else None
            new = self._shown(key.kind, operation.body) if isinstance(operation, Put) else None
            about = {
                **_who(options.access, options.actor), "verb": verb, "kind": key.kind,
                "namespace": key.namespace, "name": key.name, "decision": "allow", "revision": revision,
                **_difference(old, new),
            }  # fmt: skip
            lines.append(about)
        if lines:
            self.write("change", *lines, sync=True)

    def undone(self, options: Options) -> None:
        """Record that changes which were recorded did not come about after all: the store failed."""
        with contextlib.suppress(AuditError):
            self.write("undone", {**_who(options.access, options.actor), "why": "the store failed"})

    def access(self, event: str, access: Access, about: Mapping[str, Any]) -> None:
        """Record something that a caller of the API does beside its objects.

        Raises:
            AuditError: when it cannot be written.
        """
        self.write(event, {**_who(access, ""), "decision": "allow", **about}, sync=True)

    def seen(self, access: Access, ask: Ask) -> None:
        """Record a look at something secret, before it is answered.

        Raises:
            AuditError: when it cannot be written.
        """
        self.write("read", {**_who(access, ""), **_what(ask), "decision": "allow"})

    def denied(self, access: Access, ask: Ask) -> None:
        """Record what the roles did not allow. Who asks for ever is counted, and cannot fill the disk."""
        about = {**_who(access, ""), **_what(ask), "decision": "deny"}
        self._refuse("denied", access.subject.name, about)

    def refused(self, where: str, why: str) -> None:
        """Record a credential that was turned away."""
        # Strangers share one allowance: with many addresses they cannot wash the log out either.
        self._refuse("refused", "", {"from": where, "decision": "deny", "why": why})

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)

    def _refuse(self, event: str, caller: str, about: Mapping[str, Any]) -> None:
        allowed, left_out = self._refusals.take(caller)
        if not allowed:
            return
        # Nothing is done here that would have to be undone: a full disk must not turn 403 into 500.
        with contextlib.suppress(AuditError):
            self.write(event, {**about, **({"leftOut": left_out} if left_out else {})})

    def _append(self, line: bytes, *, sync: bool) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            if sync:
                os.fdatasync(self._descriptor)
        except OSError as error:
            # Half a line would break the chain.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise AuditError(
                f"the audit log cannot be written, so nothing was done: {self._path}: {error.strerror}",
                hint="make room on that disk; old files audit.log.N may be moved away",
            ) from error
        self._size += len(line)

    def _rotate(self) -> None:
        """Go on in a new file; when that fails, in this one."""
        aside = self._path.with_name(f"{self._path.name}.{self._end.seq:012}")
        try:
            self._path.rename(aside)
            descriptor, size = _open(self._path)
        except (OSError, WeftError) as error:
            _log.error("the audit log stays in one file: %s", error)
            with contextlib.suppress(OSError):
                aside.rename(self._path)
            return
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, size
        _log.info("the audit log goes on after line %d, hash %s", self._end.seq, self._end.hash)
        for old in files(self._path)[: -self._keep - 1]:
            with contextlib.suppress(OSError):
                old.unlink()

    def _shown(self, kind: str, body: bytes) -> dict[str, Any]:
        """An object as the log may show it."""
        wire: dict[str, Any] = msgspec.json.decode(body)
        metadata = dict(wire.get("metadata") or {})
        annotations = {
            name: text for name, text in (metadata.get("annotations") or {}).items() if name != _LAST_APPLIED
        }
        metadata.pop("annotations", None)
        wire["metadata"] = {**metadata, **({"annotations": annotations} if annotations else {})}
        for holder, name in _hidden(kind, wire):
            holder[name] = self._fingerprint(holder[name])
        return wire

    def _fingerprint(self, value: object) -> str:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return "hmac-sha256:" + hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _open(path: Path) -> tuple[int, int]:
    """The file, ready to append, and its size; what a crash left of half a line is cut off."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            size = os.fstat(descriptor).st_size
            whole = size
            while whole and os.pread(descriptor, 1, whole - 1) != b"\n":
                whole -= 1
            if whole != size:
                os.ftruncate(descriptor, whole)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise WeftError(
            f"the audit log cannot be used: {path}: {error.strerror}", hint="choose another --state-dir"
        ) from error
    return descriptor, whole


def _hidden(kind: str, wire: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where values lie that nobody may read in a log."""
    if kind == "/Secret":
        for field in ("data", "stringData"):
            if isinstance(values := wire.get(field), dict):
                yield from ((values, name) for name in values)
    spec = wire.get("spec")
    if not isinstance(spec, dict):
        return
    if kind == "weft.dev/Workload":
        for entry in spec.get("env") or ():
            if isinstance(entry, dict) and "value" in entry:
                yield entry, "value"
    if kind == "security.istio.io/RequestAuthentication":
        for rule in spec.get("jwtRules") or ():
            if isinstance(rule, dict) and "jwks" in rule:
                yield rule, "jwks"


def _difference(old: Any, new: Any) -> dict[str, Any]:
    """JSON merge patches (RFC 7386): what turns old into new, and back; whole where there is only one."""
    if old is None or new is None:
        return {name: _small(wire) for name, wire in (("old", old), ("new", new)) if wire is not None}
    return {"new": _small(_patch(old, new)), "old": _small(_patch(new, old))}


def _patch(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    gone = {name: None for name in old if name not in new}
    changed = {
        name: _patch(old[name], value) if name in old else value
        for name, value in new.items()
        if name not in old or old[name] != value
    }
    return {**changed, **gone}


def _small(value: Any) -> Any:
    encoded = msgspec.json.encode(value)
    if len(encoded) <= _VALUE_MAX:
        return value
    return {"bytes": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()}


def _what(ask: Ask) -> dict[str, Any]:
    about = {
        "verb": ask.verb, "kind": ask.path or f"{ask.group}/{ask.whole_resource}",
        "namespace": ask.namespace, "name": ask.name,
    }  # fmt: skip
    return {name: value for name, value in about.items() if value}


def _who(access: Access | None, actor: str) -> dict[str, Any]:
    if access is None:
        return {"actor": actor, "how": "itself"}
    subject: Subject = access.subject
    about = {
        "actor": subject.name, "groups": list(subject.groups), "how": subject.how,
        "credential": subject.credential, "by": subject.by, "from": access.where, "request": access.request,
    }  # fmt: skip
    return {name: value for name, value in about.items() if value}


def _plain(value: Any) -> Any:
    """What JSON has a word for."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)


@dataclass(slots=True)
class _Purse:
    left: float
    seen: float
    left_out: int = 0


class _Allowance:
    """How many refusals of one caller are written down; the others are counted."""

    def __init__(self) -> None:
        self._purses: dict[str, _Purse] = {}
        self._lock = threading.Lock()

    def take(self, caller: str) -> tuple[bool, int]:
        """Whether this one is written, and how many before it were not."""
        now = time.monotonic()
        with self._lock:
            purse = self._purses.pop(caller, None) or _Purse(_BURST, now)
            purse.left = min(_BURST, purse.left + (now - purse.seen) * _REFILL_PER_S)
            purse.seen = now
            while len(self._purses) >= _CALLERS_MAX:
                del self._purses[next(iter(self._purses))]
            self._purses[caller] = purse
            if purse.left < 1:
                purse.left_out += 1
                return False, 0
            purse.left -= 1
            left_out, purse.left_out = purse.left_out, 0
            return True, left_out
