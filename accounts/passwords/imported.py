"""Checks passwords of imported users, which their programs hashed with bcrypt. The first sign-in hashes them anew."""

from __future__ import annotations

from django.contrib.auth.hashers import BCryptPasswordHasher


class ImportedPasswordHasher(BCryptPasswordHasher):
    """Bcrypt as those programs use it. What it cannot take, such as more than 72 bytes, is a wrong password."""

    def verify(self, password: str, encoded: str) -> bool:
        try:
            return bool(super().verify(password, encoded))
        except ValueError:
            return False
