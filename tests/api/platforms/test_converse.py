"""Models of others than Anthropic at Amazon Bedrock, by Converse, for clients of every API."""

from __future__ import annotations

import base64
import json
from typing import Any

import anthropic
import openai
import pytest

from relay.channels.probe import fetch_models, probe_channel
from relay.models import Channel
from relay.providers.failures import FailureClass
from tests.support.peers import messages
from tests.support.peers.clouds import bedrock, converse, frames
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Script

ACCOUNT = bedrock.Account()
KEYS = {"api key": ACCOUNT.api_key, "access key": f"{ACCOUNT.key_id}:{ACCOUNT.secret}@{bedrock.REGION}"}
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG picture").decode()
PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7 paper").decode()


def channel_at(live: Portal, key: str = ACCOUNT.api_key) -> Channel:
    made: Channel = live.channel(live.upstream.base_url.removesuffix("/v1"), keys=(key,), provider="bedrock_claude")
    return made


def nova(live: Portal, script: Script, key: str = ACCOUNT.api_key, name: str = "us.amazon.nova-2-lite") -> str:
    """A model at Bedrock that only its channel serves."""
    return live.model(script, channels=[channel_at(live, key)], upstream_name=f"{live.name(name)}-v1:0")


def sent(live: Portal) -> Call:
    return [call for call in live.upstream.calls if call.body and call.path.startswith("/model/")][-1]


def deltas(text: str) -> list[dict[str, Any]]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [event["choices"][0]["delta"] for event in events if event.get("choices")]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_of_chat_is_answered_and_every_class_of_tokens_counts(
    live: Portal, server: Server, kind: str, streamed: bool
) -> None:
    model = nova(live, converse.saying(ACCOUNT, converse.THOUGHT, converse.TEXT), KEYS[kind])
    more = {"temperature": 0.5, "top_p": 0.9, "stop": "END", "max_completion_tokens": 50, "reasoning_effort": "low"}
    answer = server.post(live.token(), ask(model, stream=streamed, **more))
    assert answer.status_code == 200, answer.text
    if streamed:
        found = deltas(answer.text)
        assert "".join(delta.get("content") or "" for delta in found) == "Hello there."
        assert "".join(delta.get("reasoning_content") or "" for delta in found) == "They greet me."
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        message = answer.json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("Hello there.", "They greet me.")
    call = sent(live)
    assert call.path.endswith("-v1:0/converse-stream" if streamed else "-v1:0/converse")
    assert call.json == {
        "messages": [{"role": "user", "content": [{"text": "Say hello."}]}],
        "inferenceConfig": {"maxTokens": 50, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
        "additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
    }
    record = live.record(answer)
    assert (record.input_tokens, record.cached_input_tokens, record.cache_write_tokens) == (19, 4, 6)
    assert (record.output_tokens, record.usage_source, record.upstream_model) == (7, "reported", call.model)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_of_parallel_tools_with_anthropics_sdk(live: Portal, server: Server, streamed: bool) -> None:
    second = {"toolUse": {"toolUseId": "tooluse_2", "name": "time", "input": {}}}

    def made(call: Call) -> dict[str, Any]:
        last = call.json["messages"][-1]["content"]
        if "toolResult" in last[0]:
            told = [part["toolResult"]["content"][0]["text"] for part in last if "toolResult" in part]
            return converse.answer({"text": f"It is {' '.join(told)}."})
        return converse.answer(converse.HIDDEN, converse.THOUGHT, converse.TOOL, second, stop="tool_use")

    model, token = nova(live, converse.answering(ACCOUNT, made)), live.token()
    server.catch_up()
    tools: Any = [{"name": name, "input_schema": SCHEMA} for name in ("weather", "time")]
    asked: list[Any] = [{"role": "user", "content": "Weather and time in Oslo?"}]
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as sdk:
        options: Any = {"model": model, "max_tokens": 99, "tools": tools}
        if streamed:
            with sdk.messages.stream(messages=asked, **options) as stream:
                first = stream.get_final_message()
        else:
            first = sdk.messages.create(messages=asked, **options)
        calls: list[Any] = [block for block in first.content if block.type == "tool_use"]
        assert [(one.name, one.input) for one in calls] == [("weather", {"city": "Oslo"}), ("time", {})]
        assert first.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": one.id, "content": "sunny"} for one in calls]
        results[1] |= {"content": "no clock", "is_error": True}
        asked += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        last = sdk.messages.create(messages=asked, **options)
    assert last.content[-1].to_dict()["text"] == "It is sunny no clock."
    turns = sent(live).json["messages"]
    kept = [block["reasoningContent"] for block in turns[1]["content"] if "reasoningContent" in block]
    assert kept == [converse.HIDDEN["reasoningContent"], converse.THOUGHT["reasoningContent"]]
    assert [part["toolResult"].get("status") for part in turns[2]["content"]] == [None, "error"]


def test_pictures_and_papers_arrive_as_blocks(live: Portal, server: Server) -> None:
    model = nova(live, converse.saying(ACCOUNT))
    parts = [
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "file", "file": {"filename": "Annual_report (2).pdf", "file_data": PDF}},
        {"type": "file", "file": {"filename": "Annual_report (2).pdf", "file_data": PDF}},
    ]
    answer = server.post(live.token(), {"model": model, "messages": [{"role": "user", "content": parts}]})
    assert answer.status_code == 200, answer.text
    text, image, *papers = sent(live).json["messages"][0]["content"]
    assert text["text"] and image == {"image": {"format": "png", "source": {"bytes": PNG.partition(",")[2]}}}
    assert [one["document"]["name"] for one in papers] == ["Annual report (2)", "Annual report (2) 2"]
    assert [one["document"]["format"] for one in papers] == ["pdf", "pdf"]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_openai_sdk_calls_a_tool_that_it_forces(live: Portal, server: Server, streamed: bool) -> None:
    model, token = nova(live, converse.saying(ACCOUNT, converse.TOOL, stop="tool_use")), live.token()
    server.catch_up()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=20) as sdk:
        options: Any = {"model": model, "messages": [{"role": "user", "content": "Weather?"}], "tools": [TOOL]}
        options["tool_choice"] = {"type": "function", "function": {"name": "weather"}}
        if streamed:
            with sdk.chat.completions.stream(**options) as stream:
                choice: Any = stream.get_final_completion().choices[0]
        else:
            choice = sdk.chat.completions.create(**options).choices[0]
    assert choice.finish_reason == "tool_calls"
    called = choice.message.tool_calls[0]
    assert (called.id, json.loads(called.function.arguments)) == ("tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", {"city": "Oslo"})
    assert sent(live).json["toolConfig"]["toolChoice"] == {"tool": {"name": "weather"}}


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_guardrail_says_is_told_as_filtered(live: Portal, server: Server, streamed: bool) -> None:
    blocked = {"text": "Sorry, the model cannot answer this question."}
    model = nova(live, converse.saying(ACCOUNT, blocked, stop="guardrail_intervened"))
    answer = server.post(live.token(), ask(model, stream=streamed))
    assert answer.status_code == 200, answer.text
    if streamed:
        assert '"finish_reason":"content_filter"' in answer.text
    else:
        choice = answer.json()["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", blocked["text"])


@pytest.mark.parametrize(("name", "kind"), [("throttlingException", "rate_limit_error"), ("validationException", "x")])
def test_an_exception_inside_a_stream_ends_it_with_an_error(live: Portal, server: Server, name: str, kind: str) -> None:
    model = nova(live, converse.saying(ACCOUNT, ending=frames.exception(name, "Try again later.")))
    answer = server.post(live.token(), ask(model, stream=True))
    assert "Try again later." in answer.text and "[DONE]" not in answer.text, kind
    assert live.record(answer).end_reason != "completed"


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_the_model_spoilt_is_an_error(live: Portal, server: Server, streamed: bool) -> None:
    model = nova(live, converse.saying(ACCOUNT, converse.TEXT, stop="malformed_tool_use"))
    answer = server.post(live.token(), ask(model, stream=streamed))
    assert '"error"' in answer.text and "[DONE]" not in answer.text
    assert live.record(answer).end_reason != "completed"


def test_throttling_is_a_limit_and_its_words_stay_inside(live: Portal, server: Server) -> None:
    text = "Too many requests, please wait before trying again."
    model = nova(live, bedrock.refusing(429, "ThrottlingException", text))
    answer = server.post(live.token(), ask(model))
    assert answer.status_code == 429 and text not in answer.text, answer.text
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_a_refused_request_is_the_clients_and_told(live: Portal, server: Server) -> None:
    text = "This model doesn't support tool use."
    model = nova(live, bedrock.refusing(400, "ValidationException", text))
    answer = server.post(live.token(), ask(model))
    assert answer.status_code == 400 and text in answer.json()["error"]["message"]


def test_one_channel_serves_claude_in_its_own_api_and_others_by_converse(live: Portal, server: Server) -> None:
    channel = channel_at(live)
    claude = live.model(
        bedrock.saying(ACCOUNT), channels=[channel], upstream_name=f"us.anthropic.{live.name('claude')}-v1:0"
    )
    llama = live.model(
        converse.saying(ACCOUNT), channels=[channel], upstream_name=f"us.meta.{live.name('llama4')}-v1:0"
    )
    for model, path in ((claude, "/invoke"), (llama, "/converse")):
        assert server.post(live.token(), ask(model)).status_code == 200
        assert sent(live).path.endswith(path)


@pytest.mark.parametrize("kind", KEYS)
def test_tokens_are_counted_by_bedrock_for_claude(live: Portal, server: Server, kind: str) -> None:
    name = f"global.anthropic.{live.name('claude')}-v1:0"
    model = live.model(
        converse.saying(ACCOUNT, tokens=421), channels=[channel_at(live, KEYS[kind])], upstream_name=name
    )
    token = live.token()
    server.catch_up()
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as sdk:
        raw = sdk.messages.with_raw_response.count_tokens(
            model=model, system="Be brief.", messages=[{"role": "user", "content": "Hello."}]
        )
    assert raw.parse().input_tokens == 421 and "x-airelays-estimated" not in raw.headers
    call = sent(live)
    assert call.path == f"/model/{name}/count-tokens"
    counted = json.loads(base64.b64decode(call.json["input"]["invokeModel"]["body"]))
    assert counted["system"] == "Be brief." and counted["messages"] == [{"role": "user", "content": "Hello."}]


@pytest.mark.parametrize(
    ("status", "name", "text"),
    [
        (400, "ValidationException", "The provided model doesn't support counting tokens."),
        (403, "AccessDeniedException", "User: x is not authorized to perform: bedrock:CountTokens on resource: y"),
    ],
)
def test_where_bedrock_does_not_count_an_estimate_stands_and_nothing_cools(
    live: Portal, server: Server, status: int, name: str, text: str
) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("/count-tokens"):
            await bedrock.refuse(call, status, name, text)
        else:
            await bedrock.saying(ACCOUNT)(call)

    model = live.model(script, channels=[channel_at(live)], upstream_name=f"us.anthropic.{live.name('claude')}-v1:0")
    token = live.token()
    server.catch_up()
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as sdk:
        asked: Any = [{"role": "user", "content": "Hello."}]
        raw = sdk.messages.with_raw_response.count_tokens(model=model, messages=asked)
        assert raw.parse().input_tokens > 0 and raw.headers["x-airelays-estimated"] == "input_tokens"
        assert sdk.messages.create(model=model, max_tokens=9, messages=asked).content[0].to_dict() == messages.TEXT


# -- the admin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested(live: Portal, kind: str, streamed: bool) -> None:
    channel = channel_at(live, KEYS[kind])
    name = f"{live.name('qwen.qwen3')}-v1:0"
    live.upstream.script(name, converse.saying(ACCOUNT))
    result = probe_channel(channel, channel.keys.get(), name, streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed, result.message


def test_a_test_tells_why_a_model_is_refused(live: Portal) -> None:
    channel = channel_at(live)
    live.upstream.script("amazon.x", bedrock.refusing(404, "ResourceNotFoundException", "No such model."))
    result = probe_channel(channel, channel.keys.get(), "amazon.x")
    assert result.failure is not None and result.failure.kind is FailureClass.KEY_FORBIDDEN_MODEL


def test_profiles_and_models_on_demand_are_fetched(live: Portal) -> None:
    channel = channel_at(live)
    script = converse.models(ACCOUNT, "openai.gpt-oss-x-1:0", profiles=("us.anthropic.claude-x-v1:0",))
    live.upstream.script("", script)
    try:
        listed = fetch_models(channel, channel.keys.get())
    finally:
        del live.upstream.scripts[""]
    assert listed.names == ("openai.gpt-oss-x-1:0", "us.anthropic.claude-x-v1:0") and not listed.error
