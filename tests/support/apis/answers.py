"""What an answer says, whichever API it has and whether it was streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]

# Why an answer ended, in the words of chat completions, by those of other APIs. Others are as they are.
_ENDS: Final = {
    "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "refusal": "content_filter",
    "STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter",
    "completed": "stop", "max_output_tokens": "length",
}  # fmt: skip
_CALLS: Final = {"function_call", "custom_tool_call", "tool_search_call"}


class CaseError(AssertionError):
    """Something of a case did not come out as it should; the message says what."""


class Answer:
    """An answer, by its events; a complete answer is one event."""

    def __init__(self, events: list[Any]) -> None:
        self.events = [event for event in events if isinstance(event, dict)]
        self._messages = any(_is_message(event) for event in self.events)
        self._gemini = any("candidates" in event or "promptFeedback" in event for event in self.events)
        self.done = bool(events) and self._is_end(events[-1])
        if self._messages and len(self.events) > 1:
            self.final: Any = message_of(self.events)
        elif self._gemini and len(self.events) > 1:
            self.final = _merged(self.events)
        else:
            ended = [event["response"] for event in self.events if isinstance(event.get("response"), dict)]
            self.final = ended[-1] if ended else self.events[-1] if self.events else None

    def _is_end(self, last: Any) -> bool:
        if last == "[DONE]":
            return not (self._messages or self._gemini)
        if not isinstance(last, dict):
            return False
        if self._gemini:
            return all(candidate.get("finishReason") for candidate in last.get("candidates") or [{}])
        return last.get("type") in {"response.completed", "response.incomplete", "message_stop"}

    @property
    def _choices(self) -> Iterator[tuple[Json, Json]]:
        for event in self.events:
            for choice in event.get("choices") or ():
                yield choice, choice.get("delta") or choice.get("message") or {}

    @property
    def _items(self) -> list[Json]:
        return [item for item in (self.final or {}).get("output") or () if isinstance(item, dict)]

    @property
    def _blocks(self) -> list[Json]:
        return list((self.final or {}).get("content") or ())

    @property
    def _parts(self) -> list[Json]:
        candidates = (self.final or {}).get("candidates") or ()
        return [part for candidate in candidates for part in candidate.get("content", {}).get("parts") or ()]

    @property
    def said(self) -> str:
        """The text, as a reader of the events puts it together."""
        if self._messages:
            return "".join(block["text"] for block in self._blocks if block["type"] == "text")
        if self._gemini:
            return "".join(part["text"] for part in self._parts if "text" in part and not part.get("thought"))
        if not self._responses:
            return "".join(message.get("content") or "" for _choice, message in self._choices)
        deltas = [event["delta"] for event in self.events if event.get("type") == "response.output_text.delta"]
        messages = [item for item in self._items if item.get("type") == "message"]
        whole = "".join(part.get("text") or "" for item in messages for part in item.get("content") or ())
        if len(self.events) > 1 and "".join(deltas) != whole:
            raise CaseError(f"the deltas say {''.join(deltas)!r}, the items {whole!r}")
        return whole

    @property
    def thought(self) -> str:
        if self._messages:
            return "".join(block["thinking"] for block in self._blocks if block["type"] == "thinking")
        if self._gemini:
            return "".join(part["text"] for part in self._parts if part.get("thought"))
        if not self._responses:
            return "".join(message.get("reasoning_content") or "" for _choice, message in self._choices)
        found = [item for item in self._items if item.get("type") == "reasoning"]
        return "".join(
            part.get("text") or ""
            for item in found
            for part in (item.get("content") or []) + (item.get("summary") or [])
        )

    @property
    def calls(self) -> list[list[str]]:
        """[id, name, arguments] of each call, as the SDKs accumulate them; inputs that are objects as JSON."""
        if self._messages:
            return [
                [block["id"], block["name"], _compact(block["input"])]
                for block in self._blocks
                if block["type"] == "tool_use"
            ]
        if self._gemini:
            called = [part["functionCall"] for part in self._parts if "functionCall" in part]
            return [[str(one.get("id", "")), str(one["name"]), _compact(one.get("args") or {})] for one in called]
        if self._responses:
            return [
                [item.get("call_id", ""), item.get("name", ""), str(item.get("arguments", item.get("input", "")))]
                for item in self._items
                if item.get("type") in _CALLS
            ]
        found: dict[object, list[str]] = {}
        for choice, message in self._choices:
            for number, call in enumerate(message.get("tool_calls") or ()):
                place = (choice.get("index"), call.get("index", number))
                line = found.setdefault(place, ["", "", ""])
                function = call.get("function") or {}
                line[0] = line[0] or call.get("id") or ""
                line[1] += function.get("name") or ""
                line[2] += function.get("arguments") or ""
        return list(found.values())

    @property
    def called(self) -> list[list[Any]]:
        """[name, decoded arguments] of each call: what is the same in every API."""
        return [[name, _decoded(arguments)] for _, name, arguments in self.calls]

    @property
    def finish(self) -> str:
        if self._messages:
            return (self.final or {}).get("stop_reason") or ""
        if self._gemini:
            reasons = [candidate.get("finishReason") for candidate in (self.final or {}).get("candidates") or ()]
            return next((reason for reason in reasons if reason), "")
        if self._responses:
            details = (self.final or {}).get("incomplete_details") or {}
            return details.get("reason") or (self.final or {}).get("status") or ""
        return next((choice["finish_reason"] for choice, _ in self._choices if choice.get("finish_reason")), "")

    @property
    def ended(self) -> str:
        """The same in the words of chat completions, whichever API it is."""
        found = _ENDS.get(self.finish, self.finish)
        return "tool_calls" if found == "stop" and self.calls and (self._gemini or self._responses) else found

    @property
    def error(self) -> str:
        """The code of the error, in the body or in an event; empty: there is none."""
        for event in self.events:
            failed = event.get("error") or ((event.get("response") or {}).get("error"))
            if event.get("type") == "error" and not failed:
                failed = event
            if isinstance(failed, dict):
                return str(failed.get("code") or failed.get("type"))
        return ""

    @property
    def _responses(self) -> bool:
        final = self.final if isinstance(self.final, dict) else {}
        return final.get("object") == "response" or "output" in final


def _is_message(event: Json) -> bool:
    return event.get("type") in {"message", "message_start"}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _decoded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def message_of(events: list[Json]) -> Json:
    """The message of a stream. Raises CaseError where its blocks overlap, or its events have another order."""
    found: Json = {}
    open_at: int | None = None
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            if found:
                raise CaseError("there are two message_start")
            found = {**event["message"], "content": []}
        elif kind == "content_block_start":
            if open_at is not None or event["index"] != len(found["content"]):
                raise CaseError(f"block {event['index']} starts while {open_at} is open")
            open_at = event["index"]
            found["content"].append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            if event["index"] != open_at:
                raise CaseError(f"a delta of block {event['index']} came while {open_at} was open")
            _grow(found["content"][-1], event["delta"])
        elif kind == "content_block_stop":
            if event["index"] != open_at:
                raise CaseError(f"block {event['index']} stops while {open_at} is open")
            open_at = None
        elif kind == "message_delta":
            if open_at is not None:
                raise CaseError(f"block {open_at} is open at the end")
            found |= event["delta"]
            found["usage"] = {**found.get("usage", {}), **event.get("usage", {})}
        elif kind == "message_stop" and event is not events[-1]:
            raise CaseError("there are events after message_stop")
    for block in found.get("content", ()):
        if isinstance(written := block.get("input"), str):
            block["input"] = json.loads(written or "{}")
    return found


def check_items(events: list[Json]) -> None:
    """Raises CaseError where items of a stream of responses overlap: strict clients know one that is open."""
    begun, open_at = 0, None
    for number, event in enumerate(events):
        kind = event["type"]
        if event["sequence_number"] != number:
            raise CaseError(f"the event {number} has the number {event['sequence_number']}")
        if kind == "response.output_item.added":
            if open_at is not None or event["output_index"] != begun:
                raise CaseError(f"item {event['output_index']} begins while {open_at} is open")
            open_at, begun = begun, begun + 1
        elif "output_index" in event and event["output_index"] != open_at:
            raise CaseError(f"{kind} of item {event['output_index']} comes while {open_at} is open")
        elif kind == "response.output_item.done":
            open_at = None


def _grow(block: Json, delta: Json) -> None:
    kind = delta["type"]
    fitting = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
    if kind == "input_json_delta":
        block["input"] = (block["input"] if isinstance(block["input"], str) else "") + delta["partial_json"]
    elif kind == "citations_delta":
        block["citations"] = [*block.get("citations", ()), delta["citation"]]
    elif block["type"] != fitting[kind]:
        raise CaseError(f"a {kind} came in a block of {block['type']}")
    else:
        name = kind.removesuffix("_delta")
        block[name] = block[name] + delta[name]


def _merged(events: list[Json]) -> Json:
    """The response that a stream of generateContent is pieces of; adjacent texts of one kind are one part."""
    found: Json = {}
    for event in events:
        found |= {name: value for name, value in event.items() if name != "candidates"}
        for candidate in event.get("candidates") or ():
            known = found.setdefault("candidates", [{"content": {"role": "model", "parts": []}}])[0]
            known |= {name: value for name, value in candidate.items() if name != "content"}
            parts = known["content"]["parts"]
            for part in candidate.get("content", {}).get("parts") or ():
                if part == {"text": ""}:
                    continue
                last = parts[-1] if parts else {}
                if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
                    parts[-1] = {**last, **part, "text": last["text"] + part["text"]}
                else:
                    parts.append(part)
    return found


def events_of(body: bytes) -> Iterator[Any]:
    """The data of server-sent events, decoded where it is JSON."""
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if data:
            yield "[DONE]" if data == b"[DONE]" else decoded(data)


def decoded(data: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return None
