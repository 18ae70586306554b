"""Which item of a response an event belongs to, and what of the item has arrived. Pure; one object per stream.

Upstreams leave ids or indexes out, count from 1, leave gaps, change ids until an item is done, and list fewer or more
items at the end than they streamed. What has been sent on is remembered, so that it is not sent twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, objects_of, text_of
from relay.protocols.characters import TextJoiner, whole_text

CALLS: Final = frozenset(("function_call", "custom_tool_call"))
# The events of a call's arguments, without their last word.
ARGUMENTS: Final = "response.function_call_arguments"
INPUT: Final = "response.custom_tool_call_input"
_Text = tuple[str, int]  # one text of an item: its events, and the index of its part


@dataclass(slots=True)
class OutputItem:
    """What has arrived of one item."""

    kind: str
    ids: set[str] = field(default_factory=set)
    call_id: str = ""
    name: str = ""  # of a call
    added: bool = False
    done: bool = False
    begun: bool = False  # text of it is in a chunk
    said_call: bool = False  # its id and its name are in a chunk
    number: int = 0  # the index of a call in the hub's chunks
    custom: bool = False
    filled: bool = False  # empty arguments are in a chunk
    cited: list[Json] = field(default_factory=list)
    texts: dict[_Text, list[str]] = field(default_factory=dict)
    halves: TextJoiner = field(default_factory=TextJoiner)
    reasoning: str = ""  # the events of its reasoning that are in chunks

    def join(self, text: _Text, piece: str) -> str:
        whole = self.halves.join(text, piece)
        if whole:
            self.texts.setdefault(text, []).append(whole)
        return whole

    def said_of(self, base: str) -> str:
        return "".join("".join(self.texts[text]) for text in sorted(self.texts) if text[0] == base)

    def missing(self, text: _Text, whole: str) -> str:
        """What has not arrived of a text that is known as a whole now."""
        return self._rest(text, "".join(self.texts.get(text, ())), whole)

    def missing_of_all(self, base: str, whole: str) -> str:
        """The same for all parts of a kind together: some upstreams number them otherwise at the end."""
        return self._rest((base, self.last_part(base)), self.said_of(base), whole)

    def _rest(self, text: _Text, said: str, whole: str) -> str:
        whole = whole_text(whole)
        if not whole.startswith(said):
            return ""
        if len(whole) > len(said):
            self.halves.rest(text)  # the whole has the character
        return whole[len(said) :]

    def last_part(self, base: str) -> int:
        return max((part for found, part in self.texts if found == base), default=0)

    def is_said_otherwise(self, base: str, member: str) -> bool:
        """Whether this is reasoning in full of which the summary is in chunks, or the other way round."""
        if member != "reasoning_content":
            return False
        self.reasoning = self.reasoning or base
        return self.reasoning != base

    def fits(self, item: Json) -> bool:
        """Whether a complete item whose ids are unknown may be this one."""
        if self.kind in CALLS:
            said = self.said_of(INPUT if self.kind == "custom_tool_call" else ARGUMENTS)
            whole = text_of(item, "arguments") or text_of(item, "input")
            return self.name == text_of(item, "name") and whole.startswith(said.strip())
        said = self.said_of("response.output_text")
        whole = "".join(text_of(part, "text") for part in objects_of(item, "content"))
        return whole.startswith(said) or said.startswith(whole)


class OutputItems:
    """The items of a response. One is known by its id or its call's, otherwise by its index, otherwise by position."""

    def __init__(self) -> None:
        self._all: list[OutputItem] = []
        self._by_id: dict[str, OutputItem] = {}
        self._by_call: dict[str, OutputItem] = {}
        self._by_index: dict[int, OutputItem] = {}

    def find(self, event: Json, kind: str, item: Json, begins: bool = False) -> OutputItem:
        """The item of an event. `item`: as the event has it, empty when it has none. `begins`: it is a new one."""
        if not item:  # a delta: nearly all events
            known = self._by_id.get(text_of(event, "item_id"))
            if known is not None and known.kind == kind:
                return known
        item_id, call_id = text_of(item, "id") or text_of(event, "item_id"), text_of(item, "call_id")
        index = event.get("output_index")
        known = self._by_id.get(item_id) or self._by_call.get(call_id)
        if known is not None and (known.kind != kind or (begins and call_id not in {"", known.call_id})):
            known = None
        if known is None:
            at = self._by_index.get(index) if isinstance(index, int) else self._newest(kind)
            same = at is not None and at.kind == kind and _may_be(at, item_id, call_id, begins)
            known = at if at is not None and same else self._new(kind)
        known.added = known.added or begins
        self._register(known, item_id, call_id)
        if isinstance(index, int):
            self._by_index[index] = known
        return known

    def match(self, output: list[Json]) -> list[tuple[OutputItem, Json]]:
        """The items of the final response, each with what has arrived of it."""
        found: list[OutputItem | None] = []
        for item in output:
            known = self._by_id.get(text_of(item, "id")) or self._by_call.get(text_of(item, "call_id"))
            found.append(known if known is not None and known.kind == text_of(item, "type") else None)
        for place, item in enumerate(output):
            if found[place] is not None:
                continue
            kind = text_of(item, "type")
            left = [record for record in self._all if record.kind == kind and record not in found]
            record = next((record for record in left if record.fits(item)), None)
            unknown = sum(
                1
                for other, known in zip(output, found, strict=True)
                if known is None and text_of(other, "type") == kind
            )
            if record is None and left and kind not in CALLS and unknown <= len(left):
                record = left[0]  # its text was changed at the end; it has been said as it was
            found[place] = record or self._new(kind)
        return [(record, item) for record, item in zip(found, output, strict=True) if record is not None]

    def open(self) -> list[OutputItem]:
        return [item for item in self._all if not item.done]

    def any_reasoning(self) -> bool:
        return any(item.begun and item.kind == "reasoning" for item in self._all)

    def _newest(self, kind: str) -> OutputItem | None:
        return next((item for item in reversed(self._all) if item.kind == kind and not item.done), None)

    def _new(self, kind: str) -> OutputItem:
        self._all.append(OutputItem(kind))
        return self._all[-1]

    def _register(self, item: OutputItem, item_id: str, call_id: str) -> None:
        if item_id:
            item.ids.add(item_id)
            self._by_id[item_id] = item
        if call_id:
            item.call_id = item.call_id or call_id
            self._by_call[call_id] = item


def _may_be(at: OutputItem, item_id: str, call_id: str, begins: bool) -> bool:
    """Whether an event with unknown ids belongs to the item at its index: ids may change until an item is done."""
    if begins:
        return not at.added
    return not at.done or (not item_id and call_id in {"", at.call_id})
