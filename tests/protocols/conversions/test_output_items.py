"""Identity of items: whatever ids an upstream gives them, a response says the same plain and streamed."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from relay.protocols.events import Unreadable
from relay.protocols.responses.answer import completion_of
from relay.protocols.responses.upstream_stream import ResponsesDecoder

Item = dict[str, Any]


def message(item_id: str, text: str) -> Item:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": content}


def call(item_id: str, call_id: str, arguments: str, name: str = "f") -> Item:
    return {"type": "function_call", "id": item_id, "call_id": call_id, "name": name, "arguments": arguments}


def custom(item_id: str, call_id: str, text: str) -> Item:
    return {"type": "custom_tool_call", "id": item_id, "call_id": call_id, "name": "p", "input": text}


def plain(output: list[Item]) -> tuple[str, list[tuple[str, str]], list[str]]:
    found = completion_of(json.loads(json.dumps({"id": "resp_1", "status": "completed", "output": output})))
    choices: Any = found["choices"]
    said = choices[0]["message"]
    calls = [call.get("function") or call["custom"] for call in said.get("tool_calls", ())]
    ids = [call["id"] for call in said.get("tool_calls", ())]
    made = [(one["name"], one.get("arguments", one.get("input"))) for one in calls]
    return said["content"] or "", made, [name for name in ids if name]


def decoded(events: list[dict[str, Any]]) -> tuple[str, list[tuple[str, str]], list[str]]:
    decoder, text = ResponsesDecoder(), ""
    calls: dict[int, list[str]] = {}
    ids: list[str] = []
    for event in events:
        for chunk in decoder.chunks(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()):
            for choice in chunk["choices"]:  # type: ignore[attr-defined]
                text += choice["delta"].get("content", "")
                for piece in choice["delta"].get("tool_calls", ()):
                    inner = piece.get("function") or piece.get("custom")
                    line = calls.setdefault(piece["index"], ["", ""])
                    line[0] += inner.get("name", "")
                    line[1] += inner.get("arguments", inner.get("input", ""))
                    ids += [piece["id"]] if "id" in piece else []
    assert decoder.error is None and decoder.done
    return text, [(name, arguments) for name, arguments in calls.values()], ids


def events_of(output: list[Item], final: list[Item], deltas: bool = True, index: str = "own") -> list[dict[str, Any]]:
    """The events of items one after another. `index`: "own", "zero" for all, or "none"."""
    found: list[dict[str, Any]] = []
    for number, item in enumerate(output):
        where: dict[str, int] = {} if index == "none" else {"output_index": 0 if index == "zero" else number}
        if deltas:
            empty: Item = {"arguments": "", "input": "", "content": []}
            emptied = {name: empty.get(name, value) for name, value in item.items()}
            found.append({"type": "response.output_item.added", **where, "item": emptied})
            kind, text = {
                "message": ("output_text", item.get("content", [{}])[0].get("text")),
                "function_call": ("function_call_arguments", item.get("arguments")),
                "custom_tool_call": ("custom_tool_call_input", item.get("input")),
            }[item["type"]]
            delta = {"type": f"response.{kind}.delta", "item_id": item["id"], "delta": text, **where}
            found.append({**delta, "content_index": 0} if kind == "output_text" else delta)
        found.append({"type": "response.output_item.done", **where, "item": item})
    response = {"id": "resp_1", "status": "completed", "output": final}
    return [*found, {"type": "response.completed", "response": response}]


OUTPUTS: dict[str, list[Item]] = {
    "message and call with one id": [message("i", "Hi"), call("i", "c2", '{"a":1}')],
    "two calls with one id": [call("i", "c1", '{"a":1}'), call("i", "c2", '{"a":1}')],
    "two calls with one call id": [call("f1", "c", '{"a":1}'), call("f2", "c", '{"b":2}')],
    "two calls with one id and call id": [call("i", "c", '{"a":1}'), call("i", "c", '{"b":2}')],
    "three calls with the function's name as id": [call(f"f{n}", "f", json.dumps({"a": n})) for n in range(3)],
    "two custom calls with one call id": [custom("x", "c", "one"), custom("y", "c", "two")],
    "function and custom call with one call id": [call("x", "c", "{}"), custom("y", "c", "two")],
    "two messages with one id": [message("i", "Hi "), message("i", "Ho")],
    "two messages": [message("m1", "Hi"), message("m2", "Ho")],
    "message, call, message": [message("m1", "Hi"), call("f1", "c", "{}"), message("m2", "Ho")],
    "no ids": [message("", "Hi"), message("", "Ho"), call("", "", '{"a":1}'), call("", "", '{"b":1}')],
}
REPEATED: dict[str, list[Item]] = {
    "the same call again": [call("f1", "c", '{"a":1}'), call("f1", "c", '{"a": 1}')],
    "the same call with another item id": [call("f1", "c", '{"a":1}'), call("f2", "c", '{"a":1}')],
    "the first of two calls again": [call("f", "c", '{"a":1}'), call("g", "c", '{"b":2}'), call("h", "c", '{"a":1}')],
}


@pytest.mark.parametrize("final", ["all", "none"])
@pytest.mark.parametrize("index", ["own", "zero", "none"])
@pytest.mark.parametrize("deltas", [True, False], ids=["deltas", "whole"])
@pytest.mark.parametrize("name", [*OUTPUTS, *REPEATED])
def test_a_stream_says_what_the_whole_response_says(name: str, deltas: bool, index: str, final: str) -> None:
    output = OUTPUTS.get(name) or REPEATED[name]
    text, calls, ids = decoded(events_of(output, output if final == "all" else [], deltas, index))
    assert (text, calls) == plain(output)[:2]
    assert len(ids) == len(set(ids)), "one id for two calls"
    if name in OUTPUTS:
        assert len(calls) == sum("call" in item["type"] for item in output)


def test_calls_with_one_call_id_that_arrive_interleaved() -> None:
    output = [call("f1", "c", '{"a":1}'), call("f2", "c", '{"b":2}')]
    events = events_of(output, output)
    mixed = [events[n] for n in (0, 3, 1, 4, 2, 5, 6)]
    assert decoded(mixed)[:2] == ("", [("f", '{"a":1}'), ("f", '{"b":2}')])


def test_ids_of_items_may_change_with_every_event() -> None:
    """GitHub Copilot (litellm #30072)."""
    for output in OUTPUTS["two messages"], [call("f1", "c1", '{"a":1}'), call("f2", "c2", '{"b":2}')]:
        numbers = itertools.count()
        events = events_of(output, output)
        for event in events:
            if "item_id" in event:
                event["item_id"] = f"r{next(numbers)}"
            if "item" in event:
                event["item"] = {**event["item"], "id": f"r{next(numbers)}"}
        events[-1]["response"]["output"] = [{**item, "id": f"r{next(numbers)}"} for item in output]
        assert decoded(events)[:2] == plain(output)[:2]


def test_only_the_final_response_lists_the_second_of_two_items_with_one_id() -> None:
    for name in OUTPUTS.keys() - {"no ids"}:
        output = OUTPUTS[name]
        assert decoded(events_of(output[:1], output))[:2] == plain(output)[:2], name


@pytest.mark.parametrize("name", [*OUTPUTS, *REPEATED])
def test_a_stream_without_done_events_says_the_same(name: str) -> None:
    output = OUTPUTS.get(name) or REPEATED[name]
    events = [event for event in events_of(output, []) if not event["type"].endswith("item.done")]
    assert decoded(events)[:2] == plain(output)[:2]


@pytest.mark.parametrize("deltas", [True, False])
def test_the_cost_of_an_item_does_not_grow_with_their_number(deltas: bool) -> None:
    def seconds(count: int) -> float:
        output = [call("i", "c", json.dumps({"a": number})) for number in range(count)]
        events = events_of(output, output, deltas)
        began = time.process_time()
        assert len(decoded(events)[1]) == count
        return time.process_time() - began

    seconds(100)
    assert seconds(4000) < 80 * max(seconds(400), 0.01)


@pytest.mark.parametrize(
    "kind", ["computer_call", "local_shell_call", "shell_call", "apply_patch_call", "mcp_approval_request"]
)
def test_a_call_that_chat_completions_have_no_form_for_is_an_error(kind: str) -> None:
    item = {"type": kind, "id": "x", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}}
    with pytest.raises(Unreadable):
        plain([message("m", "Hi"), item])
    decoder = ResponsesDecoder()
    decoder.chunks(f"data: {json.dumps({'type': 'response.output_item.done', 'item': item})}\n\n".encode())
    assert decoder.error is not None
