"""What people do with Anthropic's SDK, at upstreams of every API that the portal knows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.api.sdks.upstreams import EVERY_KIND, HELLO, PARIS, ROME, Said, talk
from tests.support.portal import Portal
from tests.support.server import Server

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
PDF = base64.b64encode(b"%PDF-1.7\n").decode()
ASKED: list[Any] = [{"role": "user", "content": "Say hello."}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA}
EVERYWHERE = pytest.mark.parametrize("up", EVERY_KIND)
HOW = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
ANSWER = Said("It is sunny in Paris and it rains in Rome.")


class City(BaseModel):
    city: str


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


@pytest.fixture
def client(server: Server, token: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=300) as made:
        yield made


def said(client: anthropic.Anthropic, streamed: bool, **body: Any) -> anthropic.types.Message:
    body = {"max_tokens": 3000, **body}
    if not streamed:
        whole: anthropic.types.Message = client.messages.create(**body)
        return whole
    with client.messages.stream(**body) as stream:
        return stream.get_final_message()


@EVERYWHERE
@HOW
def test_a_loop_of_two_tools_at_once(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str, streamed: bool
) -> None:
    model = talk(live, server, up, Said("Let me see.", calls=(PARIS, ROME)), ANSWER)
    turns: list[Any] = [{"role": "user", "content": "Where does it rain?"}]
    first = said(client, streamed, model=model.model, messages=turns, tools=[WEATHER], system="Be brief.")
    assert first.stop_reason == "tool_use"
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Rome"}]
    assert len({call.id for call in calls}) == 2 and {call.name for call in calls} == {"weather"}
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": [{"type": "text", "text": "20 degrees"}]},
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": "no such station", "is_error": True},
    ]
    turns += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    last = said(client, streamed, model=model.model, messages=turns, tools=[WEATHER], system="Be brief.")
    assert last.stop_reason == "end_turn" and last.content[0].to_dict()["text"] == ANSWER.text
    assert all(text in model.seen for text in ("Be brief.", "20 degrees", "no such station", "Where does it rain?"))


@EVERYWHERE
@HOW
def test_the_runner_of_tools(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str, streamed: bool
) -> None:
    asked: list[str] = []

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: its name
        """
        asked.append(city)
        return f"sunny in {city}"

    model = talk(live, server, up, Said(calls=(PARIS,)), Said(calls=(ROME,)), ANSWER)
    runner: Any = client.beta.messages.tool_runner(
        model=model.model, max_tokens=500, messages=ASKED, tools=[weather], stream=streamed
    )
    messages = [stream.get_final_message() for stream in runner] if streamed else list(runner)
    assert asked == ["Paris", "Rome"] and [one.stop_reason for one in messages] == ["tool_use", "tool_use", "end_turn"]
    assert messages[-1].content[0].text == ANSWER.text and "sunny in Rome" in model.seen


@EVERYWHERE
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}, {"type": "none"}])
def test_a_choice_of_tools(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str, choice: dict[str, str]
) -> None:
    model = talk(live, server, up, HELLO if choice["type"] == "none" else Said(calls=(PARIS,)))
    said(client, False, model=model.model, messages=ASKED, tools=[WEATHER], tool_choice=choice)
    kinds: dict[str, dict[str, Any]] = {
        "chat": {"any": "required", "tool": {"type": "function", "function": {"name": "weather"}}, "none": "none"},
        "responses": {"any": "required", "tool": {"type": "function", "name": "weather"}, "none": "none"},
        "gemini": {"any": "ANY", "tool": "ANY", "none": "NONE"},
        "converse": {"any": {"any": {}}, "tool": {"tool": {"name": "weather"}}, "none": None},
    }
    if up == "converse":
        assert model.last.get("toolConfig", {}).get("toolChoice") == kinds[up][choice["type"]]
        assert ("toolConfig" in model.last) is (choice["type"] != "none"), "there is no other way to call none"
    elif up == "gemini":
        assert model.last["toolConfig"]["functionCallingConfig"]["mode"] == kinds[up][choice["type"]]
    else:
        assert model.last["tool_choice"] == (choice if up == "anthropic" else kinds[up][choice["type"]])


@EVERYWHERE
@pytest.mark.parametrize("within", ["a message", "the result of a tool"])
def test_an_image_is_seen(client: anthropic.Anthropic, live: Portal, server: Server, up: str, within: str) -> None:
    model = talk(live, server, up, HELLO)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
    if within != "a message":
        signed = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}
        turns = [*ASKED, {"role": "assistant", "content": [signed]}, {"role": "user", "content": [result]}]
    said(client, False, model=model.model, messages=turns, tools=[WEATHER])
    assert PNG in model.seen


@EVERYWHERE
def test_a_document_is_read_or_refused_by_name(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str
) -> None:
    model = talk(live, server, up, HELLO)
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    content: list[Any] = [{"type": "document", "source": pdf, "title": "report.pdf"}, {"type": "text", "text": "Sum."}]
    said(client, False, model=model.model, messages=[{"role": "user", "content": content}])
    assert PDF in model.seen
    text = {"type": "text", "media_type": "text/plain", "data": "The grass is green."}
    content = [{"type": "document", "source": text}, {"type": "text", "text": "Which colour?"}]
    said(client, False, model=model.model, messages=[{"role": "user", "content": content}])
    assert "The grass is green." in model.seen or base64.b64encode(b"The grass is green.").decode() in model.seen


@EVERYWHERE
def test_an_answer_of_a_shape(client: anthropic.Anthropic, live: Portal, server: Server, up: str) -> None:
    model = talk(live, server, up, Said('{"city": "Paris"}'))
    found = client.messages.parse(model=model.model, max_tokens=99, messages=ASKED, output_format=City)
    assert found.parsed_output == City(city="Paris")
    with client.messages.stream(model=model.model, max_tokens=99, messages=ASKED, output_format=City) as stream:
        assert stream.get_final_message().parsed_output == City(city="Paris")
    last = model.last
    shapes = {
        "anthropic": lambda: last["output_config"]["format"]["schema"],
        "chat": lambda: last["response_format"]["json_schema"]["schema"],
        "responses": lambda: last["text"]["format"]["schema"],
        "gemini": lambda: last["generationConfig"]["responseJsonSchema"],
        "converse": lambda: json.loads(last["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]),
    }
    shape = shapes[up]()
    assert shape["properties"]["city"]["type"] == "string" and shape["required"] == ["city"]


@EVERYWHERE
@HOW
def test_thoughts_come_back_with_their_turn(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str, streamed: bool
) -> None:
    model = talk(live, server, up, Said("Let me see.", "They ask for rain.", (PARIS,)), ANSWER)
    thinking: Any = {"type": "enabled", "budget_tokens": 2000}
    turns: list[Any] = [*ASKED]
    first = said(client, streamed, model=model.model, messages=turns, tools=[WEATHER], thinking=thinking)
    thought, text, *_, call = (block.to_dict() for block in first.content)  # Gemini's signature may need one more
    assert [thought["type"], text["type"], call["type"]] == ["thinking", "text", "tool_use"]
    assert thought["thinking"] == "They ask for rain." and isinstance(thought["signature"], str)
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "dry"}
    turns += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = said(client, streamed, model=model.model, messages=turns, tools=[WEATHER], thinking=thinking)
    assert last.content[0].to_dict()["text"] == ANSWER.text
    first_request = model.requests[0].json
    asked: dict[str, Any] = {
        "anthropic": lambda: first_request["thinking"] == thinking,
        "chat": lambda: bool(first_request["reasoning_effort"]),
        "responses": lambda: bool(first_request["reasoning"]["effort"]),
        "gemini": lambda: first_request["generationConfig"]["thinkingConfig"]["includeThoughts"],
        "converse": lambda: bool(first_request["additionalModelRequestFields"]["reasoning_effort"]),
    }
    assert asked[up]()
    if up == "gemini":
        assert "AY89a18iOcE=" in model.seen, "its signature is back where it was"
    elif up == "anthropic":
        assert thought["signature"] in model.seen and "They ask for rain." in model.seen


@EVERYWHERE
@HOW
def test_what_a_cache_read_and_wrote_is_told(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str, streamed: bool
) -> None:
    model = talk(live, server, up, HELLO)
    system: Any = [{"type": "text", "text": "Long rules.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    found = said(client, streamed, model=model.model, messages=ASKED, system=system)
    assert found.usage.cache_read_input_tokens == 4
    written = found.usage.cache_creation_input_tokens
    tells = up in {"anthropic", "converse"}
    assert written == 6 if tells else not written
    assert found.usage.input_tokens == (9 if tells else 5), "without those that the cache had"
    assert "Long rules." in model.seen and ("ephemeral" in model.seen) is (up == "anthropic")


@EVERYWHERE
def test_the_helpers_of_a_stream(client: anthropic.Anthropic, live: Portal, server: Server, up: str) -> None:
    model = talk(live, server, up, Said("Hello there.", "Hm.", (PARIS,)))
    kinds, texts, partial = [], [], []
    body: dict[str, Any] = {"model": model.model, "max_tokens": 99, "messages": ASKED, "tools": [WEATHER]}
    with client.messages.stream(**body) as stream:
        for event in stream:
            kinds.append(event.type)
            if event.type == "text":
                texts.append(event.text)
            if event.type == "input_json":
                partial.append(event.snapshot)
        assert stream.get_final_text() == "Hello there." and stream.request_id
    assert "".join(texts) == "Hello there." and partial[-1] == {"city": "Paris"}
    starts = ("message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop")
    assert set(starts) < set(kinds) and kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") in {3, 4}
    with client.messages.stream(**body) as stream:
        assert "".join(stream.text_stream) == "Hello there."
    raw = list(client.messages.create(stream=True, **body))
    assert raw[0].type == "message_start" and raw[-1].type == "message_stop"


@EVERYWHERE
def test_the_async_client(live: Portal, server: Server, token: str, up: str) -> None:
    model = talk(live, server, up, HELLO).model

    async def work() -> None:
        sdk = anthropic.AsyncAnthropic(base_url=server.url, auth_token=token, max_retries=0, timeout=300)
        async with sdk as client:
            whole = await client.messages.create(model=model, max_tokens=99, messages=ASKED)
            assert whole.content[0].to_dict()["text"] == "Hello there."
            async with client.messages.stream(model=model, max_tokens=99, messages=ASKED) as stream:
                assert "".join([text async for text in stream.text_stream]) == "Hello there."

    asyncio.run(work())


@EVERYWHERE
def test_members_of_other_apis_are_told_when_they_are_left_out(
    client: anthropic.Anthropic, live: Portal, server: Server, up: str
) -> None:
    model = talk(live, server, up, HELLO)
    body: dict[str, Any] = {"model": model.model, "max_tokens": 99, "messages": ASKED}
    answer = client.messages.with_raw_response.create(**body, extra_body={"top_k": 3})
    told = answer.headers.get("x-airelays-ignored-parameters", "")
    assert ("top_k" in told) is (up in {"chat", "responses", "converse"})
    assert answer.parse().content[0].to_dict()["text"] == "Hello there."
    if up == "responses":  # whose API has none: the portal ends the answer itself
        said = client.messages.create(**body, stop_sequences=[" there"])
        assert said.content[0].to_dict()["text"] == "Hello" and said.stop_sequence == " there"
    else:
        client.messages.create(**body, stop_sequences=["END"])
        assert '["END"]' in model.seen


@EVERYWHERE
def test_tokens_are_counted(client: anthropic.Anthropic, live: Portal, server: Server, up: str) -> None:
    model = talk(live, server, up, HELLO)
    found = client.messages.count_tokens(model=model.model, messages=ASKED, tools=[WEATHER]).input_tokens
    assert found == 77 if up == "anthropic" else 10 < found < 200
