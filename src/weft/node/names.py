"""The names of the mesh, as the control plane tells them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

Names = Mapping[str, tuple[str, ...]]


class HeardNames:
    """The table of now, put together from whole tables and changes; followers get it whole each time."""

    def __init__(self) -> None:
        self.table: Names = {}
        self._followers: list[Callable[[Names], None]] = []

    def follow(self, call: Callable[[Names], None]) -> None:
        """Call with the table that there is, if any, and at each change."""
        self._followers.append(call)
        if self.table:
            call(self.table)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take in a ``names`` message (docs/reference/node-protocol.md).

        Raises:
            KeyError, TypeError, AttributeError: for another form.
        """
        table = {} if message["full"] else dict(self.table)
        for name in message.get("removed") or ():
            table.pop(name, None)
        table.update({name: tuple(addresses) for name, addresses in (message.get("put") or {}).items()})
        if table == self.table:
            return
        self.table = table
        for call in self._followers:
            try:
                call(table)
            except Exception:  # the session serves others too
                log.exception("the names could not be handed on")
