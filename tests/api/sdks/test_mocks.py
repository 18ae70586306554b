"""The upstreams of these tests, asked by the official SDKs of their own APIs with no portal between."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest

from tests.api.gemini.clients import sdk_at
from tests.api.sdks.upstreams import KINDS, PARIS, ROME, Said
from tests.support.portal import Portal
from tests.support.upstream import Call

ALL = Said("Hello there.", "Hm.", (PARIS, ROME))
HOW = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
CALLS = [("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})]


def upstream_of(live: Portal, name: str, model: str) -> str:
    async def script(call: Call) -> None:
        await KINDS[name].answer(call, ALL)

    live.upstream.script(model, script)
    return live.upstream.base_url


@HOW
def test_anthropics(live: Portal, streamed: bool) -> None:
    url = upstream_of(live, "anthropic", "up-directly").removesuffix("/v1")
    body: dict[str, Any] = {"model": "up-directly", "max_tokens": 99, "messages": [{"role": "user", "content": "Hi."}]}
    with anthropic.Anthropic(base_url=url, api_key="sk-x", max_retries=0) as sdk:
        if streamed:
            with sdk.messages.stream(**body) as stream:
                found = stream.get_final_message()
        else:
            found = sdk.messages.create(**body)
    assert [block.type for block in found.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [(block.name, block.input) for block in found.content if block.type == "tool_use"] == CALLS


@HOW
def test_geminis(live: Portal, streamed: bool) -> None:
    url = upstream_of(live, "gemini", "gemini-3-directly").removesuffix("/v1")
    with sdk_at(url, "sk-x") as sdk:
        if streamed:
            found = list(sdk.models.generate_content_stream(model="gemini-3-directly", contents="Hi."))
        else:
            found = [sdk.models.generate_content(model="gemini-3-directly", contents="Hi.")]
    calls = [call for one in found for call in one.function_calls or ()]
    assert [(call.name, call.args) for call in calls] == CALLS
    parts = [part for one in found for part in one.candidates[0].content.parts]  # type: ignore[index,union-attr]
    assert "".join(part.text or "" for part in parts if part.thought) == "Hm."
    assert "".join(part.text or "" for part in parts if not part.thought) == "Hello there."


@HOW
def test_those_of_chat_completions(live: Portal, streamed: bool) -> None:
    url = upstream_of(live, "chat", "chat-directly")
    body: Any = {"model": "chat-directly", "messages": [{"role": "user", "content": "Hi."}]}
    with openai.OpenAI(base_url=url, api_key="sk-x", max_retries=0) as sdk:
        if streamed:
            with sdk.chat.completions.stream(**body) as stream:
                stream.until_done()
                found = stream.get_final_completion()
        else:
            found = sdk.chat.completions.create(**body)
    message = found.choices[0].message
    assert message.content == "Hello there." and found.choices[0].finish_reason == "tool_calls"
    assert [call.function.arguments for call in message.tool_calls or ()] == ['{"city": "Paris"}', '{"city": "Rome"}']


@HOW
def test_those_of_responses(live: Portal, streamed: bool) -> None:
    url = upstream_of(live, "responses", "responses-directly")
    body: Any = {"model": "responses-directly", "input": "Hi."}

    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-x", max_retries=0) as sdk:
            if not streamed:
                return await sdk.responses.create(**body)
            async with sdk.responses.stream(**body) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_response()

    found = asyncio.run(ask())
    assert found.output_text == "Hello there."
    assert [item.type for item in found.output] == ["reasoning", "message", "function_call", "function_call"]
