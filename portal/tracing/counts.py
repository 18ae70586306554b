"""How many spans were sent and dropped, for the metrics. Knows nothing of OpenTelemetry."""

from __future__ import annotations

import os
import threading
from typing import Final


class SpanCounts:
    """Of this process. Requests and the thread that sends add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.exported = 0
        self.dropped = 0  # since the queue was full, or the collector did not take them

    def add(self, exported: int = 0, dropped: int = 0) -> None:
        with self._lock:
            self.exported += exported
            self.dropped += dropped

    def renew_lock(self) -> None:
        """In a new process: a thread may have held the lock that is not there any more."""
        self._lock = threading.Lock()


counts: Final = SpanCounts()
os.register_at_fork(after_in_child=counts.renew_lock)
