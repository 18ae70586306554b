"""Nothing that both APIs can carry is lost on the way through the hub, whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.protocols.anthropic_messages.answer import events_of, whole_message
from relay.protocols.anthropic_messages.stream import MessagesStream
from relay.protocols.contract import Client
from tests.protocols.anthropic_messages.conversions import (
    MESSAGES,
    answered,
    as_call,
    chat_client,
    hub,
    message_of,
    messages_client,
    responses_client,
    sent,
    stream,
)
from tests.support.peers.messages import TEXT, THINKING, TOOL, USAGE, events, fault, message, wire

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
values = st.recursive(st.none() | st.booleans() | st.integers(-99, 99) | words, lambda one: st.lists(one, max_size=2))
inputs = st.dictionaries(words, values, max_size=2)
images = st.sampled_from(["data:image/png;base64,iVBO", "https://example.org/a.png"])


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation in chat completions."""
    found: list[dict[str, Any]] = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        parts: list[dict[str, Any]] = [{"type": "text", "text": draw(words)}]
        if draw(st.booleans()):
            parts.append({"type": "image_url", "image_url": {"url": draw(images)}})
        found.append({"role": "user", "content": parts if len(parts) > 1 else parts[0]["text"]})
        calls = []
        for _ in range(draw(st.integers(0, 2))):
            number += 1
            function = {"name": "run", "arguments": json.dumps(draw(inputs), separators=(",", ":"), ensure_ascii=False)}
            calls.append({"id": f"call_{number}", "type": "function", "function": function})
        said = draw(words) if not calls or draw(st.booleans()) else None
        found.append({"role": "assistant", "content": said, **({"tool_calls": calls} if calls else {})})
        for call in calls:
            found.append({"role": "tool", "tool_call_id": call["id"], "content": draw(words)})
    return [*found, {"role": "user", "content": draw(words)}]


@settings(deadline=None, max_examples=60)
@given(chats())
def test_chat_completions_come_back_as_they_were(turns: list[dict[str, Any]]) -> None:
    body = sent(chat_client(turns, max_tokens=50), MESSAGES)
    assert fault(as_call(body)) == ""
    back = hub(messages_client(**{name: value for name, value in body.items() if name != "model"}))
    assert back.dropped == [] and _merged(back.body["messages"]) == _merged(turns)


def _merged(turns: list[dict[str, Any]]) -> list[Any]:
    """Messages in one form: text that is not beside anything is a string, and a user's messages in a row are one."""
    found: list[list[Any]] = []
    for turn in turns:
        content = turn.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        rest = [turn.get("tool_calls"), turn.get("tool_call_id")]
        if found and found[-1][0] == turn["role"] == "user":
            found[-1][1] += parts
        else:
            found.append([turn["role"], list(parts), *rest])
    return [[role, _texts(parts), *rest] for role, parts, *rest in found]


def _texts(parts: list[dict[str, Any]]) -> list[Any]:
    out: list[Any] = []
    for part in parts:
        if part["type"] == "text" and out and isinstance(out[-1], str):
            out[-1] += "\n" + part["text"]
        else:
            out.append(part["text"] if part["type"] == "text" else part)
    return out


blocks = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": words, "signature": st.just("c2ln")})
redacted = st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": st.just("ZGF0YQ==")})


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation in the Messages API."""
    found: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        found.append({"role": "user", "content": [*results, {"type": "text", "text": draw(words)}]})
        content: list[dict[str, Any]] = draw(st.lists(blocks | redacted, max_size=2))
        content.append({"type": "text", "text": draw(words)})
        results = []
        for _ in range(draw(st.integers(0, 2))):
            number += 1
            content.append({"type": "tool_use", "id": f"toolu_{number}", "name": "run", "input": draw(inputs)})
            result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": draw(words)}
            results.append({**result, "is_error": True} if draw(st.booleans()) else result)
        found.append({"role": "assistant", "content": content})
    return [*found, {"role": "user", "content": [*results, {"type": "text", "text": draw(words)}]}]


@settings(deadline=None, max_examples=60)
@given(conversations())
def test_messages_come_back_as_they_were(turns: list[dict[str, Any]]) -> None:
    client = messages_client(turns, system="Be brief.", stop_sequences=["x"], top_k=3, temperature=0.5)
    body = sent(client, MESSAGES)
    assert body["messages"] == turns and body["system"] == [{"type": "text", "text": "Be brief."}]
    assert (body["max_tokens"], body["stop_sequences"], body["top_k"], body["temperature"]) == (5000, ["x"], 3, 0.5)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    content: list[dict[str, Any]] = draw(st.lists(blocks | redacted, max_size=2))
    if draw(st.booleans()):
        content.append({"type": "text", "text": draw(words)})
    for number in range(draw(st.integers(0, 2))):
        content.append({"type": "tool_use", "id": f"toolu_{number}", "name": "run", "input": draw(inputs)})
    content = content or [TEXT]
    called = any(block["type"] == "tool_use" for block in content)
    stops = ["tool_use"] if called else ["end_turn", "max_tokens", "pause_turn", "model_context_window_exceeded"]
    usage = {name: value for name, value in USAGE.items() if name != "service_tier"}
    return message(*content, stop=draw(st.sampled_from(stops)), id="msg_1", usage=usage)


@settings(deadline=None, max_examples=60)
@given(answers(), st.integers(1, 40))
def test_answers_come_back_as_they_were_whole_and_in_pieces(whole: dict[str, Any], step: int) -> None:
    assert answered(messages_client(), json.dumps(whole).encode(), MESSAGES) == whole
    data = wire(events(whole))
    out, codec = stream(messages_client(), data, MESSAGES, step)
    assert codec.done and message_of(out) == whole
    assert message_of(events_of(whole)) == whole


@settings(deadline=None, max_examples=40)
@given(answers())
def test_an_answer_is_the_same_to_other_clients_whole_and_as_a_stream(whole: dict[str, Any]) -> None:
    plain = answered(chat_client(), json.dumps(whole).encode(), MESSAGES)["choices"][0]
    out, _ = stream(chat_client(), wire(events(whole)), MESSAGES)
    chunks = [json.loads(line[6:]) for line in out.decode().split("\n\n") if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == (plain["message"]["content"] or "")
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == (
        plain["message"].get("reasoning_content") or ""
    )
    found = next(one["choices"][0]["finish_reason"] for one in reversed(chunks) if one["choices"])
    assert found == plain["finish_reason"]


WHOLE = message(THINKING, {"type": "text", "text": "Grüße 🌍, \\ud83c"}, TOOL, stop="tool_use")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_streams_may_be_split_at_every_byte(newline: bytes) -> None:
    data = wire(events(WHOLE)).replace(b"\n", newline)
    clients: tuple[Callable[[], Client], ...] = (
        messages_client,
        chat_client,
        lambda: responses_client([{"role": "user", "content": "Hi."}]),
    )
    expected = [stream(client(), data, MESSAGES)[0] for client in clients]
    assert message_of(expected[0])["content"] == WHOLE["content"]
    native = MessagesStream()
    usual = native.feed(data) + native.finish() + native.terminal
    assert usual == data
    for at in range(1, len(data)):
        codec = MessagesStream()
        out = codec.feed(data[:at]) + codec.feed(data[at:]) + codec.finish() + codec.terminal
        assert out == usual and codec.done and codec.usage == native.usage, at
    for client, whole in zip(clients, expected, strict=True):
        assert stream(client(), data, MESSAGES, 1)[0] == whole


def test_a_stream_that_was_not_asked_for_is_a_message() -> None:
    text, error = whole_message(wire(events(WHOLE)))
    assert error is None and json.loads(text) == WHOLE
    assert whole_message(wire(events(WHOLE)[:-1])) == (b"", None), "cut off"
