"""Changes to headers as routes make them, and the values that Envoy fills in.

Rules: envoy source/common/router/header_parser.cc: of one list what is removed goes first, then what is
overwritten, then what is added; an empty value is left out unless it is kept on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from weft.analysis.match import Scene, Values

if TYPE_CHECKING:
    from weft.protos import core_v3

_OPERATOR: Final = re.compile(r"%%|%(?P<name>[A-Z_0-9]+)(?:\((?P<argument>[^)]*)\))?(?::(?P<length>\d+))?%")
_APPEND, _IF_ABSENT, _OVERWRITE, _OVERWRITE_IF_THERE = range(4)
_HOST: Final = "host"


def edit(
    values: Values,
    to_remove: Iterable[str],
    to_add: Sequence[core_v3.HeaderValueOption],
    scene: Scene,
) -> None:
    """Change ``values`` in place."""
    for name in to_remove:
        values.pop(name.lower(), None)
    added: list[tuple[str, str]] = []
    overwritten: list[tuple[str, str]] = []
    for option in to_add:
        name = option.header.key.lower()
        name = ":authority" if name == _HOST and ":authority" in values else name
        value = fill(option.header.value or option.header.raw_value.decode(errors="replace"), scene)
        if not value and not option.keep_empty_value:
            continue
        action = int(option.append_action)
        if option.HasField("append") and not option.append.value:
            action = _OVERWRITE
        if action == _APPEND or (action == _IF_ABSENT and name not in values):
            added.append((name, value))
        elif action == _OVERWRITE or (action == _OVERWRITE_IF_THERE and name in values):
            overwritten.append((name, value))
    for name, value in overwritten:
        values[name] = [value]
    for name, value in added:
        values[name] = [*values.get(name, ()), value]


def fill(text: str, scene: Scene) -> str:
    """``text`` with the operators of Envoy's formatter that a request decides; others stay as they are."""
    if "%" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        known = _OPERATORS.get(found["name"])
        if known is None:
            return found[0]
        made = known(scene, found["argument"] or "")
        return made[: int(found["length"])] if found["length"] else made

    return _OPERATOR.sub(value, text)


def _header(scene: Scene, argument: str) -> str:
    for name in argument.split("?"):
        if values := scene.headers.get(name.lower()):
            return values[0]
    return ""


_OPERATORS: Final[dict[str, Callable[[Scene, str], str]]] = {
    "REQ": _header,
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda scene, _: scene.remote_ip,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda scene, _: scene.source_ip,
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda scene, _: scene.destination_ip,
    "DOWNSTREAM_LOCAL_PORT": lambda scene, _: str(scene.destination_port),
    "DOWNSTREAM_PEER_URI_SAN": lambda scene, _: ",".join(scene.peer or ()),
    "REQUESTED_SERVER_NAME": lambda scene, _: scene.server_name,
}
