"""The usage record of a request."""

from __future__ import annotations

import pytest

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
from relay.gateway.record import COMPLETED, Outcome, end_reason
from relay.protocols.usage import Usage
from tests.gateway.attempts import Run, candidate, new_exchange, record
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call

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
    """With everything that is not counted in tokens; an estimate of a whole answer stands before the count."""
    counted = {"input_tokens": 30, "output_tokens": 3, "images": 2, "milliseconds": 500, "characters": 12}
    for estimate, expected in (
        (None, counted),
        (Usage(5, output=6, characters=7), {"input_tokens": 5, "output_tokens": 6, "characters": 7}),
    ):
        run, exchange = Run(), new_exchange()
        found = record(run, exchange, prompt_tokens=30, units=Usage(images=2, milliseconds=500, characters=12))
        found.begin_attempt(candidate())
        found.sent, found.estimate = True, estimate
        found.submit(Outcome(COMPLETED, 200, text_units=2.5))
        row = run.reservations.row
        assert row["usage_source"] == "estimated" and {name: row[name] for name in expected} == expected
        assert exchange.tokens_used == row["input_tokens"] + row["output_tokens"], "limits count what was used"


async def test_a_new_try_has_sent_nothing_yet_and_estimates_nothing() -> None:
    run = Run()
    found = record(run, prompt_tokens=30)
    found.begin_attempt(candidate())
    found.sent, found.estimate = True, Usage(5, output=6)
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
