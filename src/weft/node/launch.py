"""Start one process: in its cgroup and network namespace, as its user, perhaps without a parent.

Run by path with ``python -I -S`` (standard library only, about 20 ms): a plan in JSON on standard input, and
on standard output ``{"pid": N}``, then ``{"error": "…"}`` when the program could not be executed. End of file
means that it was. A program of its own, since fork() in an agent that has threads is not safe.

``detach`` makes the process an orphan before it executes: Envoy asks for a signal at its parent's death, and
shall outlive the agent.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_NET_BIND_SERVICE = 10
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}


def _check(result: int, what: str) -> None:
    import ctypes

    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _enter_netns(path: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _check(libc.setns(descriptor, _CLONE_NEWNET), f"enter {path}")
    os.close(descriptor)


def _become(uid: int, gid: int, bind_service: bool) -> None:
    """Drop to a user; keep the one capability that opens ports below 1024, if asked."""
    libc = None
    if bind_service:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if libc is not None:
        import ctypes

        bits = 1 << _CAP_NET_BIND_SERVICE
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)
        number = _SYS_CAPSET[os.uname().machine]
        _check(libc.syscall(number, header, sets), "set capabilities")
        raised = libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_NET_BIND_SERVICE, 0, 0)
        _check(raised, "raise net_bind_service")


def _open_log(path: str) -> int:
    """The directory may be the proxy's own: what lies there must not lead root to another file."""
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    found = os.fstat(out)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.EPERM, f"{path} is no file of its own")
    return out


def _execute(plan: dict[str, object]) -> None:
    os.umask(0o077 if plan.get("private") else 0o022)
    log = plan.get("log")
    uid = plan.get("uid")
    gid = plan.get("gid")
    binary = os.open(str(plan["binary"]), os.O_RDONLY | os.O_CLOEXEC) if plan.get("binary") else None
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    if log:
        out = _open_log(str(log))
        if isinstance(uid, int) and os.getuid() == 0:
            os.fchown(out, uid, int(str(gid)))
        os.dup2(out, 1)
        os.dup2(out, 2)
    else:
        os.dup2(null, 1)
        os.dup2(null, 2)
    for path in plan.get("cgroups") or []:  # type: ignore[attr-defined]
        with open(path, "w") as procs:  # noqa: PTH123 - pathlib would double the start time
            procs.write("0")
    if plan.get("netns"):
        _enter_netns(str(plan["netns"]))
    if plan.get("cwd"):
        os.chdir(str(plan["cwd"]))
    if isinstance(uid, int) and os.getuid() == 0 and uid != 0:
        _become(uid, int(str(gid)), bool(plan.get("bindService")))
    argv = [str(part) for part in plan["argv"]]  # type: ignore[attr-defined]
    env = {str(key): str(value) for key, value in plan["env"].items()}  # type: ignore[attr-defined]
    if binary is not None:
        # By descriptor: the program may lie where its new user cannot walk, as in root's home.
        os.execve(binary, argv, env)  # noqa: S606 - to execute is this program's purpose
    os.environ.clear()
    os.environ.update(env)  # execvp searches the PATH of the new environment
    os.execvp(argv[0], argv)  # noqa: S606


def main() -> None:
    """Read the plan, start the process, report."""
    plan = json.loads(sys.stdin.buffer.read())
    report = os.dup(1)  # dup makes it close-on-exec: its end of file is the news that exec worked
    if plan.get("detach"):
        read, write = os.pipe()
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        os.close(write)
        os.read(read, 1)
        while os.getppid() == parent:
            time.sleep(0.0005)
        os.setsid()
    elif plan.get("session", True):
        os.setsid()
    if plan.get("deathSignal"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(plan["deathSignal"]), 0, 0, 0)
    os.write(report, json.dumps({"pid": os.getpid()}).encode() + b"\n")
    try:
        _execute(plan)
    except OSError as error:
        os.write(report, json.dumps({"error": str(error.strerror or error)}).encode() + b"\n")
        os._exit(127)


if __name__ == "__main__":
    main()
