"""Follows the change feed, so that every process takes over what another has changed."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

from django.db import connection

from accounts.models import Change
from portal.lib import clock
from relay.gateway.snapshot.cache import SnapshotCache, logger

_GAP_SECONDS: Final = 60.0
_KEEP: Final = timedelta(days=1)


class FeedPoller:
    """A thread that looks at the change feed. Rows may become visible out of order (a lower id commits later), so gaps are asked for again."""

    def __init__(self, store: SnapshotCache, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._high = self.position = 0
        self._gaps: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next_prune = clock.monotonic() + 3600

    def start(self) -> None:
        """Read the position of the feed and the configuration, in this order, then follow the feed. Raises DatabaseError."""
        self._begin()
        connection.close()
        self._thread = threading.Thread(target=self._run, name="airelays-feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _begin(self) -> None:
        """Take the newest position, then read everything. Ids missing just below it may belong to transactions that are still open."""
        newest = list(Change.objects.order_by("-pk").values_list("pk", flat=True)[:100])
        self._high = newest[0] if newest else 0
        now = clock.monotonic()
        self._gaps = {pk: now for pk in range(newest[-1], self._high)} if newest else {}
        for pk in newest:
            self._gaps.pop(pk, None)
        self._store.reload()
        self.position = self._high

    def _run(self) -> None:
        failing = False
        while not self._stop.wait(self._seconds):
            try:
                if failing:
                    # Rows may have been pruned or restored meanwhile: begin anew.
                    self._store.forget()
                    self._begin()
                    failing = False
                    logger.warning("the change feed can be read again")
                self.poll()
            except Exception:  # the loop outlives whatever one round meets
                if not failing:
                    logger.exception("the change feed cannot be read; configuration changes wait")
                failing = True
                connection.close()
        connection.close()

    def rows_after(self, high: int) -> list[tuple[int, str, str]]:
        return list(Change.objects.filter(pk__gt=high).order_by("pk").values_list("pk", "topic", "key"))

    def rows_of(self, ids: list[int]) -> list[tuple[int, str, str]]:
        return list(Change.objects.filter(pk__in=ids).values_list("pk", "topic", "key"))

    def poll(self) -> None:
        """Apply what is new."""
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
            self._store.apply(topic, key)
        self.position = self._high
        if now >= self._next_prune:
            self._next_prune = now + 3600
            Change.objects.filter(created_at__lt=clock.now() - _KEEP).delete()
