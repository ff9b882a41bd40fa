"""What lies on disk encrypted: bodies of Secrets and all private values, under one key in a 0600 file.

AES-256-GCM with a random nonce. Where a value stands is authenticated with it, so that two cannot be
swapped.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from weft.errors import WeftError

_FORM: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class Seal:
    """Encrypts, decrypts and fingerprints with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        # Fingerprints get a key of their own: a plain hash of a short password can be guessed.
        self._print_key = hmac.digest(key, b"weft history", "sha256")

    def close(self, text: bytes, place: str) -> bytes:
        """Encrypt ``text`` for ``place``."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORM + nonce + self._cipher.encrypt(nonce, text, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt.

        Raises:
            WeftError: when key, place or content are not those it was sealed with.
        """
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORM:
                raise InvalidTag
            return self._cipher.decrypt(nonce, text, place.encode())
        except (InvalidTag, ValueError) as error:
            raise WeftError(
                f"{place} cannot be decrypted: it was not written with this store's key",
                hint="restore the file store.key that belongs to this store",
            ) from error

    def fingerprint(self, text: str) -> str:
        """A keyed hash: equal values have equal ones, nothing else can be learnt from it."""
        return "hmac-sha256:" + hmac.new(self._print_key, text.encode(), hashlib.sha256).hexdigest()

    def redact(self, body: bytes) -> bytes:
        """A Secret's body for history: values as fingerprints, without kubectl's copy of them."""
        wire: dict[str, Any] = msgspec.json.decode(body)
        for field in ("data", "stringData"):
            if isinstance(values := wire.get(field), dict):
                wire[field] = {name: self.fingerprint(str(value)) for name, value in values.items()}
        annotations = wire.get("metadata", {}).get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(LAST_APPLIED, None)
        return msgspec.json.encode(wire)


def open_key(path: Path) -> Seal:
    """The key in ``path``, made there (0600) when there is none.

    Raises:
        WeftError: when the file is no key, or others may read it.
    """
    try:
        _make_key(path)
        if path.stat().st_mode & 0o077:
            raise WeftError(f"{path} can be read by others", hint=f"run: chmod 600 {path}")
        key = path.read_bytes()
    except OSError as error:
        raise WeftError(
            f"cannot use {path}: {error.strerror}", hint="choose a directory of your own for the state"
        ) from error
    if len(key) != _KEY_BYTES:
        raise WeftError(f"{path} is not a key", hint="restore it from a backup")
    return Seal(key)


def _make_key(path: Path) -> None:
    if path.exists():
        return
    # Whole or absent: a crash in between must not leave half a key that later seals something.
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
