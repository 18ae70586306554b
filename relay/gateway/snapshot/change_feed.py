"""Polls the change feed, so that every process applies the changes of the others."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

from django.db import InterfaceError, OperationalError, connection

from accounts.models import Change
from portal import limits
from portal.lib import clock
from portal.services.timeouts import statement_timeout
from relay.billing.ledger.writer import writer
from relay.gateway.snapshot.cache import SnapshotCache, logger

_GAP_SECONDS: Final = 60.0
_KEEP: Final = timedelta(days=1)


class FeedPoller:
    """A thread that polls the change feed.

    Rows may become visible out of order, when a lower id commits later, so gaps in the ids are queried again.
    """

    def __init__(self, cache: SnapshotCache, seconds: float) -> None:
        self._cache, self._seconds = cache, seconds
        self._high = self.position = 0
        self.read_at = clock.monotonic()  # when it was read last
        self._newer = ""  # SQL of the rows after one
        self._gaps: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next_prune = clock.monotonic() + 3600

    def start(self) -> None:
        """Read the position of the feed, then the configuration, then follow the feed. Raises DatabaseError.

        Does nothing when an attempt that was given up has succeeded meanwhile.
        """
        if self._thread is not None:
            return
        self._begin()
        connection.close()
        self._thread = threading.Thread(target=self._run, name="airelays-feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _begin(self) -> None:
        """Read the newest position, then everything. Ids missing just below it may belong to open transactions."""
        newest = list(Change.objects.order_by("-pk").values_list("pk", flat=True)[:100])
        self._high = newest[0] if newest else 0
        now = clock.monotonic()
        self._gaps = {pk: now for pk in range(newest[-1], self._high)} if newest else {}
        for pk in newest:
            self._gaps.pop(pk, None)
        self._cache.reload()
        self.position = self._high

    def _run(self) -> None:
        with statement_timeout(limits.DATABASE_SECONDS):
            self._follow()

    def _follow(self) -> None:
        failing = False
        while not self._stop.wait(self._seconds):
            try:
                if failing:
                    # Rows may have been pruned or restored meanwhile: start over. Callers are kept until then, since
                    # what needs no database goes on.
                    self._begin()
                    self._cache.forget()
                    failing = False
                    logger.warning("the change feed can be read again")
                self.poll()
            except Exception as error:  # the loop must survive any failure of one round
                if not failing:
                    known = isinstance(error, (OperationalError, InterfaceError))
                    said = "the change feed cannot be read, configuration changes wait: %s"
                    logger.error(said, error, exc_info=None if known else error)
                failing = True
                # Who may use the portal is not known any more: nothing is begun that could not be recorded either.
                writer.probe()
                connection.close()
        connection.close()

    def rows_after(self, high: int) -> list[tuple[int, str, str]]:
        # Asked some times a second as long as the portal runs: the statement is compiled once.
        if not self._newer:
            rows = Change.objects.filter(pk__gt=0).order_by("pk").values_list("pk", "topic", "key")
            self._newer = rows.query.sql_with_params()[0]
        with connection.cursor() as cursor:
            cursor.execute(self._newer, (high,))
            return list(cursor.fetchall())

    def rows_of(self, ids: list[int]) -> list[tuple[int, str, str]]:
        return list(Change.objects.filter(pk__in=ids).values_list("pk", "topic", "key"))

    def poll(self) -> None:
        """Apply the new rows."""
        now = clock.monotonic()
        rows = self.rows_after(self._high)
        if self._gaps:
            late = self.rows_of(list(self._gaps))
            for pk, _, _ in late:
                del self._gaps[pk]
            self._gaps = {pk: since for pk, since in self._gaps.items() if now - since < _GAP_SECONDS}
            rows = late + rows
        for pk, _, _ in rows:
            if pk > self._high:
                for missing in range(max(self._high + 1, pk - 100), pk):
                    self._gaps[missing] = now
                self._high = pk
        for topic, key in dict.fromkeys((topic, key) for _, topic, key in rows):
            self._cache.apply(topic, key)
        self.position, self.read_at = self._high, now
        if now >= self._next_prune:
            self._next_prune = now + 3600
            Change.objects.filter(created_at__lt=clock.now() - _KEEP).delete()
