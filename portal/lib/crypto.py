"""Encryption at rest, keyed digests, the key files of an installation, and who may read its other files.

Three secrets, each created on the first run and stored in `<data>/keys/` with mode 0600 unless given by settings:

- `secret_key`       Django's signing key (sessions, CSRF)
- `encryption_keys`  one per line; the first encrypts, all decrypt, so keys are rotated by adding one at the top
- `token_key`        key of the digests by which relay tokens are stored; changing it invalidates all tokens
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = "v1:"
_LEAST_CHARACTERS: Final = 32  # of a key: 128 bits in hex
_LEAST_DIFFERENT: Final = 8  # characters; of 32 random digits of hex less than one in a million has fewer


class Undecryptable(Exception):
    """A stored secret cannot be decrypted with any of the configured encryption keys."""


def random_key() -> str:
    """384 random bits in 64 URL-safe characters."""
    return secrets.token_urlsafe(48)


def check_key(text: str) -> None:
    """Raise ValueError, with what to do, for a key that can be guessed. Those that `random_key` makes pass."""
    if len(text) < _LEAST_CHARACTERS or len(set(text)) < _LEAST_DIFFERENT:
        raise ValueError(
            f"write a random key of at least {_LEAST_CHARACTERS} characters, such as the output of "
            "`openssl rand -hex 32`"
        )


def load_or_create(path: Path, make: Callable[[], str] = random_key) -> str:
    """Read a key file, or create it atomically, so that two processes starting at once use the same key.

    Raises OSError when the folder cannot be written, ValueError when the file is empty.
    """
    try:
        found = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    else:
        if not found:
            raise ValueError(f"the key file {path} is empty. Restore it from a backup; without one, delete it")
        return found
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


def readable_by_others(path: Path) -> bool:
    """Whether the group or others may access the file or folder."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def open_private(path: str | Path, flags: int) -> int:
    """The `opener` of files that only their owner may read, whatever the umask says."""
    return os.open(path, flags, 0o600)


def close_database(path: Path) -> None:
    """Take the rights of others away from the files of an SQLite database that has just been opened.

    SQLite makes a new one as the umask says, and gives its other files the rights of the first.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        _close(path.with_name(path.name + suffix), 0o600)


def make_private(folder: Path, shared: bool = False) -> None:
    """Take the rights of the group and of others away from a data folder and the files of the portal in it.

    Creates the folder when it is missing. Older versions left it open. What belongs to another user, or stands on a
    file system without rights, stays as it is: `portal.checks` reports it. A folder in which there are files of other
    programs, such as /tmp, stays as well, but not the portal's files in it; `shared` says that this is not to be looked
    at, because the folder is the portal's by its name. Raises OSError when the folder cannot be made.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):
        names = {entry.name for entry in os.scandir(folder)}
        own = sorted(name for name in names if name.startswith(OWN_FILES))
        uploads = folder / "uploads"
        if "uploads" in own and readable_by_others(uploads):
            for place, folders, files in os.walk(uploads):
                for name in folders:
                    _close(Path(place, name), 0o700)
                for name in files:
                    _close(Path(place, name), 0o600)
        for name in own:
            _close(folder / name, 0o700 if (folder / name).is_dir() else 0o600)
        if shared or len(own) == len(names):
            _close(folder, 0o700)


OWN_FILES: Final = ("keys", "state.sqlite3", "uploads")  # beginnings of the names in a data folder


def _close(path: Path, mode: int) -> None:
    with contextlib.suppress(OSError):
        if not path.is_symlink() and readable_by_others(path):
            path.chmod(mode)


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


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> hmac.HMAC:
    """The digest of nothing: a copy of it costs half of a new one."""
    return hmac.new(key, None, hashlib.sha256)


def keyed_digest(key: bytes, text: bytes) -> str:
    """HMAC-SHA256 in hex. Sufficient for secrets of at least 160 bits, which need no slow hash."""
    begun = _keyed(key).copy()
    begun.update(text)
    return begun.hexdigest()


def mask(secret: str) -> str:
    """A secret masked for display: its first seven and last four characters, fewer of short ones."""
    if len(secret) < 20:
        return "…" + secret[-2:] if len(secret) >= 8 else "…"
    return f"{secret[:7]}…{secret[-4:]}"
