"""The official SDKs of Anthropic and Google, each at upstreams that speak the other one's API."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import types

from tests.api.gemini.clients import MANUAL, sdk_at
from tests.support.peers import gemini, messages
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Script

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HOW = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


def in_turns(*turns: Script) -> Script:
    """An upstream that answers the first request by the first of these, the next one by the next."""
    left = list(turns)

    async def script(call: Call) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(call)

    return script


def model_at(live: Portal, server: Server, provider: str, up: str, script: Script) -> str:
    model = live.model(script, provider=provider, upstream_name=up)
    server.catch_up()
    return model


# -- Anthropic's client at Gemini --------------------------------------------------------------------------------------


@pytest.fixture
def claude(server: Server, token: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as made:
        yield made


def said(client: anthropic.Anthropic, streamed: bool, **body: Any) -> anthropic.types.Message:
    if not streamed:
        whole: anthropic.types.Message = client.messages.create(**body)
        return whole
    with client.messages.stream(**body) as stream:
        return stream.get_final_message()


@HOW
def test_a_loop_of_tools_with_thoughts_of_gemini(
    claude: anthropic.Anthropic, live: Portal, server: Server, streamed: bool
) -> None:
    up = f"gemini-3-up-{streamed}"
    two = {"functionCall": {"id": "second", "name": "weather", "args": {"city": "Rome"}}}
    first, second = gemini.saying(gemini.THOUGHT, gemini.CALL, two), gemini.saying(gemini.TEXT)
    model = model_at(live, server, "gemini", up, in_turns(first, second))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 4000,
        "system": "Be short.",
        "tools": [{"name": "weather", "description": "The weather.", "input_schema": SCHEMA}],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "stop_sequences": ["END"],
    }
    asked: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Where is it warm?"}, image]}]
    answer = said(claude, streamed, messages=asked, **body)
    assert [block.type for block in answer.content] == ["thinking", "tool_use", "tool_use"]
    thought, call, other = answer.content
    assert isinstance(thought, anthropic.types.ThinkingBlock) and thought.thinking == "They greet me."
    assert thought.signature, "which brings back what Gemini has signed"
    assert isinstance(call, anthropic.types.ToolUseBlock) and call.input == {"city": "Paris"}
    assert isinstance(other, anthropic.types.ToolUseBlock) and other.input == {"city": "Rome"} and other.id != call.id
    assert (answer.stop_reason, answer.role) == ("tool_use", "assistant")
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (5, 4)
    assert answer.usage.output_tokens == 7
    sent = live.upstream.last(up)
    assert sent.path.partition("?")[0].endswith("streamGenerateContent" if streamed else "generateContent")
    assert sent.json["systemInstruction"] == {"parts": [{"text": "Be short."}]}
    assert sent.json["contents"][0]["parts"] == [
        {"text": "Where is it warm?"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
    ]
    config = sent.json["generationConfig"]
    assert config["maxOutputTokens"] == 4000 and config["stopSequences"] == ["END"]
    assert config["thinkingConfig"]["includeThoughts"] is True
    assert [one["name"] for one in sent.json["tools"][0]["functionDeclarations"]] == ["weather"]

    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "20 °C"},
        {"type": "tool_result", "tool_use_id": other.id, "content": "no such city", "is_error": True},
    ]
    turns = [*asked, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    end = said(claude, streamed, messages=turns, **body)
    assert end.stop_reason == "end_turn" and [block.type for block in end.content] == ["text"]
    _, calls, answered = live.upstream.last(up).json["contents"]
    assert [part["functionCall"]["args"]["city"] for part in calls["parts"] if "functionCall" in part] == [
        "Paris",
        "Rome",
    ]
    signed = [part.get("thoughtSignature") for part in calls["parts"] if "functionCall" in part]
    assert signed == [gemini.SIGNATURE, None], "it stands where Gemini has put it"
    told = [part["functionResponse"] for part in answered["parts"]]
    assert [one["name"] for one in told] == ["weather"] * 2
    assert [one["response"] for one in told] == [{"result": "20 °C"}, {"error": "no such city"}]
    assert [one["id"] for one in told] == [
        part["functionCall"]["id"] for part in calls["parts"] if "functionCall" in part
    ]


@HOW
@pytest.mark.parametrize(
    ("finish", "stop"), [("MAX_TOKENS", "max_tokens"), ("SAFETY", "refusal"), ("STOP", "end_turn")]
)
def test_why_gemini_has_stopped_is_told(
    claude: anthropic.Anthropic, live: Portal, server: Server, streamed: bool, finish: str, stop: str
) -> None:
    model = model_at(live, server, "gemini", f"gemini-3-{finish}-{streamed}", gemini.saying(gemini.TEXT, finish=finish))
    answer = said(claude, streamed, model=model, max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert answer.stop_reason == stop


def test_an_error_of_gemini_has_anthropics_shape(claude: anthropic.Anthropic, live: Portal, server: Server) -> None:
    script = gemini.refusing(400, "INVALID_ARGUMENT", "The input token count exceeds the maximum.")
    model = model_at(live, server, "gemini", "gemini-3-refusing", script)
    with pytest.raises(anthropic.BadRequestError, match="input token count exceeds") as caught:
        said(claude, False, model=model, max_tokens=9, messages=[{"role": "user", "content": "x"}])
    body: Any = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"


# -- Google's client at Anthropic --------------------------------------------------------------------------------------


@pytest.fixture
def google(server: Server, token: str) -> Iterator[genai.Client]:
    with sdk_at(server.url, token) as made:
        yield made


def answered(client: genai.Client, streamed: bool, model: str, contents: Any, config: Any) -> Any:
    """The content of an answer, why it ended, and its usage."""
    if not streamed:
        whole = client.models.generate_content(model=model, contents=contents, config=config)
        assert whole.candidates is not None
        return whole.candidates[0].content, whole.candidates[0].finish_reason, whole.usage_metadata
    parts: list[types.Part] = []
    finish = usage = None
    for one in client.models.generate_content_stream(model=model, contents=contents, config=config):
        for candidate in one.candidates or ():
            parts += (candidate.content.parts or ()) if candidate.content is not None else ()
            finish = candidate.finish_reason or finish
        usage = one.usage_metadata or usage
    return types.Content(role="model", parts=parts), finish, usage


@HOW
def test_a_loop_of_tools_with_thoughts_of_claude(
    google: genai.Client, live: Portal, server: Server, streamed: bool
) -> None:
    up = f"claude-sonnet-4-5-{streamed}"
    other = {**messages.TOOL, "id": "toolu_01B", "input": {"city": "Rome"}}
    first = messages.saying(messages.THINKING, messages.TEXT, messages.TOOL, other, stop="tool_use")
    model = model_at(live, server, "anthropic", up, in_turns(first, messages.saying(messages.TEXT)))
    declared = types.FunctionDeclaration(
        name="weather",
        description="The weather.",
        parameters=types.Schema(
            type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}, required=["city"]
        ),
    )
    config = types.GenerateContentConfig(
        system_instruction="Be short.",
        max_output_tokens=4000,
        stop_sequences=["END"],
        tools=[types.Tool(function_declarations=[declared])],
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=2000),
        automatic_function_calling=MANUAL,
    )
    image = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    asked = types.Content(role="user", parts=[types.Part.from_text(text="Where is it warm?"), image])
    content, finish, usage = answered(google, streamed, model, [asked], config)
    thoughts = [part.text for part in content.parts if part.thought and part.text]
    assert "".join(thoughts) == "They greet me."
    assert "".join(part.text for part in content.parts if part.text and not part.thought) == "Hello there."
    calls = [part.function_call for part in content.parts if part.function_call is not None]
    assert [(call.name, call.args) for call in calls] == [
        ("weather", {"city": "Paris"}),
        ("weather", {"city": "Rome"}),
    ]
    assert any(part.thought_signature for part in content.parts), "which brings back what Claude has signed"
    assert finish == types.FinishReason.STOP
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (19, 4)
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (4, 3)
    sent = live.upstream.last(up).json
    assert sent["system"] in ("Be short.", [{"type": "text", "text": "Be short."}])
    assert sent["max_tokens"] == 4000 and sent["stop_sequences"] == ["END"]
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert sent["tools"][0]["input_schema"] == SCHEMA
    assert [block["type"] for block in sent["messages"][0]["content"]] == ["text", "image"]

    results = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name="weather", response={"result": "20 °C"}))
        for call in calls
    ]
    turns = [asked, content, types.Content(role="user", parts=results)]
    end, finish, _ = answered(google, streamed, model, turns, config)
    assert finish == types.FinishReason.STOP and end.parts[0].text
    _, spoke, told = live.upstream.last(up).json["messages"]
    assert spoke["content"][0] == messages.THINKING, "signed as it was, and first"
    assert [block["type"] for block in spoke["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block["input"] for block in spoke["content"][2:]] == [{"city": "Paris"}, {"city": "Rome"}]
    ids = [block["id"] for block in spoke["content"][2:]]
    assert [block["tool_use_id"] for block in told["content"]] == ids and len(set(ids)) == 2


@HOW
@pytest.mark.parametrize(
    ("stop", "finish"), [("max_tokens", "MAX_TOKENS"), ("refusal", "SAFETY"), ("stop_sequence", "STOP")]
)
def test_why_claude_has_stopped_is_told(
    google: genai.Client, live: Portal, server: Server, streamed: bool, stop: str, finish: str
) -> None:
    model = model_at(live, server, "anthropic", f"claude-{stop}-{streamed}", messages.saying(stop=stop))
    _, found, _ = answered(google, streamed, model, "x", None)
    assert found == types.FinishReason[finish]
