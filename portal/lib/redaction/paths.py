"""Paths of requests as logs may have them: on one line, without what may be a secret that somebody wrote into them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from portal.lib.redaction.redact import redact
from portal.lib.redaction.words import is_random

_LONGEST: Final = 300  # characters of a path
_LONGEST_ID: Final = 48  # characters of an id of the portal's, which are all lower case
_SECRET_LENGTH: Final = 24  # characters from which a part of a path may be a secret
_LINKS: Final = "/accounts/"  # begins the links in mails, which end with a key
_KEY_LENGTH: Final = 16  # characters from which a part of such a link may be its key
_HIDDEN: Final = "[redacted]"


def shown_path(path: str) -> str:
    """A path for a log: cut, with what cannot be printed in percent-encoding, and without keys."""
    shortest = _KEY_LENGTH if path.startswith(_LINKS) else _SECRET_LENGTH
    parts = path[:_LONGEST].split("/")
    shown = "/".join(_HIDDEN if _may_be_secret(part, shortest) else part for part in parts)
    return quote(redact(shown), safe="/:@+,;=~$!*'()[]")


def _may_be_secret(part: str, shortest: int) -> bool:
    """Whether a part of a path looks drawn at random, and is no id of the portal's or name of a model."""
    if shortest == _KEY_LENGTH:
        return len(part) >= shortest
    return any(
        len(piece) >= shortest and is_random(piece) and (piece != piece.lower() or len(piece) >= _LONGEST_ID)
        for piece in part.split(":")
    )
