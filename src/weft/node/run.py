"""The wrapper around an application: in the mesh before it starts, out of it when it ends.

``weft run`` executes this file with ``python -I -S`` and a plan in WEFT_RUN (JSON, see ``Plan``); the node
does with ``--attach ID`` for what it runs itself. Standard library only and sparing: one stands beside every
application. Streams, terminal and process group are the application's own; signals and the exit code pass
through.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

if not __package__:  # executed by path: the directory that holds the package is two above
    sys.path.insert(0, __file__.rsplit("/weft/node/", 1)[0])

from weft.node import run_child, run_node
from weft.node.capture.seccomp import Supervisor
from weft.node.capture.seccomp_policy import Policy
from weft.node.run_child import Started, StartError
from weft.node.run_node import Link, NodeError
from weft.node.run_signals import Signals

PLAN_VARIABLE: Final = "WEFT_RUN"
_SECRET_VARIABLE: Final = "WEFT_ATTACH_SECRET"  # noqa: S105 - its name
_SOCKET_VARIABLE: Final = "WEFT_NODE_SOCKET"
_TOKEN_VARIABLE: Final = "WEFT_TOKEN"  # noqa: S105 - its name
_SPIFFE_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
_PR_SET_CHILD_SUBREAPER: Final = 36
_DRAIN_S: Final = 30.0
_LEAVE_S: Final = 5.0
_ORPHANS_S: Final = 2.0
_REJOIN_S: Final = 0.5
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_STOPS: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


def launcher() -> tuple[str, ...]:
    """The interpreter and this file: what a command line for the wrapper starts with."""
    return sys.executable, "-I", "-S", __file__


class Plan:
    """What to run, and as whom. ``join`` is the request to the node without ``op``.

    ``node`` are variables for a node of the user's own, should none be there; None: start none.
    ``attach`` is the id of a workload that the node prepared; its ``secret`` shows that we may.
    """

    def __init__(self, fields: Mapping[str, Any], command: list[str]) -> None:
        self.command = command
        self.join: dict[str, Any] = dict(fields.get("join") or {})
        self.node: dict[str, str] | None = fields.get("node")
        self.mesh = str(fields.get("mesh") or "default")
        self.quiet = bool(fields.get("quiet"))
        self.attach = ""
        self.secret = ""


def read_plan(argv: list[str], environ: dict[str, str]) -> Plan:
    """The plan; what was meant for us only is taken out of ``environ``.

    Raises:
        NodeError: no command, or the plan cannot be read.
    """
    options, command = argv, list[str]()
    if "--" in argv:
        at = argv.index("--")
        options, command = argv[:at], argv[at + 1 :]
    if not command:
        raise NodeError("there is no command", "write: weft run [OPTIONS] -- COMMAND [ARGUMENTS]", 2)
    try:
        plan = Plan(json.loads(environ.pop(PLAN_VARIABLE, "{}")), command)
    except (ValueError, TypeError, AttributeError) as error:
        raise NodeError(f"{PLAN_VARIABLE} cannot be read: {error}", "use `weft run`", 3) from error
    environ.pop(_TOKEN_VARIABLE, None)  # it admits nodes: no application's business
    if options[:1] == ["--attach"] and len(options) == 2:
        plan.attach, plan.secret, plan.quiet = options[1], environ.pop(_SECRET_VARIABLE, ""), True
    elif options or not plan.join:
        raise NodeError("this is the inner part of `weft run`", "use `weft run`", 2)
    return plan


def say(text: str) -> None:
    """One line for people."""
    with contextlib.suppress(OSError):
        os.write(2, f"weft: {text}\n".encode())


def _complain(message: str, hint: str = "") -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"error: {message}\n{f'  {hint}' + chr(10) if hint else ''}".encode())


class Wrapper:
    """One application from its admission to its end."""

    def __init__(self, plan: Plan, environ: dict[str, str]) -> None:
        self.plan = plan
        self.environ = environ
        self.paths = run_node.socket_paths(plan.mesh, environ)
        if plan.attach:
            environ.pop(_SOCKET_VARIABLE, None)
        self.link: Link | None = None
        self.signals = Signals()
        self.child: Started | None = None
        self.supervisor: Supervisor | None = None
        self.code: int | None = None
        self.asked = 0
        self.kill_at = 0.0
        self.rejoin_at = 0.0
        self.left = False

    def enter(self) -> dict[str, Any]:
        """Be admitted: the ``ready`` event. A signal that ends us meanwhile ends the wait.

        Raises:
            NodeError: refused.
        """
        self.link = Link.dial(self.paths) or self._own_node()
        self._request(resume=False)
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        poll.register(self.signals, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self.signals.fileno():
                    for number, _ in self.signals.read():
                        if number in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}:
                            raise NodeError("", code=128 + number)
                    continue
                for event in self.link.read():
                    if event.get("event") == "ready":
                        return event
                    self._refusal(event)
                if not self.link.open:
                    raise NodeError("the node ended before the workload was ready", "see its log")

    def _own_node(self) -> Link:
        if self.plan.attach or self.plan.node is None:
            raise NodeError(f"no node listens at {' or '.join(self.paths)}", "start one: weft node")
        log = self.paths[0].removesuffix("node.sock") + "node.log"
        say(f"no node is running: starting one for this user, which goes on afterwards (log: {log})")
        environ = {**self.environ, **self.plan.node}
        pid = run_node.start_node(run_node.node_command(self.plan.mesh), environ, log)
        return run_node.await_node(pid, self.paths[:1], log)

    def _request(self, *, resume: bool) -> None:
        assert self.link is not None
        if self.plan.attach:
            self.link.say({"op": "attach", "id": self.plan.attach, "secret": self.plan.secret})
        else:
            self.link.say({"op": "join", **self.plan.join, "resume": resume})

    @staticmethod
    def _refusal(event: Mapping[str, Any]) -> None:
        if event.get("event") == "error":
            raise NodeError(
                str(event.get("message")), str(event.get("hint") or ""), int(event.get("exitCode") or 1)
            )

    def start(self, ready: Mapping[str, Any]) -> None:
        """Execute the application as the node said.

        Raises:
            StartError: it cannot be executed or captured.
        """
        seccomp = ready.get("capture") == "seccomp"
        if not self.plan.quiet:
            because = f" ({ready['because']})" if ready.get("because") else ""
            capture = f"{ready.get('capture')}{because}"
            say(f"{ready.get('id')} is in the mesh at {ready.get('address')}, capture {capture}")
            say(f"  covered: {ready.get('covers')}")
            for limit in ready.get("limits") or ():
                say(f"  not covered: {limit}")
        environ = {**self.environ, **(ready.get("env") or {})}
        if _SPIFFE_VARIABLE in self.environ:
            environ[_SPIFFE_VARIABLE] = self.environ[_SPIFFE_VARIABLE]  # another's, and meant to be
        for name in ready.get("unset") or ():
            environ.pop(name, None)
        if seccomp:
            _become_subreaper()
        self.child = run_child.start(
            self.plan.command,
            environ,
            seccomp=seccomp,
            hosts=ready.get("hosts") if seccomp else None,
            netns=ready.get("netns") if not self.plan.attach else None,
            working_dir=ready.get("workingDir"),
        )
        if self.child.names_error:
            say(
                f"names of the mesh are not visible here ({self.child.names_error}): use its DNS or addresses"
            )
        if self.child.listener is not None:
            where = ready["attachment"]
            policy = Policy(
                app_address=where["appAddress"],
                advertised=where["inboundAddress"],
                outbound=(where["outboundAddress"], int(where["outboundPort"])),
                declared=[int(port) for port in where.get("inboundPorts") or ()],
            )
            self.supervisor = Supervisor(self.child.listener, policy, killable=self.child.killable, say=say)
        if self.link is not None:
            self.link.say({"op": "started", "pid": self.child.pid})

    def serve(self) -> int:
        """Stay until the application has ended; its exit code, 128+n for a signal."""
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        actions: dict[int, Callable[[], None]] = {self.signals.fileno(): self._on_signals}
        if self.supervisor is not None:
            poll.register(self.supervisor, select.POLLIN)
            actions[self.supervisor.fileno()] = self.supervisor.step
        self._reap()
        while self.code is None:
            watched = self.link
            if watched is not None:
                poll.register(watched, select.POLLIN)
            for descriptor, _ in poll.poll(self._timeout_ms()):
                actions.get(descriptor, self._on_node)()
            if watched is not None:
                poll.unregister(watched)
                if not watched.open:
                    watched.close()
                    self.link, self.rejoin_at = None, time.monotonic() + _REJOIN_S
            self._on_time()
        self._end_orphans()
        return self.code

    def leave(self) -> None:
        """Tell the node that it is over and wait until all is removed."""
        if self.link is None:
            return
        self.link.say({"op": "exited", "code": self.code or 0})
        deadline = time.monotonic() + _LEAVE_S
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        while self.link.open and time.monotonic() < deadline:
            if poll.poll((deadline - time.monotonic()) * 1000) and any(
                event.get("event") == "left" for event in self.link.read()
            ):
                break
        self.link.close()

    def _timeout_ms(self) -> float | None:
        now = time.monotonic()
        waits = [at - now for at in (self.kill_at, self.rejoin_at) if at]
        if self.supervisor is not None and (supervisor := self.supervisor.timeout_s()) is not None:
            waits.append(supervisor)
        return max(0.0, min(waits)) * 1000 + 1 if waits else None

    def _on_time(self) -> None:
        now = time.monotonic()
        if self.supervisor is not None and self.supervisor.timeout_s() == 0:
            self.supervisor.step()
        if self.kill_at and now >= self.kill_at:
            self.kill_at = 0.0
            self._forward(self.asked)
        if self.rejoin_at and now >= self.rejoin_at and self.link is None:
            self.rejoin_at = now + _REJOIN_S
            with contextlib.suppress(NodeError):
                self.link = Link.dial(self.paths)
            if self.link is not None:
                self.rejoin_at = 0.0
                self._request(resume=True)

    def _on_signals(self) -> None:
        for number, from_terminal in self.signals.read():
            if number == signal.SIGCHLD:
                self._reap()
            elif from_terminal or number in _STOPS:
                # The whole foreground group has got it. Whether we stop is decided by the application.
                continue
            elif number in _ENDING and not self.plan.attach and self.link is not None and not self.asked:
                self.asked, self.kill_at = number, time.monotonic() + _DRAIN_S
                self.link.say({"op": "leave"})
            else:
                self._forward(number)

    def _on_node(self) -> None:
        if self.link is None:
            return
        for event in self.link.read():
            match event.get("event"):
                case "drained" if self.kill_at:
                    self.kill_at = 0.0
                    self._forward(self.asked)
                case "stop":
                    say(f"the node ends this application: {event.get('reason')}")
                    self._forward(signal.SIGTERM)
                case "ready" if self.child is not None:
                    self.link.say({"op": "started", "pid": self.child.pid})
                case "error":
                    say(f"the node refuses: {event.get('message')}")

    def _forward(self, number: int) -> None:
        if self.child is not None and self.code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.child.pid, number)

    def _reap(self) -> None:
        assert self.child is not None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid != self.child.pid:
                continue
            if os.WIFSTOPPED(status):
                os.kill(os.getpid(), signal.SIGSTOP)  # the shell waits for us: stop as one
                self._forward(signal.SIGCONT)
            else:
                code = os.waitstatus_to_exitcode(status)
                self.code = 128 - code if code < 0 else code

    def _end_orphans(self) -> None:
        """End what the application left behind: without us it would have no way out."""
        if self.supervisor is None:
            return
        deadline = time.monotonic() + _ORPHANS_S
        number = signal.SIGTERM
        while not self.supervisor.ended:
            for pid in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            poll = select.poll()
            poll.register(self.supervisor, select.POLLIN)
            poll.register(self.signals, select.POLLIN)
            poll.poll(200)
            self.supervisor.step()
            for _ in self.signals.read():
                pass
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if time.monotonic() > deadline:
                if number == signal.SIGKILL:
                    return
                number, deadline = signal.SIGKILL, deadline + _ORPHANS_S


def _children() -> list[int]:
    """Our children; those of processes that ended are among them (subreaper)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as found:  # noqa: PTH123
            return [int(pid) for pid in found.read().split()]
    except OSError:
        return []


def _become_subreaper() -> None:
    """Processes whose parent ends become our children: only descendants may be looked into (Yama)."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(argv: list[str] | None = None) -> int:
    """Run the plan; the exit code."""
    environ = dict(os.environ)
    wrapper = None
    try:
        wrapper = Wrapper(read_plan(sys.argv[1:] if argv is None else argv, environ), environ)
        wrapper.start(wrapper.enter())
        return wrapper.serve()
    except NodeError as error:
        if str(error):
            with contextlib.suppress(OSError):
                os.write(
                    2, f"error: {error}\n".encode() + (f"  {error.hint}\n".encode() if error.hint else b"")
                )
        return error.code
    except StartError as error:
        _complain(str(error))
        if wrapper is not None:
            wrapper.code = error.code
        return error.code
    finally:
        if wrapper is not None:
            wrapper.leave()


if __name__ == "__main__":
    sys.exit(main())
