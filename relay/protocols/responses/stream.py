"""Passes a stream of the Responses API through: events stay bytes, and only the important ones are decoded. Pure.

Where an upstream's events lack members that OpenAI's have (sequence numbers, indexes, a complete response at the
beginning and the end), they are repaired one by one. The first event decides whether that is necessary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.characters import (
    TextJoiner,
    clean,
    read_for_storage,
    read_object,
    read_typed,
    read_whole_object,
)
from relay.protocols.codec import EventCodec
from relay.protocols.error_objects import clean_member, event_name, is_error_object, named_error, unreadable_error
from relay.protocols.errors import Told, told_plainly
from relay.protocols.events import FAILED, NOTHING_MADE, UNREADABLE, UNREADABLE_END, payload, typed_event
from relay.protocols.output_items import distinct_raw
from relay.protocols.responses.objects import (
    DONE_ALIAS,
    ERRORS,
    IGNORED,
    TERMINAL,
    event_error,
    event_type,
    event_with_ids,
    ignores_previous,
    is_nothing,
    responses_error_event,
    terminal_kind,
)
from relay.protocols.responses.unfinished.items import ItemsSoFar
from relay.protocols.responses.usage import ItemCount, parse_responses_usage, searches_in, with_tools
from relay.protocols.sse import is_stream
from relay.protocols.usage import Usage, present

_OPENING: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
_WITH_RESPONSE: Final = _OPENING | TERMINAL
_NUMBER: Final = re.compile(rb'"sequence_number"\s*:\s*(\d+)')
_IGNORED: Final = re.compile(rb'"previous_response_id"\s*:\s*(?:null|"")')
_INDEXED: Final = (
    "response.output_item.",
    "response.content_part.",
    "response.output_text.",
    "response.refusal.",
    "response.function_call_arguments.",
    "response.reasoning_",
)
_INDEXED_BY_PART: Final = (
    "response.content_part.",
    "response.output_text.",
    "response.refusal.",
    "response.reasoning_text.",
)


class _Done(msgspec.Struct):
    output_index: int = -1
    item: msgspec.Raw = msgspec.Raw()


class _Final(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw()


class _Whole(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    tool_usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_done: Final = msgspec.json.Decoder(_Done)
_final: Final = msgspec.json.Decoder(_Final)
_whole: Final = msgspec.json.Decoder(_Whole)


@dataclass(slots=True)
class ResponsesStream(EventCodec):
    """The codec of a Responses API stream that passes through.

    `relay.protocols.codec.Codec` describes the attributes.
    """

    complete_object: Callable[[Json], Json]  # adds missing members to a response object
    always: bool = False  # also to complete ones, because the portal overrides some members
    continues: bool = False  # the request names a response that the upstream should know
    own_ids: Json = field(default_factory=dict)  # members in which the upstream writes its ids, and the portal its own
    stored: bool = False  # the response is stored, also one that breaks off
    told: Told = told_plainly  # what a client is told of an error in a response
    upstream_id: str = ""  # the upstream's id of the response, after the end
    final: Json | None = None  # the complete response, after the end
    ignored: bool = False  # the upstream did not go on from the response, and said so only at the end
    _repair: bool | None = None  # whether events are repaired; None before the first event
    _opening: list[bytes] = field(default_factory=list)  # events held until the answer's first content
    _items: dict[int, msgspec.Raw] = field(default_factory=dict)  # completed items by output index
    _next_place: int = 0  # after all of them
    _lost_item: bool = False  # one could not be decoded
    _places: dict[str, int] = field(default_factory=dict)  # output index by the id of an item
    _halves: TextJoiner = field(default_factory=TextJoiner)  # of the deltas of repaired events
    _number: int = 0  # the next sequence number
    _count: ItemCount = field(default_factory=ItemCount)  # of what has been returned
    _begun: bytes = b""  # the event with the response at its beginning
    _unfinished: ItemsSoFar = field(default_factory=ItemsSoFar)  # of what has been returned

    def delivered_units(self) -> float:
        return self._count.units()

    def audio_units(self) -> float:
        self._count.units()
        return self._count.audio

    def is_opaque(self) -> bool:
        return self._count.is_opaque()

    def media(self) -> Usage:
        return Usage(searches=self._searches())

    def _searches(self) -> int:
        return sum(searches_in(b"[" + bytes(item) + b"]") for item in self._items.values())

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return responses_error_event(self._number, message, code, param)

    def so_far(self) -> Json:
        """The response with what has been returned of it, for one that breaks off."""
        begun = self.complete_object(object_of(read_whole_object(self._begun) or {}, "response"))
        return {**begun, "output": self._unfinished.with_complete(self._items)}

    # -- events ------------------------------------------------------------------------------------------------------

    def handle_event(self, event: bytes) -> bytes:
        data = payload(event)
        typed = event_type(data)
        if typed is None:
            if not data:
                self.error = named_error(event)
                return event if self.started and self.error is None else b""  # a comment
            found, _ = read_object(data)
            kind = event_name(event) if found is not None and not text_of(found, "type") else ""
            if not kind.startswith("response."):  # [DONE], an error, or an event of another API
                if found is None:
                    self.error = unreadable_error(event, data)
                else:
                    self.error = data if is_error_object(found, False) else named_error(event)
                return b""
            self._repair = True  # only the event's name says its type
        else:
            kind = typed
        if kind in ERRORS:
            self.error = encode({"error": event_error(read_whole_object(data) or {})})
            return b""
        if self._repair is None:
            self._repair = self._is_incomplete(kind, data)
        if kind == DONE_ALIAS:
            kind, self._repair = terminal_kind(object_of(read_whole_object(data) or {}, "response")), True
        if self.continues and not self.started and kind in _WITH_RESPONSE and _ignores_previous(data):
            self.error = IGNORED
            return b""
        if kind in TERMINAL:
            return self._end(kind, data)
        if kind == "response.output_item.done" and not self._repair:
            self._store_item(data)
        if self._repair or (self.always and kind in _OPENING):
            out = self._repaired(kind, data)
        else:
            out = self._numbered(event)
            if kind in _OPENING and self.own_ids:
                out = event.replace(data, event_with_ids(data, self.own_ids), 1)
        if self.error is not None:
            return b""
        if self.stored:
            self._begun = data if kind in _OPENING else self._begun
            self._unfinished.add(kind, out)
        if kind in _OPENING and not self.started:
            self._opening.append(out)  # an answer that fails before its first content can be retried elsewhere
            return b""
        self._count.add(kind, out)
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

    def _is_incomplete(self, kind: str, data: bytes) -> bool:
        """Whether the first event lacks members that OpenAI's have."""
        event = read_whole_object(data) or {}
        if not isinstance(event.get("sequence_number"), int) or kind not in _OPENING:
            return True
        response = object_of(event, "response")
        if not isinstance(response.get("output"), list) or not isinstance(response.get("created_at"), int):
            return True
        return "tools" not in response or "metadata" not in response

    def _store_item(self, data: bytes) -> None:
        try:
            found = read_typed(_done, data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._lost_item = True
            return
        if present(found.item):
            # A copy: a view would keep the whole buffer alive.
            self._keep(found.output_index, bytes(found.item))

    def _keep(self, index: int, item: bytes) -> None:
        """Keep a complete item for the whole response. Some upstreams number all items 0, or none."""
        known = self._items.get(index)
        if index < 0 or (known is not None and bytes(known) != item):
            index = self._next_place
        self._next_place = max(self._next_place, index + 1)
        self._items[index] = msgspec.Raw(item)

    def _repaired(self, kind: str, data: bytes) -> bytes:
        """An event with every member that its type requires."""
        event, broken = read_object(data)
        if event is None:
            self.error = UNREADABLE
            return b""
        event.pop("sequence_number", None)
        if isinstance(event.get("response"), dict):
            event["response"] = self.complete_object(object_of(event, "response"))
        if kind.startswith(_INDEXED):
            self._place(kind, event)
        if kind.startswith("response.output_text.") and kind.endswith((".delta", ".done")):
            event.setdefault("logprobs", [])
        out = self._join_halves(kind, event) if broken or self._halves else b""
        if kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._keep(int_of(event, "output_index"), encode(event["item"]))
        return out + self._written(kind, event)

    def _join_halves(self, kind: str, event: Json) -> bytes:
        """Complete the characters of an event's text; returns the event with the half that a text ends with."""
        base, _, change = kind.rpartition(".")
        names = ("item_id", "output_index", "content_index", "summary_index")
        where: Json = {name: event[name] for name in names if name in event}
        text = (base, *(str(where.get(name)) for name in names))
        out = b""
        if change == "delta" and isinstance(event.get("delta"), str):
            event["delta"] = self._halves.join(text, text_of(event, "delta"))
        elif change == "done" and (rest := self._halves.rest(text)):
            extra: Json = {"logprobs": []} if base == "response.output_text" else {}
            out = self._written(f"{base}.delta", {**where, "delta": rest, **extra})
        for name, value in event.items():
            event[name] = clean(value)
        return out

    def _place(self, kind: str, event: Json) -> None:
        """Set the item id and the indexes of an event. One without an id belongs to the newest item."""
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
        if kind.startswith(_INDEXED_BY_PART):
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
            raw = read_typed(_final, data).response
            whole = _whole.decode(raw)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self.error = UNREADABLE_END
            return b""
        searches = searches_in(bytes(whole.output)) or self._searches()
        usage = parse_responses_usage(whole.usage) if present(whole.usage) else None
        self.usage = with_tools(usage, whole.tool_usage, searches)
        if present(whole.output):
            self._count.end(bytes(whole.output))
        if kind == "response.failed" and not self.started:
            self.error = (
                b'{"error":' + (bytes(whole.error) if present(whole.error) else b'"The upstream failed."') + b"}"
            )
            return b""
        response = read_for_storage(raw) if self.stored else read_whole_object(raw)
        if response is None and (self._repair or self.always or self.stored or present(whole.error)):
            self.error = UNREADABLE_END  # it would be charged and not found, or its error not cleaned
            return b""
        if response is None:  # the client may be able to decode it
            self._terminal, self.done, self.started = typed_event(kind, data), True, True
            out, self._opening = b"".join(self._opening), []
            return out
        self.upstream_id, ids = text_of(response, "id"), self.own_ids
        if self.continues and ignores_previous(response):
            self.ignored = True
            ids = {name: value for name, value in ids.items() if name != "previous_response_id"}
        response.update(ids)
        empty = not objects_of(response, "output")
        if empty and self._lost_item:  # the answer would be stored, and continued, without it
            self.error = UNREADABLE_END
            return b""
        if not self.started and is_nothing(text_of(response, "status"), bytes(whole.output), self.usage):
            self.error = NOTHING_MADE
            return b""
        if empty and self._items:
            response["output"] = distinct_raw(self._items[index] for index in sorted(self._items))
        error = response.get("error")
        failed = clean_member(response, self.told)
        if self._repair or self.always or (empty and self._items):
            response = self.complete_object(response)
            if self.ignored:
                response["previous_response_id"] = None
            number = int_of(read_whole_object(data) or {}, "sequence_number") if not self._repair else self._number
            self._terminal = typed_event(kind, encode({"type": kind, "sequence_number": number, "response": response}))
        elif response.get("error") != error:
            self._terminal = typed_event(kind, encode({**(read_whole_object(data) or {}), "response": response}))
        else:
            self._terminal = typed_event(kind, event_with_ids(data, ids))
        self.final = read_for_storage(encode(response)) if empty and self._items else response
        self.done = True
        if kind == "response.failed":
            self.failed = failed or FAILED
        out, self._opening = b"".join(self._opening), []
        self.started = True
        return out


def _ignores_previous(event: bytes) -> bool:
    if _IGNORED.search(event) is None:
        return False
    return ignores_previous(object_of(read_whole_object(event) or {}, "response"))


def whole_response(body: bytes) -> tuple[bytes, bytes | None]:
    """The response in a body, even if the upstream streamed it unasked, and the error object of such a stream."""
    return response_of_stream(body) if is_stream(body) else (body, None)


def response_of_stream(body: bytes) -> tuple[bytes, bytes | None]:
    """The response at the end of a stream, empty when the stream is incomplete, and the stream's error object."""
    codec = ResponsesStream(lambda response: response)
    codec.feed(body)
    codec.finish()
    return encode(codec.final) if codec.final is not None else b"", codec.error
