"""Decodes the events of a response into hub chunks. Pure; one object per stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, int_of, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING
from relay.protocols.events import payload
from relay.protocols.responses.answer import call_of, finish_of, nested_annotations, thinking_of
from relay.protocols.responses.usage import chat_usage, parse_responses_usage
from relay.protocols.usage import Usage

_TERMINAL: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_OPENING: Final = frozenset(("response.created", "response.in_progress", "response.queued"))


@dataclass(slots=True)
class ResponsesDecoder:
    """The decoder of one stream. A complete item adds only the content that did not arrive as deltas."""

    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the final event has arrived
    _head: Json = field(default_factory=dict)  # members that every chunk has
    _calls: dict[int, int] = field(default_factory=dict)  # output index to the call's index
    _streamed_parts: set[tuple[int, int]] = field(default_factory=set)  # parts that arrived as deltas
    _streamed_calls: set[int] = field(default_factory=set)  # calls whose arguments arrived as deltas
    _finished_items: set[int] = field(default_factory=set)  # items that arrived complete

    def chunks(self, event: bytes) -> list[Json]:
        found = decode_object(payload(event))
        if found is None:
            return []
        kind = text_of(found, "type")
        if kind == "error" or (not kind and found.get("error")):
            flat = {
                "error": {
                    "message": text_of(found, "message"),
                    "type": "server_error",
                    "code": found.get("code"),
                    "param": None,
                }
            }
            self.error = encode(found if found.get("error") else flat)
            return []
        if kind in _TERMINAL:
            return self._end(kind, object_of(found, "response"))
        if kind in _OPENING:
            self._set_head(object_of(found, "response"))
            return []
        return self._delta(kind, found)

    def finish(self) -> None:
        """Does nothing: a response without its final event is truncated."""

    def _delta(self, kind: str, found: Json) -> list[Json]:
        index, delta = int_of(found, "output_index"), text_of(found, "delta")
        if kind in {"response.output_text.delta", "response.refusal.delta"} and delta:
            self._streamed_parts.add((index, int_of(found, "content_index")))
            member = "content" if kind == "response.output_text.delta" else "refusal"
            return [self._chunk({member: delta}, logprobs=objects_of(found, "logprobs"))]
        if kind in {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"} and delta:
            return [self._chunk({"reasoning_content": delta})]
        if kind == "response.reasoning_summary_part.added" and int_of(found, "summary_index"):
            return [self._chunk({"reasoning_content": "\n\n"})]
        if kind == "response.output_item.added":
            return self._item_added(index, object_of(found, "item"))
        calls = {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
        if kind in calls and delta and index in self._calls:
            self._streamed_calls.add(index)
            return [self._arguments(index, delta, "custom" in kind)]
        if kind == "response.output_item.done":
            return self._item_done(index, object_of(found, "item"))
        return []

    def _item_added(self, index: int, item: Json) -> list[Json]:
        call = call_of(item)
        if call is None:
            return []
        self._calls.setdefault(index, len(self._calls))
        kind, member = ("custom", "input") if text_of(call, "type") == "custom" else ("function", "arguments")
        inner: Json = {**object_of(call, kind), member: ""}
        return [
            self._chunk({"tool_calls": [{"index": self._calls[index], "id": call["id"], "type": kind, kind: inner}]})
        ]

    def _arguments(self, index: int, text: str, custom: bool) -> Json:
        inner: Json = {"custom": {"input": text}} if custom else {"function": {"arguments": text}}
        return self._chunk({"tool_calls": [{"index": self._calls[index], **inner}]})

    def _item_done(self, index: int, item: Json) -> list[Json]:
        """The chunks of a complete item, for the content that did not arrive as deltas."""
        if index in self._finished_items:
            return []
        self._finished_items.add(index)
        call, kind = call_of(item), text_of(item, "type")
        if call is not None:
            found = self._item_added(index, item) if index not in self._calls else []
            whole = text_of(item, "arguments") or text_of(item, "input")
            if index not in self._streamed_calls and whole:
                self._streamed_calls.add(index)
                found.append(self._arguments(index, whole, text_of(call, "type") == "custom"))
            return found
        if kind == "reasoning" and item.get("encrypted_content"):
            return [self._chunk({THINKING: [thinking_of(item)]})]
        return self._parts(index, item) if kind == "message" else []

    def _parts(self, index: int, item: Json) -> list[Json]:
        found: list[Json] = []
        for number, part in enumerate(objects_of(item, "content")):
            if (index, number) not in self._streamed_parts:
                self._streamed_parts.add((index, number))
                member = "refusal" if text_of(part, "type") == "refusal" else "content"
                text = text_of(part, "refusal") if member == "refusal" else text_of(part, "text")
                found += [self._chunk({member: text})] if text else []
            annotations = nested_annotations(part)
            found += [self._chunk({"annotations": annotations})] if annotations else []
        return found

    def _end(self, kind: str, response: Json) -> list[Json]:
        self._set_head(response)
        usage = response.get("usage")
        if isinstance(usage, dict):
            self.usage = parse_responses_usage(encode(usage))
        if kind == "response.failed":
            error = object_of(response, "error") or {"message": "The upstream failed.", "code": "upstream_error"}
            self.error = encode({"error": {"type": "server_error", "param": None, **error}})
            return []
        found: list[Json] = []
        for index, item in enumerate(objects_of(response, "output")):
            found += self._item_done(index, item)
        found.append(self._chunk({}, finish_of(response, bool(self._calls))))
        if isinstance(usage, dict):
            found.append({**self._head, "choices": [], "usage": chat_usage(usage)})
        self.done = True
        return found

    # -- chunks ------------------------------------------------------------------------------------------------------

    def _set_head(self, response: Json) -> None:
        if self._head:
            return
        created = response.get("created_at")
        response_id = text_of(response, "id")
        self._head = {
            "id": f"chatcmpl-{response_id.removeprefix('resp_')}" if response_id else "",
            "object": "chat.completion.chunk",
            "created": int(created) if isinstance(created, (int, float)) else 0,
            "model": text_of(response, "model"),
        }

    def _chunk(self, delta: Json, finish: str | None = None, logprobs: list[Json] | None = None) -> Json:
        self._set_head({})
        shown: Json | None = {"content": logprobs, "refusal": None} if logprobs else None
        return {**self._head, "choices": [{"index": 0, "delta": delta, "logprobs": shown, "finish_reason": finish}]}
