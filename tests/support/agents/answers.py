"""What a client of any API reads from an answer of the portal: plain, or a stream whose events are looked at, too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_IDS = {"id": "id", "call_id": "call", "signature": "sealed", "thoughtSignature": "sealed"}
_IDS |= {"encrypted_content": "sealed", "responseId": "id"}


@dataclass(frozen=True)
class Heard:
    text: str = ""
    thought: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # names and arguments


def events_of(answer: str) -> list[Json]:
    """The objects of an answer: those of its events, or the one that it is."""
    if not answer.lstrip().startswith(("data:", "event:", ":")):
        found = json.loads(answer) if answer.strip() else []
        return found if isinstance(found, list) else [found]
    lines = [line.removeprefix("data:").strip() for line in answer.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def identities(answer: str) -> dict[str, str]:
    """What a client may have to send back as it is, each under a name that does not change from run to run: ids,
    signatures, sealed thoughts.

    Names such as `function_call.call.0`: the kind of the object, what it is, its number among those.
    """
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, value in _identities(events_of(answer), ""):
        if value not in found.values():
            number = counts.get(name, 0)
            counts[name] = number + 1
            found[f"{name}.{number}"] = value
    return found


def _identities(value: object, within: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for one in value:
            yield from _identities(one, within)
    elif isinstance(value, dict):
        kind = str(value.get("type") or value.get("object") or within)
        for name, one in value.items():
            if name in _IDS and isinstance(one, str) and one:
                yield f"{kind}.{_IDS[name]}", one
            elif name not in {"input", "args", "arguments"}:
                yield from _identities(one, name)


def heard(path: str, answer: str) -> Heard:
    """Raises AssertionError for a stream without an event that this API's clients need."""
    found, path = events_of(answer), path.partition("?")[0]
    streamed = answer.lstrip().startswith(("data:", "event:", ":"))
    if path.endswith("/responses"):
        return _of_responses(found, streamed)
    if path.endswith("/messages"):
        return _of_messages(found, answer) if streamed else _of_message(found[0])
    if "enerateContent" in path:
        return _of_gemini(found)
    if streamed:
        assert answer.rstrip().endswith("data: [DONE]")
    return _of_chat(found)


def _of_responses(found: list[Json], streamed: bool) -> Heard:
    if streamed:
        kinds = [event["type"] for event in found]
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        items = [event["item"] for event in found if event["type"] == "response.output_item.done"]
        assert kinds.count("response.output_item.added") == len(items)
        whole = found[-1]["response"]
        assert [item["id"] for item in whole["output"]] == [item["id"] for item in items]
    else:
        whole = found[0]
        items = whole["output"]
    assert whole["usage"]["total_tokens"] == whole["usage"]["input_tokens"] + whole["usage"]["output_tokens"]
    text = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
    thinking = [item for item in items if item["type"] == "reasoning"]
    thoughts = [part["text"] for item in thinking for part in item["summary"] or item.get("content") or ()]
    calls = [item for item in items if item["type"] == "function_call"]
    if streamed:
        deltas = [event["delta"] for event in found if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == text
    return Heard(text, "".join(thoughts), tuple((one["name"], json.loads(one["arguments"])) for one in calls))


def _of_message(whole: Json) -> Heard:
    blocks = whole["content"]
    return Heard(
        "".join(one["text"] for one in blocks if one["type"] == "text"),
        "".join(one["thinking"] for one in blocks if one["type"] == "thinking"),
        tuple((one["name"], one["input"]) for one in blocks if one["type"] == "tool_use"),
    )


def _of_messages(found: list[Json], answer: str) -> Heard:
    """Anthropic's SDKs pass over data without an `event:` line."""
    named = [line.removeprefix("event:").strip() for line in answer.splitlines() if line.startswith("event:")]
    kinds = [event["type"] for event in found]
    assert named == kinds and kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds
    assert {"input_tokens", "output_tokens"} <= found[0]["message"]["usage"].keys()
    assert "output_tokens" in found[-2]["usage"] and found[-2]["delta"]["stop_reason"] in {"end_turn", "tool_use"}
    blocks: list[Json] = []
    pieces: list[str] = []
    for event in found:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
            pieces.append("")
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            pieces[event["index"]] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
    assert kinds.count("content_block_stop") == len(blocks)
    for block, text in zip(blocks, pieces, strict=True):
        match block["type"]:
            case "tool_use":
                block["input"] = json.loads(text or "{}")
            case kind:
                block[kind] = text
    return _of_message({"content": blocks})


def _of_gemini(found: list[Json]) -> Heard:
    assert found[-1]["candidates"][0]["finishReason"] == "STOP" and "usageMetadata" in found[-1]
    parts = [part for one in found for part in one["candidates"][0]["content"].get("parts", ())]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    return Heard(
        "".join(part["text"] for part in parts if "text" in part and not part.get("thought")),
        "".join(part["text"] for part in parts if "text" in part and part.get("thought")),
        tuple((one["name"], one.get("args") or {}) for one in calls),
    )


def _of_chat(found: list[Json]) -> Heard:
    choices = [choice for one in found for choice in one["choices"]]
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] in (["stop"], ["tool_calls"])
    deltas = [one.get("delta") or one.get("message") or {} for one in choices]
    calls: dict[int, Json] = {}
    for delta in deltas:
        for position, call in enumerate(delta.get("tool_calls") or ()):
            one = calls.setdefault(call.get("index", position), {"name": "", "arguments": ""})
            one["name"] += call["function"].get("name") or ""
            one["arguments"] += call["function"].get("arguments") or ""
    return Heard(
        _joined(delta.get("content") for delta in deltas),
        _joined(delta.get("reasoning_content") for delta in deltas),
        tuple((one["name"], json.loads(one["arguments"])) for one in calls.values()),
    )


def _joined(pieces: Iterable[str | None]) -> str:
    return "".join(piece or "" for piece in pieces)
