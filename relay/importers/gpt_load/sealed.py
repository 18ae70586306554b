"""What GPT-Load encrypts with its ENCRYPTION_KEY: upstream keys, and in version 2 access keys.

Both versions use AES-256-GCM, written in hexadecimal behind a nonce of 12 bytes. The key is derived by PBKDF2; version
2 derives one more of it for each purpose. Version 1 stores keys in clear where it has no ENCRYPTION_KEY; version 2 then
makes one, in the file `encryption.key` beside its database.

Source: the packages `encryption` and `utils` of GPT-Load 1.4.9 and of its branch v2, read in November 2026.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE: Final = "encryption.key"
_SALT: Final = b"gpt-load-encryption-v1"
_ROUNDS: Final = 100_000
_DOMAIN: Final = b"gpt-load/encryption/aes-256-gcm/v1"
_NONCE: Final = 12
_SEALED: Final = re.compile(r"(?:[0-9a-f]{2}){28,}")  # a nonce and a tag at least


class Locked(Exception):
    """A value is encrypted with another key than the one at hand, or none is."""


class Sealed:
    """Opens values that were encrypted with one key. `version`: of the program, 1 or 2."""

    def __init__(self, key: str, version: int) -> None:
        self._version = version
        self._cipher: AESGCM | None = None
        if key:
            derived = hashlib.pbkdf2_hmac("sha256", key.encode(), _SALT, _ROUNDS, 32)
            if version > 1:
                derived = hmac.new(derived, _DOMAIN, hashlib.sha256).digest()
            self._cipher = AESGCM(derived)

    def open(self, value: str) -> str:
        """The text of a value; in version 1 one that is not encrypted is returned as it is. Raises Locked."""
        if _SEALED.fullmatch(value) is None:
            if self._version > 1:
                raise Locked
            return value
        if self._cipher is None:
            raise Locked
        sealed = bytes.fromhex(value)
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None).decode()
        except (InvalidTag, UnicodeDecodeError):
            raise Locked from None
