"""The official SDK of Google against the portal: at upstreams of the same API, and at those of others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.api.gemini.clients import MANUAL, sdk_at
from tests.support.peers import gemini
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Script, chunk, completion, failing

HELLO = "Say hello."
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="The weather in a city.",
            parameters=types.Schema(
                type=types.Type.OBJECT,
                properties={"city": types.Schema(type=types.Type.STRING, nullable=True)},
                required=["city"],
            ),
        )
    ]
)


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


@pytest.fixture
def client(server: Server, token: str) -> Iterator[genai.Client]:
    server.catch_up()
    with sdk_at(server.url, token) as made:
        yield made


@pytest.fixture
def direct(live: Portal) -> Iterator[genai.Client]:
    """The SDK at the mock itself: whether that is faithful."""
    with sdk_at(live.upstream.base_url.removesuffix("/v1"), "sk-x") as made:
        yield made


def gemini_model(live: Portal, server: Server, script: Script, **options: Any) -> str:
    """A model at an upstream of the same API."""
    model = live.model(script, provider="gemini", **options)
    server.catch_up()
    return model


def chat_model(live: Portal, server: Server, script: Script | None = None) -> str:
    """A model at an upstream of chat completions."""
    model = live.model(script)
    server.catch_up()
    return model


def text_of(answer: Any, thought: bool = False) -> str:
    parts = answer.candidates[0].content.parts if answer.candidates and answer.candidates[0].content else []
    return "".join(part.text or "" for part in parts or () if bool(part.thought) is thought)


# -- the mock ----------------------------------------------------------------------------------------------------------


def test_the_mock_is_read_by_the_sdk_as_the_real_api_is(direct: genai.Client, live: Portal) -> None:
    live.upstream.script("gemini-3-direct", gemini.saying(gemini.THOUGHT, gemini.TEXT, gemini.CALL))
    plain = direct.models.generate_content(model="gemini-3-direct", contents=HELLO)
    streamed = list(direct.models.generate_content_stream(model="gemini-3-direct", contents=HELLO))
    assert text_of(plain) == "".join(map(text_of, streamed)) == "Hello there."
    assert text_of(plain, thought=True) == "They greet me."
    assert plain.function_calls and plain.function_calls[0].args == {"city": "Paris"}
    assert streamed[-1].usage_metadata and streamed[-1].usage_metadata.total_token_count == 16
    assert direct.models.count_tokens(model="gemini-3-direct", contents=HELLO).total_tokens == 77
    with pytest.raises(errors.ClientError, match="empty text parameter"):
        direct.models.generate_content(model="gemini-3-direct", contents="")


# -- the same API ------------------------------------------------------------------------------------------------------


def test_an_answer_at_an_upstream_of_the_same_api(client: genai.Client, live: Portal, server: Server) -> None:
    script = gemini.saying(gemini.THOUGHT, gemini.TEXT)
    model = gemini_model(live, server, script, upstream_name="gemini-3-up")
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        max_output_tokens=99,
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory.HARM_CATEGORY_HARASSMENT,
                threshold=types.HarmBlockThreshold.BLOCK_NONE,
            )
        ],
    )
    found = client.models.generate_content(model=model, contents=HELLO, config=config)
    assert found.text == "Hello there." and found.response_id == "r9aLaOzzM8uJxs0P"
    assert found.usage_metadata is not None and found.usage_metadata.thoughts_token_count == 3
    sent = live.upstream.last("gemini-3-up")
    assert sent.path == "/v1/models/gemini-3-up:generateContent"
    assert sent.headers["x-goog-api-key"].startswith("sk-upstream") and "authorization" not in sent.headers
    assert sent.json["safetySettings"] and sent.json["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    headers = found.sdk_http_response.headers if found.sdk_http_response else {}
    record = live.record((headers or {})["x-request-id"])
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (9, 4, 7)
    assert record.reasoning_tokens == 3 and record.usage_source == "reported"


def test_a_stream_at_an_upstream_of_the_same_api(client: genai.Client, live: Portal, server: Server) -> None:
    model = gemini_model(live, server, gemini.saying(gemini.THOUGHT, gemini.TEXT, gemini.CALL))
    found = list(client.models.generate_content_stream(model=model, contents=HELLO))
    assert "".join(map(text_of, found)) == "Hello there."
    calls = [call for one in found for call in one.function_calls or ()]
    assert [(call.id, call.name, call.args) for call in calls] == [("8f2b1a3c", "weather", {"city": "Paris"})]
    assert found[-1].usage_metadata and found[-1].usage_metadata.total_token_count == 16
    headers = found[0].sdk_http_response.headers if found[0].sdk_http_response else {}
    record = live.record((headers or {})["x-request-id"])
    assert (record.input_tokens, record.output_tokens) == (9, 7) and record.usage_source == "reported"


async def tools(call: Call) -> None:
    """Calls a function, and says what it got."""
    last = call.json["contents"][-1]["parts"][-1]
    if "functionResponse" in last:
        said = json.dumps(last["functionResponse"]["response"])
        await gemini.answer(call, gemini.response({"text": f"It is {said}."}))
    else:
        await gemini.answer(call, gemini.response(gemini.CALL))


def weather(city: str) -> str:
    """The weather in a city.

    Args:
      city: its name
    """
    return f"sunny in {city}"


@pytest.mark.parametrize("provider", ["gemini", "openai"])
def test_the_sdk_calls_functions_by_itself(client: genai.Client, live: Portal, server: Server, provider: str) -> None:
    """With signatures: the upstream refuses calls without. At chat completions the portal makes the ids."""
    if provider == "gemini":
        model = gemini_model(live, server, tools, upstream_name="gemini-3-tools")
    else:
        model = chat_model(live, server, chat_tools)
    config = types.GenerateContentConfig(tools=[weather])
    found = client.models.generate_content(model=model, contents="The weather in Paris?", config=config)
    assert "sunny in Paris" in (found.text or "")


# -- another API -------------------------------------------------------------------------------------------------------


async def chat_tools(call: Call) -> None:
    """An upstream of chat completions that calls a tool, and says what it got."""
    asked = call.json["messages"]
    if asked[-1]["role"] == "tool":
        await call.reply(200, completion(f"It is {asked[-1]['content']}."))
        return
    name = call.json["tools"][0]["function"]["name"]
    function = {"name": name, "arguments": '{"city":"Paris"}'}
    if not call.json.get("stream"):
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        await call.reply(200, completion("", choices=[choice]))
        return
    await call.open_stream()
    await call.event(chunk(None, None, choices=[{"index": 0, "delta": {"reasoning_content": "Hm."}}]))
    await call.event(chunk("Let me see."))
    first = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}]
    await call.event(chunk(None, None, choices=[{"index": 0, "delta": {"tool_calls": first}}]))
    for piece in ('{"city"', ':"Paris"}'):
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        await call.event(chunk(None, None, choices=[{"index": 0, "delta": delta}]))
    await call.event(chunk(None, "tool_calls", usage={"prompt_tokens": 30, "completion_tokens": 9, "total_tokens": 39}))
    await call.event("[DONE]")
    await call.end()


def test_a_chat_at_an_upstream_of_chat_completions(client: genai.Client, live: Portal, server: Server) -> None:
    model = chat_model(live, server)
    chat = client.chats.create(model=model, config=types.GenerateContentConfig(system_instruction="Be brief."))
    assert chat.send_message(HELLO).text == "Hello there."
    assert "".join(text_of(one) for one in chat.send_message_stream(HELLO)) == "Hello there."
    roles = [message["role"] for message in live.upstream.last(model).json["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


def test_a_stream_of_tools_at_an_upstream_of_chat_completions(
    client: genai.Client, live: Portal, server: Server
) -> None:
    model = chat_model(live, server, chat_tools)
    config = types.GenerateContentConfig(tools=[WEATHER], automatic_function_calling=MANUAL)
    found = list(client.models.generate_content_stream(model=model, contents="The weather?", config=config))
    assert "".join(text_of(one, thought=True) for one in found) == "Hm."
    assert "".join(map(text_of, found)) == "Let me see."
    calls = [call for one in found for call in one.function_calls or ()]
    assert [(call.id, call.name, call.args) for call in calls] == [("call_1", "weather", {"city": "Paris"})]
    last = found[-1]
    assert last.candidates and last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata and last.usage_metadata.total_token_count == 39
    sent = live.upstream.last(model).json["tools"][0]["function"]["parameters"]
    assert sent == {
        "type": "object",
        "properties": {"city": {"type": ["string", "null"]}},
        "required": ["city"],
    }


def test_an_answer_of_a_shape_at_an_upstream_of_chat_completions(
    client: genai.Client, live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, completion('{"city": "Paris"}'))

    model = chat_model(live, server, script)
    schema = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=schema, top_k=3)
    found = client.models.generate_content(model=model, contents=HELLO, config=config)
    assert found.parsed == {"city": "Paris"}
    shape = live.upstream.last(model).json["response_format"]["json_schema"]["schema"]
    assert shape == {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    headers = found.sdk_http_response.headers if found.sdk_http_response else {}
    assert "generationConfig.topK" in (headers or {})["x-airelays-ignored-parameters"]


def test_an_image_at_an_upstream_of_chat_completions(client: genai.Client, live: Portal, server: Server) -> None:
    model = chat_model(live, server)
    image = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n", mime_type="image/png")
    client.models.generate_content(model=model, contents=[image, HELLO])
    content = live.upstream.last(model).json["messages"][0]["content"]
    assert content[0]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="


def test_a_tool_that_only_google_has_is_refused_elsewhere(client: genai.Client, live: Portal, server: Server) -> None:
    model = chat_model(live, server)
    config = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    with pytest.raises(errors.ClientError, match="googleSearch") as caught:
        client.models.generate_content(model=model, contents=HELLO, config=config)
    assert caught.value.status == "INVALID_ARGUMENT"


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_of_the_portal_have_googles_shape(client: genai.Client, server: Server) -> None:
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="none", contents=HELLO)
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    assert "does not exist" in (caught.value.message or "")
    with sdk_at(server.url, "sk-wrong") as other, pytest.raises(errors.ClientError) as caught:
        other.models.generate_content(model="none", contents=HELLO)
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")


def test_an_error_of_the_upstream_is_told_as_it_is(client: genai.Client, live: Portal, server: Server) -> None:
    text = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    model = gemini_model(live, server, gemini.refusing(400, "INVALID_ARGUMENT", text))
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=model, contents=HELLO)
    assert caught.value.details == {"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}


def test_an_error_of_another_api_is_one_of_googles(client: genai.Client, live: Portal, server: Server) -> None:
    model = chat_model(live, server, failing(400, "bad_thing"))
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model=model, contents=HELLO)
    assert (caught.value.code, caught.value.status, caught.value.message) == (400, "INVALID_ARGUMENT", "mock error")


@pytest.mark.parametrize("provider", ["gemini", "openai"])
def test_an_error_in_the_middle_of_a_stream_is_raised(
    client: genai.Client, live: Portal, server: Server, provider: str
) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        if provider == "gemini":
            await call.event(gemini.pieces(gemini.response())[0])
            await call.event({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}})
        else:
            await call.event(chunk("Hello"))
            await call.event({"error": {"message": "The model is overloaded.", "type": "server_error", "code": 503}})
        await call.end()

    model = live.model(script, provider=provider)
    server.catch_up()
    said = ""
    with pytest.raises(errors.APIError, match="overloaded"):
        for one in client.models.generate_content_stream(model=model, contents=HELLO):
            said += text_of(one)
    assert said.startswith("Hello")


# -- keys, versions, lists ---------------------------------------------------------------------------------------------


def test_models_are_listed_in_googles_form(client: genai.Client, live: Portal, server: Server) -> None:
    model = chat_model(live, server)
    assert f"models/{model}" in [one.name for one in client.models.list(config={"page_size": 2})]
    found = client.models.get(model=model)
    assert found.name == f"models/{model}" and "generateContent" in (found.supported_actions or [])


def test_tokens_are_counted_by_the_upstream_or_estimated(client: genai.Client, live: Portal, server: Server) -> None:
    model = gemini_model(live, server, gemini.saying(), upstream_name="gemini-3-count")
    assert client.models.count_tokens(model=model, contents=HELLO).total_tokens == 77
    other = chat_model(live, server)
    found = client.models.count_tokens(model=other, contents="word " * 400)
    assert found.total_tokens is not None and 300 < found.total_tokens < 700
