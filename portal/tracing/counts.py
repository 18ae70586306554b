"""How many spans were sent and dropped, for the metrics. Knows nothing of OpenTelemetry."""

from __future__ import annotations

from typing import Final


class SpanCounts:
    """Of this process."""

    def __init__(self) -> None:
        self.exported = 0
        self.dropped = 0  # since the queue was full, or the collector did not take them


counts: Final = SpanCounts()
