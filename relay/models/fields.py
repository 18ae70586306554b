from __future__ import annotations

from functools import cache

from django.conf import settings

from portal.lib.crypto import Box


@cache
def box(purpose: str) -> Box:
    """The encryption of one kind of stored secret, under the configured keys."""
    return Box(settings.ENCRYPTION_KEYS, purpose)
