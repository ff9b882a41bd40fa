"""``weft audit``: who did what, read from the files of the control plane on its host."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from weft.control.chain import NAME, files, raw_lines, verify
from weft.errors import UsageError, WeftError

_POLL_S: Final = 0.5
_file_option = click.option(
    "--file", "given", type=click.Path(path_type=Path), metavar="FILE",
    help="The log, audit.log of a state directory. Default: of the mesh that runs here.",
)  # fmt: skip
_mesh_option = click.option("--mesh", default="default", show_default=True, help="Which mesh of this host.")


@click.group(invoke_without_command=True)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
@click.option("--since", metavar="DURATION", help="Not older than this, as 1h.")
@click.option("--who", metavar="NAME", help="Of this user only.")
@click.option("--event", metavar="EVENT", help="Only these: change, denied, refused, token, certificate…")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@_file_option
@_mesh_option
@click.pass_context
def audit(
    context: click.Context, follow: bool, since: str | None, who: str | None, event: str | None, output: str,
    given: Path | None, mesh: str,
) -> None:  # fmt: skip
    """Who changed what, from where, and what was refused. Run it where the control plane runs."""
    if context.invoked_subcommand is not None:
        return
    oldest = _oldest(since)
    path = _path(given, mesh)
    for line in _lines(path, follow=follow):
        if (who and line.get("actor") != who) or (event and line.get("event") != event):
            continue
        if oldest is not None and _time(line) < oldest:
            continue
        click.echo(json.dumps(line, ensure_ascii=False) if output == "json" else _row(line))


@audit.command("verify")
@click.option("--hash", "known", default="", metavar="HASH", help="A hash that you noted: is it in the log?")
@_file_option
@_mesh_option
def check(known: str, given: Path | None, mesh: str) -> None:
    """Walk the chain of hashes: was a line changed, taken away or put in? Prints the newest hash to note."""
    path = _path(given, mesh)
    verdict = verify(path, known=known)
    if verdict.fault:
        raise WeftError(
            f"the log was changed: {verdict.fault}",
            hint=f"the {verdict.lines} lines before it hold; compare with a copy that you keep elsewhere",
        )
    if not verdict.found:
        raise WeftError(
            "the chain holds, but that hash is not in it", hint="the log was written anew, or cut"
        )
    gone = "" if verdict.first <= 1 else f", the lines before {verdict.first} are gone"
    click.echo(f"{verdict.lines} lines hold{gone}; line {verdict.last.seq} has the hash {verdict.last.hash}")


def _path(given: Path | None, mesh: str) -> Path:
    from weft.client.locate import runtime_directories, state_directory

    uid = os.getuid()
    # What 'weft up' runs keeps its state with its sockets; any other control plane, over a reboot.
    runtimes = (directory / mesh for directory in runtime_directories(os.environ, uid))
    # In /tmp anybody may make one.
    homes = [one / "control-plane" for one in runtimes if one.exists() and one.stat().st_uid in {0, uid}]
    places = [given] if given else [home / NAME for home in (*homes, state_directory(os.environ, uid) / mesh)]
    found = next((place for place in places if files(place)), None)
    if found is None:
        looked = ", ".join(map(str, places))
        raise UsageError(
            f"there is no audit log here (looked at {looked})",
            hint="name it: --file STATE-DIR/audit.log, or --mesh",
        )
    return found


def _oldest(since: str | None) -> datetime | None:
    from weft.units import parse_duration

    if since is None:
        return None
    try:
        return datetime.now(UTC) - parse_duration(since)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from error


def _lines(path: Path, *, follow: bool) -> Iterator[dict[str, Any]]:
    seen = 0
    mark = _mark(path)
    source: Iterator[bytes] = (text for _, _, text in raw_lines(path))
    while True:
        for text in source:
            line = _parsed(text)
            if int(line.get("seq", 0)) > seen:
                seen = int(line["seq"])
                yield line
        if not follow:
            return
        while (now := _mark(path)) == mark:
            time.sleep(_POLL_S)
        aside = now[0] != mark[0]  # the file was put aside, and another one begun
        source = (text for _, _, text in raw_lines(path)) if aside else _from(path, mark[1])
        mark = now


def _parsed(text: bytes) -> dict[str, Any]:
    """A line; what is none is empty here, and ``verify`` names it."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) and isinstance(line.get("seq"), int) else {}


def _from(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        yield from file


def _mark(path: Path) -> tuple[int, int]:
    """Which file it is, and how long."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_ino, found.st_size)


def _time(line: dict[str, Any]) -> datetime:
    try:
        time = datetime.fromisoformat(str(line.get("time")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _row(line: dict[str, Any]) -> str:
    """One line for people; control characters of strangers do not reach the terminal."""
    when = f"{_time(line):%Y-%m-%d %H:%M:%S}"
    what = " ".join(str(line[name]) for name in ("verb", "kind") if line.get(name))
    name = "/".join(str(line[name]) for name in ("namespace", "name") if line.get(name))
    about = " ".join(part for part in (what, name) if part)
    more = [
        f"{name}={line[name]}"
        for name in ("identity", "user", "node", "serial", "token", "why", "leftOut", "revision")
        if line.get(name) not in (None, "")
    ]
    who, where = line.get("actor") or line.get("node") or "-", line.get("from")
    text = f"{when}  {line.get('event', ''):<12} {line.get('decision', '') or '-':<6} {who}"
    text += f" ({where})" if where else ""
    text = "  ".join(part for part in (text, about, " ".join(more)) if part)
    return "".join(letter if letter.isprintable() else "?" for letter in text)
