"""Tokens that an issuer has given and the database does not have yet, in a file of the data folder, encrypted.

The refresh token before them is spent: were they lost with a process that is killed, or with a database that is away,
the person would have to sign in again. The file is there for the moment until they are stored. Synchronous.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Final

from django.conf import settings

from portal.lib.crypto import Undecryptable, make_private, open_private
from portal.lib.json import decode_object, encode, text_of
from relay.models.fields import box
from relay.providers.plans.login import Tokens, is_token

logger: Final = logging.getLogger(__name__)
_PURPOSE: Final = "chatgpt-account-unstored"
_MOST_BYTES: Final = 256 * 1024


def keep(pk: int, spent: str, tokens: Tokens) -> None:
    """Keep the tokens of an account that were given for a refresh token. What the disk does not take is not kept."""
    given = {
        "spent": _digest(spent),
        "access": tokens.access,
        "refresh": tokens.refresh,
        "identity": tokens.identity,
        "expires_at": str(tokens.expires_at),
        "scope": tokens.scope,
    }
    path = _path(pk)
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        make_private(path.parent, shared=True)
        with open(fresh, "wb", opener=open_private) as file:
            file.write(box(_PURPOSE).seal(encode(given).decode()).encode())
        fresh.replace(path)
    except OSError as error:
        logger.warning("the new tokens of the ChatGPT sign-in %d are kept in no file: %s", pk, error.strerror)


def kept(pk: int, spent: str) -> Tokens | None:
    """What was kept for an account, if it was given for this refresh token."""
    try:
        with _path(pk).open("rb") as file:
            found = decode_object(box(_PURPOSE).open(file.read(_MOST_BYTES).decode())) or {}
        expires_at = float(text_of(found, "expires_at"))
    except (OSError, UnicodeDecodeError, Undecryptable, ValueError):
        return None
    access, refresh = text_of(found, "access"), text_of(found, "refresh")
    if text_of(found, "spent") != _digest(spent) or not is_token(access) or not is_token(refresh):
        return None
    return Tokens(access, refresh, text_of(found, "identity"), expires_at, text_of(found, "scope"))


def forget(pk: int) -> None:
    """They are stored, or of no use any more."""
    try:
        _path(pk).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the file %s cannot be deleted: %s", _path(pk), error.strerror)


def _path(pk: int) -> Path:
    return Path(settings.DATA_DIR) / "plans" / f"{pk}.tokens"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
