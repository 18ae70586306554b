"""Requests of the hub in the form of Bedrock's Converse. Each is checked against the service model."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocols.chat_completions.hub import BUDGET, CACHE_CONTROL, FAILED_TOOL, TOP_K
from relay.protocols.contract import ConvertedRequest, Dialect
from relay.protocols.converse.upstream import ConverseUpstream
from relay.protocols.fields import BadRequest
from tests.support.peers.clouds.shapes import fault

UPSTREAM = ConverseUpstream()
NOVA, LLAMA = "us.amazon.nova-2-lite-v1:0", "us.meta.llama4-scout-v1:0"
OPEN, MISTRAL, CLAUDE = "openai.gpt-oss-120b-1:0", "mistral.mistral-large-3", "anthropic.claude-x"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello."}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}


def tool(name: str = "weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


def call(name: str = "weather", call_id: str = "c1", arguments: str = '{"a":1}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def converted(model: str = LLAMA, messages: list[dict[str, Any]] = HELLO, **more: Any) -> ConvertedRequest:
    form = UPSTREAM.request({"model": model, "messages": messages, **more}, Dialect(vendor="bedrock_claude"))
    body = json.loads(UPSTREAM.encode(form.body, False, Dialect()))
    assert not (wrong := fault("ConverseRequest", body)), wrong
    return ConvertedRequest(body, form.dropped, form.names)


@pytest.mark.parametrize(
    ("model", "asked", "told", "dropped"),
    [
        (NOVA, {TOP_K: 500}, {"inferenceConfig": {"topK": 128}}, []),
        (MISTRAL, {"top_k": 5}, {"top_k": 5}, []),
        (LLAMA, {"top_k": 5}, None, ["top_k"]),
        (NOVA, {"reasoning_effort": "none"}, {"reasoningConfig": {"type": "disabled"}}, []),
        (
            NOVA,
            {"reasoning_effort": "max"},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
            [],
        ),
        (
            NOVA,
            {"reasoning_effort": "max", "max_tokens": 9},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}},
            ["reasoning_effort"],
        ),
        ("us.amazon.nova-pro-v1:0", {"reasoning_effort": "low"}, None, ["reasoning_effort"]),
        (OPEN, {"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}, []),
        ("openai.gpt-6-sol", {"reasoning_effort": "xhigh"}, {"reasoning": {"effort": "xhigh"}}, []),
        ("deepseek.v3-v1:0", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, []),
        ("us.deepseek.r1-v1:0", {"reasoning_effort": "low"}, None, ["reasoning_effort"]),
        (LLAMA, {BUDGET: 5000}, None, ["thinking"]),
    ],
)
def test_each_maker_is_told_in_its_own_words(
    model: str, asked: dict[str, Any], told: object, dropped: list[str]
) -> None:
    form = converted(model, **asked)
    assert (form.body.get("additionalModelRequestFields"), form.dropped) == (told, dropped)


def test_a_limit_that_is_lowered_later_fits_beside_an_effort() -> None:
    form = UPSTREAM.request({"model": NOVA, "messages": HELLO, "reasoning_effort": "high"}, Dialect())
    UPSTREAM.limit(form.body, 40, Dialect())
    assert form.body["inferenceConfig"] == {"maxTokens": 40}
    told: Any = form.body["additionalModelRequestFields"]
    assert told["reasoningConfig"]["maxReasoningEffort"] == "medium"
    UPSTREAM.limit(form.body, 90, Dialect())
    assert form.body["inferenceConfig"] == {"maxTokens": 40}, "never above what was asked"


@pytest.mark.parametrize(
    ("more", "choice", "offered", "dropped"),
    [
        ({"tool_choice": "auto"}, None, ["weather", "time"], []),
        ({"tool_choice": "required"}, {"any": {}}, ["weather", "time"], []),
        ({"tool_choice": "none"}, None, None, []),
        ({"tool_choice": {"type": "function", "function": {"name": "time"}}}, {"tool": {"name": "time"}}, None, []),
        ({"parallel_tool_calls": False}, None, ["weather", "time"], ["parallel_tool_calls"]),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("time")]}}},
            {"any": {}},
            ["time"],
            [],
        ),
    ],
)
def test_which_tools_may_be_called(more: dict[str, Any], choice: object, offered: object, dropped: list[str]) -> None:
    form = converted(tools=[tool(), tool("time")], **more)
    config: Any = form.body.get("toolConfig")
    assert form.dropped == dropped
    if more.get("tool_choice") == "none":
        assert config is None
        return
    assert config.get("toolChoice") == choice
    names = [one["toolSpec"]["name"] for one in config["tools"]]
    assert names == (offered or ["weather", "time"])


@pytest.mark.parametrize("more", [{}, {"tools": [tool()], "tool_choice": "none"}])
def test_tools_that_were_called_are_always_defined(more: dict[str, Any]) -> None:
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call()]}]
    turns.append({"role": "tool", "tool_call_id": "c1", "content": "sunny"})
    form = converted(messages=turns, **more)
    config: Any = form.body["toolConfig"]
    assert [one["toolSpec"]["name"] for one in config["tools"]] == ["weather"]
    assert form.dropped == (["tool_choice"] if more else [])


def test_ids_of_calls_that_a_vendor_numbers_anew_are_each_there_once() -> None:
    """As Kimi and llama.cpp number them, and Converse refuses: `tool_use` ids must be unique."""
    turns = [*HELLO]
    for text in ("sunny", "rain", "snow"):
        turns += [{"role": "assistant", "content": None, "tool_calls": [call("weather", "call_0")]}]
        turns += [{"role": "tool", "tool_call_id": "call_0", "content": text}]
    spoken: Any = converted(messages=turns, tools=[tool()]).body["messages"]
    made = [block["toolUse"]["toolUseId"] for turn in spoken for block in turn["content"] if "toolUse" in block]
    results = {
        block["toolResult"]["toolUseId"]: block["toolResult"]["content"][0]["text"]
        for turn in spoken
        for block in turn["content"]
        if "toolResult" in block
    }
    assert made == ["call_0", "call_0_2", "call_0_3"]
    assert results == {"call_0": "sunny", "call_0_2": "rain", "call_0_3": "snow"}


def test_names_of_tools_and_ids_of_calls_are_written_in_letters_that_it_takes() -> None:
    name, call_id = "web.search/now", "call|" + "x" * 80
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call(name, call_id)]}]
    turns.append({"role": "tool", "tool_call_id": call_id, "content": [{"type": "text", "text": "found"}]})
    form = converted(messages=turns, tools=[tool(name)])
    spoken: Any = form.body["messages"]
    used, result = spoken[1]["content"][0]["toolUse"], spoken[2]["content"][0]["toolResult"]
    assert form.names == {used["name"]: name} and used["toolUseId"] == result["toolUseId"]


@pytest.mark.parametrize(("model", "status", "text"), [(NOVA, "error", "no"), (LLAMA, None, "[The tool failed.]\nno")])
def test_a_tool_that_failed_is_told_as_such(model: str, status: str | None, text: str) -> None:
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call()]}]
    turns.append({"role": "tool", "tool_call_id": "c1", "content": "no", FAILED_TOOL: True})
    result: Any = converted(model, turns, tools=[tool()]).body["messages"][2]["content"][0]  # type: ignore[index]
    assert result["toolResult"].get("status") == status and result["toolResult"]["content"] == [{"text": text}]


def test_schemas_hold_answers_where_the_model_can_be_held() -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "found", "schema": SCHEMA}}
    form = converted(OPEN, response_format=shape)
    described: Any = form.body["outputConfig"]
    inner = described["textFormat"]["structure"]["jsonSchema"]
    closed = json.loads(inner["schema"])
    assert inner["name"] == "found" and closed["additionalProperties"] is False
    assert closed["properties"]["a"]["additionalProperties"] is False and not form.dropped
    for model, asked, lost in (
        (NOVA, shape, "response_format.json_schema.schema"),
        (OPEN, {"type": "json_object"}, "response_format"),
    ):
        form = converted(model, response_format=asked)
        assert form.dropped == [lost] and "outputConfig" not in form.body
        assert "JSON" in str(form.body["system"])


def test_cached_prefixes_end_where_the_client_says_on_models_that_take_it() -> None:
    mark = {CACHE_CONTROL: {"type": "ephemeral", "ttl": "1h"}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": "Long.", **mark}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello.", **mark}]},
    ]
    plain, lasting = {"type": "default"}, {"type": "default", "ttl": "1h"}
    for model, point in ((NOVA, plain), (CLAUDE, lasting)):
        form = converted(model, turns, tools=[{**tool(), **mark}])
        assert form.body["system"] == [{"text": "Long."}, {"cachePoint": point}]
        spoken: Any = form.body["messages"]
        assert spoken[0]["content"] == [{"text": "Hello."}, {"cachePoint": point}]
        config: Any = form.body["toolConfig"]
        assert ("cachePoint" in config["tools"][-1]) is (model == CLAUDE)
    assert "cachePoint" not in str(converted(LLAMA, turns, tools=[{**tool(), **mark}]).body)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "messages[0].content[0].image_url"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}},
            "messages[0].content[0].image_url",
        ),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}, "messages[0].content[0].image_url"),
        ({"type": "file", "file": {"filename": "a.zip", "file_data": "data:application/zip;base64,AAAA"}}, ""),
        ({"type": "hologram"}, "messages[0].content[0].type"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(part: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as told:
        converted(messages=[{"role": "user", "content": [part]}])
    assert told.value.param == (param or "messages[0].content[0].file")


@pytest.mark.parametrize("more", [{"n": 2}, {"web_search_options": {"a": 1}}, {"logprobs": True}])
def test_parameters_without_which_the_answer_is_another_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as told:
        converted(**more)
    assert told.value.param in more


def test_what_is_left_out_is_named() -> None:
    form = converted(seed=4, temperature=1.5, service_tier="priority", user="u", presence_penalty=0.5)
    assert form.dropped == ["temperature", "service_tier", "seed", "user", "presence_penalty"]
    assert form.body["inferenceConfig"] == {"temperature": 1}


@pytest.mark.parametrize("kind", ["video_url", "input_audio"])
def test_films_and_recordings_arrive(kind: str) -> None:
    data = base64.b64encode(b"moving").decode()
    film = {"type": "video_url", "video_url": {"url": f"data:video/quicktime;base64,{data}"}}
    sound = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    found: Any = converted(NOVA, [{"role": "user", "content": [film if kind == "video_url" else sound]}]).body
    block = found["messages"][0]["content"][0]
    form = {
        "video": {"format": "mov", "source": {"bytes": data}},
        "audio": {"format": "mp3", "source": {"bytes": data}},
    }
    assert block.items() <= form.items() and len(block) == 1


TEXTS = st.text(max_size=12)
TURNS = st.lists(
    st.one_of(
        TEXTS.map(lambda text: {"role": "user", "content": text}),
        TEXTS.map(lambda text: {"role": "system", "content": text}),
        TEXTS.map(lambda text: {"role": "assistant", "content": text}),
        st.tuples(TEXTS, TEXTS).map(
            lambda two: {"role": "assistant", "content": two[0] or None, "tool_calls": [call("f", two[1], two[0])]}
        ),
        st.tuples(TEXTS, TEXTS).map(lambda two: {"role": "tool", "tool_call_id": two[0], "content": two[1]}),
    ),
    min_size=1,
    max_size=8,
)


@given(TURNS)
def test_whatever_order_a_client_sends_is_one_that_the_api_takes(turns: list[dict[str, Any]]) -> None:
    """User and assistant take turns, the user begins, no text is blank, and every call has its result behind it."""
    found: Any = converted(messages=turns, tools=[tool("f")]).body["messages"]
    assert [turn["role"] for turn in found] == [("user", "assistant")[number % 2] for number in range(len(found))]
    called: list[str] = []
    for turn in found:
        assert turn["content"]
        assert all(block["text"].strip() for block in turn["content"] if "text" in block)
        results = [block["toolResult"]["toolUseId"] for block in turn["content"] if "toolResult" in block]
        assert sorted(results) == sorted(called)
        called = [block["toolUse"]["toolUseId"] for block in turn["content"] if "toolUse" in block]
    assert not called
