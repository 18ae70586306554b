"""A stream of the Responses API that passes through: events go on as bytes, those that clients cannot do without are looked into. Pure.

An upstream whose events lack what OpenAI's have (sequence numbers, indexes, a whole response at the begin and the end) is mended event by
event; the first event tells which kind it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, int_of, object_of, objects_of, text_of
from relay.protocols.codec import EventCodec
from relay.protocols.events import payload, typed_event
from relay.protocols.responses.client_stream import error_event
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.token_estimate import token_units
from relay.protocols.usage import present

_TERMINAL: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_OPENING: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
_KIND: Final = re.compile(rb'"type"\s*:\s*"((?:response\.[a-z_.]+)|error)"')
_DELTA: Final = re.compile(rb'"delta"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
_NUMBER: Final = re.compile(rb'"sequence_number"\s*:\s*(\d+)')
_INDEXED: Final = ("response.output_item.", "response.content_part.", "response.output_text.", "response.refusal.", "response.function_call_arguments.", "response.reasoning_")
_OF_PARTS: Final = ("response.content_part.", "response.output_text.", "response.refusal.", "response.reasoning_text.")


class _Done(msgspec.Struct):
    output_index: int = -1
    item: msgspec.Raw = msgspec.Raw()


class _Final(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw()


class _Whole(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_done: Final = msgspec.json.Decoder(_Done)
_final: Final = msgspec.json.Decoder(_Final)
_whole: Final = msgspec.json.Decoder(_Whole)


@dataclass(slots=True)
class ResponsesStream(EventCodec):
    """Feed it what arrives; send on what it returns. The members are those that `relay.gateway.stream.Pump` asks of a codec.

    `complete_object`: fills a response in that lacks members; `always`: even if it lacks none, because the portal knows some better.
    `final`: the whole response, when it has ended.
    """

    complete_object: Callable[[Json], Json]
    always: bool = False
    final: Json | None = None
    _mend: bool | None = None
    _opening: list[bytes] = field(default_factory=list)
    _items: dict[int, msgspec.Raw] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)
    _number: int = 0

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return error_event(self._number, message, code, param)

    # -- events ------------------------------------------------------------------------------------------------------

    def take(self, event: bytes) -> bytes:
        match = _KIND.search(event)
        if match is None:
            data = payload(event)
            if not data:
                return event if self.started else b""  # a comment
            if data.startswith(b"{") and b'"error"' in data:
                found = decode_object(data)
                if found is not None and found.get("error"):
                    self.error = data
            return b""  # [DONE], or what is no event of this API
        kind = match[1].decode()
        data = payload(event)
        if kind == "error":
            found = decode_object(data) or {}
            inner = object_of(found, "error") or found
            self.error = encode({"error": {"message": text_of(inner, "message"), "type": "server_error", "code": inner.get("code"), "param": inner.get("param")}})
            return b""
        if self._mend is None:
            self._mend = self._lacks(kind, data)
        if kind in _TERMINAL:
            return self._end(kind, data)
        if kind == "response.output_item.done":
            self._keep_item(data)
        out = self._mended(kind, data) if self._mend or (self.always and kind in _OPENING) else self._numbered(event)
        if kind in _OPENING and not self.started:
            self._opening.append(out)  # what fails before it says anything can still be asked of another upstream
            return b""
        for match in _DELTA.finditer(data):
            self._units += token_units(match[1])
        self.started = True
        if self._opening:
            out = b"".join((*self._opening, out))
            self._opening = []
        return out

    def _numbered(self, event: bytes) -> bytes:
        match = _NUMBER.search(event)
        if match is not None:
            self._number = int(match[1]) + 1
        return event

    def _lacks(self, kind: str, data: bytes) -> bool:
        """Whether the first event lacks what OpenAI's have."""
        if _NUMBER.search(data) is None or kind not in _OPENING:
            return True
        response = object_of(decode_object(data) or {}, "response")
        return not isinstance(response.get("output"), list) or not isinstance(response.get("created_at"), int) or "tools" not in response or "metadata" not in response

    def _keep_item(self, data: bytes) -> None:
        try:
            found = _done.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        if present(found.item):
            # A copy: a view would keep the buffer that it came in.
            self._items[found.output_index if found.output_index >= 0 else len(self._items)] = msgspec.Raw(bytes(found.item))

    def _mended(self, kind: str, data: bytes) -> bytes:
        """An event with everything that its type asks for."""
        event = decode_object(data)
        if event is None:
            return b""
        event.pop("sequence_number", None)
        if isinstance(event.get("response"), dict):
            event["response"] = self.complete_object(object_of(event, "response"))
        if kind.startswith(_INDEXED):
            self._place(kind, event)
        if kind.startswith("response.output_text.") and kind.endswith((".delta", ".done")):
            event.setdefault("logprobs", [])
        return self._written(kind, event)

    def _place(self, kind: str, event: Json) -> None:
        """Which item an event is about. Items without an id are the newest one."""
        item = object_of(event, "item")
        if item:
            item_id = text_of(item, "id") or f"item_{len(self._places)}"
            item.setdefault("id", item_id)
            if text_of(item, "type") == "message":
                item.setdefault("status", "completed" if kind.endswith(".done") else "in_progress")
                for part in objects_of(item, "content"):
                    part.setdefault("annotations", []) if part.get("type") == "output_text" else None
                    part.setdefault("logprobs", []) if part.get("type") == "output_text" else None
        else:
            item_id = text_of(event, "item_id") or next(reversed(self._places), "item_0")
            event.setdefault("item_id", item_id)
        part = object_of(event, "part")
        if text_of(part, "type") == "output_text":
            part.setdefault("annotations", [])
            part.setdefault("logprobs", [])
        event.setdefault("output_index", self._places.setdefault(item_id, len(self._places)))
        if kind.startswith(_OF_PARTS):
            event.setdefault("content_index", 0)
        elif kind.startswith("response.reasoning_summary"):
            event.setdefault("summary_index", 0)

    def _written(self, kind: str, event: Json) -> bytes:
        event["type"] = kind
        data = encode({"type": kind, "sequence_number": self._number, **event})
        self._number += 1
        return typed_event(kind, data)

    def _end(self, kind: str, data: bytes) -> bytes:
        try:
            raw = _final.decode(data).response
            whole = _whole.decode(raw)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self.error = b'{"error":{"message":"The upstream ended its answer with an event that cannot be read.","type":"server_error","param":null,"code":"upstream_error"}}'
            return b""
        self.usage = parse_responses_usage(whole.usage) if present(whole.usage) else None
        if kind == "response.failed" and not self.started:
            self.error = b'{"error":' + (bytes(whole.error) if present(whole.error) else b'"The upstream failed."') + b"}"
            return b""
        response = decode_object(raw)
        if response is None:  # something in it cannot be decoded; the client may be able to
            self._terminal, self.done, self.started = typed_event(kind, data), True, True
            out, self._opening = b"".join(self._opening), []
            return out
        empty = not objects_of(response, "output")
        if empty and self._items:
            response["output"] = [self._items[index] for index in sorted(self._items)]
        if self._mend or self.always or (empty and self._items):
            response = self.complete_object(response)
            number = int_of(decode_object(data) or {}, "sequence_number") if not self._mend else self._number
            self._terminal = typed_event(kind, encode({"type": kind, "sequence_number": number, "response": response}))
        else:
            self._terminal = typed_event(kind, data)
        self.final, self.done = decode_object(encode(response)), True
        if kind == "response.failed":
            self.failed = encode({"error": object_of(response, "error") or {"message": "The upstream failed.", "code": "upstream_error"}})
        out, self._opening = b"".join(self._opening), []
        self.started = True
        return out


def joined(body: bytes) -> tuple[bytes, bytes | None]:
    """A whole response, also of an upstream that streams without having been asked to, and the error object of such a stream."""
    return joined_stream(body) if body.lstrip()[:6] in (b"event:", b"data: ") else (body, None)


def joined_stream(body: bytes) -> tuple[bytes, bytes | None]:
    """The response that a whole stream ends with, empty when it does not end, and the stream's error object."""
    codec = ResponsesStream(lambda response: response)
    codec.feed(body)
    codec.finish()
    return encode(codec.final) if codec.final is not None else b"", codec.error
