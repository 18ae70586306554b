"""One try at an upstream: refusals, garbage, silence, timeouts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import httpx
import pytest

from relay.gateway import attempt as module
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass as C
from tests.gateway.attempts import Run, attempt, end, new_exchange
from tests.gateway.routing.routes import NOW, failure
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server, free_port
from tests.support.upstream import Call, chunk


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (403, "forbidden"), (402, "x"), (429, "insufficient_quota")]
)
def test_upstream_that_refuses_our_key_is_never_a_401(server: Server, live: Portal, status: int, code: str) -> None:
    async def script(call: Call) -> None:
        await call.error(status, "bad key sk-live-secret-key-1234", code)

    model = live.model(script, keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab"))
    response = server.post(live.token(), ask(model))
    message = check(response, 502, "server_error", "upstream_credentials_exhausted")
    assert response.headers["x-should-retry"] == "false"
    assert "sk-" not in message
    record = live.record(response)
    assert record.attempts == 2 and live.upstream.count(model) == 2, "every key is tried once"
    assert "sk-live" not in json.dumps(record.attempt_log)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_upstreams_own_refusal_keeps_status_type_and_code(
    server: Server, live: Portal, status: int, stream: bool
) -> None:
    async def script(call: Call) -> None:
        await call.error(
            status, "Bad thing at https://secret.vendor.example.com/x for org-abc123456 with sk-1234567890abc.", 1234
        )

    response = server.post(live.token(), ask(live.model(script), stream=stream))
    message = check(response, status, "mock_error", "1234")
    assert (
        "vendor" not in message
        and "org-abc" not in message
        and "sk-1" not in message
        and message.startswith("Bad thing")
    )
    assert live.record(response).end_reason == "client_error"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"detail": "no such field"}', "no such field"),
        (b'{"error": "just text"}', "just text"),
        (b'{"object":"error","message":"flat","type":"BadRequest","code":40001}', "flat"),
        (b'[{"error":{"message":"in a list"}}]', "in a list"),
    ],
)
def test_odd_shapes_of_upstream_errors_are_ironed_out(server: Server, live: Portal, body: bytes, expected: str) -> None:
    async def script(call: Call) -> None:
        await call.reply(422, body)

    response = server.post(live.token(), ask(live.model(script)))
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["message"] == expected and set(error) == {"message", "type", "param", "code"}
    assert error["code"] is None or isinstance(error["code"], str)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["html", "empty", "cut-json", "error-in-200", "500", "redirect", "reset", "gzip"])
def test_garbage_from_upstream_is_a_502(server: Server, live: Portal, kind: str, stream: bool) -> None:
    async def script(call: Call) -> None:
        if kind == "html":
            await call.reply(200, b"<html>bad gateway</html>", {"content-type": "text/html"})
        elif kind == "empty":
            await call.reply(200, b"")
        elif kind == "cut-json":
            await call.reply(200, b'{"choices":[{"message":')
        elif kind == "error-in-200":
            await call.reply(200, {"error": {"message": "overloaded", "code": 500}})
        elif kind == "500":
            await call.error(500)
        elif kind == "redirect":
            await call.reply(302, b"", {"location": "http://127.0.0.1:1/"})
        elif kind == "reset":
            call.cut()
        else:
            await call.reply(200, b"\x1f\x8b\x08", {"content-encoding": "gzip"})

    model = live.model(script)
    response = server.post(live.token(), ask(model, stream=stream))
    check(response, 502, "server_error", "upstream_error")
    # A reset may hit kept connections, which are replaced twice at most.
    assert live.upstream.count(model) <= (3 if kind == "reset" else 1), "one key is tried once"
    assert live.record(response).end_reason == "upstream_error"


def test_unreachable_upstream(server: Server, live: Portal) -> None:
    channel = live.channel(f"http://127.0.0.1:{free_port()}/v1")
    response = server.post(live.token(), ask(live.model(channels=[channel])))
    check(response, 502, "server_error", "upstream_error")
    assert "cannot connect" in live.record(response).attempt_log[0]["detail"]


async def stall(call: Call) -> None:
    import asyncio

    await asyncio.sleep(60)


@pytest.mark.parametrize("stream", [False, True])
def test_first_byte_timeout(server: Server, live: Portal, stream: bool) -> None:
    model = live.model(stall, first_byte_timeout=1)
    response = server.post(live.token(), ask(model, stream=stream))
    assert "first-byte timeout" in check(response, 504, "server_error", "upstream_timeout")
    live.upstream.wait_closed(model)
    assert live.record(response).end_reason == "timeout"


def test_idle_timeout_before_the_first_event(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.send(b": thinking\n\n")
        await stall(call)

    response = server.post(live.token(), ask(live.model(script, idle_timeout=1), stream=True))
    assert "idle timeout" in check(response, 504, "server_error", "upstream_timeout")


def test_total_timeout(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        import asyncio

        await call.open_stream()
        for _ in range(100):
            await call.event(chunk("x"))
            await asyncio.sleep(0.1)

    response = server.post(live.token(), ask(live.model(script, total_timeout=1), stream=True))
    assert response.status_code == 200
    last = json.loads(response.text.strip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "upstream_timeout" and "total timeout" in last["error"]["message"]
    assert "[DONE]" not in response.text


# -- what a try means to others ----------------------------------------------------------------------------------------


async def test_a_channel_counts_a_request_until_its_answer_has_ended() -> None:
    run, exchange = Run(), new_exchange()
    attempt(run, exchange).answered()
    assert run.in_flight == {1: 1}, "the answer still runs"
    end(exchange)
    assert not run.in_flight


async def test_a_failed_try_counts_no_longer_and_is_taken_out_once() -> None:
    run, exchange = Run(), new_exchange()
    first, _other = attempt(run, exchange), attempt(run)
    first.failed(failure(C.TRANSIENT))
    assert run.in_flight == {1: 1}, "the request goes on elsewhere"
    end(exchange)
    assert run.in_flight == {1: 1}, "the other request is still there"


async def test_a_probe_lets_the_next_one_through_when_its_answer_begins() -> None:
    run = Run()
    breaker = run.health.live.breaker
    breaker.failed((1, 10, 7), 1, failure(C.RATE, wait=5.0), NOW, NOW)
    probe = attempt(run, now=NOW + 6)
    waiting = breaker.blocked((1, 10, 7), NOW + 6)
    assert waiting is not None and waiting.half_open
    probe.answered()
    assert breaker.blocked((1, 10, 7), NOW + 6) is None
    breaker.failed((1, 10, 7), 1, failure(C.RATE, wait=5.0), NOW + 7, NOW + 7)
    assert breaker.blocked((1, 10, 7), NOW + 13) is None, "the long answer of the first probe keeps no other away"


async def test_a_probe_that_is_cancelled_lets_the_next_one_through() -> None:
    run, exchange = Run(), new_exchange()
    breaker = run.health.live.breaker
    breaker.failed((1, 10, 7), 1, failure(C.RATE, wait=5.0), NOW, NOW)
    attempt(run, exchange, now=NOW + 6)
    assert breaker.blocked((1, 10, 7), NOW + 6) is not None
    end(exchange)
    assert breaker.blocked((1, 10, 7), NOW + 6) is None


async def test_what_was_dropped_is_told_to_everybody_and_the_portals_own_part_to_those_who_may_know() -> None:
    for telling, names in (
        (False, set()),
        (True, {"x-relay-channel", "x-relay-attempts", "x-relay-overhead-ms", "x-relay-cost-usd"}),
    ):
        run, exchange = Run(), new_exchange()
        run.telling = telling
        one = attempt(run, exchange)
        one.record.dropped = ["seed", "messages[].name", "seed"]
        one.add_headers(cost=True)
        found = {name.decode(): value.decode() for name, value in exchange.reply_headers}
        assert found.pop("x-airelays-ignored-parameters") == "seed,messages[].name" and set(found) == names


def test_an_unknown_model_is_no_missing_api(server: Server, live: Portal) -> None:
    """A 404 that speaks of a model says nothing about what else the upstream serves."""

    async def script(call: Call) -> None:
        await call.error(404, "The model does not exist or you do not have access to it.", None)

    model, token = live.model(script), live.token()
    assert server.post(token, {"model": model, "input": "x"}, path="/v1/responses").status_code == 404
    assert [call.path for call in live.upstream.calls if call.body and call.json.get("model") == model] == [
        "/v1/responses"
    ]


@pytest.mark.parametrize(
    ("code", "message", "proves"),
    [
        ("insufficient_quota", "You exceeded your current quota.", True),
        ("rate_limit_exceeded", "Rate limit reached for m on tokens per min. Please try again in 11.054s.", True),
        ("rate_limit_exceeded", "Rate limit reached for gpt-image-2 in org-x. Please try again in 11.054s.", False),
        ("server_error", "The server had an error.", False),
        ("", "insufficient quota", False),
    ],
)
async def test_an_error_after_the_answer_began_proves_what_it_proves_before(
    code: str, message: str, proves: bool
) -> None:
    """But for what may be about the model of a tool; the rest is an answer that broke off."""
    run = Run()
    one, place = attempt(run), (1, 10, 7)
    said = json.dumps({"error": {"code": code, "message": message}}).encode()
    one.told_failure(said)
    breaker = run.health.live.breaker
    assert bool(breaker.changed) == proves
    if proves and code == "rate_limit_exceeded":
        assert breaker.circuits[place].named and breaker.circuits[place].kind == "rate"
    other = attempt(Run())
    other.broke_off("error event", said)
    kinds = {outcome.failed for c in other.run.health.live.breaker.circuits.values() for outcome in c.recent}
    assert kinds == ({"rate" if code == "rate_limit_exceeded" else "billing"} if proves else {"down"})


async def test_a_limit_of_a_tools_model_is_told_and_cools_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    one = attempt(run)
    monkeypatch.setattr(module, "snapshot_cache", SimpleNamespace(snapshot=SimpleNamespace(rules=())))
    one._sent = b'{"model":"m","tools":[{"type":"image_generation","model":"gpt-image-2"}]}'
    message = "Rate limit reached for gpt-image-2 in organization org-x. Please try again in 11.054s."
    said = json.dumps({"error": {"code": "rate_limit_exceeded", "message": message}}).encode()
    failure = one.error_in_body(said)
    assert (failure.kind.word, failure.error.retry_after) == ("rate", 11.054)
    one.failed(failure)
    assert not run.health.live.breaker.circuits and not run.health.live.suspicions


async def test_an_upstream_that_failed_was_reached_all_the_same() -> None:
    """A line of a batch has a number of tries, and one that no upstream was asked for has used none."""

    async def refuse(request: object) -> None:
        raise httpx.ConnectError("refused")

    run, exchange = Run(), new_exchange()
    run.transport = lambda provider, proxy: SimpleNamespace(handle_async_request=refuse)
    run.config.disconnect_read_seconds = 0.0
    before, tried = exchange.reached, attempt(run, exchange)
    with pytest.raises(Failure) as caught:
        await tried.open("chat.completions", b"{}")
    tried.failed(caught.value)
    assert (before, exchange.reached, exchange.asked) == (False, True, False)
    end(exchange)
