"""The telemetry process: ``python -m weft.telemetry``, started and fed by the control plane.

Standard input brings lines of JSON: first ``{"chain", "key", "roots", "trustDomain", "revoked"}``, and again
whenever the certificate, the trust bundle or the list of revoked serial numbers changes; ``{"plan"}`` says
who is to be told of metrics, ``{"pages"}`` what the control plane and nodes count (``push/plan.py``). Its end
ends this process. Once it listens, one line goes to standard output: ``{"port"}``. Secrets come this way so
that they are in no file, argument or environment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

_NICE: Final = 10
_FIRST_TO_GO: Final = "500"
_KEPT_S: Final = 0.5
_COLLECTED: Final = (50_000, 20, 20)
_LONGEST_LINE: Final = 64 * 1024 * 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="weft.telemetry")
    parser.add_argument("--address", required=True, help="host:port; port 0 takes a free one")
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--database", required=True, type=Path)
    parser.add_argument("--disk", required=True, type=int, help="bytes")
    parser.add_argument("--memory", required=True, type=int, help="bytes")
    parser.add_argument("--age", required=True, type=float, help="seconds")
    return parser.parse_args()


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    return reader


async def _run(arguments: argparse.Namespace) -> None:
    import msgspec

    from weft.grpc_tls import Certificates
    from weft.telemetry.inquiry import serve_inquiries
    from weft.telemetry.intake import Intake
    from weft.telemetry.limits import Room
    from weft.telemetry.push.plan import NOTHING, Page, Plan
    from weft.telemetry.push.pusher import Pusher
    from weft.telemetry.server import LOGS, METRICS, TRACES, serve
    from weft.telemetry.store import Store

    lines = await _lines()
    said: dict[str, Any] = {}
    revoked: frozenset[str] = frozenset()

    plan, pages = NOTHING, dict[str, Page]()

    def hear(line: bytes) -> None:
        nonlocal said, revoked, plan, pages
        heard = json.loads(line)
        if "chain" in heard:
            said = heard
            revoked = frozenset(said["revoked"])
        if "plan" in heard:
            plan = msgspec.convert(heard["plan"], Plan)
        if "pages" in heard:
            pages = msgspec.convert(heard["pages"], dict[str, Page])

    hear(await lines.readline())

    def certificates() -> Certificates:
        now = said
        return Certificates(now["chain"].encode(), now["key"].encode(), now["roots"].encode())

    age = timedelta(seconds=arguments.age)
    limits = Room(disk=arguments.disk, memory=arguments.memory, age=age).limits()
    store = Store(arguments.database, limits, kept_s=_KEPT_S)
    # What was loaded stays: it need not be looked at again whenever an answer makes many objects.
    gc.freeze()
    gc.set_threshold(*_COLLECTED)
    pusher = store.pusher = Pusher(store.sums, store.losses, arguments.socket.parent, certificates)
    pusher.tell(plan)
    intake = Intake(limits.queue_bytes, store.losses)
    parts = [asyncio.create_task(part) for part in (intake.run(), store.keep(), pusher.keep())]
    try:
        async with (
            serve_inquiries(arguments.socket, store),
            serve(
                arguments.address,
                certificates,
                lambda: str(said["trustDomain"]),
                intake,
                store.losses,
                {LOGS: store.take_logs, TRACES: store.take_traces, METRICS: store.take_metrics},
                revoked=lambda: revoked,
            ) as port,
        ):
            sys.stdout.write(json.dumps({"port": port}) + "\n")
            sys.stdout.flush()
            while line := await lines.readline():
                hear(line)
                pusher.tell(plan)
                pusher.hear(pages)
    finally:
        await pusher.close()
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await store.close()


def _stand_back(memory: int) -> None:
    """Whatever comes, configuration and traffic go first: with time, with memory, and when that runs out."""
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def main() -> None:
    """Run until standard input ends."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = _arguments()
    _stand_back(arguments.memory)
    import uvloop

    from weft.errors import WeftError
    from weft.runtime import log_to_stderr

    log_to_stderr(0)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(arguments))
    except WeftError as error:
        sys.exit(f"telemetry: {error.message}")


if __name__ == "__main__":
    main()
