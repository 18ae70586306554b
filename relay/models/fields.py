from __future__ import annotations

from functools import cache

from django.conf import settings

from portal.lib.crypto import Box


@cache
def box(purpose: str) -> Box:
    """Return the encryption for one kind of stored secret, under the configured keys."""
    return Box(settings.ENCRYPTION_KEYS, purpose)
