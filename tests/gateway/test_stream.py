"""What happens to a stream that does not go well, and to one that does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, cast

import pytest

from relay.errors import RelayUnavailable, UpstreamFailed
from relay.gateway.exchange.interrupts import Ended, Interrupt
from relay.gateway.stream import Pump
from relay.gateway.upstream import UpstreamAnswer
from relay.gateway.watchdog import Watchdog
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.codec import BrokenOff
from relay.protocols.responses.stream import ResponsesStream
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass as C
from tests.gateway.attempts import Run, attempt, new_exchange
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.streams import raw_stream, read_until, request_id
from tests.support.upstream import USAGE, Call, chunk, hello, two_words

pytestmark = pytest.mark.shared


def last_event(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(text.strip().rsplit("data: ", 1)[1])
    return found


@pytest.mark.parametrize("how", ["cut", "clean-end", "half-event"])
def test_truncated_stream_ends_with_an_error_and_without_done(server: Server, live: Portal, how: str) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        if how == "half-event":
            await call.send(b'data: {"choices":[{"delta":{"content":"lost')
        if how == "clean-end" or how == "half-event":
            await call.end()
        else:
            call.cut()

    response = server.post(live.token(), ask(live.model(script), stream=True))
    assert "Hello" in response.text and " there" in response.text
    assert "[DONE]" not in response.text
    error = last_event(response.text)["error"]
    assert (
        error["code"] == "upstream_truncated"
        and error["type"] == "server_error"
        and "try again" in error["message"].lower()
    )
    record = live.record(response)
    assert (record.end_reason, record.usage_source) == ("truncated", "estimated")
    assert record.output_tokens > 0 and record.input_tokens > 0 and record.error_message


def test_error_event_in_mid_stream_is_passed_on_clean(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        await call.event(
            {"error": {"message": "Node at https://gpu7.vendor.example.com died", "type": "engine_error", "code": 5}}
        )
        await call.event("[DONE]")
        await call.end()

    response = server.post(live.token(), ask(live.model(script), stream=True))
    error = last_event(response.text)["error"]
    assert error == {"message": "Node at [link removed] died", "type": "engine_error", "param": None, "code": "5"}
    assert "[DONE]" not in response.text
    assert live.record(response).end_reason == "upstream_error"


def test_error_as_first_event_is_a_real_status_and_fails_over(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        if call.headers["authorization"].endswith("good"):
            await hello(call)
            return
        await call.open_stream()
        await call.event({"error": {"message": "overloaded", "type": "overloaded_error"}})
        await call.end()

    bad = live.channel(keys=("sk-bad-0123456789-bad0",), priority=9)
    good = live.channel(keys=("sk-sib-0123456789-good",), priority=1)
    response = server.post(live.token(), ask(live.model(script, channels=[bad]), stream=True))
    assert response.status_code == 503
    response = server.post(live.token(), ask(live.model(script, channels=[bad, good]), stream=True))
    assert (
        response.status_code == 200
        and response.headers["x-relay-attempts"] == "2"
        and response.text.endswith("data: [DONE]\n\n")
    )


@pytest.mark.parametrize("sends_done", [True, False])
def test_a_whole_stream_without_its_marker_gets_one_added(server: Server, live: Portal, sends_done: bool) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        await call.event({**chunk(None, "stop"), "usage": USAGE})
        await call.end()

    response = server.post(live.token(), ask(live.model(script, sends_done=sends_done), stream=True))
    assert response.text.endswith("data: [DONE]\n\n")
    record = live.record(response)
    assert record.end_reason == "completed" and record.output_tokens == 7, "usage beside choices counts"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("cut", ["framing", "event", "finish"])
def test_a_cut_stream_is_never_whole(server: Server, live: Portal, path: str, framing: str, cut: str) -> None:
    """Even when every choice has its finish_reason: usage may be missing."""

    async def script(call: Call) -> None:
        data = line(chunk("Hello")) + (b"" if cut == "finish" else line(chunk(None, "stop")))
        data += b'data: {"choices":[],"usage":{"prompt_tok' if cut == "event" else b""
        length = f"content-length: {len(data) + 9 * (cut == 'framing')}" if framing == "length" else ""
        head = length or "transfer-encoding: chunked"
        await call.raw(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{head}\r\n\r\n".encode())
        await (call.raw(data) if length else call.send(data))
        if not length and cut != "framing":
            await call.end()
        call.writer.close()

    body = ask(live.model(script, text_api="chat"), stream=True, input="Say hello.")
    response = server.post(live.token(), body, path=path)
    assert "Hello" in response.text and "[DONE]" not in response.text and "response.completed" not in response.text
    assert "upstream_truncated" in response.text and live.record(response).end_reason == "truncated"


@pytest.mark.parametrize("sends_done", [True, False])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_end_of_a_connection_is_no_proof_of_a_whole_stream(
    server: Server, live: Portal, version: str, sends_done: bool
) -> None:
    async def script(call: Call) -> None:
        await call.raw(
            f"HTTP/{version} 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".encode()
        )
        await call.raw(line(chunk("Hello")) + line(chunk(None, "stop")))
        call.writer.close()

    response = server.post(live.token(), ask(live.model(script, sends_done=sends_done), stream=True))
    assert response.text.endswith("data: [DONE]\n\n") is not sends_done
    assert ("upstream_truncated" in response.text) is sends_done


ROLE = {**chunk(), "choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}}]}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("then", ["error", "end", "cut"])
def test_an_upstream_that_fails_after_the_role_has_said_nothing_yet(
    server: Server, live: Portal, path: str, then: str
) -> None:
    async def script(call: Call) -> None:
        if call.headers["authorization"].endswith("good"):
            await hello(call)
            return
        await call.open_stream()
        await call.event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})  # Azure
        await call.event(ROLE)
        if then == "error":
            await call.event({"error": {"message": "overloaded", "type": "overloaded_error"}})
        if then == "cut":
            call.cut()
        else:
            await call.end()

    channels = [
        live.channel(keys=("sk-bad-0123456789-bad0",), priority=9, text_api="chat"),
        live.channel(keys=("sk-sib-0123456789-good",), priority=1, text_api="chat"),
    ]
    body = ask(live.model(script, channels=channels), stream=True, input="Say hello.")
    response = server.post(live.token(), body, path=path)
    assert response.status_code == 200 and response.headers["x-relay-attempts"] == "2"
    assert "Hello" in response.text and "error" not in response.text.replace('"error":null', "")


def test_the_role_is_not_held_longer_than_a_client_may_go_without_a_sign_of_life(server: Server, live: Portal) -> None:
    more = asyncio.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(ROLE)
        await more.wait()
        await call.event(chunk("Hello", "stop"))
        await call.event("[DONE]")
        await call.end()

    model, token = live.model(script), live.token()
    with raw_stream(server, token, ask(model, stream=True)) as connection:
        seen = read_until(connection, b"assistant")  # after KEEPALIVE_SECONDS
        assert b"Hello" not in seen
        live.upstream.set(more)
        read_until(connection, b"[DONE]")


def test_an_answer_of_no_words_is_one(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(ROLE)
        if call.json.get("n") == 1:
            await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    model, token = live.model(script), live.token()
    for body in (ask(model, stream=True, n=1), ask(model, stream=True)):
        response = server.post(token, body)
        assert response.status_code == 200 and response.text.endswith("data: [DONE]\n\n")


def test_the_end_marker_does_not_wait_for_the_end_of_the_upstreams_body(server: Server, live: Portal) -> None:
    over = asyncio.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello", "stop"))
        await call.event("[DONE]")
        await over.wait()
        await call.end()

    model, token = live.model(script), live.token()
    server.post(token, ask(live.model()))  # everything that the first request sets up
    began = time.monotonic()
    with raw_stream(server, token, ask(model, stream=True)) as connection:
        read_until(connection, b"[DONE]")
        took = time.monotonic() - began
    live.upstream.set(over)
    assert took < 0.5, "the time that the body gets to end"


def test_upstream_without_done_that_stops_before_every_choice_is_finished_is_truncated(
    server: Server, live: Portal
) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        await call.event(chunk(None, "stop"))
        await call.end()

    response = server.post(live.token(), ask(live.model(script, sends_done=False), stream=True, n=2))
    assert last_event(response.text)["error"]["code"] == "upstream_truncated"


@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
def test_bytes_pass_through_whatever_the_framing(server: Server, live: Portal, eol: bytes) -> None:
    lines = [
        b": a comment",
        b"",
        (b'data:{"choices":[{"index":0,"delta":{"content":"no space \xe4\xbd\xa0\xe5\xa5\xbd"}}]}'),
        b"",
        b"id: 7",
        b'data: {"choices":[{"index":0,"delta":{"content":"\xf0\x9f\x98\x80"}}],',
        b'data: "usage":null}',
        b"",
        b"data: [DONE]",
        b"",
        b"",
    ]
    body = eol.join(lines)

    async def script(call: Call) -> None:
        await call.open_stream()
        for position in range(0, len(body), 3):
            await call.send(body[position : position + 3])
            if position % 30 == 0:
                await asyncio.sleep(0)
        await call.end()

    response = server.post(live.token(), ask(live.model(script), stream=True))
    assert response.content == body


def test_event_of_five_megabytes_passes_and_its_usage_is_read(server: Server, live: Portal) -> None:
    big = (
        b'data: {"choices":[{"index":0,"delta":{"content":"'
        + b"x" * 5_000_000
        + b'"}}],"usage":{"prompt_tokens":11,"completion_tokens":1250022}}\n\n'
    )

    async def script(call: Call) -> None:
        await call.open_stream()
        for position in range(0, len(big), 100_000):
            await call.send(big[position : position + 100_000])
        await call.event("[DONE]")
        await call.end()

    response = server.post(live.token(), ask(live.model(script), stream=True))
    assert response.content == big + b"data: [DONE]\n\n"
    assert live.record(response).output_tokens == 1_250_022


def test_event_that_breaks_off_in_its_middle_is_closed_before_the_error(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        await call.send(b'data: {"choices":[{"delta":{"content":"' + b"x" * 200_000)
        await asyncio.sleep(1.6)  # longer than the keep-alive: no comment may tear the event apart
        call.cut()

    response = server.post(live.token(), ask(live.model(script), stream=True))
    assert last_event(response.text)["error"]["code"] == "upstream_truncated"
    torn = response.text.split('"content":"x', 1)[1]
    assert torn.lstrip("x").startswith("\n\ndata: {"), torn[-300:]


def test_silence_is_bridged_with_comments(server: Server, live: Portal) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await two_words(call)
        await go.wait()
        await call.event("[DONE]")
        await call.end()

    began = time.monotonic()
    with raw_stream(server, live.token(), ask(live.model(script), stream=True)) as connection:
        seen = read_until(connection, b": keep-alive\n\n") + read_until(connection, b": keep-alive\n\n")
        live.upstream.set(go)
        seen += read_until(connection, b"data: [DONE]\n\n")
    assert 2 <= seen.count(b": keep-alive\n\n") <= 1 + time.monotonic() - began, "one a second"
    assert b"event:" not in seen


def test_idle_timeout_in_mid_stream(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await two_words(call)
        await asyncio.sleep(60)

    model = live.model(script, idle_timeout=1)
    response = server.post(live.token(), ask(model, stream=True))
    error = last_event(response.text)["error"]
    assert error["code"] == "upstream_timeout" and "idle timeout" in error["message"]
    live.upstream.wait_closed(model)
    assert live.record(response).end_reason == "timeout"


def test_usage_is_on_disk_before_the_end_marker_goes_out(server: Server, live: Portal) -> None:
    from relay.models import UsageRecord

    model, token = live.model(), live.token()
    for _ in range(20):
        with raw_stream(server, token, ask(model, stream=True)) as connection:
            seen = read_until(connection, b"[DONE]")
            assert UsageRecord.objects.filter(request_id=request_id(seen)).count() == 1


def test_connection_to_the_upstream_is_used_again(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    known = {call.writer.get_extra_info("peername") for call in live.upstream.calls}  # kept from tests before
    for _ in range(10):
        server.post(token, ask(model, stream=True))
    peers = {
        call.writer.get_extra_info("peername")
        for call in live.upstream.calls
        if call.body and call.json.get("model") == model
    }
    assert len(peers - known) <= 3


def test_unasked_comments_before_the_first_event_do_not_commit_the_status(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.send(b": queued\n\n")
        await call.event({"error": {"message": "no capacity", "code": "overloaded"}})
        await call.end()

    assert server.post(live.token(), ask(live.model(script), stream=True)).status_code == 502


async def test_a_keep_alive_that_is_late_tears_no_event_apart() -> None:
    """The comment of one silence is still waiting for the client when a piece of a large event follows: no second one
    may come after it.
    """
    from relay.gateway.exchange.exchange import Exchange

    room = asyncio.Event()

    async def send(message: Any) -> None:
        if message["body"].startswith(b":"):
            await room.wait()

    exchange = Exchange({"headers": []}, None, send, "127.0.0.1")  # type: ignore[arg-type]
    await exchange.write(b"data: {}\n\n")
    assert exchange.quiet_since > 0
    late = asyncio.ensure_future(exchange.keep_alive())
    await asyncio.sleep(0)
    await exchange.write(b"data: {half of an event", mid_event=True)
    room.set()
    await late
    assert exchange.quiet_since == 0.0, "comments wait for the end of the event"


# -- without a network -------------------------------------------------------------------------------------------------


class Answer:
    """In the place of an upstream's answer: pieces, and what is raised when they are read."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self.pieces = list(pieces)
        self.closed = False
        self.framed = True

    async def read(self) -> bytes:
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def at_end(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def line(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def pumped(run: Run, codec: Any, *pieces: bytes | BaseException) -> tuple[bytes, Any]:
    """What the client gets, and the try that it was."""
    sent: list[bytes] = []
    one, answer = attempt(run, new_exchange(sent)), Answer(*pieces)
    one.answered()
    try:
        await Pump(one, cast(UpstreamAnswer, answer), codec, None).run()
    finally:
        assert answer.closed
    return b"".join(sent), one


@pytest.mark.parametrize(
    ("last", "broke", "reason"),
    [
        (Failure(C.UNANSWERED, UpstreamFailed("broken"), 0, "reset"), True, "truncated"),
        (b"", True, "truncated"),
        (line({"error": {"message": "died"}}), True, "upstream_error"),
        (Ended(Interrupt.IDLE), True, "timeout"),
        (Ended(Interrupt.TOTAL), False, "timeout"),
        (Ended(Interrupt.REVOKED), False, "ended"),
        (Ended(Interrupt.KILLED), False, "ended"),
        (Ended(Interrupt.SPENT), False, "ended"),
        (Ended(Interrupt.STOPPING), False, "shutdown"),
        (RelayUnavailable("the database is away"), False, "internal_error"),
        (b"data: [DONE]\n\n", False, "completed"),
    ],
)
async def test_a_stream_that_ends_early_is_held_against_its_channel_only_if_the_upstream_broke_it(
    last: Any, broke: bool, reason: str
) -> None:
    run = Run()
    said, _ = await pumped(run, ChatStream(), line(chunk("Hello")), last)
    assert b"Hello" in said and run.reservations.row["end_reason"] == reason
    assert bool(run.health.live.breaker.circuits) is broke
    (tried,) = json.loads(run.reservations.row["attempt_log"])
    assert tried["outcome"] == "ok" and ("detail" in tried) is (reason != "completed"), "staff can read why"


DELTA = {
    "type": "response.output_text.delta",
    "sequence_number": 1,
    "output_index": 0,
    "content_index": 0,
    "delta": "Hi",
}
FAILED = {
    "type": "response.failed",
    "sequence_number": 2,
    "response": {
        "id": "r",
        "status": "failed",
        "output": [],
        "error": {"code": "server_error", "message": "It is tired."},
    },
}


async def test_an_end_that_says_itself_that_it_failed_goes_out_and_is_recorded_as_a_failure() -> None:
    run = Run()
    said, _ = await pumped(run, ResponsesStream(lambda response: response), line(DELTA), line(FAILED))
    assert said.count(b"event: response.failed") == 1 and b"event: error" not in said
    assert (run.reservations.row["end_reason"], run.reservations.row["error_message"]) == (
        "upstream_error",
        "It is tired.",
    )


@pytest.mark.parametrize("error", [{"code": "server_error", "message": "At http://10.1.2.3:8000."}, "At 10.1.2.3"])
async def test_the_error_of_a_response_that_failed_is_cleaned(error: object) -> None:
    """Also in what is stored of the response. It keeps its form."""
    codec = ResponsesStream(lambda response: response)
    last = {**FAILED, "response": {"id": "r", "status": "failed", "output": [], "error": error}}
    said, _ = await pumped(Run(), codec, line(DELTA), line(last))
    assert b"10.1.2.3" not in said and codec.final is not None
    told = codec.final["error"]
    assert told == (
        {"code": "server_error", "message": "At [link removed]"} if isinstance(error, dict) else "At [address]"
    )
    assert b'"message":"At [link removed]"' in said or b'"error":"At [address]"' in said


async def test_a_failed_response_that_cannot_be_read_ends_in_an_error_of_ours() -> None:
    last = b'data: {"type":"response.failed","response":{"id":"r","n":1e999,"error":{"message":"At 10.1.2.3"}}}\n\n'
    said, _ = await pumped(Run(), ResponsesStream(lambda response: response), line(DELTA), last)
    assert b"10.1.2.3" not in said and b"event: error" in said


@pytest.mark.parametrize(
    "last", [FAILED, {**FAILED, "type": "response.completed", "response": {"id": "r", "output": []}}]
)
async def test_an_answer_that_could_not_be_recorded_ends_with_that_and_not_with_its_own_end(
    last: dict[str, object],
) -> None:
    run = Run()
    run.reservations.down = RelayUnavailable("The portal could not record this request.")
    said, _ = await pumped(run, ResponsesStream(lambda response: response), line(DELTA), line(last))
    assert b"event: error" in said and b"relay_unavailable" in said and b"Hi" in said
    assert b"response.failed" not in said and b"response.completed" not in said


@pytest.mark.parametrize(("stopping", "reason"), [(False, "client_gone"), (True, "shutdown")])
async def test_what_was_reported_before_the_client_left_is_what_it_used(stopping: bool, reason: str) -> None:
    run = Run()
    run.stopping = stopping

    class Leaving(Answer):
        async def read(self) -> bytes:
            piece = await super().read()
            if not piece:
                one.exchange.interrupted = Interrupt.CLIENT_GONE
                raise asyncio.CancelledError
            return piece

    one = attempt(run)
    answer = Leaving(line(chunk("Hello")), line({**chunk(), "choices": [], "usage": USAGE}), b"")
    with pytest.raises(asyncio.CancelledError):
        await Pump(one, cast(UpstreamAnswer, answer), ChatStream(), None).run()
    row = run.reservations.row
    assert (row["end_reason"], row["usage_source"], row["output_tokens"]) == (reason, "reported", 7) and answer.closed


@pytest.mark.parametrize("reads_no_more", [False, True])
async def test_an_answer_whose_client_left_is_read_to_its_usage_and_sent_to_nobody(reads_no_more: bool) -> None:
    run, sent = Run(), cast(list[bytes], [])
    one = attempt(run, new_exchange(sent))
    one.exchange.linger, one.record.streamed = 10.0, True
    if reads_no_more:  # it is stuck in a send until the total timeout

        async def stuck(message: Any) -> None:
            sent.append(message["body"])
            one.exchange.task = asyncio.current_task()
            asyncio.get_running_loop().call_soon(one.exchange.interrupt, Interrupt.TOTAL)
            await asyncio.Event().wait()

        one.exchange._send = stuck
    else:
        assert one.exchange.leave() and not one.exchange.interrupted
    answer = Answer(line(chunk("Hello")), line({**chunk(None, "stop"), "usage": USAGE}), b"data: [DONE]\n\n")
    await Pump(one, cast(UpstreamAnswer, answer), ChatStream(), None).run()
    row = run.reservations.row
    assert (row["end_reason"], row["usage_source"], row["output_tokens"]) == ("client_gone", "reported", 7)
    assert len(sent) == reads_no_more and one.exchange.gone_at and not one.exchange.total_at
    *_, unfinished, _ = cast(Any, one.record.charge).finished
    assert not unfinished


async def test_an_answer_whose_client_left_is_not_read_for_ever() -> None:
    watchdog = Watchdog()
    others = [new_exchange() for _ in range(300)]
    for other in others:
        other.task = asyncio.ensure_future(asyncio.sleep(60))
        other.linger = 10.0 if other is not others[0] else 0.0
        watchdog.add(other)
        watchdog.on_leave(other)
        assert other.left is (other.interrupted is None)
    assert not others[0].left and sum(other.left for other in others) == 256, "those beyond are estimated"
    others[1].count_unsent(2**20)
    assert others[1].gone_at > time.monotonic() + 5
    others[1].count_unsent(2**24)
    others[2].gone_at = time.monotonic()
    watchdog._tick()
    interrupted = [other.interrupted for other in others[1:5]]
    assert interrupted == [Interrupt.CLIENT_GONE, Interrupt.CLIENT_GONE, None, None], "too many bytes, too late"
    for other in others:
        assert other.task is not None
        other.task.cancel()
        watchdog.remove(other)


async def test_a_fault_of_the_portal_in_mid_stream_is_said_and_billed_to_nobody() -> None:
    class Broken(ChatStream):
        def feed(self, data: bytes) -> bytes:
            if b"bug" in data:
                raise RuntimeError("a bug")
            return super().feed(data)

    run = Run()
    said, one = await pumped(run, Broken(), line(chunk("Hello")), b"bug")
    assert (
        last_event(said.decode())["error"]["code"] == "internal_error"
        and run.reservations.row["end_reason"] == "internal_error"
    )
    *_, unfinished, at_fault = one.record.charge.finished
    assert unfinished and at_fault and not run.health.live.breaker.circuits


class Keeper:
    """Remembers what is to be stored, and how the stream ended."""

    def __init__(self) -> None:
        self.broken: list[tuple[Any, BrokenOff]] = []
        self.whole = 0

    def rows(self) -> tuple[()]:
        self.whole += 1
        return ()

    def so_far(self) -> dict[str, Any]:
        return {"output": []}

    def rows_of_broken(self, so_far: dict[str, Any], end: BrokenOff) -> tuple[()]:
        self.broken.append((so_far, end))
        return ()


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("client left", "cancelled", ""),
        ("portal stops", "failed", "relay_unavailable"),
        ("upstream broke", "failed", "upstream_truncated"),
        ("upstream failed", "failed", "server_error"),
    ],
)
async def test_a_stream_that_breaks_off_is_stored_with_how_it_ended(how: str, status: str, code: str) -> None:
    run, keeper = Run(), Keeper()
    run.stopping = how == "portal stops"

    class Leaving(Answer):
        async def read(self) -> bytes:
            piece = await super().read()
            if not piece and how in {"client left", "portal stops"}:
                one.exchange.interrupted = Interrupt.CLIENT_GONE
                raise asyncio.CancelledError
            return piece

    one = attempt(run)
    last = line({"type": "error", "code": "server_error", "message": "Boom."}) if how == "upstream failed" else b""
    codec = ResponsesStream(lambda response: response)
    pump = Pump(one, cast(UpstreamAnswer, Leaving(line(DELTA), last)), codec, keeper)
    with contextlib.suppress(asyncio.CancelledError):
        await pump.run()
    ((so_far, end),) = keeper.broken
    assert (end.status, end.code) == (status, code) and bool(end.message) is (status == "failed")
    assert so_far == {"output": []} and not keeper.whole
