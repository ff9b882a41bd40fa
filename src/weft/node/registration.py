"""What this node wants to be known by the control plane, and what of it is. No sockets, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from weft.instance import Instance


@dataclass(slots=True)
class _Wanted:
    instance: Instance
    confirmed: bool = False
    refusal: str = ""


class Registrations:
    """The instances of this node. The control plane is told all of them whenever a session begins."""

    def __init__(self) -> None:
        self._wanted: dict[str, _Wanted] = {}
        self._gone: set[str] = set()

    def want(self, instance: Instance) -> Instance:
        """Keep an instance registered from now on.

        Registered again, as by an adopting agent, it keeps what is known of its readiness.
        """
        old = self._wanted.get(instance.id)
        if old is not None:
            instance = replace(instance, ready=old.instance.ready, message=old.instance.message)
        self._wanted[instance.id] = _Wanted(instance)
        self._gone.discard(instance.id)
        return instance

    def update(self, instance_id: str, *, ready: bool, message: str) -> bool:
        """Note whether it may get traffic; False when that is known already, or the instance is not."""
        wanted = self._wanted.get(instance_id)
        if wanted is None:
            return False
        changed = replace(wanted.instance, ready=ready, message=message)
        if changed == wanted.instance:
            return False
        wanted.instance = changed
        return True

    def drain(self, instance_id: str) -> bool:
        """Note that it shall get no new traffic; False when the instance is not known."""
        wanted = self._wanted.get(instance_id)
        if wanted is None:
            return False
        wanted.instance = replace(wanted.instance, ready=False, draining=True)
        return True

    def forget(self, instance_id: str) -> bool:
        """It is gone; False when it was not known. It is told until it is known to be ``heard``."""
        if self._wanted.pop(instance_id, None) is None:
            return False
        self._gone.add(instance_id)
        return True

    def gone(self) -> frozenset[str]:
        """What has gone, as far as the control plane may not know it yet."""
        return frozenset(self._gone)

    def heard(self, gone: frozenset[str]) -> None:
        """The control plane knows that these have gone."""
        self._gone -= gone

    def confirm(self, instance_id: str) -> None:
        """The control plane has registered it."""
        if wanted := self._wanted.get(instance_id):
            wanted.confirmed, wanted.refusal = True, ""

    def refuse(self, instance_id: str, message: str) -> None:
        """The control plane will not have it. It is asked again at the next session."""
        if wanted := self._wanted.get(instance_id):
            wanted.confirmed, wanted.refusal = False, message

    def lost(self) -> None:
        """The session ended: nothing is confirmed any more."""
        for wanted in self._wanted.values():
            wanted.confirmed = False

    def refusals(self) -> dict[str, str]:
        """Why instances that run here are not known there."""
        return {known: wanted.refusal for known, wanted in self._wanted.items() if wanted.refusal}

    def confirmed(self, instance_id: str) -> bool:
        """Whether the control plane knows it, as of this session."""
        wanted = self._wanted.get(instance_id)
        return wanted is not None and wanted.confirmed

    def get(self, instance_id: str) -> Instance | None:
        """The instance as it is wanted."""
        wanted = self._wanted.get(instance_id)
        return wanted.instance if wanted else None

    def ids(self) -> tuple[str, ...]:
        """Of all that is wanted."""
        return tuple(sorted(self._wanted))

    def all(self) -> list[dict[str, Any]]:
        """All that is wanted, for the ``hello`` of a session."""
        return [wanted.instance.to_dict() for _, wanted in sorted(self._wanted.items())]
