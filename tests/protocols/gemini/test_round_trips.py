"""Conversations and answers that go to Gemini's form and back, and streams that are split at every byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.contract import Dialect
from relay.protocols.gemini.answer import Framing
from relay.protocols.gemini.client import GeminiClient, hub_request, response_of
from relay.protocols.gemini.stream import GeminiStream
from relay.protocols.gemini.upstream import GeminiUpstream, gemini_request
from tests.protocols.codecs import events
from tests.protocols.gemini.frames import GEMINI, NEW, RECORDED, USAGE, chat_codec, completion_of, frame, frames_of, sse
from tests.support.strategies import JSON_VALUES

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
SIGNATURES = st.sampled_from(["AY89a18iOcE=", "c2lnbmVk", "Zm9vYmFy"])
NAMES = st.sampled_from(["get_weather", "search", "run"])
ARGUMENTS = st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON_VALUES, max_size=3)
PNG = "iVBORw0KGgo="


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


PARTS = st.one_of(
    WORDS.map(_text),
    st.just({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}),
    st.just({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
    st.just({"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns that both APIs can express: calls have ids, and each has its result."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(WORDS)})
    for turn in range(draw(st.integers(1, 3))):
        content = draw(st.one_of(WORDS, st.lists(PARTS, min_size=2, max_size=3)))
        if isinstance(content, list) and all(part["type"] == "text" for part in content):
            content = "\n".join(part["text"] for part in content)
        messages.append({"role": "user", "content": content})
        answer: dict[str, Any] = {"role": "assistant", "content": draw(st.one_of(st.none(), WORDS))}
        if draw(st.booleans()):
            answer["reasoning_content"] = draw(WORDS)
        called = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
        if called:
            answer["tool_calls"] = [
                {
                    "id": f"call_{turn}_{number}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)},
                }
                for number, (name, arguments) in enumerate(called)
            ]
        if answer["content"] is None and not called:
            answer["content"] = "yes"
        messages.append(answer)
        for call in answer.get("tool_calls", ()):
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": draw(st.one_of(WORDS, st.just("")))}
            )
    messages.append({"role": "user", "content": draw(WORDS)})
    return messages


def _plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with decoded arguments, without what says the same as its absence."""
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return [{name: value for name, value in message.items() if value is not None} for message in messages]


@settings(max_examples=150, deadline=None)
@given(conversations())
def test_a_conversation_goes_to_gemini_and_back_with_nothing_lost(messages: list[dict[str, Any]]) -> None:
    form = gemini_request({"model": NEW, "messages": messages}, GEMINI)
    assert form.dropped == []
    back = hub_request(json.loads(json.dumps(form.body)), "m")
    assert back.dropped == []
    found = [
        {name: value for name, value in message.items() if name != "hub_thinking"}
        for message in back.body["messages"]  # type: ignore[attr-defined]
    ]
    assert _plain(found) == _plain(json.loads(json.dumps(messages)))


@st.composite
def contents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What Gemini's clients send: text, data, calls with and without ids, signatures, results."""
    found: list[dict[str, Any]] = []
    for turn in range(draw(st.integers(1, 3))):
        found.append({"role": "user", "parts": [{"text": draw(WORDS)}]})
        if draw(st.booleans()):
            found[-1]["parts"].append({"inlineData": {"mimeType": "image/png", "data": PNG}})
        parts: list[dict[str, Any]] = [{"text": draw(WORDS), "thought": True}] if draw(st.booleans()) else []
        parts.append({"text": draw(WORDS)})
        called = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
        signature = draw(SIGNATURES)
        for number, (name, arguments) in enumerate(called):
            call = {"id": f"c{turn}{number}", "name": name, "args": arguments}
            parts.append({"functionCall": call, **({} if number else {"thoughtSignature": signature})})
        found.append({"role": "model", "parts": parts})
        if called:
            results = [
                {"functionResponse": {"id": f"c{turn}{number}", "name": name, "response": {"result": draw(WORDS)}}}
                for number, (name, _) in enumerate(called)
            ]
            found.append({"role": "user", "parts": results})
    found.append({"role": "user", "parts": [{"text": draw(WORDS)}]})
    return found


@settings(max_examples=150, deadline=None)
@given(contents())
def test_contents_go_to_the_hub_and_back_with_signatures_on_the_calls_that_had_them(
    given_contents: list[dict[str, Any]],
) -> None:
    hub = hub_request({"contents": given_contents}, "m")
    assert hub.dropped == []
    back = gemini_request({**json.loads(json.dumps(hub.body)), "model": NEW}, GEMINI)
    assert back.dropped == []
    assert back.body["contents"] == given_contents


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The frames of an answer: thoughts, then text, then calls."""
    frames = [frame({"text": draw(WORDS), "thought": True}) for _ in range(draw(st.integers(0, 2)))]
    frames += [frame({"text": draw(WORDS)}) for _ in range(draw(st.integers(0, 3)))]
    called = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
    for number, (name, arguments) in enumerate(called):
        part: dict[str, Any] = {"functionCall": {"name": name, "args": arguments}}
        if number == 0:
            part["thoughtSignature"] = draw(SIGNATURES)
        if draw(st.booleans()):
            part["functionCall"]["id"] = f"id{number}"
        frames.append(frame(part))
    frames.append(frame({"text": ""}, finish="STOP", usageMetadata=USAGE))
    return frames


@settings(max_examples=100, deadline=None)
@given(answers())
def test_a_stream_and_the_whole_answer_are_the_same_completion(frames: list[dict[str, Any]]) -> None:
    codec = chat_codec()
    out = codec.feed(sse(*frames)) + codec.finish()
    assert codec.done and codec.error is None
    streamed: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for chunk in events(out + codec.terminal):
        for choice in chunk["choices"]:
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    calls += value
                elif isinstance(value, str):
                    streamed[name] = streamed.get(name, "") + value
    whole = completion_of(*frames)
    message = whole["choices"][0]["message"]
    assert (streamed.get("content") or None) == (message["content"] or None)
    assert streamed.get("reasoning_content") == message.get("reasoning_content")
    assert [call["function"] for call in calls] == [call["function"] for call in message.get("tool_calls", ())]
    assert whole["choices"][0]["finish_reason"] == ("tool_calls" if calls else "stop")


@settings(max_examples=100, deadline=None)
@given(answers())
def test_an_answer_of_another_api_is_the_same_to_a_gemini_client(frames: list[dict[str, Any]]) -> None:
    """Gemini's answer to the hub, and to a client of Gemini's: only signatures are packed, and ids of calls kept."""
    shown = response_of(completion_of(*frames), "m", "made")
    parts = [part for one in frames for part in one["candidates"][0]["content"]["parts"]]
    found = shown["candidates"][0]  # type: ignore[index]
    for thought in (True, False):
        texts = [part["text"] for part in parts if "text" in part and part.get("thought", False) is thought]
        got = [
            part["text"]
            for part in found["content"]["parts"]
            if "text" in part and part.get("thought", False) is thought
        ]
        assert "".join(got) == "".join(texts)
    assert [part["functionCall"] for part in found["content"]["parts"] if "functionCall" in part] == [
        part["functionCall"] for part in parts if "functionCall" in part
    ]
    assert found["finishReason"] == "STOP"
    usage: Any = shown["usageMetadata"]
    assert {name: usage[name] for name in USAGE if name != "promptTokensDetails"} == {
        name: value for name, value in USAGE.items() if name != "promptTokensDetails"
    }


# -- splits ------------------------------------------------------------------------------------------------------------

SAMPLE = (
    frame({"text": "Grüße, 世界 \U0001f600", "thought": True}),
    frame({"text": "a"}, {"functionCall": {"name": "f", "args": {"x": ["é"]}}, "thoughtSignature": "c2ln"}),
    frame({"text": ""}, finish="STOP", usageMetadata=USAGE),
)


@pytest.mark.parametrize("frames", [SAMPLE, RECORDED], ids=["calls", "recorded"])
@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"], ids=["CRLF", "LF"])
def test_a_stream_split_at_every_byte_is_the_whole(frames: tuple[dict[str, Any], ...], end: bytes) -> None:
    data = b"".join(b"data: " + json.dumps(one, ensure_ascii=False).encode() + end for one in frames)
    whole = chat_codec()
    expected = whole.feed(data) + whole.finish()
    for cut in range(1, len(data)):
        codec = chat_codec()
        out = codec.feed(data[:cut]) + codec.feed(data[cut:]) + codec.finish()
        assert (out, codec.terminal, codec.usage) == (expected, whole.terminal, whole.usage)
        native = GeminiStream(Framing(sse=True))
        passed = native.feed(data[:cut]) + native.feed(data[cut:]) + native.finish()
        assert passed + native.terminal == data and native.done and native.usage == whole.usage


def test_a_stream_byte_by_byte_is_the_whole_also_as_a_list() -> None:
    data = sse(*SAMPLE)
    native = GeminiStream(Framing(sse=False))
    out = b"".join(native.feed(data[at : at + 1]) for at in range(len(data))) + native.finish() + native.terminal
    assert json.loads(out) == list(SAMPLE)


def test_a_converted_stream_is_a_list_for_clients_that_ask_for_no_events() -> None:
    whole = completion_of(*SAMPLE)
    client = GeminiClient({"contents": []}, "m", "made", sse=False)
    encoder = client.encoder()
    out = b""
    for delta in ({"content": "a"}, {"content": "b"}):
        out += encoder.chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    out += encoder.chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": whole["usage"]})
    rest, terminal = encoder.end()
    found = json.loads(out + rest + terminal)
    assert [one["candidates"][0]["content"]["parts"][0]["text"] for one in found] == ["a", "b", ""]
    assert found[-1]["candidates"][0]["finishReason"] == "STOP" and found[-1]["usageMetadata"]["totalTokenCount"] == 16


def test_an_answer_that_was_streamed_unasked_is_read_as_a_whole() -> None:
    upstream = GeminiUpstream()
    for body in (sse(*SAMPLE), json.dumps(list(SAMPLE)).encode()):
        found = upstream.completion(body, GEMINI)
        assert found is not None and found.completion == completion_of(*SAMPLE)
    assert upstream.completion(sse(*SAMPLE[:2]), Dialect()) is None  # it breaks off


def test_frames_of_a_stream_are_read_with_either_line_end() -> None:
    assert frames_of(sse(*RECORDED)) == frames_of(sse(*RECORDED, end=b"\n\n")) == list(RECORDED)
