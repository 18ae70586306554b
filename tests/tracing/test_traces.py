"""Traces: spans of requests and attempts at a real collector, and nothing of them where they are off."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from portal.config import Config, load
from portal.tracing import exporter, installed
from portal.tracing.attributes import of_record, operation
from portal.tracing.counts import SpanCounts
from portal.tracing.exporter import CountingExporter, CountingProcessor
from portal.tracing.installed import why_not_traced
from relay.billing.ledger.pending import COLUMNS
from relay.gateway.exchange.trace import tracing
from tests.support.asserts import until
from tests.support.environment import OwnDatabase
from tests.support.portal import Portal, ask
from tests.support.server import ROOT, Server, serving
from tests.support.upstream import Call, completion

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "the secret of my prompt"


class Collector:
    """Takes spans as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.raw = b""
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.status == 200:
                    collector.take(self.path, body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        self.raw += body
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            self.resources.append({one.key: one.value.string_value for one in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def of(self, request_id: str) -> tuple[Any, dict[str, Any], list[Any]]:
        """The span of a request, its attributes, and the spans of its attempts."""
        span = until(
            lambda: next((one for one in self.spans if values(one).get("airelays.request_id") == request_id), None)
        )
        return span, values(span), [one for one in self.spans if one.parent_span_id == span.span_id]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def values(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {
        "AIRELAYS_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "AIRELAYS_FEED_POLL_SECONDS": "0.05",
        "AIRELAYS_ACCESS_LOG": "true", "AIRELAYS_LOG_FORMAT": "json", "HTTP_PROXY": "http://127.0.0.1:9",
    }  # fmt: skip
    with serving(tmp_path_factory.mktemp("traced") / "log", env=env) as running:
        yield running


async def hello(call: Call) -> None:
    await call.reply(200, completion())


async def busy(call: Call) -> None:
    await call.reply(500, {"error": {"message": "oops"}})


def test_a_request_and_its_attempts_are_spans(traced: Server, live: Portal, collector: Collector) -> None:
    seen: list[dict[str, str]] = []

    async def script(call: Call) -> None:
        seen.append({name.lower(): value for name, value in dict(call.headers).items()})
        await (busy if len(seen) == 1 else hello)(call)

    token = live.token()
    model = live.model(script, [live.channel(), live.channel()])
    body = {**ask(model), "messages": [{"role": "user", "content": SECRET}]}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=x"}
    answer = traced.post(token, body, "/v1/chat/completions?key=hidden", headers=headers)
    assert answer.status_code == 200
    span, found, attempts = collector.of(answer.headers["x-request-id"])
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == (f"chat {model}", 2)
    assert found["gen_ai.operation.name"] == "chat" and found["gen_ai.request.model"] == model
    assert found["gen_ai.usage.input_tokens"] > 0 and found["gen_ai.usage.output_tokens"] > 0
    assert found["http.response.status_code"] == 200 and found["airelays.outcome"] == "completed"
    assert found["url.path"] == "/v1/chat/completions" and "error.type" not in found
    first, second = sorted(attempts, key=lambda one: one.start_time_unix_nano)
    assert (first.kind, values(first)["error.type"], values(first)["http.response.status_code"]) == (
        3,
        "transient",
        500,
    )
    assert values(second)["gen_ai.provider.name"] == "openai" and "error.type" not in values(second)
    assert values(first)["airelays.channel"] != values(second)["airelays.channel"]
    assert (
        span.start_time_unix_nano <= first.start_time_unix_nano <= second.end_time_unix_nano <= span.end_time_unix_nano
    )
    assert not any("traceparent" in one or "tracestate" in one for one in seen), "upstreams are told nothing"
    for secret in (SECRET, token, "hidden", "sk-upstream"):
        assert secret.encode() not in collector.raw
    assert collector.resources[0]["service.name"] == "airelays-portal"
    line = until(
        lambda: next((one for one in traced.log.read_text().splitlines() if answer.headers["x-request-id"] in one), "")
    )
    assert json.loads(line)["trace_id"] == TRACE


def test_refusals_and_streams_have_spans(traced: Server, live: Portal, collector: Collector) -> None:
    refused = traced.post("sk-none", ask("x"))
    _, found, attempts = collector.of(refused.headers["x-request-id"])
    assert (found["http.response.status_code"], found["error.type"]) == (401, "invalid_api_key") and attempts == []
    model = live.model(busy)
    failed = traced.post(live.token(), ask(model))
    span, found, attempts = collector.of(failed.headers["x-request-id"])
    assert span.status.code == 2 and found["airelays.outcome"] == "upstream_error" and found["error.type"]
    assert len(attempts) == 1


@pytest.mark.parametrize(
    "traceparent",
    ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "0" * 9000, f"ff-{TRACE}-{PARENT}-01"],
)
def test_an_invalid_parent_is_ignored(traced: Server, live: Portal, collector: Collector, traceparent: str) -> None:
    answer = traced.post("sk-none", ask("x"), headers={"traceparent": traceparent, "tracestate": "a=" + "b" * 5000})
    span, _, _ = collector.of(answer.headers["x-request-id"])
    assert not span.parent_span_id and span.trace_id.hex() != TRACE and not span.trace_state


def test_what_a_client_does_not_sample_is_left_out(traced: Server, live: Portal, collector: Collector) -> None:
    left_out = traced.post("sk-none", ask("x"), headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    after = traced.post("sk-none", ask("x"))
    collector.of(after.headers["x-request-id"])
    assert not any(
        values(one).get("airelays.request_id") == left_out.headers["x-request-id"] for one in collector.spans
    )


def test_a_collector_that_fails_delays_nothing(traced: Server, live: Portal, collector: Collector) -> None:
    collector.status = 400
    try:
        model = live.model(hello)
        assert traced.post(live.token(), ask(model)).status_code == 200
    finally:
        collector.status = 200


def test_upstreams_are_told_where_the_setting_says_so(
    live: Portal, collector: Collector, own_database: OwnDatabase, tmp_path: Path
) -> None:
    seen: list[dict[str, str]] = []

    async def script(call: Call) -> None:
        seen.append({name.lower(): value for name, value in dict(call.headers).items()})
        await hello(call)

    model, token = live.model(script), live.token()
    env = {
        **own_database.env, "AIRELAYS_OTLP_ENDPOINT": collector.url, "AIRELAYS_TRACE_UPSTREAMS": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }  # fmt: skip
    with serving(tmp_path / "log", env=env) as running:
        answer = running.post(
            token, ask(model), headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "v=x"}
        )
        _, _, attempts = collector.of(answer.headers["x-request-id"])
    assert seen[0]["traceparent"] == f"00-{TRACE}-{attempts[0].span_id.hex()}-01" and seen[0]["tracestate"] == "v=x"


def test_nothing_is_imported_where_traces_are_off() -> None:
    code = "import portal.asgi, sys; print([one for one in sys.modules if one.startswith('opentelemetry')])"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


def test_spans_that_find_the_queue_full_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found, go = SpanCounts(), threading.Event()
    monkeypatch.setattr(exporter, "counts", found)

    class Slow(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            go.wait(60)
            return super().export(spans)

    provider, slow = TracerProvider(shutdown_on_exit=False), Slow()
    processor = CountingProcessor(CountingExporter(slow), max_queue_size=2, max_export_batch_size=2)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    for _ in range(10):
        tracer.start_span("x").end()
    assert found.dropped >= 6, "two are being sent, two are in the queue"
    go.set()
    provider.shutdown()
    assert found.exported == len(slow.get_finished_spans()) == 10 - found.dropped


def test_each_span_is_counted_once_while_others_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SpanCounts()
    monkeypatch.setattr(exporter, "counts", found)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads take turns all the time
    try:
        provider, sent = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
        provider.add_span_processor(
            CountingProcessor(CountingExporter(sent), max_queue_size=2, max_export_batch_size=1)
        )
        tracer = provider.get_tracer("test")
        for _ in range(3000):
            tracer.start_span("x").end()
        provider.shutdown()
    finally:
        sys.setswitchinterval(before)
    assert found.exported == len(sent.get_finished_spans()) and found.exported + found.dropped == 3000


def test_spans_that_the_exporter_fails_on_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SpanCounts()
    monkeypatch.setattr(exporter, "counts", found)

    class Broken(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            raise ValueError("not to be encoded")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(CountingProcessor(CountingExporter(Broken())))
    provider.get_tracer("test").start_span("x").end()
    provider.shutdown()
    assert (found.exported, found.dropped) == (0, 1)


async def test_no_client_writes_into_the_log_by_its_tracestate(caplog: pytest.LogCaptureFixture) -> None:
    run: Any = SimpleNamespace(config=load(environ={"AIRELAYS_OTLP_ENDPOINT": "http://127.0.0.1:9"}))
    keeping = asyncio.ensure_future(installed.keep_tracing(run))
    await asyncio.sleep(0)
    begin: Any = tracing.begin
    headers = {b"traceparent": f"00-{TRACE}-{PARENT}-00".encode(), b"tracestate": b"words of a client"}
    begin(headers, "POST", "/v1/chat/completions").end("req_1", None, None)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert tracing.begin is None and not [one for one in caplog.records if one.name.startswith("opentelemetry")]


@pytest.mark.parametrize(
    ("given", "name"), [({}, "airelays-portal"), ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}, "mine")]
)
def test_the_name_of_the_service(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], name: str) -> None:
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    assert exporter._resource("1.2").attributes["service.name"] == name
    assert exporter._resource("1.2").attributes["service.version"] == "1.2"


def test_the_setting_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def config(**values: str) -> Config:
        return load(environ={f"AIRELAYS_{name.upper()}": value for name, value in values.items()})

    on = config(otlp_endpoint="http://127.0.0.1:4318/")
    assert on.otlp_endpoint == "http://127.0.0.1:4318" and why_not_traced(on) == "" and why_not_traced(config()) == ""
    monkeypatch.setattr(installed, "_NEEDED", ("opentelemetry.nothing.there",))
    assert "pip install" in why_not_traced(on) and why_not_traced(config()) == ""


def test_endpoints_have_the_operations_of_the_conventions() -> None:
    assert [operation(one) for one in ("chat.completions", "responses", "messages", "completions", "embeddings")] == [
        "chat", "chat", "chat", "text_completion", "embeddings",
    ]  # fmt: skip
    assert operation("generate_content.embed_batch") == "embeddings" and operation("audio.speech") == "audio.speech"
    row = {"endpoint": "messages", "model": "m", "upstream_model": "", "end_reason": "timeout", "first_token_ms": None,
           "error_code": "", "streamed": True}  # fmt: skip
    name, found = of_record(tuple(row.get(column, 0) for column in COLUMNS))
    assert name == "chat m" and found["error.type"] == "timeout" and found["gen_ai.request.stream"] is True
    assert "gen_ai.response.time_to_first_chunk" not in found
