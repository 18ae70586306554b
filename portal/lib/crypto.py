"""Encryption at rest, keyed digests and the key files of an installation.

Three secrets, each created on the first run and stored in `<data>/keys/` with mode 0600 unless given by settings:

- `secret_key`       Django's signing key (sessions, CSRF)
- `encryption_keys`  one per line; the first encrypts, all decrypt, so keys are rotated by adding one at the top
- `token_key`        key of the digests by which relay tokens are stored; changing it invalidates all tokens
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = "v1:"


class Undecryptable(Exception):
    """A stored secret cannot be decrypted with any of the configured encryption keys."""


def random_key() -> str:
    """384 random bits in 64 URL-safe characters."""
    return secrets.token_urlsafe(48)


def load_or_create(path: Path, make: Callable[[], str] = random_key) -> str:
    """Read a key file, or create it atomically, so that two processes starting at once use the same key.

    Raises OSError when the folder cannot be written.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)  # created with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)  # fails if another process was faster
        except FileExistsError:
            pass
    finally:
        Path(name).unlink()
    return path.read_text(encoding="utf-8").strip()


class SecretBox:
    """Encrypts secrets of one purpose. A ciphertext of one purpose cannot be decrypted for another."""

    def __init__(self, keys: Sequence[str], purpose: str) -> None:
        if not keys or not all(keys):
            raise ValueError("at least one encryption key is needed")
        self._fernet = MultiFernet([Fernet(_derive(key, purpose)) for key in keys])

    def seal(self, plain: str) -> str:
        return PREFIX + self._fernet.encrypt(plain.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt. Raises Undecryptable."""
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
    """HMAC-SHA256 in hex. Sufficient for secrets of at least 160 bits, which need no slow hash."""
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def mask(secret: str) -> str:
    """A secret masked for display: its first seven and last four characters, fewer of short ones."""
    if len(secret) < 20:
        return "…" + secret[-2:] if len(secret) >= 8 else "…"
    return f"{secret[:7]}…{secret[-4:]}"
