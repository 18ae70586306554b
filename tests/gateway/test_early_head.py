"""The head of a stream that is sent before its answer, for proxies that cut silent connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server, serving
from tests.support.streams import raw_stream, read_until, request_id
from tests.support.upstream import Call, hello

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def early(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"AIRELAYS_STREAM_HEAD_SECONDS": "0.1", "AIRELAYS_KEEPALIVE_SECONDS": "1"}
    with serving(tmp_path_factory.mktemp("early") / "log", env=settings) as running:
        yield running


def test_the_status_and_comments_come_before_the_answer(early: Server, live: Portal) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await go.wait()
        await hello(call)

    model, token = live.model(script), live.token()
    with raw_stream(early, token, ask(model, stream=True)) as connection:
        head = read_until(connection, b": keep-alive")
        assert head.startswith(b"HTTP/1.1 200") and b"content-type: text/event-stream" in head
        assert b"data:" not in head
        read_until(connection, b": keep-alive")
        live.upstream.set(go)
        rest = read_until(connection, b"[DONE]")
        assert rest.count(b"HTTP/1.1") == 0 and b"Hello" in rest
    assert live.record(request_id(head)).end_reason == "completed"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/completions"])
@pytest.mark.parametrize("serves", [True, False])
def test_other_channels_are_still_tried_and_a_failure_is_an_event(
    early: Server, live: Portal, path: str, serves: bool
) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        if call.headers["authorization"].endswith("slow"):
            await go.wait()
        if call.headers["authorization"].endswith("slow") or not serves:
            await call.error(500, "died")
        elif path == "/v1/completions":
            await call.reply(200, {"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]})
        else:
            await hello(call)

    channels = [
        live.channel(keys=("sk-bad-0123456789-slow",), priority=9, text_api="chat"),
        live.channel(keys=("sk-sib-0123456789-next",), priority=1, text_api="chat"),
    ]
    model, token = live.model(script, channels=channels), live.token()
    prompt = {"/v1/responses": {"input": "x"}, "/v1/completions": {"prompt": "x"}}.get(path, {})
    with raw_stream(early, token, {**ask(model, stream=True), **prompt}, path) as connection:
        head = read_until(connection, b": keep-alive")
        live.upstream.set(go)
        rest = read_until(connection, b"\r\n0\r\n\r\n")
    record = live.record(request_id(head))
    assert record.status == 200 and len(record.attempt_log) == 2
    if serves:
        assert b"Hello" in rest and record.end_reason == "completed"
    else:
        found = json.loads(rest.rsplit(b"data: ", 1)[1].split(b"\n")[0])
        assert (found.get("error") or found)["code"] == "upstream_error" and b"[DONE]" not in rest
        assert record.end_reason == "upstream_error" and record.cost == 0


def test_what_is_known_before_the_upstream_is_asked_keeps_its_status(early: Server, live: Portal) -> None:
    assert early.post(live.token(), ask("no-such-model", stream=True)).status_code == 404
    assert early.post(live.token(), ask(live.model(), stream=True)).text.endswith("data: [DONE]\n\n")
