"""Deletes stored files, responses, conversations and client secrets that have expired, and what crashed workers left.

Every worker runs it from time to time; running it twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

from accounts.sign_in import attempts, sign_up
from portal.lib import clock
from relay.storage import batch_results, files_check
from relay.storage import responses as stored_responses
from relay.storage.realtime import client_secrets


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run one round. Ends early when the portal is stopping."""
    try:
        attempts.delete_expired()
        sign_up.release_abandoned()
        files_check.sweep()
        if not stopping():
            stored_responses.delete_expired(clock.now())
            client_secrets.delete_expired(clock.now())
            stored_responses.fail_orphans()
        if not stopping():
            batch_results.delete_lines()
    finally:
        connection.close()
