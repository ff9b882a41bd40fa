"""Calls of ``nft``, ``ip`` and ``nsenter``: their complaints become errors that a user can act on."""

from __future__ import annotations

import asyncio
from typing import Final

from weft.errors import WeftError

# Debian keeps nft and ip in /usr/sbin, which is not on an ordinary user's PATH.
SEARCH_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

_PACKAGE: Final = {"nft": "nftables", "ip": "iproute2", "nsenter": "util-linux"}


class CommandError(WeftError):
    """A system command failed; the message is its own last words."""


async def run(*argv: str, stdin: str = "", timeout: float = 30) -> str:
    """Run a command to its end and return what it printed; ``timeout`` is in seconds.

    Raises:
        CommandError: it is missing, failed, or took too long.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise CommandError(
            f"{argv[0]} is not installed",
            hint=f"install the package {_PACKAGE.get(argv[0], argv[0])!r} (apt install)",
        ) from None
    try:
        async with asyncio.timeout(timeout):
            out, complaints = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CommandError(f"{argv[0]} took longer than {timeout:g} s") from None
    if process.returncode:
        said = complaints.decode(errors="replace").strip() or f"exit status {process.returncode}"
        hint = "run as root" if "not permitted" in said else ""
        raise CommandError(f"{' '.join(argv[:3])}: {said[:2000]}", hint=hint)
    return out.decode(errors="replace")
