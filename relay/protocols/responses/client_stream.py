"""Hub chunks as the events of a response. Pure; one object follows one stream.

Every item is opened, filled and closed as OpenAI does it, with sequence numbers from 0 and a complete response at the end. Calls may arrive
interleaved; each keeps its own item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from portal.lib.json import Json, encode, int_of, json_text, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING
from relay.protocols.events import typed_event
from relay.protocols.responses.objects import ending, flat_annotations, message_item, reasoning_item, reasoning_of, response_object, text_content
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.usage import responses_usage
from relay.protocols.token_estimate import token_units


@dataclass(slots=True)
class _Call:
    """A function call while it arrives."""

    index: int
    item_id: str
    call_id: str
    name: str
    arguments: str = ""
    opened: bool = False


@dataclass(slots=True)
class ResponsesEncoder:
    """Writes each chunk as the events that it stands for; what is still open is closed at the end."""

    request: Json  # the client's, decoded
    ids: Json  # what the portal knows of the response: `id`, `created_at` …
    names: ToolNames  # what the functions of the upstream's answer stand for
    fresh: Callable[[], str]  # makes endings of ids
    clock: Callable[[], int]  # seconds since 1970
    units: float = 0.0
    ending: bytes = b""
    final: Json | None = None  # the whole response, when it has ended
    _number: int = 0
    _model: str = ""
    _begun: bool = False
    _shown_usage: Json | None = None
    _finish: str = ""
    _items: list[Json | None] = field(default_factory=list)
    _calls: dict[int, _Call] = field(default_factory=dict)
    _reasoning: tuple[int, str, list[str]] | None = None
    _signed: Json | None = None
    _message: tuple[int, str] | None = None
    _text: list[str] = field(default_factory=list)
    _refusal: list[str] = field(default_factory=list)
    _annotations: list[Json] = field(default_factory=list)
    _logprobs: list[Json] = field(default_factory=list)
    _part: str = ""
    _parts: int = 0

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The event by which the stream ends when it cannot go on."""
        self._number += 1
        return error_event(self._number - 1, message, code, param)

    # -- chunks ------------------------------------------------------------------------------------------------------

    def chunk(self, chunk: Json) -> bytes:
        out = self._begin(chunk) if not self._begun else b""
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
            out += self._think(thoughts)
        text = text_content(delta.get("content"))
        self._logprobs += objects_of(object_of(choice, "logprobs"), "content")
        if text:
            out += self._say("output_text", text, objects_of(object_of(choice, "logprobs"), "content"))
        refusal = text_of(delta, "refusal")
        if refusal:
            out += self._say("refusal", refusal, [])
        for thought in objects_of(delta, THINKING):
            self._signed = thought
        self._annotations += flat_annotations(delta)
        for number, call in enumerate(objects_of(delta, "tool_calls")):
            out += self._called(call, number)
        self._finish = text_of(choice, "finish_reason") or self._finish
        return out

    def _begin(self, chunk: Json) -> bytes:
        self._begun = True
        self._model = text_of(chunk, "model") or text_of(self.request, "model")
        begun = self._response("in_progress", "", [])
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def _think(self, text: str) -> bytes:
        out = b""
        if self._reasoning is None:
            out += self._close_message()
            index, item_id = self._open(f"rs_{self.fresh()}")
            self._reasoning = (index, item_id, [])
            out += self._event("response.output_item.added", output_index=index, item={"id": item_id, "type": "reasoning", "summary": [], "content": []})
            out += self._event("response.content_part.added", item_id=item_id, output_index=index, content_index=0, part={"type": "reasoning_text", "text": ""})
        index, item_id, said = self._reasoning
        said.append(text)
        self.units += token_units(text.encode())
        return out + self._event("response.reasoning_text.delta", item_id=item_id, output_index=index, content_index=0, delta=text)

    def _close_reasoning(self) -> bytes:
        if self._reasoning is None:
            return b""
        index, item_id, said = self._reasoning
        self._reasoning = None
        text = "".join(said)
        item = reasoning_item(item_id, text, self._signed)
        self._signed = None
        self._items[index] = item
        return (
            self._event("response.reasoning_text.done", item_id=item_id, output_index=index, content_index=0, text=text)
            + self._event("response.content_part.done", item_id=item_id, output_index=index, content_index=0, part={"type": "reasoning_text", "text": text})
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _say(self, kind: str, text: str, logprobs: list[Json]) -> bytes:
        out = self._close_reasoning()
        if self._message is None:
            self._message = self._open(f"msg_{self.fresh()}")
            opened = {"id": self._message[1], "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            out += self._event("response.output_item.added", output_index=self._message[0], item=opened)
        index, item_id = self._message
        if self._part != kind:
            out += self._close_part()
            self._part = kind
            part: Json = {"type": "refusal", "refusal": ""} if kind == "refusal" else {"type": kind, "text": "", "annotations": [], "logprobs": []}
            out += self._event("response.content_part.added", item_id=item_id, output_index=index, content_index=self._parts, part=part)
        (self._refusal if kind == "refusal" else self._text).append(text)
        self.units += token_units(text.encode())
        extra: Json = {"logprobs": logprobs} if kind == "output_text" else {}
        return out + self._event(f"response.{kind}.delta", item_id=item_id, output_index=index, content_index=self._parts, delta=text, **extra)

    def _close_part(self) -> bytes:
        if not self._part or self._message is None:
            return b""
        index, item_id = self._message
        where: Json = {"item_id": item_id, "output_index": index, "content_index": self._parts}
        if self._part == "refusal":
            said: Json = {"refusal": "".join(self._refusal)}
            part: Json = {"type": "refusal", **said}
        else:
            said = {"text": "".join(self._text), "logprobs": self._logprobs}
            part = {"type": "output_text", "text": said["text"], "annotations": self._annotations, "logprobs": self._logprobs}
        out = self._event(f"response.{self._part}.done", **where, **said) + self._event("response.content_part.done", **where, part=part)
        self._part = ""
        self._parts += 1
        return out

    def _close_message(self, status: str = "completed") -> bytes:
        if self._message is None:
            return b""
        out = self._close_part()
        index, item_id = self._message
        item = message_item(item_id, "".join(self._text), "".join(self._refusal), self._annotations, self._logprobs, status)
        self._items[index] = item
        self._message, self._text, self._refusal, self._annotations, self._logprobs, self._parts = None, [], [], [], [], 0
        return out + self._event("response.output_item.done", output_index=index, item=item)

    def _called(self, call: Json, number: int) -> bytes:
        out = self._close_reasoning() + self._close_message()
        function = object_of(call, "function")
        key = self._key(call, number)
        found = self._calls.get(key)
        if found is None:
            name, ending_id = text_of(function, "name"), self.fresh()
            index, item_id = self._open(f"{'ctc' if name in self.names.custom else 'fc'}_{ending_id}")
            found = self._calls[key] = _Call(index, item_id, text_of(call, "id") or f"call_{ending_id}", name)
        elif text_of(function, "name") and not found.opened:
            found.name += text_of(function, "name")
        if not found.opened and found.name:
            found.opened = True
            out += self._event("response.output_item.added", output_index=found.index, item=self._emptied(found))
        arguments = json_text(function["arguments"]) if function.get("arguments") is not None else ""
        if arguments:
            found.arguments += arguments
            self.units += token_units(arguments.encode())
            if found.name not in self.names.custom:  # its input stands inside JSON, and goes out as a whole
                out += self._event("response.function_call_arguments.delta", item_id=found.item_id, output_index=found.index, delta=arguments)
        return out

    def _key(self, call: Json, number: int) -> int:
        """Which call a piece belongs to: its index, or, for upstreams that leave it out, the one with its id, or the newest."""
        if isinstance(call.get("index"), int):
            return int_of(call, "index")
        call_id = text_of(call, "id")
        if call_id:
            return next((key for key, known in self._calls.items() if known.call_id == call_id), len(self._calls))
        return max(self._calls, default=number)

    def _emptied(self, call: _Call) -> Json:
        item = self.names.item(call.call_id, call.item_id, call.name, "", "in_progress")
        return item

    def _close_calls(self, status: str) -> bytes:
        out = b""
        for call in self._calls.values():
            where: Json = {"item_id": call.item_id, "output_index": call.index}
            if not call.opened:
                out += self._event("response.output_item.added", output_index=call.index, item=self._emptied(call))
            item = self.names.item(call.call_id, call.item_id, call.name, call.arguments, status)
            if call.name in self.names.custom:
                out += self._event("response.custom_tool_call_input.delta", **where, delta=item["input"])
                out += self._event("response.custom_tool_call_input.done", **where, input=item["input"])
            else:
                out += self._event("response.function_call_arguments.done", **where, name=item["name"], arguments=call.arguments)
            self._items[call.index] = item
            out += self._event("response.output_item.done", output_index=call.index, item=item)
        self._calls = {}
        return out

    def end(self) -> tuple[bytes, bytes]:
        """Close what is open."""
        out = self._begin({}) if not self._begun else b""
        status, incomplete = ending(self._finish)
        if not any(self._items) and self._message is None and not self._calls and self._reasoning is None:
            out += self._say("output_text", "", [])
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
        return response_object(self.request, self.ids, self._model, output, self._shown_usage if status != "in_progress" else None, (status, incomplete))

    def _event(self, kind: str, **members: object) -> bytes:
        data = encode({"type": kind, "sequence_number": self._number, **members})
        self._number += 1
        return typed_event(kind, data)


def error_event(number: int, message: str, code: str | None, param: str | None) -> bytes:
    """The event of the Responses API for a stream that cannot go on."""
    return typed_event("error", encode({"type": "error", "sequence_number": number, "code": code, "message": message, "param": param}))
