"""Sets of JSON web keys (RFC 7517), as far as their form goes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_NEEDED: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}


def key_set(text: str) -> str:
    """A complaint, or the empty text for a set of keys or one key."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is not JSON: {error}"
    if not isinstance(found, dict):
        return 'a key set is a JSON object, {"keys": […]}'
    keys = found.get("keys")
    if "keys" in found and not isinstance(keys, list):
        return "keys must be a list"
    return next((wrong for key in (keys if isinstance(keys, list) else [found]) if (wrong := _key(key))), "")


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


def public_part(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key without what only its owner may know. A shared secret (``oct``) has no public part: it stays."""
    if key.get("kty") == "oct":
        return dict(key)
    return {name: value for name, value in key.items() if name not in _PRIVATE}


def private_keys(text: str) -> Iterator[int]:
    """The positions of keys that hold more than their public part."""
    if key_set(text):
        return
    found = json.loads(text)
    for number, key in enumerate(found.get("keys", [found])):
        if "d" in key or key["kty"] == "oct":
            yield number


def _key(key: object) -> str:
    if not isinstance(key, Mapping):
        return "a key must be a JSON object"
    kind = key.get("kty")
    if not isinstance(kind, str) or kind not in _NEEDED:
        return f"{kind!r} is not a type of key: write RSA, EC, OKP or oct under kty"
    if not isinstance(key.get("kid", ""), str):
        return "the key's kid must be text"
    return next((wrong for name in _NEEDED[kind] if (wrong := _member(key, name))), "")


def _member(key: Mapping[str, Any], name: str) -> str:
    value = key.get(name)
    if not isinstance(value, str) or not value:
        return f"the key has no {name}"
    if name == "crv":
        return ""
    try:
        base64.b64decode(
            value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        return f"the key's {name} is not base64"
    return ""
