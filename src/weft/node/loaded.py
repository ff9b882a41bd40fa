"""What this node's Envoys have loaded of their certificates, by their own admin interfaces.

The replacement of a root waits for it: that a file was written does not mean that it is used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from weft.errors import WeftError
from weft.names import WORKLOAD_CERTIFICATE, WORKLOAD_TRUST_BUNDLE
from weft.node.inquiry import Ask
from weft.node.keys import Credential

Message = dict[str, Any]

_SECRETS: Final = "/config_dump?resource=dynamic_active_secrets"
# An Envoy loads a file within milliseconds; one that starts takes longer, one that is broken for ever.
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_MAX_S: Final = 5.0


class Loading:
    """Reports to the control plane (``proxies``) whenever something new was loaded.

    Args:
        agent: the node's own credential.
        keepers: those of the Envoys, as they were written last.
        proxies: which Envoys there are (``namespace/name``), and how their admin interfaces are asked.
        send: to the control plane.
        again: writes what could not be written before, as when a disk was full.
    """

    def __init__(
        self,
        agent: Callable[[], Credential],
        keepers: Callable[[], Iterable[Credential]],
        proxies: Callable[[], tuple[Iterable[str], Ask | None]],
        send: Callable[[Message], Awaitable[None]],
        again: Callable[[], None] = lambda: None,
    ) -> None:
        self._agent = agent
        self._keepers = keepers
        self._proxies = proxies
        self._send = send
        self._again = again
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A file was written, an Envoy came, or a session began."""
        self._woken.set()

    async def run(self) -> None:
        """For ever, while a session stands. Asks only until everything that was written is loaded."""
        pause, told = 0.0, None
        while True:
            loaded, whole = await self._look()
            if loaded != told:
                await self._send({"type": "proxies", "loaded": loaded})
                told = loaded
            pause = 0.0 if whole else min(max(pause * 1.5, _PAUSE_FIRST_S), _PAUSE_MAX_S)
            try:
                async with asyncio.timeout(pause or None):
                    await self._woken.wait()
            except TimeoutError:
                self._again()
                continue
            self._woken.clear()
            pause = 0.0

    async def _look(self) -> tuple[Message, bool]:
        """What is loaded by part, the agent's being ``""``, and whether it is all that was written."""
        mine = self._agent()
        loaded: Message = {"": _part(mine.trust.version, mine.version)}
        written = {credential.version for credential in self._keepers()}
        whole = True
        names, ask = self._proxies()
        for name in names:
            said = await _ask(ask, name) if ask is not None else {}
            trust, own = said.get(WORKLOAD_TRUST_BUNDLE, ""), said.get(WORKLOAD_CERTIFICATE, "")
            if trust and own:
                loaded[name] = _part(trust, own)
            whole = whole and trust == mine.trust.version and own in written
        return loaded, whole


def _part(trust: str, certificate: str) -> dict[str, str]:
    issuer, _, serial = certificate.partition(".")
    return {"trust": trust, "issuer": issuer, "serial": serial}


async def _ask(ask: Ask, name: str) -> dict[str, str]:
    """The versions of an Envoy's secrets; nothing when it does not answer."""
    try:
        reply = await ask(name, "GET", _SECRETS)
        rows = json.loads(reply.body)["configs"] if reply.status == 200 else []
        return {row["name"]: str(row.get("version_info") or "") for row in rows}
    except (WeftError, ValueError, LookupError, TypeError):
        return {}
