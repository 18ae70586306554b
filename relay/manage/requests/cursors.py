"""Pages of lists by keyset: what is added or deleted meanwhile moves no row to another page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from django.core import signing
from django.utils.translation import gettext as _

from relay.manage.requests.problems import Problem

_SALT: Final = "relay.manage.cursors"
_LONGEST: Final = 400


def write(path: str, asked: Mapping[str, Any], last: str) -> str:
    """A cursor after the row `last` of a list with these filters. Signed: nobody can make one up."""
    return signing.dumps([_digest(path, asked), last], salt=_SALT)


def read(path: str, asked: Mapping[str, Any], cursor: str) -> str:
    """Return the last row that the page before has shown. Raises Problem for a cursor of something else."""
    try:
        if len(cursor) > _LONGEST:
            raise signing.BadSignature
        digest, last = signing.loads(cursor, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        raise Problem(_("This is no cursor. Use next_cursor of the page before."), code="bad_cursor") from None
    if digest != _digest(path, asked):
        raise Problem(
            _("This cursor is of another list. Send the same filters with it as with the first page."),
            code="bad_cursor",
        )
    return str(last)


def _digest(path: str, asked: Mapping[str, Any]) -> str:
    text = repr((path, sorted((name, str(value)) for name, value in asked.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
