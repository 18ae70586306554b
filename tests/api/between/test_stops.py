"""Stop sequences at upstreams of the Responses API, which knows none: the portal ends the answer itself."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.endpoints.text.responses_upstream import response
from tests.support.agents.model import CACHED, WRITTEN, Said, ScriptedModel
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Script

HOW = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def model_saying(live: Portal, server: Server, said: Said) -> tuple[str, ScriptedModel]:
    script = ScriptedModel(lambda call: said)
    model = live.model(script, text_api="responses")
    server.catch_up()
    return model, script


@HOW
def test_a_message_ends_before_a_stop_sequence(live: Portal, server: Server, streamed: bool) -> None:
    """As Claude Code asks whether its auto mode may run a command."""
    model, script = model_saying(live, server, Said("<block>no</block>, since it only greets."))
    body: Any = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "May it?"}]}
    with anthropic.Anthropic(base_url=server.url, api_key=live.token(), max_retries=0) as client:
        if streamed:
            with client.messages.stream(**body, stop_sequences=["</block>", "!"]) as stream:
                said = stream.get_final_message()
        else:
            said = client.messages.create(**body, stop_sequences=["</block>", "!"])
    assert [block.text for block in said.content if block.type == "text"] == ["<block>no"]
    assert (said.stop_reason, said.stop_sequence) == ("stop_sequence", "</block>")
    assert said.usage.output_tokens == WRITTEN and said.usage.cache_read_input_tokens == CACHED
    assert "stop" not in script.asked[0]


@HOW
def test_calls_behind_a_stop_sequence_are_not_made(live: Portal, server: Server, streamed: bool) -> None:
    model, _ = model_saying(live, server, Said("First this. STOP Then that.", (("weather", {}),)))
    with openai.OpenAI(base_url=server.v1, api_key=live.token(), max_retries=0) as client:
        body: Any = ask(model, stop="STOP", tools=[WEATHER])
        if streamed:
            chunks = [choice for one in client.chat.completions.create(**body, stream=True) for choice in one.choices]
            assert "".join(choice.delta.content or "" for choice in chunks) == "First this. "
            assert not any(choice.delta.tool_calls for choice in chunks)
            assert [choice.finish_reason for choice in chunks if choice.finish_reason] == ["stop"]
        else:
            (choice,) = client.chat.completions.create(**body).choices
            assert (choice.message.content, choice.message.tool_calls) == ("First this. ", None)
            assert choice.finish_reason == "stop"


@HOW
def test_an_answer_without_one_is_whole(live: Portal, server: Server, streamed: bool) -> None:
    """Also its end, with which a sequence might have begun, and calls behind it."""
    model, _ = model_saying(live, server, Said("Halfway ST", (("weather", {}),)))
    body: Any = {
        "model": model,
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}],
    }
    with anthropic.Anthropic(base_url=server.url, api_key=live.token(), max_retries=0) as client:
        if streamed:
            with client.messages.stream(**body, stop_sequences=["STOP"]) as stream:
                said = stream.get_final_message()
        else:
            said = client.messages.create(**body, stop_sequences=["STOP"])
    assert [block.type for block in said.content] == ["text", "tool_use"] and said.stop_reason == "tool_use"
    assert [block.text for block in said.content if block.type == "text"] == ["Halfway ST"]


def test_probabilities_of_what_is_cut_off_would_be_told(live: Portal, server: Server) -> None:
    model, _ = model_saying(live, server, Said("Never asked."))
    answer = server.post(live.token(), ask(model, stop="x", logprobs=True))
    check(answer, 422, "invalid_request_error", "unsupported_parameter", "stop")


async def _drops(call: Call) -> None:
    call.cut()


async def _fails(call: Call) -> None:
    failed = {"status": "failed", "error": {"code": "server_error", "message": "The model broke."}}
    await call.event({"type": "response.failed", "response": response(1, "") | failed})
    await call.end()


async def _errs(call: Call) -> None:
    await call.event({"type": "error", "code": "server_error", "message": "Overloaded."})
    await call.end()


async def _falls_silent(call: Call) -> None:
    await call.closed_event()


async def _ends(call: Call) -> None:
    await call.end()


@pytest.mark.parametrize("breaks", [_drops, _fails, _errs, _falls_silent, _ends])
@pytest.mark.parametrize("client", ["messages", "chat"])
def test_an_answer_is_whole_whose_upstream_breaks_off_behind_the_stop_sequence(
    live: Portal, server: Server, breaks: Script, client: str
) -> None:
    """The client has all that it asked for. It is charged by what it has, unless the upstream has said its usage."""

    async def script(call: Call) -> None:
        await call.open_stream()
        for text in ("One ", "two ST", "OP three ", "four"):
            await call.event({"type": "response.output_text.delta", "item_id": "m", "delta": text})
        await breaks(call)

    model, token = (
        live.model(script, text_api="responses", idle_timeout=1, price={"input": 1, "output": 10}),
        live.token(),
    )
    server.catch_up()
    if client == "messages":
        body: Any = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "Count."}]}
        with (
            anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0) as sdk,
            sdk.messages.stream(**body, stop_sequences=["STOP"]) as stream,
        ):
            said = stream.get_final_message()
            request_id = stream.response.headers["x-request-id"]
        assert [block.text for block in said.content if block.type == "text"] == ["One two "]
        assert (said.stop_reason, said.stop_sequence) == ("stop_sequence", "STOP")
    else:
        answer = server.post(token, ask(model, stop=["STOP"], stream=True))
        assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text
        assert answer.text.count('"finish_reason":"stop"') == 1 and "three" not in answer.text
        request_id = answer.headers["x-request-id"]
    record = live.record(request_id)
    reported = breaks is _fails
    assert (record.end_reason, record.usage_source) == ("completed", "reported" if reported else "estimated")
    assert record.output_tokens == (7 if reported else record.output_tokens) and 1 <= record.output_tokens <= 7
    assert record.cost == record.input_tokens * 1_000 + record.output_tokens * 10_000
    assert record.attempt_log[-1]["detail"]


def test_an_answer_without_its_stop_sequence_that_breaks_off_is_an_error(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event({"type": "response.output_text.delta", "item_id": "m", "delta": "One two ST"})
        await _drops(call)

    answer = server.post(live.token(), ask(live.model(script, text_api="responses"), stop=["STOP"], stream=True))
    assert '"code":"upstream_truncated"' in answer.text and "[DONE]" not in answer.text
    assert live.record(answer).end_reason == "truncated"
