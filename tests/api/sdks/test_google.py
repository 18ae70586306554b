"""What people do with Google's SDK, at upstreams of every API that the portal knows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel

from tests.api.gemini.clients import MANUAL, sdk_at
from tests.api.sdks.upstreams import EVERY_KIND, HELLO, PARIS, ROME, Said, talk
from tests.support.portal import Portal
from tests.support.server import Server

PNG = b"\x89PNG\r\n\x1a\n"
PDF = b"%PDF-1.7\n"
EVERYWHERE = pytest.mark.parametrize("up", EVERY_KIND)
HOW = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
ANSWER = Said("It is sunny in Paris and it rains in Rome.")
DECLARED = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="The weather in a city.",
            parameters=types.Schema(
                type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}, required=["city"]
            ),
        )
    ]
)


class City(BaseModel):
    city: str


@pytest.fixture
def client(server: Server, live: Portal) -> Iterator[genai.Client]:
    token = live.token()
    server.catch_up()
    with sdk_at(server.url, token) as made:
        yield made


def said(client: genai.Client, streamed: bool, model: str, contents: Any, **config: Any) -> list[Any]:
    """The answer, in one piece or in several."""
    asked: Any = {"model": model, "contents": contents, "config": types.GenerateContentConfig(**config)}
    if streamed:
        return list(client.models.generate_content_stream(**asked))
    return [client.models.generate_content(**asked)]


def parts_of(found: list[Any]) -> list[types.Part]:
    contents = [one.candidates[0].content for one in found if one.candidates]
    parts = [part for content in contents if content for part in content.parts or ()]
    return [part for part in parts if part.text != "" or part.thought_signature]  # as the SDK's chats keep them


def text_of(found: list[Any], thought: bool = False) -> str:
    return "".join(part.text or "" for part in parts_of(found) if bool(part.thought) is thought)


@EVERYWHERE
@HOW
def test_a_loop_of_two_tools_at_once(
    client: genai.Client, live: Portal, server: Server, up: str, streamed: bool
) -> None:
    model = talk(live, server, up, Said("Let me see.", "They ask for rain.", (PARIS, ROME)), ANSWER)
    how: dict[str, Any] = {"tools": [DECLARED], "automatic_function_calling": MANUAL, "system_instruction": "Be brief."}
    how["thinking_config"] = types.ThinkingConfig(include_thoughts=True, thinking_budget=2000)
    turns: list[Any] = [types.UserContent("Where does it rain?")]
    first = said(client, streamed, model.model, turns, **how)
    assert text_of(first, thought=True) == "They ask for rain." and text_of(first) == "Let me see."
    calls = [part.function_call for part in parts_of(first) if part.function_call]
    assert [(call.name, call.args) for call in calls] == [("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})]
    answers = [
        types.Part(
            function_response=types.FunctionResponse(id=call.id, name=call.name, response={"result": f"dry in {place}"})
        )
        for call, place in zip(calls, ("Paris", "Rome"), strict=True)
    ]
    turns += [types.ModelContent(parts_of(first)), types.UserContent(answers)]
    last = said(client, streamed, model.model, turns, **how)
    assert text_of(last) == ANSWER.text
    assert all(text in model.seen for text in ("Be brief.", "dry in Paris", "dry in Rome", "Where does it rain?"))


@EVERYWHERE
@HOW
def test_functions_are_called_by_the_sdk(
    client: genai.Client, live: Portal, server: Server, up: str, streamed: bool
) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return f"dry in {city}"

    model = talk(live, server, up, Said(calls=(PARIS,)), Said(calls=(ROME,)), ANSWER)
    chat = client.chats.create(model=model.model, config=types.GenerateContentConfig(tools=[weather]))
    question = "Where does it rain?"
    found = list(chat.send_message_stream(question)) if streamed else [chat.send_message(question)]
    assert asked == ["Paris", "Rome"] and text_of(found).endswith(ANSWER.text) and "dry in Rome" in model.seen


@EVERYWHERE
@pytest.mark.parametrize(("mode", "names"), [("ANY", None), ("ANY", ["weather"]), ("NONE", None), ("AUTO", None)])
def test_a_choice_of_tools(
    client: genai.Client, live: Portal, server: Server, up: str, mode: str, names: list[str] | None
) -> None:
    model = talk(live, server, up, Said(calls=(PARIS,)) if mode == "ANY" else HELLO)
    calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode(mode), allowed_function_names=names)
    choice = types.ToolConfig(function_calling_config=calling)
    tools: Any = {"tools": [DECLARED], "automatic_function_calling": MANUAL, "tool_config": choice}
    said(client, False, model.model, "Hi.", **tools)
    if up == "gemini":
        assert model.last["toolConfig"]["functionCallingConfig"]["mode"] == mode
        return
    if up == "converse":
        chosen: dict[str, Any] | None = {"any": {}} if mode == "ANY" else None
        chosen = {"tool": {"name": "weather"}} if names else chosen
        assert model.last.get("toolConfig", {}).get("toolChoice") == chosen
        assert ("toolConfig" in model.last) is (mode != "NONE")
        return
    wanted = {"NONE": "none", "AUTO": "auto", "ANY": "any" if up == "anthropic" else "required"}[mode]
    found = model.last.get("tool_choice", "auto")
    if up == "anthropic":
        found = found["type"] if isinstance(found, dict) else found
        assert found == ("tool" if names else wanted)
    elif names:
        assert found not in ("none", "auto") and "weather" in model.seen
    else:
        assert found == wanted


@EVERYWHERE
@pytest.mark.parametrize(("data", "kind"), [(PNG, "image/png"), (PDF, "application/pdf")])
def test_images_and_documents_arrive(
    client: genai.Client, live: Portal, server: Server, up: str, data: bytes, kind: str
) -> None:
    model = talk(live, server, up, HELLO)
    found = said(client, False, model.model, [types.Part.from_bytes(data=data, mime_type=kind), "What is this?"])
    assert text_of(found) == "Hello there." and base64.b64encode(data).decode() in model.seen


@EVERYWHERE
@HOW
def test_an_answer_of_a_shape(client: genai.Client, live: Portal, server: Server, up: str, streamed: bool) -> None:
    model = talk(live, server, up, Said('{"city": "Paris"}'))
    shape: Any = {"response_mime_type": "application/json", "response_schema": City}
    found = said(client, streamed, model.model, "Where?", **shape)
    assert City.model_validate_json(text_of(found)) == City(city="Paris")
    assert streamed or found[0].parsed == City(city="Paris")
    last = model.last
    shapes = {
        "anthropic": lambda: last["output_config"]["format"]["schema"],
        "chat": lambda: last["response_format"]["json_schema"]["schema"],
        "responses": lambda: last["text"]["format"]["schema"],
        "gemini": lambda: last["generationConfig"]["responseSchema"],
        "converse": lambda: json.loads(last["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]),
    }
    assert shapes[up]()["properties"]["city"]["type"].lower() == "string"


@EVERYWHERE
@HOW
def test_usage_is_told_by_class(client: genai.Client, live: Portal, server: Server, up: str, streamed: bool) -> None:
    model = talk(live, server, up, Said("Hello there.", "Hm."))
    found = said(client, streamed, model.model, "Hi.")
    usage = found[-1].usage_metadata
    assert usage.prompt_token_count == (19 if up in {"anthropic", "converse"} else 9)
    thoughts = None if up == "converse" else 3  # which does not tell them apart
    assert (usage.cached_content_token_count, usage.thoughts_token_count) == (4, thoughts)
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count + (thoughts or 0)
    assert found[-1].candidates[0].finish_reason == types.FinishReason.STOP
    headers = found[0].sdk_http_response.headers
    record = live.record(headers["x-request-id"])
    assert record.input_tokens == usage.prompt_token_count and record.cached_input_tokens == 4


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")  # of aiohttp, at the SDK
@EVERYWHERE
def test_the_async_client(live: Portal, server: Server, up: str) -> None:
    model, token = talk(live, server, up, HELLO).model, live.token()
    server.catch_up()

    async def work() -> None:
        async with sdk_at(server.url, token).aio as client:
            whole = await client.models.generate_content(model=model, contents="Hi.")
            assert whole.text == "Hello there."
            pieces = [one async for one in await client.models.generate_content_stream(model=model, contents="Hi.")]
            assert text_of(pieces) == "Hello there."

    asyncio.run(work())


@EVERYWHERE
def test_a_chat_keeps_its_history(client: genai.Client, live: Portal, server: Server, up: str) -> None:
    model = talk(live, server, up, Said("Hello there.", "Hm."))
    chat = client.chats.create(model=model.model)
    assert chat.send_message("First.").text == "Hello there."
    chat.send_message("Second.")
    # Last, since the SDK keeps the empty text at its end, and an upstream of Google's cloud refuses that later.
    assert text_of(list(chat.send_message_stream("Third."))) == "Hello there."
    assert [one.role for one in chat.get_history()].count("user") == 3
    assert all(text in model.seen for text in ("First.", "Second.", "Third."))


@EVERYWHERE
def test_tokens_are_counted(client: genai.Client, live: Portal, server: Server, up: str) -> None:
    model = talk(live, server, up, HELLO)
    found = client.models.count_tokens(model=model.model, contents="Say hello.").total_tokens
    assert found == 77 if up == "gemini" else found is not None and 0 < found < 100
