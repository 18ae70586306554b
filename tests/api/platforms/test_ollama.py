"""Channels at Ollama's own API, for clients of the others."""

from __future__ import annotations

import base64
import json
from typing import Any

import anthropic
import pytest

from relay.channels.base_urls import complete_base_url
from relay.channels.probe import fetch_models, probe_channel
from relay.models import Channel
from relay.providers.failures import FailureClass
from relay.providers.vendors import VENDORS
from tests.support.peers import ollama
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Script

TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def channel_at(live: Portal) -> Channel:
    made: Channel = live.channel(live.upstream.base_url.removesuffix("/v1"), keys=(), provider="ollama_native")
    return made


def local(live: Portal, script: Script) -> str:
    return live.model(script, channels=[channel_at(live)])


def streamed_deltas(text: str) -> list[dict[str, Any]]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [event["choices"][0]["delta"] for event in events if event["choices"]]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_question_with_thinking_is_answered(live: Portal, server: Server, streamed: bool) -> None:
    model = local(live, ollama.saying("Hello there.", "They greet me."))
    answer = server.post(live.token(), ask(model, stream=streamed, reasoning_effort="high", temperature=0.5))
    assert answer.status_code == 200, answer.text
    if streamed:
        deltas = streamed_deltas(answer.text)
        assert "".join(delta.get("content") or "" for delta in deltas) == "Hello there."
        assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "They greet me."
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        message = answer.json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("Hello there.", "They greet me.")
    sent = live.upstream.last(model).json
    assert sent["think"] == "high" and sent["options"]["temperature"] == 0.5 and sent["stream"] is streamed
    record = live.record(answer)
    assert (record.input_tokens, record.output_tokens, record.usage_source) == (26, 12, "reported")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_of_tools_with_anthropics_sdk(live: Portal, server: Server, streamed: bool) -> None:
    async def script(call: Call) -> None:
        last = call.json["messages"][-1]
        if last["role"] == "tool":
            await ollama.saying(f"{last['tool_name']}: {last['content']}")(call)
        else:
            await ollama.saying("", "", ("weather", {"city": "Paris"}), ("weather", {"city": "Rome"}))(call)

    model, token = local(live, script), live.token()
    server.catch_up()
    tools: Any = [{"name": "weather", "input_schema": TOOL["function"]["parameters"]}]
    asked: list[Any] = [{"role": "user", "content": "The weather in Paris and Rome?"}]
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as sdk:
        options: Any = {"model": model, "max_tokens": 99, "tools": tools}
        if streamed:
            with sdk.messages.stream(messages=asked, **options) as stream:
                first = stream.get_final_message()
        else:
            first = sdk.messages.create(messages=asked, **options)
        calls: list[Any] = [block for block in first.content if block.type == "tool_use"]
        assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Rome"}]
        assert len({call.id for call in calls}) == 2 and first.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": call.input["city"]} for call in calls]
        asked += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        last = sdk.messages.create(messages=asked, **options)
    assert last.content[0].to_dict()["text"] == "weather: Rome"
    sent = live.upstream.last(model).json["messages"]
    assert [one["function"]["arguments"]["city"] for one in sent[1]["tool_calls"]] == ["Paris", "Rome"]


def test_images_schemas_and_options_of_its_own_are_sent(live: Portal, server: Server) -> None:
    model = local(live, ollama.saying("{}"))
    image = base64.b64encode(b"\x89PNG\r\n").decode()
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    schema = {"type": "object", "properties": {"it": {"type": "string"}}}
    answer = server.post(
        live.token(),
        {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            "options": {"num_ctx": 8192},
            "keep_alive": "10m",
            "max_completion_tokens": 50,
            "stop": "END",
        },
    )
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last(model).json
    assert sent["messages"] == [{"role": "user", "content": "What is it?", "images": [image]}]
    assert sent["options"] == {"num_ctx": 8192, "num_predict": 50, "stop": ["END"]}
    assert (sent["keep_alive"], sent["format"]) == ("10m", schema)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"tool_choice": "required", "tools": [TOOL]}, "tool_choice"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
    ],
)
def test_what_the_answer_depends_on_and_it_lacks_is_refused(
    live: Portal, server: Server, more: dict[str, Any], named: str
) -> None:
    refused = server.post(live.token(), ask(local(live, ollama.saying()), **more))
    assert refused.status_code == 422 and refused.json()["error"]["param"] == named, refused.text


def test_an_image_by_its_address_is_refused(live: Portal, server: Server) -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    body = {"model": local(live, ollama.saying()), "messages": [{"role": "user", "content": content}]}
    refused = server.post(live.token(), body)
    assert refused.status_code == 422 and "data URL" in refused.json()["error"]["message"]


def test_an_error_in_the_middle_ends_the_stream(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        await call.send(json.dumps(ollama.line("m", {"content": "Hel"})).encode() + b"\n")
        await call.send(b'{"error":"an error was encountered while running the model: unexpected EOF"}\n')
        await call.end()

    answer = server.post(live.token(), ask(local(live, script), stream=True))
    assert '"error"' in answer.text and "[DONE]" not in answer.text
    assert live.record(answer).end_reason != "completed"


def test_an_answer_that_is_cut_off_is_no_answer(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        await call.send(json.dumps(ollama.line("m", {"content": "Hello"})).encode() + b"\n")
        await call.end()

    answer = server.post(live.token(), ask(local(live, script), stream=True))
    assert '"error"' in answer.text and "[DONE]" not in answer.text


def test_a_cached_prompt_without_a_count_is_estimated(live: Portal, server: Server) -> None:
    answer = server.post(live.token(), ask(local(live, ollama.saying(prompt_eval_count=None))))
    assert live.record(answer).usage_source == "estimated"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested(live: Portal, streamed: bool) -> None:
    channel = channel_at(live)
    result = probe_channel(channel, None, live.model(ollama.saying(), channels=[channel]), streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed, result.message


def test_a_test_names_the_model_that_is_not_there(live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(404, {"error": f"model '{call.model}' not found"})

    channel = channel_at(live)
    result = probe_channel(channel, None, live.model(script, channels=[channel]))
    assert result.failure is not None and result.failure.kind is FailureClass.KEY_FORBIDDEN_MODEL


def test_models_are_fetched(live: Portal) -> None:
    channel = channel_at(live)
    live.upstream.script("", ollama.tags("qwen3:8b", "llama3.2:latest"))
    try:
        listed = fetch_models(channel, None)
    finally:
        del live.upstream.scripts[""]
    assert listed.names == ("llama3.2:latest", "qwen3:8b") and not listed.error


@pytest.mark.parametrize("typed", ["http://127.0.0.1:11434/api/chat", "http://127.0.0.1:11434/"])
def test_the_address_is_the_bare_host(typed: str) -> None:
    assert complete_base_url(typed, VENDORS["ollama_native"]) == "http://127.0.0.1:11434"
