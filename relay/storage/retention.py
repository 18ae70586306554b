"""Deletes stored files, responses, conversations and client secrets that have expired, and what crashed workers left.

Every worker runs it from time to time; running it twice does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.db import InterfaceError, OperationalError, connection

from accounts.sign_in import attempts, sign_up
from portal.lib import clock
from relay.storage import batch_results, files_check
from relay.storage import responses as stored_responses
from relay.storage.realtime import client_secrets

logger: Final = logging.getLogger(__name__)


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run one round. Ends early when the portal is stopping, or the database does not answer.

    What fails for itself, such as a file that the disk does not delete, keeps nothing else from being deleted.
    """
    try:
        for step in _STEPS:
            if stopping():
                return
            try:
                step()
            except (OperationalError, InterfaceError):
                raise
            except Exception:
                logger.exception("deleting what has expired failed in a part; the next round tries again")
    finally:
        connection.close()


_STEPS: Final = (
    attempts.delete_expired,
    sign_up.release_abandoned,
    files_check.sweep,
    lambda: stored_responses.delete_expired(clock.now()),
    lambda: client_secrets.delete_expired(clock.now()),
    stored_responses.fail_orphans,
    batch_results.delete_lines,
)
