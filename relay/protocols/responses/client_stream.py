"""Encodes hub chunks as the events of a response. Pure; one object per stream.

Every item is added, filled and completed as OpenAI does it, with sequence numbers from 0 and a complete response at the
end. Calls may arrive interleaved: the item of one begins when that of the one before is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from portal.lib.json import Json, decode_object, encode, int_of, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING
from relay.protocols.events import typed_event
from relay.protocols.responses.objects import (
    ending,
    filled_arguments,
    flat_annotations,
    image_item,
    image_link,
    message_item,
    reasoning_item,
    response_object,
    responses_error_event,
)
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.usage import responses_usage
from relay.protocols.token_estimate import token_units


@dataclass(slots=True)
class _Call:
    """A function call whose deltas are arriving."""

    item_id: str
    call_id: str
    name: str
    arguments: str = ""
    written: int = 0  # characters of the arguments that are in events
    index: int = -1  # of its item; -1: it has not begun

    def is_whole(self) -> bool:
        return self.arguments.rstrip().endswith("}") and decode_object(self.arguments) is not None


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
    _speaker: int | None = None  # the choice that is being written
    _waiting: dict[int, list[Json]] = field(default_factory=dict)  # what arrived of other choices, for the end
    _items: list[Json | None] = field(default_factory=list)  # by output index; None while an item is open
    _calls: dict[tuple[int, int], _Call] = field(default_factory=dict)  # not complete, by their choice and index
    _call_ids: dict[tuple[int, int], str] = field(default_factory=dict)  # of all calls
    _reasoning: tuple[int, str, list[str]] | None = None  # output index, id and text of the open reasoning item
    _signed: list[Json] = field(default_factory=list)  # reasoning with its vendor's signature, not written yet
    _later: list[tuple[str, str, list[Json]]] = field(default_factory=list)  # text that came while a call was open
    _message: tuple[int, str] | None = None  # output index and id of the open message
    _text: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _annotations: list[Json] = field(default_factory=list)
    _cited: int = 0  # annotations of which the event is written
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
            index, delta = int_of(choice, "index"), object_of(choice, "delta")
            says = any(value for name, value in delta.items() if name != "role")
            if says and self._speaker is None:
                self._speaker = index
            if index == self._speaker or not says:
                out += self._choice(choice)
            else:
                self._waiting.setdefault(index, []).append(choice)
        return out

    def _other_choices(self) -> bytes:
        """What arrived of further choices, one after another.

        The API has no choices: all that is there is the answer. GitHub Copilot sends text and calls in different ones.
        """
        out = b""
        for index, waiting in self._waiting.items():
            out += self._close_reasoning() + self._close_message()
            self._speaker = index
            for choice in waiting:
                out += self._choice(choice)
        self._waiting = {}
        return out

    def _choice(self, choice: Json) -> bytes:
        delta = object_of(choice, "delta")
        out = b""
        thoughts = text_of(delta, "reasoning_content")
        if thoughts:
            out += self._add_reasoning(thoughts)
        self._signed += objects_of(delta, THINKING)
        text = text_of(delta, "content")
        logprobs = objects_of(object_of(choice, "logprobs"), "content")
        if text:
            out += self._add_text("output_text", text, logprobs)
        self._logprobs += logprobs
        refusal = text_of(delta, "refusal")
        if refusal:
            out += self._add_text("refusal", refusal, [])
        for annotation in flat_annotations(delta):
            out += self._add_annotation(annotation)
        for image in objects_of(delta, "images"):
            out += self._add_image(text_of(object_of(image, "image_url"), "url") or text_of(image, "image_url"))
        for call in objects_of(delta, "tool_calls"):
            out += self._add_call_delta(call)
        finish = text_of(choice, "finish_reason")
        if finish and not ending(self._finish)[1]:
            self._finish = finish
        return out

    def _start(self, chunk: Json) -> bytes:
        self._started = True
        self._model = text_of(chunk, "model") or text_of(self.request, "model")
        begun = self._response("in_progress", "", [])
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def _add_reasoning(self, text: str) -> bytes:
        out = b""
        if self._reasoning is None:
            out += self._close_message() + self._close_whole_call()
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
        item = reasoning_item(item_id, text, self._signed.pop(0) if self._signed else None)
        self._items[index] = item
        where: Json = {"item_id": item_id, "output_index": index, "content_index": 0}
        return (
            self._event("response.reasoning_text.done", **where, text=text)
            + self._event("response.content_part.done", **where, part={"type": "reasoning_text", "text": text})
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _write_signed(self) -> bytes:
        """Items of their own for signatures without readable reasoning."""
        out = b""
        while self._signed:
            index, item_id = self._open(f"rs_{self.new_suffix()}")
            item = self._items[index] = reasoning_item(item_id, "", self._signed.pop(0))
            out += self._event("response.output_item.added", output_index=index, item=item)
            out += self._event("response.output_item.done", output_index=index, item=item)
        return out

    def _add_text(self, kind: str, text: str, logprobs: list[Json]) -> bytes:
        out = self._close_reasoning()
        if self._message is None:
            out += self._close_whole_call()
            if self._calls:
                self._later.append((kind, text, logprobs))
                return out
            out += self._write_signed()
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
            out += self._write_annotations()
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

    def _add_annotation(self, annotation: Json) -> bytes:
        """Cite a source of the text. Vendors name some before the text begins."""
        self._annotations.append(annotation)
        return self._write_annotations()

    def _write_annotations(self) -> bytes:
        if self._message is None or self._part != "output_text":
            return b""
        out, (index, item_id) = b"", self._message
        for number in range(self._cited, len(self._annotations)):
            out += self._event(
                "response.output_text.annotation.added",
                item_id=item_id,
                output_index=index,
                content_index=self._parts,
                annotation_index=number,
                annotation=self._annotations[number],
            )
        self._cited = len(self._annotations)
        return out

    def _add_image(self, url: str) -> bytes:
        item_id = f"ig_{self.new_suffix()}"
        item = image_item(item_id, url)
        if item is None:
            return self._add_text("output_text", image_link(url), [])
        out = self._close_reasoning() + self._close_message() + self._close_whole_call()
        index, _ = self._open(item_id)
        self._items[index] = item
        opened: Json = {**item, "status": "in_progress", "result": None}
        out += self._event("response.output_item.added", output_index=index, item=opened)
        out += self._event("response.image_generation_call.completed", output_index=index, item_id=item_id)
        return out + self._event("response.output_item.done", output_index=index, item=item)

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
        self._message, self._text, self._refusal, self._parts = None, [], [], 0
        self._annotations, self._logprobs, self._cited = [], [], 0
        return out + self._event("response.output_item.done", output_index=index, item=item)

    def _add_call_delta(self, call: Json) -> bytes:
        out = self._close_reasoning() + self._close_message() + self._write_signed()
        function = object_of(call, "function")
        key = (self._speaker or 0, int_of(call, "index"))
        if key not in self._call_ids:
            name, call_id, suffix = text_of(function, "name"), text_of(call, "id"), self.new_suffix()
            call_id = f"call_{suffix}" if not call_id or call_id in self._call_ids.values() else call_id
            self._calls[key] = _Call(f"{self.names.item_prefix(name)}_{suffix}", call_id, name)
            self._call_ids[key] = call_id
        if (found := self._calls.get(key)) is not None:  # otherwise it is complete: what comes late says nothing
            arguments = text_of(function, "arguments")
            found.arguments += arguments
            self.units += token_units(arguments.encode())
        while self._calls:
            first = next(iter(self._calls))
            out += self._write_call(self._calls[first])
            if not (len(self._calls) > 1 or self._later) or not self._calls[first].is_whole():
                return out
            out += self._close_call(first, "completed")
        return out + self._say_later()

    def _say_later(self) -> bytes:
        later, self._later = self._later, []
        return b"".join(self._add_text(*one) for one in later)

    def _write_call(self, call: _Call) -> bytes:
        """What is new of a call; a custom tool's input is inside JSON, and is written as a whole at its end."""
        out = b""
        if call.index < 0:
            call.index, _ = self._open(call.item_id)
            item = self.names.item(call.call_id, call.item_id, call.name, "", "in_progress")
            out = self._event("response.output_item.added", output_index=call.index, item=item)
        delta, call.written = call.arguments[call.written :], len(call.arguments)
        if not delta or not self.names.is_function(call.name):
            return out
        where: Json = {"item_id": call.item_id, "output_index": call.index}
        return out + self._event("response.function_call_arguments.delta", **where, delta=delta)

    def _close_whole_call(self) -> bytes:
        """Complete the call that is open, before another item begins, if nothing of it can come any more."""
        first = next(iter(self._calls), None)
        return self._close_call(first, "completed") if first and self._calls[first].is_whole() else b""

    def _close_call(self, key: tuple[int, int], status: str) -> bytes:
        call = self._calls.pop(key)
        if (filled := filled_arguments(call.arguments, status)) != call.arguments:
            call.arguments += filled  # behind the white space that is in events
        out, where = self._write_call(call), {"item_id": call.item_id, "output_index": call.index}
        item = self.names.item(call.call_id, call.item_id, call.name, call.arguments, status)
        self._items[call.index] = item
        if "input" in item:
            if item["input"]:
                out += self._event("response.custom_tool_call_input.delta", **where, delta=item["input"])
            out += self._event("response.custom_tool_call_input.done", **where, input=item["input"])
        elif self.names.is_function(call.name):
            done: Json = {"name": item["name"], "arguments": call.arguments}
            out += self._event("response.function_call_arguments.done", **where, **done)
        return out + self._event("response.output_item.done", output_index=call.index, item=item)

    def end(self) -> tuple[bytes, bytes]:
        """Complete the open items; returns the bytes to send now, and the final event."""
        out = (self._start({}) if not self._started else b"") + self._other_choices()
        status, incomplete = ending(self._finish)
        if not any(self._items) and self._message is None and not self._calls and self._reasoning is None:
            out += self._add_text("output_text", "", [])
        out += self._close_reasoning() + self._close_message(status) + self._write_signed()
        while self._calls:
            out += self._close_call(next(iter(self._calls)), status)
        out += self._say_later() + self._close_message(status)
        output = [item for item in self._items if item is not None]
        self.final = self._response(status, incomplete, output)
        if status == "completed":
            self.final["completed_at"] = self.clock()
        return out, self._event(f"response.{status}", response=self.final)

    def so_far(self) -> Json:
        """The response as it would be if its upstream ended it here: what is open is incomplete. Changes nothing."""
        calls = {key: replace(call) for key, call in self._calls.items()}
        cut = replace(self, _finish="length", _waiting={}, _items=[*self._items], _signed=[*self._signed])
        cut._calls, cut._text, cut._refusal = calls, [*self._text], [*self._refusal]
        cut.end()
        return cut.final or {}

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
