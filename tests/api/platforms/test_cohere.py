"""Channels at Cohere's own API, for clients of the others."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from relay.channels.probe import fetch_models, probe_channel
from relay.models import Channel
from relay.providers.failures import FailureClass
from tests.support.peers import cohere
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Script

TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def channel_at(live: Portal) -> Channel:
    base_url = live.upstream.base_url.removesuffix("/v1") + "/v2"
    made: Channel = live.channel(base_url, provider="cohere_v2")
    return made


def command(live: Portal, script: Script) -> str:
    return live.model(script, channels=[channel_at(live)])


def streamed_deltas(text: str) -> list[dict[str, Any]]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [event["choices"][0]["delta"] for event in events if event["choices"]]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_question_with_thinking_is_answered_and_billed_units_count(
    live: Portal, server: Server, streamed: bool
) -> None:
    model = command(live, cohere.saying("Hello there.", "They greet me."))
    more = {"reasoning_effort": "high", "top_p": 0.5, "stop": "END", "max_completion_tokens": 50, "safety_mode": "OFF"}
    answer = server.post(live.token(), ask(model, stream=streamed, **more))
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
    assert (sent["p"], sent["stop_sequences"], sent["max_tokens"], sent["safety_mode"]) == (0.5, ["END"], 50, "OFF")
    assert sent["thinking"] == {"type": "enabled"}
    record = live.record(answer)
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (26, 16, 12)
    assert record.usage_source == "reported"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_of_tools_with_anthropics_sdk(live: Portal, server: Server, streamed: bool) -> None:
    async def script(call: Call) -> None:
        last = call.json["messages"][-1]
        if last["role"] == "tool":
            await cohere.saying(
                f"It is {last['content'][0]['text'] if isinstance(last['content'], list) else last['content']}."
            )(call)
        else:
            await cohere.saying("", "", "I will look.", cohere.CALL, reason="TOOL_CALL")(call)

    model, token = command(live, script), live.token()
    server.catch_up()
    tools: Any = [{"name": "weather", "input_schema": TOOL["function"]["parameters"]}]
    asked: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    with anthropic.Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=20) as sdk:
        options: Any = {"model": model, "max_tokens": 99, "tools": tools}
        if streamed:
            with sdk.messages.stream(messages=asked, **options) as stream:
                first = stream.get_final_message()
        else:
            first = sdk.messages.create(messages=asked, **options)
        assert [block.type for block in first.content] == ["thinking", "tool_use"] and first.stop_reason == "tool_use"
        tool: Any = first.content[1]
        assert (tool.id, tool.input) == (cohere.CALL["id"], {"city": "Paris"})
        result = {"type": "tool_result", "tool_use_id": tool.id, "content": "sunny"}
        asked += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        last = sdk.messages.create(messages=asked, **options)
    assert last.content[0].to_dict()["text"] == "It is sunny."


@pytest.mark.parametrize(
    ("choice", "told", "offered"),
    [
        ("required", "REQUIRED", ["weather", "time"]),
        ("none", "NONE", ["weather", "time"]),
        ({"type": "function", "function": {"name": "time"}}, "REQUIRED", ["time"]),
    ],
)
def test_which_tool_must_be_called_is_told(
    live: Portal, server: Server, choice: Any, told: str, offered: list[str]
) -> None:
    model = command(live, cohere.saying())
    other = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
    answer = server.post(live.token(), ask(model, tools=[TOOL, other], tool_choice=choice))
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last(model).json
    assert sent["tool_choice"] == told and [tool["function"]["name"] for tool in sent["tools"]] == offered


@pytest.mark.parametrize(("more", "named"), [({"n": 2}, "n"), ({"logit_bias": {"1": 5}}, "logit_bias")])
def test_what_the_answer_depends_on_and_it_lacks_is_refused(
    live: Portal, server: Server, more: dict[str, Any], named: str
) -> None:
    refused = server.post(live.token(), ask(command(live, cohere.saying()), **more))
    assert refused.status_code == 422 and refused.json()["error"]["param"] == named, refused.text


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_ends_with_an_error_is_none(live: Portal, server: Server, streamed: bool) -> None:
    answer = server.post(live.token(), ask(command(live, cohere.saying("Hel", reason="ERROR")), stream=streamed))
    assert '"error"' in answer.text and "[DONE]" not in answer.text
    assert live.record(answer).end_reason != "completed"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested(live: Portal, streamed: bool) -> None:
    channel = channel_at(live)
    result = probe_channel(channel, channel.keys.get(), live.model(cohere.saying(), channels=[channel]), streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed, result.message


def test_a_test_tells_why_a_key_is_refused(live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.reply(401, {"id": "e1", "message": "invalid api token"})

    channel = channel_at(live)
    result = probe_channel(channel, channel.keys.get(), live.model(script, channels=[channel]))
    assert result.failure is not None and result.failure.kind is FailureClass.KEY_DEAD


def test_models_are_fetched(live: Portal) -> None:
    channel = channel_at(live)
    live.upstream.script("", cohere.listing("command-b", "command-a"))
    try:
        listed = fetch_models(channel, channel.keys.get())
    finally:
        del live.upstream.scripts[""]
    assert listed.names == ("command-a", "command-b") and not listed.error


# -- citations, vectors ------------------------------------------------------------------------------------------------

CITED: dict[str, Any] = {
    "start": 0,
    "end": 5,
    "text": "Hello",
    "sources": [
        {
            "type": "document",
            "id": "d1",
            "document": {"id": "d1", "title": "Greetings", "url": "https://example.org/g"},
        },
        {"type": "document", "id": "d2", "document": {"id": "d2", "snippet": "without an address"}},
    ],
}


@pytest.mark.parametrize("streamed", [False, True])
def test_citations_reach_the_client_as_annotations(live: Portal, server: Server, streamed: bool) -> None:
    model = command(live, cohere.saying(citations=(CITED,)))
    documents = [{"id": "d1", "data": {"title": "Greetings", "url": "https://example.org/g", "text": "Hello!"}}]
    more = {"documents": documents, "citation_options": {"mode": "FAST"}}
    answer = server.post(live.token(), ask(model, stream=streamed, **more))
    assert answer.status_code == 200, answer.text
    place = {"url": "https://example.org/g", "title": "Greetings", "start_index": 0, "end_index": 5}
    wanted = [{"type": "url_citation", "url_citation": place}]
    if streamed:
        assert [found for delta in streamed_deltas(answer.text) for found in delta.get("annotations", ())] == wanted
    else:
        assert answer.json()["choices"][0]["message"]["annotations"] == wanted
    assert live.upstream.last(model).json["citation_options"] == {"mode": "FAST"}
    assert "x-airelays-ignored-parameters" not in answer.headers


def test_citations_that_no_client_could_be_told_are_disclosed(live: Portal, server: Server) -> None:
    model = command(live, cohere.saying(citations=(CITED,)))
    more = {"documents": ["Hello!"], "citation_options": {"mode": "ACCURATE"}}
    answer = server.post(live.token(), ask(model, **more))
    assert answer.headers["x-airelays-ignored-parameters"] == "citation_options"
    assert live.upstream.last(model).json["documents"] == ["Hello!"]


def test_vectors_of_any_length_and_for_any_purpose(live: Portal, server: Server) -> None:
    model, token = command(live, cohere.embedding([0.5, 1.0], [0.25, -1.0])), live.token()
    server.catch_up()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=20) as sdk:
        raw = sdk.embeddings.with_raw_response.create(
            model=model,
            input=["tea", "time"],
            dimensions=2,
            user="u1",
            extra_body={"input_type": "search_query"},
        )
    found = raw.parse()
    assert [one.embedding for one in found.data] == [[0.5, 1.0], [0.25, -1.0]] and found.usage.prompt_tokens == 5
    sent = live.upstream.last(model).json
    assert (sent["input_type"], sent["output_dimension"], sent["texts"]) == ("search_query", 2, ["tea", "time"])
    assert raw.headers["x-airelays-ignored-parameters"] == "user"
    record = live.record(raw.headers["x-request-id"])
    assert (record.input_tokens, record.usage_source) == (5, "reported")


def test_a_refusal_to_make_vectors_is_told(live: Portal, server: Server) -> None:
    model = command(live, cohere.embedding([0.5]))
    body = {"model": model, "input": ["tea"], "input_type": "nonsense"}
    refused = server.post(live.token(), body, path="/v1/embeddings")
    assert refused.status_code == 400 and "input_type" in refused.json()["error"]["message"], refused.text
