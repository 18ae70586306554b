"""Encodes hub chunks as the events of a response. Pure; one object per stream.

Every item is added, filled and completed as OpenAI does it, with sequence numbers from 0 and a complete response at the
end. Calls may arrive interleaved; each has its own item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from portal.lib.json import Json, encode, int_of, json_text, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING
from relay.protocols.events import typed_event
from relay.protocols.responses.objects import (
    ending,
    flat_annotations,
    message_item,
    reasoning_item,
    reasoning_of,
    response_object,
    text_content,
)
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.usage import responses_usage
from relay.protocols.token_estimate import token_units


@dataclass(slots=True)
class _Call:
    """A function call whose deltas are arriving."""

    index: int
    item_id: str
    call_id: str
    name: str
    arguments: str = ""
    opened: bool = False  # its `response.output_item.added` has been written


@dataclass(slots=True)
class ResponsesEncoder:
    """Writes each chunk as the corresponding events; open items are completed at the end."""

    request: Json  # the client's, decoded
    ids: Json  # members of the response that the portal sets: `id`, `created_at` …
    names: ToolNames  # the client's tools behind the functions of the upstream's answer
    new_suffix: Callable[[], str]  # makes suffixes for the ids of items
    clock: Callable[[], int]  # seconds since 1970
    units: float = 0.0  # estimated tokens of the text written so far
    ending: bytes = b""
    final: Json | None = None  # the complete response, after `end`
    _number: int = 0  # the next sequence number
    _model: str = ""
    _started: bool = False  # `response.created` has been written
    _shown_usage: Json | None = None
    _finish: str = ""  # the finish_reason
    _items: list[Json | None] = field(default_factory=list)  # by output index; None while an item is open
    _calls: dict[int, _Call] = field(default_factory=dict)
    _reasoning: tuple[int, str, list[str]] | None = None  # output index, id and text of the open reasoning item
    _signed: Json | None = None  # the reasoning with its vendor's signature
    _message: tuple[int, str] | None = None  # output index and id of the open message
    _text: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _annotations: list[Json] = field(default_factory=list)
    _logprobs: list[Json] = field(default_factory=list)
    _part: str = ""  # the type of the open content part, empty: none
    _parts: int = 0  # completed content parts of the open message

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The error event that ends a stream which cannot continue."""
        self._number += 1
        return responses_error_event(self._number - 1, message, code, param)

    # -- chunks ------------------------------------------------------------------------------------------------------

    def chunk(self, chunk: Json) -> bytes:
        out = self._start(chunk) if not self._started else b""
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._shown_usage = responses_usage(usage)
        for choice in objects_of(chunk, "choices"):
            if int_of(choice, "index") == 0:
                out += self._choice(choice)
        return out

    def _choice(self, choice: Json) -> bytes:
        delta = object_of(choice, "delta") or object_of(choice, "message")
        out = b""
        thoughts = reasoning_of(delta)
        if thoughts:
            out += self._add_reasoning(thoughts)
        text = text_content(delta.get("content"))
        self._logprobs += objects_of(object_of(choice, "logprobs"), "content")
        if text:
            out += self._add_text("output_text", text, objects_of(object_of(choice, "logprobs"), "content"))
        refusal = text_of(delta, "refusal")
        if refusal:
            out += self._add_text("refusal", refusal, [])
        for thought in objects_of(delta, THINKING):
            self._signed = thought
        self._annotations += flat_annotations(delta)
        for number, call in enumerate(objects_of(delta, "tool_calls")):
            out += self._add_call_delta(call, number)
        self._finish = text_of(choice, "finish_reason") or self._finish
        return out

    def _start(self, chunk: Json) -> bytes:
        self._started = True
        self._model = text_of(chunk, "model") or text_of(self.request, "model")
        begun = self._response("in_progress", "", [])
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def _add_reasoning(self, text: str) -> bytes:
        out = b""
        if self._reasoning is None:
            out += self._close_message()
            index, item_id = self._open(f"rs_{self.new_suffix()}")
            self._reasoning = (index, item_id, [])
            item: Json = {"id": item_id, "type": "reasoning", "summary": [], "content": []}
            part: Json = {"type": "reasoning_text", "text": ""}
            where: Json = {"item_id": item_id, "output_index": index, "content_index": 0}
            out += self._event("response.output_item.added", output_index=index, item=item)
            out += self._event("response.content_part.added", **where, part=part)
        index, item_id, pieces = self._reasoning
        pieces.append(text)
        self.units += token_units(text.encode())
        return out + self._event(
            "response.reasoning_text.delta", item_id=item_id, output_index=index, content_index=0, delta=text
        )

    def _close_reasoning(self) -> bytes:
        if self._reasoning is None:
            return b""
        index, item_id, pieces = self._reasoning
        self._reasoning = None
        text = "".join(pieces)
        item = reasoning_item(item_id, text, self._signed)
        self._signed = None
        self._items[index] = item
        where: Json = {"item_id": item_id, "output_index": index, "content_index": 0}
        return (
            self._event("response.reasoning_text.done", **where, text=text)
            + self._event("response.content_part.done", **where, part={"type": "reasoning_text", "text": text})
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _add_text(self, kind: str, text: str, logprobs: list[Json]) -> bytes:
        out = self._close_reasoning()
        if self._message is None:
            self._message = self._open(f"msg_{self.new_suffix()}")
            opened = {
                "id": self._message[1],
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            out += self._event("response.output_item.added", output_index=self._message[0], item=opened)
        index, item_id = self._message
        if self._part != kind:
            out += self._close_part()
            self._part = kind
            part: Json = (
                {"type": "refusal", "refusal": ""}
                if kind == "refusal"
                else {"type": kind, "text": "", "annotations": [], "logprobs": []}
            )
            out += self._event(
                "response.content_part.added", item_id=item_id, output_index=index, content_index=self._parts, part=part
            )
        (self._refusal if kind == "refusal" else self._text).append(text)
        self.units += token_units(text.encode())
        extra: Json = {"logprobs": logprobs} if kind == "output_text" else {}
        return out + self._event(
            f"response.{kind}.delta",
            item_id=item_id,
            output_index=index,
            content_index=self._parts,
            delta=text,
            **extra,
        )

    def _close_part(self) -> bytes:
        if not self._part or self._message is None:
            return b""
        index, item_id = self._message
        where: Json = {"item_id": item_id, "output_index": index, "content_index": self._parts}
        if self._part == "refusal":
            content: Json = {"refusal": "".join(self._refusal)}
            part: Json = {"type": "refusal", **content}
        else:
            content = {"text": "".join(self._text), "logprobs": self._logprobs}
            part = {"type": "output_text", "text": content["text"], "annotations": self._annotations, **content}
        out = self._event(f"response.{self._part}.done", **where, **content)
        out += self._event("response.content_part.done", **where, part=part)
        self._part = ""
        self._parts += 1
        return out

    def _close_message(self, status: str = "completed") -> bytes:
        if self._message is None:
            return b""
        out = self._close_part()
        index, item_id = self._message
        item = message_item(
            item_id, "".join(self._text), "".join(self._refusal), self._annotations, self._logprobs, status
        )
        self._items[index] = item
        self._message, self._text, self._refusal, self._annotations, self._logprobs, self._parts = (
            None,
            [],
            [],
            [],
            [],
            0,
        )
        return out + self._event("response.output_item.done", output_index=index, item=item)

    def _add_call_delta(self, call: Json, number: int) -> bytes:
        out = self._close_reasoning() + self._close_message()
        function = object_of(call, "function")
        key = self._key(call, number)
        found = self._calls.get(key)
        if found is None:
            name, suffix = text_of(function, "name"), self.new_suffix()
            index, item_id = self._open(f"{self.names.item_prefix(name)}_{suffix}")
            found = self._calls[key] = _Call(index, item_id, text_of(call, "id") or f"call_{suffix}", name)
        elif text_of(function, "name") and not found.opened:
            found.name += text_of(function, "name")
        if not found.opened and found.name:
            found.opened = True
            out += self._event("response.output_item.added", output_index=found.index, item=self._opened_item(found))
        arguments = json_text(function["arguments"]) if function.get("arguments") is not None else ""
        if arguments:
            found.arguments += arguments
            self.units += token_units(arguments.encode())
            if self.names.is_function(found.name):  # a custom tool's input is inside JSON, and is written as a whole
                out += self._event(
                    "response.function_call_arguments.delta",
                    item_id=found.item_id,
                    output_index=found.index,
                    delta=arguments,
                )
        return out

    def _key(self, call: Json, number: int) -> int:
        """The key of the call that a delta belongs to: by its index, otherwise by its id, otherwise the newest."""
        if isinstance(call.get("index"), int):
            return int_of(call, "index")
        call_id = text_of(call, "id")
        if call_id:
            return next((key for key, known in self._calls.items() if known.call_id == call_id), len(self._calls))
        return max(self._calls, default=number)

    def _opened_item(self, call: _Call) -> Json:
        return self.names.item(call.call_id, call.item_id, call.name, "", "in_progress")

    def _close_calls(self, status: str) -> bytes:
        out = b""
        for call in self._calls.values():
            where: Json = {"item_id": call.item_id, "output_index": call.index}
            if not call.opened:
                out += self._event("response.output_item.added", output_index=call.index, item=self._opened_item(call))
            item = self.names.item(call.call_id, call.item_id, call.name, call.arguments, status)
            if "input" in item:
                out += self._event("response.custom_tool_call_input.delta", **where, delta=item["input"])
                out += self._event("response.custom_tool_call_input.done", **where, input=item["input"])
            elif self.names.is_function(call.name):
                out += self._event(
                    "response.function_call_arguments.done", **where, name=item["name"], arguments=call.arguments
                )
            self._items[call.index] = item
            out += self._event("response.output_item.done", output_index=call.index, item=item)
        self._calls = {}
        return out

    def end(self) -> tuple[bytes, bytes]:
        """Complete the open items; returns the bytes to send now, and the final event."""
        out = self._start({}) if not self._started else b""
        status, incomplete = ending(self._finish)
        if not any(self._items) and self._message is None and not self._calls and self._reasoning is None:
            out += self._add_text("output_text", "", [])
        out += self._close_reasoning() + self._close_message(status) + self._close_calls(status)
        output = [item for item in self._items if item is not None]
        self.final = self._response(status, incomplete, output)
        if status == "completed":
            self.final["completed_at"] = self.clock()
        return out, self._event(f"response.{status}", response=self.final)

    # -- events ------------------------------------------------------------------------------------------------------

    def _open(self, item_id: str) -> tuple[int, str]:
        self._items.append(None)
        return len(self._items) - 1, item_id

    def _response(self, status: str, incomplete: str, output: list[Json]) -> Json:
        return response_object(
            self.request,
            self.ids,
            self._model,
            output,
            self._shown_usage if status != "in_progress" else None,
            (status, incomplete),
        )

    def _event(self, kind: str, **members: object) -> bytes:
        data = encode({"type": kind, "sequence_number": self._number, **members})
        self._number += 1
        return typed_event(kind, data)


def responses_error_event(number: int, message: str, code: str | None, param: str | None) -> bytes:
    """The Responses API's error event, for a stream that cannot continue."""
    return typed_event(
        "error", encode({"type": "error", "sequence_number": number, "code": code, "message": message, "param": param})
    )
