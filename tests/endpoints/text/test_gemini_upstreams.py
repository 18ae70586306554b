"""Clients of OpenAI's APIs at upstreams that speak Gemini's generateContent."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.support.peers import gemini
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False},
    },
}


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


@pytest.fixture
def client(server: Server, token: str) -> openai.OpenAI:
    server.catch_up()
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=20)


def model_at(live: Portal, server: Server, script: Any, **options: Any) -> str:
    model = live.model(script, provider="gemini", **options)
    server.catch_up()
    return model


def test_a_plain_answer_with_its_usage(client: openai.OpenAI, live: Portal, server: Server) -> None:
    model = model_at(live, server, gemini.saying(gemini.THOUGHT, gemini.TEXT), upstream_name="gemini-3-up")
    answer = client.chat.completions.with_raw_response.create(
        **ask(model, max_tokens=50, reasoning_effort="low", user="u")
    )
    found = answer.parse()
    assert found.choices[0].message.content == "Hello there." and found.choices[0].finish_reason == "stop"
    assert found.usage is not None and (found.usage.prompt_tokens, found.usage.completion_tokens) == (9, 7)
    assert "user" in answer.headers["x-airelays-ignored-parameters"]
    sent = live.upstream.last("gemini-3-up")
    assert sent.path == "/v1/models/gemini-3-up:generateContent"
    assert sent.headers["x-goog-api-key"].startswith("sk-upstream") and "authorization" not in sent.headers
    assert "model" not in sent.json and sent.json["generationConfig"]["maxOutputTokens"] == 50
    assert sent.json["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "LOW", "includeThoughts": True}
    record = live.record(answer)
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (9, 4, 7)
    assert record.reasoning_tokens == 3 and record.usage_source == "reported"


def test_a_stream_with_thoughts_text_and_usage(client: openai.OpenAI, live: Portal, server: Server) -> None:
    model = model_at(live, server, gemini.saying(gemini.THOUGHT, gemini.TEXT), upstream_name="gemini-3-up")
    stream = client.chat.completions.create(**ask(model, stream=True, stream_options={"include_usage": True}))
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Hello there."
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "They greet me."
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 16
    assert live.upstream.last("gemini-3-up").path == "/v1/models/gemini-3-up:streamGenerateContent?alt=sse"


def test_several_candidates_are_several_choices_in_the_stream(
    client: openai.OpenAI, live: Portal, server: Server
) -> None:
    one, two = ({"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"} for text in "ab")
    script = gemini.saying(candidates=[{**one, "index": 0}, {**two, "index": 1}])
    model = model_at(live, server, script)
    found = client.chat.completions.create(**ask(model, n=2))
    assert [choice.message.content for choice in found.choices] == ["a", "b"]
    said = {0: "", 1: ""}
    reasons: dict[int, str | None] = {}
    for chunk in client.chat.completions.create(**ask(model, n=2, stream=True)):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert said == {0: "a", 1: "b"} and reasons == {0: "stop", 1: "stop"}


async def tools(call: Call) -> None:
    """Calls a function, and says what it got."""
    last = call.json["contents"][-1]["parts"][-1]
    if "functionResponse" in last:
        said = last["functionResponse"]["response"]["result"]
        await gemini.answer(call, gemini.response({"text": f"It is {said}."}))
    else:
        await gemini.answer(call, gemini.response(gemini.CALL))


@pytest.mark.parametrize("keeps", [True, False], ids=["with the signature", "without"])
def test_a_loop_of_tools_with_chat_completions(
    client: openai.OpenAI, live: Portal, server: Server, keeps: bool
) -> None:
    """Clients that keep unknown members send the signature back; for the others, calls are let pass as documented."""
    model = model_at(live, server, tools, upstream_name="gemini-3-tools")
    messages: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    calls: dict[int, Any] = {}
    for chunk in client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], stream=True):
        for call in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
            calls[call.index] = call
    call = calls[0]
    assert call.id == "8f2b1a3c" and json.loads(call.function.arguments) == {"city": "Paris"}
    told = call.to_dict() if keeps else {"id": call.id, "type": "function", "function": call.function.to_dict()}
    told.pop("index", None)
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [told]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    found = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert found.choices[0].message.content == "It is sunny."
    part = live.upstream.last("gemini-3-tools").json["contents"][1]["parts"][0]
    assert part["thoughtSignature"] == (gemini.SIGNATURE if keeps else gemini.BYPASS)
    assert part["functionCall"]["id"] == "8f2b1a3c"


def test_a_loop_of_tools_with_responses(client: openai.OpenAI, live: Portal, server: Server) -> None:
    model = model_at(live, server, tools, upstream_name="gemini-3-tools")
    tool: Any = {"type": "function", **WEATHER["function"], "strict": False}
    first = client.responses.create(model=model, input="The weather in Paris?", tools=[tool], store=False)
    call = next(item for item in first.output if item.type == "function_call")
    items: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    items += [item.to_dict() for item in first.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    second = client.responses.create(model=model, input=items, tools=[tool], store=False)
    assert second.output_text == "It is sunny."
    part = live.upstream.last("gemini-3-tools").json["contents"][1]["parts"][0]
    assert part["thoughtSignature"] == gemini.SIGNATURE


# -- errors ------------------------------------------------------------------------------------------------------------

RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}


def quota(per: str) -> dict[str, Any]:
    violation = {"quotaMetric": "x", "quotaId": f"GenerateRequestsPer{per}PerProjectPerModel-FreeTier"}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def test_a_limit_by_the_minute_is_one_to_wait_for(client: openai.OpenAI, live: Portal, server: Server) -> None:
    text = "You exceeded your current quota, please check your plan and billing details."
    script = gemini.refusing(429, "RESOURCE_EXHAUSTED", text, quota("Minute"), RETRY)
    model = model_at(live, server, script)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ask(model))
    assert 30 <= int(caught.value.response.headers["retry-after"]) <= 34


def test_a_wrong_key_is_not_the_callers(client: openai.OpenAI, live: Portal, server: Server) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    script = gemini.refusing(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", info)
    model = model_at(live, server, script)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**ask(model))
    assert caught.value.status_code == 502 and caught.value.code == "upstream_credentials_exhausted"


def test_a_request_that_google_refuses_is_told_in_its_words(
    client: openai.OpenAI, live: Portal, server: Server
) -> None:
    text = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    model = model_at(live, server, gemini.refusing(400, "INVALID_ARGUMENT", text))
    with pytest.raises(openai.BadRequestError, match="exceeds the maximum number"):
        client.chat.completions.create(**ask(model))


def test_a_model_that_google_does_not_know_is_no_missing_api(
    client: openai.OpenAI, live: Portal, server: Server
) -> None:
    text = "models/gemini-none is not found for API version v1beta, or is not supported for generateContent."
    model = model_at(live, server, gemini.refusing(404, "NOT_FOUND", text), upstream_name="gemini-none")
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**ask(model, stream=stream))


def test_a_blocked_prompt_is_a_filtered_answer(client: openai.OpenAI, live: Portal, server: Server) -> None:
    blocked: dict[str, Any] = {"candidates": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    model = model_at(live, server, gemini.saying(**blocked))
    for stream in (False, True):
        if stream:
            chunks = list(client.chat.completions.create(**ask(model, stream=True)))
            assert chunks[-1].choices[0].finish_reason == "content_filter"
        else:
            found = client.chat.completions.create(**ask(model))
            assert found.choices[0].finish_reason == "content_filter"
            assert "PROHIBITED_CONTENT" in (found.choices[0].message.refusal or "")


def test_an_error_in_the_middle_ends_the_stream(client: openai.OpenAI, live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        first = gemini.pieces(gemini.response())[0]
        await call.send(b"data: " + json.dumps(first).encode() + b"\r\n\r\n")
        error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        await call.send(b"data: " + json.dumps(error).encode() + b"\r\n\r\n")
        await call.end()

    model = model_at(live, server, script)
    with pytest.raises(openai.APIError, match="overloaded"):
        list(client.chat.completions.create(**ask(model, stream=True)))


def test_a_name_that_google_refuses_comes_back_as_the_clients(
    client: openai.OpenAI, live: Portal, server: Server
) -> None:
    async def script(call: Call) -> None:
        name = call.json["tools"][0]["functionDeclarations"][0]["name"]
        await gemini.answer(call, gemini.response({"functionCall": {"name": name, "args": {}}}))

    model = model_at(live, server, script)
    tool: Any = {"type": "function", "function": {"name": "ns.weather/now"}}
    found = client.chat.completions.create(**ask(model, tools=[tool]))
    called = found.choices[0].message.tool_calls
    assert called is not None and called[0].to_dict()["function"]["name"] == "ns.weather/now"
    for chunk in client.chat.completions.create(**ask(model, tools=[tool], stream=True)):
        for one in chunk.choices[0].delta.tool_calls or ():
            assert one.function is not None and one.function.name == "ns.weather/now"
