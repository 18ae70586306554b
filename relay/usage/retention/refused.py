"""Deletes refused requests that are older than REFUSED_KEEP_DAYS."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import connection

from portal.lib import clock
from relay.models import RefusedRequest

_DELETED_AT_ONCE: Final = 2_000


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run one round of deleting, and close the database connection."""
    try:
        delete_expired(stopping)
    finally:
        connection.close()


def delete_expired(stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete what is older than REFUSED_KEEP_DAYS, a bounded number of rows in each statement. Returns how many."""
    before = clock.now() - timedelta(days=settings.CONFIG.refused_keep_days)
    whole = 0
    while not stopping():
        pks = list(RefusedRequest.objects.filter(started_at__lt=before).values_list("pk", flat=True)[:_DELETED_AT_ONCE])
        if not pks:
            break
        whole += len(pks)
        RefusedRequest.objects.filter(pk__in=pks).delete()
        time.sleep(0.02)  # lets others write: SQLite looks now and then whether it may
    return whole
