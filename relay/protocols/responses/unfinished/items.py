"""What has arrived of the items of a stream that passes through, for an answer that breaks off. Pure.

A complete item is in the event that completes it. Of the others, the events are held until somebody asks, or until they
are many: a stream that ends as it should is hardly ever read for this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, int_of, object_of, text_of
from relay.protocols.characters import TextJoiner, read_for_storage, read_object
from relay.protocols.events import payload
from relay.protocols.sse import split_events

_HELD: Final = 64 * 1024  # bytes of events
_ADDED, _DONE = "response.output_item.added", "response.output_item.done"
# The lists of an item whose parts have a text, by the events of that text, and the type of these parts.
_PARTS: Final = {
    "response.output_text": ("content", "output_text", "text"),
    "response.refusal": ("content", "refusal", "refusal"),
    "response.reasoning_text": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text": ("summary", "summary_text", "text"),
}
# The members of an item that are a text, by the events of it.
_MEMBERS: Final = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.mcp_call_arguments": "arguments",
    "response.code_interpreter_call_code": "code",
}
_Text = tuple[str, int]  # one text of an item: its events, and the index of its part


@dataclass(slots=True)
class _Open:
    """An item that has begun."""

    item: Json
    texts: dict[_Text, list[str]] = field(default_factory=dict)
    halves: TextJoiner = field(default_factory=TextJoiner)

    def so_far(self) -> Json:
        found: Json = {**self.item, "status": "incomplete"}
        for (base, part), pieces in sorted(self.texts.items()):
            text = "".join((*pieces, self.halves.rest((base, part))))
            if base in _MEMBERS:
                found[_MEMBERS[base]] = text
                continue
            place, kind, name = _PARTS[base]
            whole: Json = {"type": kind, name: text}
            if kind == "output_text":
                whole.update(annotations=[], logprobs=[])
            before = found.get(place) if isinstance(found.get(place), list) else []
            found[place] = [*before, whole]  # type: ignore[misc]  # it is a list
        return found


@dataclass(slots=True)
class ItemsSoFar:
    """The items of one stream that have begun and are not complete."""

    _events: list[tuple[str, bytes]] = field(default_factory=list)  # held, with their kinds
    _size: int = 0
    _begun: int = 0  # items, less those that are complete
    _open: dict[int, _Open] = field(default_factory=dict)  # by their output index

    def add(self, kind: str, events: bytes) -> None:
        """Take what is passed on of one event: one or two of this kind."""
        if kind == _ADDED:
            self._begun += 1
        elif kind == _DONE:
            self._begun -= 1
            if self._begun <= 0:  # all that has begun is complete
                self._events, self._size, self._begun = [], 0, 0
                self._open.clear()
                return
        elif not kind.endswith(".delta"):
            return
        self._events.append((kind, events))
        self._size += len(events)
        if self._size > _HELD:
            self._read()

    def with_complete(self, complete: Mapping[int, msgspec.Raw]) -> list[Json]:
        """All items in their order. `complete`: those that are, by their output index."""
        self._read()
        whole = {index: read_for_storage(item) or {} for index, item in complete.items()}
        begun = {index: found.so_far() for index, found in self._open.items() if index not in whole}
        return [item for _, item in sorted({**begun, **whole}.items()) if item]

    def _read(self) -> None:
        for kind, events in self._events:
            for event in split_events(events):
                self._read_event(kind, event)
        self._events, self._size = [], 0

    def _read_event(self, kind: str, event: bytes) -> None:
        data = payload(event)
        found = decode_object(data) or read_object(data)[0] or {}
        index = int_of(found, "output_index")
        if kind == _ADDED:
            self._open[index] = _Open(object_of(found, "item"))
            return
        if kind == _DONE:
            self._open.pop(index, None)
            return
        base = kind.removesuffix(".delta")
        if base not in _PARTS and base not in _MEMBERS:
            return
        item = self._open.get(index)
        if item is None:  # it was not told that it begins
            kind = "message" if base in {"response.output_text", "response.refusal"} else ""
            if not kind:
                return
            item = self._open[index] = _Open(
                {"id": text_of(found, "item_id"), "type": kind, "role": "assistant", "content": []}
            )
        part = int_of(found, "summary_index" if "summary" in base else "content_index")
        text = (base, part)
        item.texts.setdefault(text, []).append(item.halves.join(text, text_of(found, "delta")))
