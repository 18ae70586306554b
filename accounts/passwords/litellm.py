"""Passwords as LiteLLM stores them, so that people who were imported sign in with them.

It keeps the salt and the derived key together as base64; what it wrote before is a plain SHA-256, which is stored here
as scrypt's input only. At the first sign-in a password is hashed anew by the first of PASSWORD_HASHERS.

Source: `hash_password` and `verify_password` of LiteLLM 1.108, read in November 2026.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Any, Final

from django.contrib.auth.hashers import BasePasswordHasher, mask_hash

_SALT: Final = 16  # bytes
_KEY: Final = 32
_ROUNDS: Final = 600_000  # of PBKDF2
_STORED: Final = re.compile(r"(?P<kind>scrypt|pbkdf2):(?P<both>[A-Za-z0-9+/]{64})")
_ENCODED: Final = re.compile(r"litellm_(scrypt|pbkdf2)\$[A-Za-z0-9+/]{64}")
_PLAIN: Final = "sha256$"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def encoded(stored: str) -> str:
    """What LiteLLM stores, as Django stores it, or as `wrapped` takes it; empty: it is none of these."""
    if (found := _STORED.fullmatch(stored)) is not None:
        return f"litellm_{found['kind']}${found['both']}"
    return _PLAIN + stored if _SHA256.fullmatch(stored) is not None else ""


def is_encoded(password: str) -> bool:
    """Whether a password is one of LiteLLM's as Django stores it, which takes as long to check as any other of them."""
    return _ENCODED.fullmatch(password) is not None


def is_plain(password: str) -> bool:
    """Whether a password is known by its SHA-256 alone, which is not stored as it is."""
    return password.startswith(_PLAIN) and _SHA256.fullmatch(password.removeprefix(_PLAIN)) is not None


def wrapped(password: str) -> str:
    """A password that `is_plain`, as it is stored: scrypt of what is known of it, which takes its time."""
    salt = secrets.token_bytes(_SALT)
    key = _scrypt(password.removeprefix(_PLAIN).encode(), salt)
    return f"{LiteLLMSha256.algorithm}${base64.b64encode(salt + key).decode()}"


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=16384, r=8, p=1, dklen=_KEY)


class _LiteLLMHasher(BasePasswordHasher):
    """Salt and key in one base64. Only checks: new passwords are hashed in another way."""

    def derive(self, password: bytes, salt: bytes) -> bytes:
        raise NotImplementedError

    def encode(self, password: str, salt: str) -> str:
        raw = salt.encode("latin-1")[:_SALT].ljust(_SALT, b"\0")
        return f"{self.algorithm}${base64.b64encode(raw + self.derive(password.encode(), raw)).decode()}"

    def decode(self, encoded: str) -> dict[str, Any]:
        algorithm, _, both = encoded.partition("$")
        raw = base64.b64decode(both)
        return {"algorithm": algorithm, "salt": raw[:_SALT], "hash": raw[_SALT:]}

    def verify(self, password: str, encoded: str) -> bool:
        found = self.decode(encoded)
        return secrets.compare_digest(self.derive(password.encode(), found["salt"]), found["hash"])

    def safe_summary(self, encoded: str) -> Any:
        found = self.decode(encoded)
        return {
            "algorithm": found["algorithm"],  # Django's page translates these words
            "salt": mask_hash(found["salt"].hex()),
            "hash": mask_hash(found["hash"].hex()),
        }

    def must_update(self, encoded: str) -> bool:
        return True

    def harden_runtime(self, password: str, encoded: str) -> None:
        """Each takes as long as the other: nothing has to be made up for."""


class LiteLLMScrypt(_LiteLLMHasher):
    algorithm = "litellm_scrypt"

    def derive(self, password: bytes, salt: bytes) -> bytes:
        return _scrypt(password, salt)


class LiteLLMPbkdf2(_LiteLLMHasher):
    algorithm = "litellm_pbkdf2"

    def derive(self, password: bytes, salt: bytes) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", password, salt, _ROUNDS, _KEY)


class LiteLLMSha256(_LiteLLMHasher):
    """Scrypt of the SHA-256 of a password in hexadecimal, which is all that was known of it."""

    algorithm = "litellm_sha256"

    def derive(self, password: bytes, salt: bytes) -> bytes:
        return _scrypt(hashlib.sha256(password).hexdigest().encode(), salt)
