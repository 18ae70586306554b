"""Sends spans to a collector, in a thread of its own. Imports OpenTelemetry: only where traces are on.

No request waits for it: what the queue does not hold, or the collector does not take, is dropped and counted.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from portal.tracing.counts import counts

_PATH: Final = "/v1/traces"
_REDIRECTS: Final = 0  # a collector is where the setting says


class CountingExporter(SpanExporter):
    """Counts what becomes of the spans that it passes on."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            counts.add(dropped=len(spans))
            raise  # the processor logs it, and goes on
        if result is SpanExportResult.SUCCESS:
            counts.add(exported=len(spans))
        else:
            counts.add(dropped=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class CountingQueue(deque[ReadableSpan]):
    """A queue that drops its oldest span when it is full, and counts exactly those that it drops.

    One thread adds while another takes: whether it is full is asked and acted upon under one lock.
    """

    def __init__(self, most: int) -> None:
        super().__init__(maxlen=most)
        self._lock = threading.Lock()
        renew = weakref.WeakMethod(self._renew_lock)
        os.register_at_fork(after_in_child=lambda: (found := renew()) and found())

    def _renew_lock(self) -> None:
        """In a new process: a thread may have held the lock that is not there any more."""
        self._lock = threading.Lock()

    def appendleft(self, span: ReadableSpan, /) -> None:
        with self._lock:
            full = len(self) == self.maxlen
            super().appendleft(span)
        if full:
            counts.add(dropped=1)

    def pop(self) -> ReadableSpan:  # type: ignore[override]  # the last one is all that is asked for
        with self._lock:
            return super().pop()


class CountingProcessor(BatchSpanProcessor):
    """Counts the spans for which its queue has no room: it drops the oldest."""

    def __init__(self, exporter: SpanExporter, **options: Any) -> None:
        super().__init__(exporter, **options)
        made = self._batch_processor  # has nothing in its queue yet
        made._queue = CountingQueue(made._max_queue_size)


def provider(endpoint: str, version: str) -> TracerProvider:
    """What makes spans and sends them to a collector. All else is as the variables OTEL_… say."""
    session = requests.Session()
    session.trust_env, session.max_redirects = False, _REDIRECTS
    exporter = CountingExporter(OTLPSpanExporter(endpoint.rstrip("/") + _PATH, session=session))
    made = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
    made.add_span_processor(CountingProcessor(exporter))
    return made


def _resource(version: str) -> Resource:
    """As the variables OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and what they leave out."""
    given = Resource.create()
    found = {"service.version": version}
    if str(given.attributes.get("service.name", "")).startswith("unknown_service"):
        found["service.name"] = "airelays-portal"
    return given.merge(Resource(found))
