"""Counting and compacting input."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import USED, response
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared


def test_input_is_counted_and_compacted_without_an_upstream_for_it(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/chat/completions"
        await call.reply(200, completion("They like tea."))

    model = live.model(script, text_api="chat")
    server.catch_up()
    assert 2 < sdk.responses.input_tokens.count(model=model, input="How many tokens is this?").input_tokens < 30
    assert live.upstream.count(model) == 0
    talk: Any = [
        {"role": "user", "content": "I like tea."},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "Go on."},
    ]
    again: Any = sdk.responses.with_raw_response.compact(model=model, input=talk).http_response.json()["output"]
    assert [item["type"] for item in again] == ["message", "compaction"]
    sdk.responses.create(model=model, input=[*again, {"role": "user", "content": "And now?"}])
    assert "They like tea." in str(live.upstream.last(model).json["messages"])


def test_counting_and_compacting_are_asked_of_upstreams_that_can(sdk: OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("/input_tokens"):
            await call.reply(200, {"object": "response.input_tokens", "input_tokens": 123})
        else:
            assert call.path == "/v1/responses/compact"
            await call.reply(
                200,
                {
                    "id": "resp_c",
                    "object": "response.compaction",
                    "created_at": 1,
                    "output": [{"id": "c", "type": "compaction", "encrypted_content": "z"}],
                    "usage": USED,
                },
            )

    model = live.model(script, price={"input": 1, "output": 1, "per_call": 1})
    server.catch_up()
    counted = sdk.responses.input_tokens.with_raw_response.count(model=model, input="x")
    assert counted.parse().input_tokens == 123 and live.record(counted.headers["x-request-id"]).cost == 0
    made = sdk.responses.with_raw_response.compact(model=model, input="x")
    assert made.parse().output[0].type == "compaction" and live.record(made.headers["x-request-id"]).output_tokens == 7


def test_a_compaction_that_its_upstream_turns_out_to_lack_is_still_one_request_with_one_receipt(
    live: Portal, server: Server
) -> None:
    from relay.models import Token, UsageRecord
    from relay.models.token import digest_of

    async def script(call: Call) -> None:
        if call.path == "/v1/responses/compact":
            await call.reply(
                404, {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": None}}
            )
        else:
            assert call.path == "/v1/responses"
            await call.reply(200, response(31, "They like tea."))

    model, user = live.model(script, price={"input": 1, "output": 1}), live.user(balance=10**12)
    token = live.token(user)
    row = Token.objects.get(digest=digest_of(token))
    row.max_concurrency, row.max_rpm = 1, 1
    row.save()
    answer = server.post(token, {"model": model, "input": "I like tea."}, path="/v1/responses/compact")
    assert answer.status_code == 200 and answer.json()["output"][-1]["type"] == "compaction"
    record = live.record(answer)
    assert (record.endpoint, record.cost, record.end_reason) == ("responses.compact", 16_000, "completed")
    assert UsageRecord.objects.filter(user=user).count() == 1
    assert answer.headers.get_list("x-relay-attempts") == ["2"], "it was asked first, and then told how"
    assert answer.headers.get_list("x-ratelimit-remaining-requests") == ["0"]


def test_a_count_that_its_upstream_turns_out_to_lack_is_made_here_and_recorded_as_answered(
    live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/v1/responses/input_tokens"
        await call.reply(
            404, {"error": {"message": "Not Found", "type": "invalid_request_error", "param": None, "code": None}}
        )

    model = live.model(script, price={"input": 1, "output": 1})
    token = live.token()
    answer = server.post(
        token, {"model": model, "input": "How many tokens is this?"}, path="/v1/responses/input_tokens"
    )
    assert answer.status_code == 200 and 2 < answer.json()["input_tokens"] < 30
    record = live.record(answer)
    assert (record.end_reason, record.status, record.cost) == ("completed", 200, 0)
    again = server.post(token, {"model": model, "input": "How many tokens is this?"}, path="/v1/responses/input_tokens")
    assert again.json() == answer.json() and live.upstream.count(model) == 1, "what it lacks is remembered"
