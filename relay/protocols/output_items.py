"""Which item of a response an event belongs to, and what of the item has arrived. Pure; one object per stream.

Upstreams leave ids or indexes out, count from 1, leave gaps, change ids until an item is done, give several items one
id, and list fewer or more items at the end than they streamed. What has been sent on is remembered, so that it is not
sent twice. `distinct` is the same rule for a response that arrives as a whole.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, json_text, objects_of, text_of
from relay.protocols.characters import TextJoiner, clean, read_whole_object, whole_text

CALLS: Final = frozenset(("function_call", "custom_tool_call"))
# The events of a call's arguments, without their last word.
ARGUMENTS: Final = "response.function_call_arguments"
INPUT: Final = "response.custom_tool_call_input"
_Key = tuple[str, str, str, bytes]  # of an item: its type, which id, the id, what it says
_Text = tuple[str, int]  # one text of an item: its events, and the index of its part
_NAMES: Final = frozenset(("id", "status"))  # members of an item that are no content
_LOOKED_AT: Final = (
    32  # records that a complete item is compared with, so that the cost does not grow with their square
)


def distinct(output: list[Json]) -> list[Json]:
    """The items of a complete response without those that repeat another: one id or call id, and the same content.

    Ids need not be unique: an item with an id that was there, and with other content, is another item.
    """
    known: set[_Key] = set()
    return [item for item in output if _is_new(item, known)]


def distinct_raw(items: Iterable[msgspec.Raw]) -> list[msgspec.Raw]:
    """The same for items that stay as their upstream wrote them."""
    known: set[_Key] = set()
    return [raw for raw in items if _is_new(read_whole_object(raw) or {}, known)]


def _is_new(item: Json, known: set[_Key]) -> bool:
    wanted, given = _keys(item)
    new = known.isdisjoint(wanted)
    known.update(given)
    return new


def _keys(item: Json) -> tuple[list[_Key], list[_Key]]:
    """By what an item is recognized as a repetition of another, and by what those that repeat it are.

    Calls with different call ids are different calls, whatever the ids of their items.
    """
    kind, item_id, call_id = text_of(item, "type"), text_of(item, "id"), text_of(item, "call_id")
    if not (item_id or call_id):
        return [], []
    said = said_by(item)
    call, own, any_id = ((kind, name, value, said) for name, value in (("c", call_id), ("i", item_id), ("*", item_id)))
    if not call_id:
        return [any_id], [own, any_id]
    return ([call, own], [call, any_id]) if item_id else ([call], [call])


def said_by(item: Json) -> bytes:
    """What a complete item says, for comparisons: without its ids, and of calls without how their JSON is written."""
    kind = text_of(item, "type")
    if kind == "message":
        parts = objects_of(item, "content")
        return "\0".join(text_of(part, "text") + text_of(part, "refusal") for part in parts).encode("utf-8", "replace")
    if kind in CALLS:
        given = item.get("input" if kind == "custom_tool_call" else "arguments")
        text = json_text(given).strip(" \t\r\n") if given is not None else ""
        value = text if kind == "custom_tool_call" else decode_object(text or "{}") or text
        return encode(clean([text_of(item, "name"), value]))
    return encode(clean({name: value for name, value in item.items() if name not in _NAMES}))


@dataclass(slots=True)
class OutputItem:
    """What has arrived of one item."""

    kind: str
    ids: set[str] = field(default_factory=set)
    index: int | None = None  # its output index, as far as one was named
    call_id: str = ""
    shares_id: bool = False  # with an earlier one: whether it repeats that is known once it is complete
    whole: Json | None = None  # the complete item
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
        if self.whole is not None and said_by(self.whole) == said_by(item):
            return True
        if self.kind in CALLS:
            whole = text_of(item, "arguments") or text_of(item, "input")
            return self.name == text_of(item, "name") and whole.startswith(self.said_input().strip())
        said = self.said_of("response.output_text")
        whole = "".join(text_of(part, "text") for part in objects_of(item, "content"))
        return whole.startswith(said) or said.startswith(whole)

    def repeats_call(self, item: Json) -> bool:
        """Whether a complete call says what this one says, whatever their ids."""
        return said_by(item) == said_by(self.whole if self.whole is not None else self.as_call())

    def said_input(self) -> str:
        """What has arrived of a call's arguments."""
        return self.said_of(INPUT if self.kind == "custom_tool_call" else ARGUMENTS)

    def as_call(self) -> Json:
        """A call as far as it has arrived, in the form of an item."""
        member = "input" if self.kind == "custom_tool_call" else "arguments"
        found: Json = {"type": self.kind, "id": min(self.ids, default=""), "call_id": self.call_id, "name": self.name}
        return {**found, member: self.said_input()}


class OutputItems:
    """The items of a response. One is known by its id or its call's, otherwise by its index, otherwise by position.

    Ids belong to items of one type, and may stand for several: those differ in their index, or in what they say.
    """

    def __init__(self) -> None:
        self._all: list[OutputItem] = []
        self._named: dict[tuple[str, str], list[OutputItem]] = {}  # by type and id; the newest item last
        self._called: dict[tuple[str, str], list[OutputItem]] = {}  # by type and call id
        self._by_index: dict[int, OutputItem] = {}
        self._complete: dict[_Key, OutputItem] = {}

    def find(self, event: Json, kind: str, item: Json, begins: bool = False) -> OutputItem:
        """The item of an event. `item`: as the event has it, empty when it has none. `begins`: it is a new one."""
        item_id, call_id = text_of(item, "id") or text_of(event, "item_id"), text_of(item, "call_id")
        index = event.get("output_index")
        at = self._by_index.get(index) if isinstance(index, int) else None
        named = self._named.get((kind, item_id)) if item_id else None
        if named and not item:  # a delta: nearly all events
            return at if at is not None and len(named) > 1 and at.kind == kind and item_id in at.ids else named[-1]
        known = _best(named or (self._called.get((kind, call_id)) if call_id else None), at, item_id, call_id)
        if known is None or _is_another(known, item, index, begins):
            at = at if isinstance(index, int) else self._newest(kind)
            same = at is not None and at.kind == kind and _may_be(at, item_id, item, begins)
            known = at if at is not None and same else self._new(kind)
        known.added = known.added or begins
        self._register(known, item_id, call_id)
        if isinstance(index, int):
            known.index = index
            self._by_index[index] = known
        return known

    def match(self, output: list[Json]) -> list[tuple[OutputItem, Json]]:
        """The items of the final response, each with what has arrived of it. Items that repeat another are left out."""
        return [(record, item) for item, record in _Matching(self._all, distinct(output)).pairs(self._add)]

    def repeats(self, record: OutputItem, item: Json) -> bool:
        """Whether an item that is complete now says what an earlier one with its id said."""
        record.done, record.whole, record.shares_id = True, item, False
        wanted, given = _keys(item)
        repeated = any(self._complete.get(key, record) is not record for key in wanted)
        for key in given:
            self._complete.setdefault(key, record)
        return repeated

    def open(self) -> list[OutputItem]:
        return [item for item in self._all if not item.done]

    def is_empty(self) -> bool:
        return not self._all

    def only(self, kinds: Sequence[str]) -> bool:
        return all(item.kind in kinds for item in self._all)

    def any_reasoning(self) -> bool:
        return any(item.begun and item.kind == "reasoning" for item in self._all)

    def _newest(self, kind: str) -> OutputItem | None:
        return next((item for item in reversed(self._all) if item.kind == kind and not item.done), None)

    def _new(self, kind: str) -> OutputItem:
        self._all.append(OutputItem(kind))
        return self._all[-1]

    def _add(self, item: Json) -> OutputItem:
        added = self._new(text_of(item, "type"))
        self._register(added, text_of(item, "id"), text_of(item, "call_id"))
        return added

    def _register(self, item: OutputItem, item_id: str, call_id: str) -> None:
        if call_id and not item.call_id:
            item.call_id = call_id
            self._share(self._called.setdefault((item.kind, call_id), []), item)
        if item_id and item_id not in item.ids:
            item.ids.add(item_id)
            self._share(self._named.setdefault((item.kind, item_id), []), item)

    def _share(self, others: list[OutputItem], item: OutputItem) -> None:
        if others and not (item.said_call or item.begun):
            item.shares_id = item.shares_id or len({item.call_id, others[-1].call_id} - {""}) < 2
        others.append(item)


class _Matching:
    """Finds what has arrived of each item of a final response; nothing is found for two of them."""

    def __init__(self, records: list[OutputItem], output: list[Json]) -> None:
        self._output = output
        self._found: list[OutputItem | None] = [None] * len(output)
        self._taken: set[int] = set()
        self._free = Counter(record.kind for record in records)
        self._left: dict[tuple[str, str, str], deque[OutputItem]] = {}
        for record in records:
            names = [("type", ""), *(("id", name) for name in record.ids)]
            if record.call_id:
                names.append(("call", record.call_id))
            for name in names:
                self._left.setdefault((record.kind, *name), deque()).append(record)

    def pairs(self, add: Callable[[Json], OutputItem]) -> list[tuple[Json, OutputItem]]:
        """Each item with its record, which `add` makes where nothing has arrived of it."""
        for name in ("id", "call"):
            for fitting in (True, False):  # of several with one id, first the one that says the same
                self._match(name, fitting)
        self._match("type", True)
        self._match_calls()
        unknown = Counter(
            text_of(item, "type") for item, known in zip(self._output, self._found, strict=True) if known is None
        )
        for place, item in enumerate(self._output):
            kind = text_of(item, "type")
            if self._found[place] is not None:
                continue
            if kind not in CALLS and 0 < unknown[kind] <= self._free[kind]:
                self._take(place, self._first(kind, "type", "")[0])  # its text was changed at the end
            unknown[kind] -= 1
        return [
            (item, known if known is not None else add(item))
            for item, known in zip(self._output, self._found, strict=True)
        ]

    def _match(self, name: str, fitting: bool) -> None:
        for place, item in enumerate(self._output):
            if self._found[place] is None:
                value = {"id": text_of(item, "id"), "call": text_of(item, "call_id")}.get(name, "")
                if value or name == "type":
                    left = self._first(text_of(item, "type"), name, value)
                    may = (known for known in left if _may_be_call(known, item) and (not fitting or known.fits(item)))
                    if (record := next(may, None)) is not None:
                        self._take(place, record)

    def _match_calls(self) -> None:
        """Take calls under other ids for those that arrived with the same name and arguments; only more are others.

        vLLM makes new call ids for its final event (vllm-project/vllm#23218).
        """
        for place, item in enumerate(self._output):
            kind = text_of(item, "type")
            if self._found[place] is None and kind in CALLS:
                left = self._first(kind, "type", "")
                if (record := next((known for known in left if known.repeats_call(item)), None)) is not None:
                    self._take(place, record)

    def _first(self, kind: str, name: str, value: str) -> list[OutputItem]:
        """The first records of a name that nothing was found for."""
        left = self._left.get((kind, name, value), deque())
        while left and id(left[0]) in self._taken:
            left.popleft()
        return [record for record in islice(left, _LOOKED_AT) if id(record) not in self._taken]

    def _take(self, place: int, record: OutputItem) -> None:
        self._found[place] = record
        self._taken.add(id(record))
        self._free[record.kind] -= 1


def _best(named: Sequence[OutputItem] | None, at: OutputItem | None, item_id: str, call_id: str) -> OutputItem | None:
    """Which of the items with one id an event is about: the one at its index, otherwise the newest."""
    if not named:
        return None
    shared = len(named) > 1 and at is not None and at.kind == named[0].kind
    if shared and at is not None and (item_id in at.ids or (call_id and call_id == at.call_id)):
        return at
    return named[-1]


def _is_another(known: OutputItem, item: Json, index: object, begins: bool) -> bool:
    """Whether an item only shares an id with the known one: it has another call id, or another place or content."""
    item_id, call_id = text_of(item, "id"), text_of(item, "call_id")
    moved = isinstance(index, int) and known.index is not None and index != known.index
    if call_id and known.call_id and call_id != known.call_id:
        return begins or known.done
    if begins:
        return known.done or (known.added and (moved or (bool(item_id) and item_id not in known.ids)))
    if moved and item_id and item_id not in known.ids:
        return True  # nothing is the same but the call id
    return known.done and not _says_the_same(known, item)


def _says_the_same(known: OutputItem, item: Json) -> bool:
    """Whether a complete item repeats one that is done."""
    return not item or known.whole is None or said_by(known.whole) == said_by(item)


def _may_be_call(known: OutputItem, item: Json) -> bool:
    """Whether a call may be this one: calls with different call ids are different calls."""
    return text_of(item, "call_id") in {"", known.call_id} or not known.call_id


def _may_be(at: OutputItem, item_id: str, item: Json, begins: bool) -> bool:
    """Whether an event with unknown ids belongs to the item at its index: ids may change until an item is done."""
    if begins:
        return not at.added and not at.done
    return _may_be_call(at, item) and (not at.done or (not item_id and _says_the_same(at, item)))
