"""What is kept ends: files and responses whose time is over, and what a crash has left half done. Every worker does it now and then; it does no harm twice."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

from portal.lib import clock
from relay.storage import files_check
from relay.storage import responses as stored_responses


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """One round."""
    try:
        files_check.sweep()
        if not stopping():
            stored_responses.sweep(clock.now())
            stored_responses.end_orphans()
    finally:
        connection.close()
