"""The usage record of a request."""

from __future__ import annotations

import pytest

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
