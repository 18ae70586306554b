"""Keys of this installation, encryption at rest and keyed digests.

Three secrets, each made on first run and kept in `<data>/keys/` with mode 0600 unless given by settings:

- `secret_key`       Django's signing key (sessions, CSRF)
- `encryption_keys`  one a line; the first encrypts, all decrypt, so a key is replaced by putting a new one on top
- `token_key`        keys the digests under which relay tokens are stored; it cannot be changed without re-issuing them
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = "v1:"


class Undecryptable(Exception):
    """A stored secret does not open with any of the configured encryption keys."""


def random_key() -> str:
    """384 random bits in 64 URL-safe characters."""
    return secrets.token_urlsafe(48)


def load_or_create(path: Path, make: Callable[[], str] = random_key) -> str:
    """Read a key file, or make it so that of two processes starting at once both end up with the same key.

    Raises OSError when the folder cannot be written.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)  # fails when another process was first
        except FileExistsError:
            pass
    finally:
        Path(name).unlink()
    return path.read_text(encoding="utf-8").strip()


def readable_by_others(path: Path) -> bool:
    """True when group or others may read the file."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


class Box:
    """Encrypts one kind of secret. Ciphertext of one purpose does not open under another."""

    def __init__(self, keys: Sequence[str], purpose: str) -> None:
        if not keys or not all(keys):
            raise ValueError("at least one encryption key is needed")
        self._fernet = MultiFernet([Fernet(_derive(key, purpose)) for key in keys])

    def seal(self, plain: str) -> str:
        return PREFIX + self._fernet.encrypt(plain.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises Undecryptable."""
        if not sealed.startswith(PREFIX):
            raise Undecryptable
        try:
            return self._fernet.decrypt(sealed.removeprefix(PREFIX).encode()).decode()
        except InvalidToken as error:
            raise Undecryptable from error


def _derive(key: str, purpose: str) -> bytes:
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=f"airelays:{purpose}".encode())
    return base64.urlsafe_b64encode(kdf.derive(key.encode()))


def keyed_digest(key: bytes, text: bytes) -> str:
    """HMAC-SHA256 in hex. Enough for secrets of 160 bits and more, which need no slow hash."""
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def mask(secret: str) -> str:
    """What may be shown of a secret: its first seven and last four characters, fewer of short ones."""
    if len(secret) < 20:
        return "…" + secret[-2:] if len(secret) >= 8 else "…"
    return f"{secret[:7]}…{secret[-4:]}"
