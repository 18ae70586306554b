"""The usage record of a request."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from relay.errors import (
    InsufficientQuota,
    InvalidRequest,
    NoAvailableChannel,
    RelayError,
    RelayUnavailable,
    RequestEnded,
    Stopping,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
)
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.outcome import COMPLETED, Outcome, end_reason
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.usage import Delivered, Usage
from tests.gateway.attempts import Run, candidate, new_exchange, record
from tests.support.money import books_balance, settled
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("stream", [False, True])
def test_record_holds_tokens_by_class_and_where_they_went(server: Server, live: Portal, stream: bool) -> None:
    user = live.user()
    channel = live.channel()
    model, token = live.model(channels=[channel], upstream_name=f"up-{stream}"), live.token(user)
    response = server.post(token, ask(model, stream=stream), headers={"x-client-request-id": "mine-1"})
    record = live.record(response)
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens, record.reasoning_tokens) == (
        9,
        4,
        7,
        3,
    )
    assert (record.audio_input_tokens, record.audio_output_tokens) == (1, 2)
    assert (record.usage_source, record.end_reason, record.status, record.streamed) == (
        "reported",
        "completed",
        200,
        stream,
    )
    assert (record.model, record.upstream_model, record.endpoint) == (model, f"up-{stream}", "chat.completions")
    assert (record.user_id, record.channel_id, record.client_request_id) == (user.pk, channel.pk, "mine-1")
    assert record.api_key_id == channel.keys.get().pk
    assert record.attempts == 1 and record.attempt_log[0]["outcome"] == "ok"
    assert record.latency_ms >= 0 and record.first_token_ms is not None
    assert record.client_ip == "127.0.0.1"


def test_plain_answer_without_usage_is_estimated_and_marked(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(
            200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": "twelve words " * 6}}]}
        )

    record = live.record(server.post(live.token(), ask(live.model(script))))
    assert record.usage_source == "estimated"
    assert 10 <= record.output_tokens <= 40


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamRefused(400, "bad", "x", None, None), "client_error"),
        (InvalidRequest("bad"), "client_error"),
        (NoAvailableChannel("none"), "no_channel"),
        (UpstreamTimeout("late"), "timeout"),
        (RequestEnded("revoked"), "ended"),
        (InsufficientQuota("spent"), "ended"),
        (Stopping("restart"), "shutdown"),
        (RelayUnavailable("down"), "internal_error"),
        (UpstreamTruncated("cut"), "truncated"),
        (UpstreamFailed("broken"), "upstream_error"),
    ],
)
def test_each_error_ends_a_request_in_its_own_way(error: RelayError, reason: str) -> None:
    assert end_reason(error) == reason


async def test_what_reached_the_client_is_counted_where_no_usage_is_reported() -> None:
    """With everything that is not counted in tokens; of sound and pictures, as many as there were."""
    counted = {"input_tokens": 30, "output_tokens": 3, "images": 2, "milliseconds": 500, "characters": 12}
    media = Usage(images=1, output=6)
    for delivered, expected in (
        (Delivered(99, lambda: 2.5), counted),
        (Delivered(99, float, media=lambda: media), {**counted, "output_tokens": 6, "images": 1}),
    ):
        run, exchange = Run(), new_exchange()
        found = record(run, exchange, prompt_tokens=30, units=Usage(images=2, milliseconds=500, characters=12))
        found.begin_attempt(candidate())
        found.sent = True
        found.submit(Outcome(COMPLETED, 200, delivered=delivered))
        row = run.reservations.row
        assert row["usage_source"] == "estimated" and {name: row[name] for name in expected} == expected
        assert exchange.tokens_used == row["input_tokens"] + row["output_tokens"], "limits count what was used"


async def test_a_new_try_has_sent_nothing_yet_and_estimates_nothing() -> None:
    run = Run()
    found = record(run, prompt_tokens=30)
    found.begin_attempt(candidate())
    found.sent = True
    found.begin_attempt(candidate())
    found.submit(Outcome("client_gone", 499))
    row = run.reservations.row
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("none", 0, 0)


async def test_a_record_is_written_once() -> None:
    run = Run()
    found = record(run)
    found.submit(Outcome(COMPLETED, 200, Usage(1)))
    assert found.submit(Outcome("shutdown", 503)) is None
    assert run.reservations.row["end_reason"] == COMPLETED


# -- usage that cannot be true -----------------------------------------------------------------------------------------

ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_cannot_be_true_is_estimated_and_counts_against_limits(
    server: Server, live: Portal, stream: bool
) -> None:
    """All zero beside a text, as servers send it that do not count (new-api #1630, one-api #1391)."""

    async def script(call: Call) -> None:
        text = "some words " * 200  # 550 tokens
        if not stream:
            await call.reply(200, completion(text, usage=ZERO))
            return
        await call.open_stream()
        await call.event(chunk(text))
        await call.event({**chunk(), "choices": [], "usage": ZERO})
        await call.event("[DONE]")
        await call.end()

    user = live.user(max_tpm=1000, balance=10**12)
    model, token = live.model(script, price={"input": 10, "output": 20}), live.token(user)
    first = server.post(token, ask(model, stream=stream))
    record = live.record(first)
    assert (record.usage_source, record.billing) == ("estimated", "estimate") and 5 <= record.input_tokens <= 30
    assert record.output_tokens == 550 and record.cost == record.input_tokens * 10_000 + 550 * 20_000
    (tried,) = record.attempt_log
    assert json.loads(tried["usage"]) == ZERO, "staff can see what was reported"
    assert record.billing_reason == "usage counted here, since what the upstream reported cannot be true"
    assert [server.post(token, ask(model, stream=stream)).status_code for _ in range(2)] == [200, 429]
    settled(user)
    books_balance()


def test_embeddings_without_a_token_are_estimated(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        await call.reply(200, {"object": "list", "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}})

    body = {"model": live.model(script), "input": "forty characters of text, for ten tokens"}
    record = live.record(server.post(live.token(), body, path="/v1/embeddings"))
    assert record.usage_source == "estimated" and 8 <= record.input_tokens <= 12 and record.output_tokens == 0


async def test_what_is_believed_is_not_kept_twice() -> None:
    for text, doubted in (
        ('{"prompt_tokens": 9, "completion_tokens": 7}', False),
        ('{"prompt_tokens": 9, "completion_tokens": 700000001, "key": "sk-0123456789abc", "x": "\\u0000\x00"}', True),
        ('{"prompt_tokens": 64, "completion_tokens": 135, "total_tokens": 277, "completion_tokens_details": '
         '{"reasoning_tokens": 78}}', True),
    ):  # fmt: skip
        run = Run()
        found = record(run, prompt_tokens=9)
        found.begin_attempt(candidate())
        before: dict[str, object] = {"channel": 1}
        found.attempts = [before]
        usage = parse_chat_usage(text.replace("\x00", "").encode())
        assert usage is not None
        found.submit(Outcome(COMPLETED, 200, replace(usage, report=replace(usage.report, raw=text.encode()))))
        (tried,) = json.loads(run.reservations.row["attempt_log"])
        assert ("usage" in tried) is doubted and before == {"channel": 1}
        assert "sk-" not in str(tried) and "\x00" not in str(tried)


# -- what upstreams say that a request costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("provider", "usage", "upstream_cost"),
    [
        ("openrouter", {"cost": 0.0001}, 100_000),
        ("openrouter", {"cost": 0}, 0),
        ("xai", {"cost_in_usd_ticks": 1_500_000}, 150_000),
        ("openrouter", {"cost": 5}, 230_000),  # not believed: the prices known here make it 0.00023
        ("openai", {"cost": 0.0001}, 230_000),  # anybody may call a member so
        ("relay", {"cost_in_usd_ticks": 1_500_000}, 230_000),
    ],
)
def test_the_upstream_cost_is_what_the_vendor_says_it_is(
    server: Server, live: Portal, provider: str, usage: dict[str, object], upstream_cost: int, stream: bool
) -> None:
    async def script(call: Call) -> None:
        reported = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16, **usage}
        if not stream:
            await call.reply(200, completion(usage=reported))
            return
        await call.open_stream()
        await call.event(chunk("Hello there."))
        await call.event({**chunk(), "choices": [], "usage": reported})
        await call.event("[DONE]")
        await call.end()

    model = live.model(script, provider=provider, price={"input": 10, "output": 20})
    record = live.record(server.post(live.token(), ask(model, stream=stream)))
    assert (record.upstream_cost, record.cost, record.usage_source) == (upstream_cost, 230_000, "reported")


@pytest.mark.parametrize(
    ("withdraws", "told"),
    [([True], "could not record"), ([False, True], "could not record"), ([False] * 3, "has not confirmed")],
)
async def test_an_answer_that_is_not_recorded_in_time_costs_nothing_unless_it_may_be_on_disk(
    monkeypatch: pytest.MonkeyPatch, withdraws: list[bool], told: str
) -> None:
    async def too_long(self: Exchange, future: asyncio.Future[None] | None) -> None:
        raise RelayUnavailable("The portal could not record this request.", retry_after=5)

    monkeypatch.setattr(Exchange, "committed", too_long)
    run, waits = Run(), len(withdraws)
    run.reservations.withdraws = withdraws
    monkeypatch.setattr(run.reservations, "submit", lambda *_: asyncio.get_running_loop().create_future())
    found = record(run)
    found.charge.cost, found.charge.billing = 300, "usage"
    with pytest.raises(RelayUnavailable, match=told) as raised:
        await found.commit(Outcome(COMPLETED, 200, Usage(input=3, output=4)))
    rows = run.reservations.withdrawn
    assert len(rows) == waits and not withdraws
    assert all((row["status"], row["end_reason"], row["cost"]) == (503, "internal_error", 0) for row in rows)
    assert {(row["input_tokens"], row["output_tokens"], row["billing"]) for row in rows} == {(3, 4, "free")}
    assert raised.value.retry is (False if told == "has not confirmed" else None)
    assert found.charge.cost == (300 if told == "has not confirmed" else 0)


@pytest.mark.parametrize("ended_by", [None, Interrupt.REVOKED, Interrupt.CANCELLED])
async def test_what_is_charged_is_stored_although_its_client_left(ended_by: Interrupt | None) -> None:
    run, exchange = Run(), new_exchange()
    exchange.linger, exchange.ended_by = 10.0, ended_by
    assert exchange.leave()
    record(run, exchange).submit(Outcome(COMPLETED, 200, Usage(input=3, output=4)), ("a row",))  # type: ignore[arg-type]
    assert run.reservations.row["end_reason"] == "client_gone" and run.reservations.kept == ("a row",)
