"""The relay token of an installation, which `airelays token` shows, and the file in which AIRelays 0.x keeps it."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from django.conf import settings

from relay.models import Token
from relay.models.token import digest_of

logger = logging.getLogger(__name__)
NAME: Final = "First token"  # of the one that the first run makes


def relay_token() -> Token | None:
    """The active token of the first run, else the oldest active one of a superuser for everything; None without."""
    rows = Token.objects.filter(
        user__is_superuser=True, user__is_active=True, revoked_at=None, purpose="", built_in=None
    )
    active = [token for token in rows.order_by("pk")[:200] if token.state() == "active"]
    return next((token for token in active if token.name == NAME), active[0] if active else None)


def token_file(digest: str) -> Path | None:
    """The token file of AIRelays 0.x if the token with this digest is in it, else None."""
    path: Path | None = settings.CONFIG.relay_token_file()
    try:
        return path if path is not None and digest_of(path.read_text(encoding="utf-8").strip()) == digest else None
    except (OSError, UnicodeDecodeError):
        return None


def keep_in_step(path: Path, secret: str) -> None:
    """Write a token into its file, readable by its owner only. A file that cannot be written is logged."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".relay-token-")  # created with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(secret + "\n")
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        logger.error("the token file %s cannot be written and holds the old token: %s", path, error.strerror)
