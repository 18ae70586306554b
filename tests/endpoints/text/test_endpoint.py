"""One request over channels that speak its API and over channels that speak another: the same rules hold on both."""

from __future__ import annotations

from typing import Any

import pytest

from tests.endpoints.text.responses_upstream import USED, response
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import USAGE, Call, chunk, completion, two_words

pytestmark = pytest.mark.shared

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
PRICE = {"input": 1, "output": 10}  # nano-USD: 1,000 a token of prompt, 10,000 a token of answer


def text(path: str, model: str, **more: Any) -> dict[str, Any]:
    """A request in the client's API."""
    return ask(model, **more) if path == CHAT else {"model": model, "input": "Say hello.", **more}


def sent(live: Portal, model: str) -> dict[str, Any]:
    return live.upstream.last(model).json


async def whole(call: Call) -> None:
    """A plain answer in the upstream's API."""
    await call.reply(200, completion() if call.path == CHAT else response(1, "Hello there."))


@pytest.mark.parametrize(
    ("path", "text_api", "field"),
    [
        (CHAT, "chat", "max_completion_tokens"),
        (CHAT, "responses", "max_output_tokens"),
        (RESPONSES, "chat", "max_completion_tokens"),
        (RESPONSES, "responses", "max_output_tokens"),
    ],
)
def test_an_answer_is_clamped_to_what_can_be_paid_whichever_api_the_upstream_speaks(
    live: Portal, server: Server, path: str, text_api: str, field: str
) -> None:
    user = live.user(balance=3_000_000)  # about 300 tokens of answer
    model = live.model(whole, price=PRICE, text_api=text_api)
    answer = server.post(live.token(user), text(path, model), path=path)
    assert answer.status_code == 200, answer.text
    assert 250 <= sent(live, model)[field] < 300
    limits = {name for name in sent(live, model) if name.startswith("max_")}
    assert limits == {field}


def test_several_answers_are_paid_for_ahead_one_by_one(live: Portal, server: Server) -> None:
    model = live.model(price=PRICE)
    token = live.token(live.user(balance=10**12))
    one, four = (live.record(server.post(token, ask(model, max_tokens=1000, n=n))).reserved for n in (1, 4))
    assert four - one == 3 * 1000 * 10_000


def test_what_is_kept_for_an_hour_is_held_for_where_it_is_asked_for(live: Portal, server: Server) -> None:
    """Twice the price of input, as Anthropic's is, which most requests cannot come to."""
    price = {**PRICE, "cache_write": "1.25", "cache_write_1h": 2}
    token = live.token(live.user(balance=10**12))
    says = {"type": "ephemeral"}

    def reserved(model: str, **mark: Any) -> int:
        content = [{"type": "text", "text": "Say hello. " * 400, **mark}]
        answer = server.post(token, ask(model, messages=[{"role": "user", "content": content}], max_tokens=100))
        return int(live.record(answer).reserved)

    plain = live.model(price=PRICE)
    model = live.model(price=price)
    prompt = reserved(plain) - 100 * 10_000
    short, hour = (reserved(model, **mark) for mark in ({}, {"cache_control": {**says, "ttl": "1h"}}))
    assert 1.2 * prompt < short - 100 * 10_000 < 1.3 * prompt < 1.9 * prompt < hour - 100 * 10_000
    overridden = live.model(
        price=price, overrides=[{"do": "set", "path": "cache_control", "value": {**says, "ttl": "1h"}}]
    )
    assert reserved(overridden) > 1.9 * prompt


@pytest.mark.parametrize(
    ("path", "text_api"), [(CHAT, "chat"), (CHAT, "responses"), (RESPONSES, "chat"), (RESPONSES, "responses")]
)
def test_usage_is_recorded_as_reported_or_else_estimated(
    live: Portal, server: Server, path: str, text_api: str
) -> None:
    reports = True

    async def script(call: Call) -> None:
        body = completion() if call.path == CHAT else response(1, "Hello there.")
        assert body["usage"] in (USAGE, USED)
        if not reports:
            del body["usage"]
        await call.reply(200, body)

    model, token = live.model(script, text_api=text_api), live.token()
    record = live.record(server.post(token, text(path, model), path=path))
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("reported", 9, 7)
    reports = False
    record = live.record(server.post(token, text(path, model), path=path))
    assert record.usage_source == "estimated" and record.input_tokens > 0 and 2 <= record.output_tokens <= 6


def test_tools_are_part_of_the_prompt(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {**completion(), "usage": None})

    model, token = live.model(script), live.token()
    tool = {"type": "function", "function": {"name": "f", "description": "word " * 400, "parameters": {}}}
    without, with_tools = (
        live.record(server.post(token, ask(model, **more))).input_tokens for more in ({}, {"tools": [tool]})
    )
    assert with_tools - without > 300


def test_a_stream_of_a_channel_with_habits_of_its_own_is_asked_for_and_ended_by_them(
    live: Portal, server: Server
) -> None:
    """It refuses stream_options and sends no end marker; the client speaks another API."""

    async def script(call: Call) -> None:
        await two_words(call)
        await call.event(chunk(None, "stop"))
        await call.end()

    model = live.model(script, text_api="chat", stream_usage=False, sends_done=False)
    answer = server.post(live.token(), text(RESPONSES, model, stream=True), path=RESPONSES)
    assert "stream_options" not in sent(live, model)
    assert "response.completed" in answer.text and "event: error" not in answer.text
    assert live.record(answer).end_reason == "completed"


def test_what_a_rule_of_the_upstreams_api_refuses_is_refused_in_the_clients(live: Portal, server: Server) -> None:
    model = live.model(whole, text_api="chat", parameters={"chat/reasoning_effort": "refuse"})
    token = live.token()
    refusal = server.post(token, text(RESPONSES, model, reasoning={"effort": "high"}), path=RESPONSES)
    check(refusal, 422, "invalid_request_error", "unsupported_parameter", "reasoning.effort")
    assert live.upstream.count(model) == 0
    assert server.post(token, text(RESPONSES, model), path=RESPONSES).status_code == 200


@pytest.mark.parametrize(
    ("path", "text_api", "more", "dropped"),
    [
        (CHAT, "responses", {"seed": 3}, "seed"),
        (RESPONSES, "chat", {"truncation": "auto"}, "truncation"),
        (CHAT, "responses", {"seed": 3, "user": "u"}, "seed,user"),
    ],
)
def test_what_the_conversion_and_the_rules_leave_out_is_said(
    live: Portal, server: Server, path: str, text_api: str, more: dict[str, Any], dropped: str
) -> None:
    model = live.model(whole, text_api=text_api, parameters={"user": "drop"})
    answer = server.post(live.token(), text(path, model, **more), path=path)
    assert answer.status_code == 200 and answer.headers["x-airelays-ignored-parameters"] == dropped


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_an_error_that_comes_with_a_200_is_known_by_its_words(live: Portal, server: Server, path: str) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, {"error": {"message": "The cluster is on fire.", "code": "overloaded"}})

    answer = server.post(live.token(), text(path, live.model(script, text_api="chat")), path=path)
    assert answer.status_code >= 500
    assert "on fire" in live.record(answer).attempt_log[0]["detail"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_the_upstreams_answer_is_closed_when_a_stream_fails_before_its_first_event(
    live: Portal, server: Server, path: str
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event({"error": {"message": "overloaded", "code": "overloaded"}})
        await call.closed_event()

    model = live.model(script, text_api="chat")
    assert server.post(live.token(), text(path, model, stream=True), path=path).status_code >= 500
    assert live.upstream.last(model).closed.wait(1)
