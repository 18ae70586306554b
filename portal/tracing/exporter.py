"""Sends spans to a collector, in a thread of its own. Imports OpenTelemetry: only where traces are on.

No request waits for it: what the queue does not hold, or the collector does not take, is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            counts.exported += len(spans)
        else:
            counts.dropped += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class CountingProcessor(BatchSpanProcessor):
    """Counts the spans for which its queue has no room: it drops the oldest."""

    def on_end(self, span: ReadableSpan) -> None:
        queue = self._batch_processor._queue
        if queue.maxlen is not None and len(queue) >= queue.maxlen:
            counts.dropped += 1
        super().on_end(span)


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
