from __future__ import annotations

from functools import cache

from django.conf import settings

from portal.lib.crypto import SecretBox


@cache
def box(purpose: str) -> SecretBox:
    """Return the encryption for one kind of stored secret, under the configured keys."""
    return SecretBox(settings.ENCRYPTION_KEYS, purpose)
