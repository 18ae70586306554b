"""The spans of one request. Imports OpenTelemetry: only where traces are on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from portal.tracing.attributes import of_record
from relay.billing.ledger.pending import UsageRow
from relay.errors import RelayError
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate
from relay.providers.vendors import VENDORS

_MOST: Final = {b"traceparent": 256, b"tracestate": 512}  # bytes of what a client sends; the specification asks for 512
_propagator: Final = TraceContextTextMapPropagator()


class RequestTrace:
    """The span of a request, and that of the attempt which is being made."""

    def __init__(
        self, tracer: Tracer, headers: Mapping[bytes, bytes], method: str, path: str, tells_upstreams: bool
    ) -> None:
        """`path`: without what may be a secret. `tells_upstreams`: whether upstreams are told the trace's id."""
        self.status = 0
        self._tracer, self._tells = tracer, tells_upstreams
        sent = {
            name.decode(): headers[name].decode("latin-1")
            for name, most in _MOST.items()
            if name in headers and len(headers[name]) <= most
        }
        self._span = tracer.start_span(
            f"{method} {path}",
            _propagator.extract(sent),
            SpanKind.SERVER,
            {"http.request.method": method, "url.path": path},
        )
        self.trace_id = f"{self._span.get_span_context().trace_id:032x}"
        self._attempt: Span | None = None
        self._attempts = 0

    @property
    def headers(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if self._tells and self._attempt is not None:
            _propagator.inject(found, set_span_in_context(self._attempt))
        return found

    def begin_attempt(self, candidate: Candidate) -> None:
        self._end_attempt()
        self._attempts += 1
        channel, model = candidate.route.channel, candidate.route.upstream_name
        vendor = VENDORS.get(channel.provider)
        provider = (vendor.telemetry_name or vendor.key) if vendor is not None else channel.provider
        self._attempt = self._tracer.start_span(
            f"attempt {model}",
            set_span_in_context(self._span),
            SpanKind.CLIENT,
            {
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                "airelays.channel": channel.name,
                "airelays.attempt": self._attempts,
            },
        )

    def fail_attempt(self, kind: str, status: int) -> None:
        if self._attempt is not None:
            self._attempt.set_attribute("error.type", kind)
            if status:
                self._attempt.set_attribute("http.response.status_code", status)
            self._attempt.set_status(Status(StatusCode.ERROR, kind))
            self._end_attempt()

    def record(self, row: UsageRow) -> None:
        name, found = of_record(row)
        self._span.update_name(name)
        self._span.set_attributes(found)
        if self._attempt is not None:
            self._attempt.update_name(name.partition(" ")[0] + " " + str(found.get("gen_ai.response.model", "")))
            self._attempt.set_attribute("gen_ai.operation.name", found["gen_ai.operation.name"])

    def end(self, request_id: str, caller: Caller | None, refusal: RelayError | None) -> None:
        self._end_attempt()
        self._span.set_attribute("airelays.request_id", request_id)
        if caller is not None:
            self._span.set_attributes({"airelays.user_id": caller.user_id, "airelays.token_id": caller.token_id})
        if self.status:
            self._span.set_attribute("http.response.status_code", self.status)
        if refusal is not None:
            self._span.set_attribute("error.type", refusal.public_code or str(refusal.http_status))
        if self.status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _end_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.end()
            self._attempt = None
