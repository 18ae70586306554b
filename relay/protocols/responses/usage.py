"""The `usage` object of the Responses API, which images, transcriptions and realtime share, and what its streams have
delivered where none is reported. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from portal.lib.json import Json, int_of, object_of
from relay.protocols.characters import read_typed
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.events import payload
from relay.protocols.token_estimate import (
    answer_units,
    is_opaque_answer,
    is_opaque_item,
    item_units,
    sample_units,
    token_units,
)
from relay.protocols.usage import Usage, count, is_told, present


class _Images(msgspec.Struct):
    input_tokens: object = None
    input_tokens_details: object = None
    output_tokens: object = None


class _Tools(msgspec.Struct):
    image_gen: _Images | None = None
    web_search: object = None


class _Listed(msgspec.Struct):
    type: object = None
    action: object = None


_tools: Final = msgspec.json.Decoder(_Tools)
_items: Final = msgspec.json.Decoder(list[_Listed])
_SEARCH: Final = "web_search_call"


def parse_responses_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Parse the `usage` of a response, an image, a transcription or a realtime response; None when it has no counts."""
    return parse_chat_usage(raw, other=True)


def with_tools(usage: Usage | None, tools: bytes | msgspec.Raw, searches: int = 0) -> Usage | None:
    """The usage of a response with what its hosted tools took, which `tool_usage` has beside.

    The tokens of images that one made are no part of the answer, and under no limit of it. `searches`: those among its
    items, which count where `tool_usage` does not say how many there were, or says what is no number of them. Source:
    OpenAI's SDK 3.54 (`ToolUsage`).
    """
    if usage is None:
        return None
    found = _tools_of(tools)
    told = found.web_search.get("num_requests") if isinstance(found.web_search, dict) else None
    if made := count(told) if is_told(told) else searches:
        usage = replace(usage, searches=made)
    images = found.image_gen
    if images is None:
        return usage
    read, made, details = count(images.input_tokens), count(images.output_tokens), images.input_tokens_details
    pictures = min(count(details.get("image_tokens")), read) if isinstance(details, dict) else 0
    return replace(
        usage,
        input=usage.input + read,
        image_input=usage.image_input + pictures,
        output=usage.output + made,
        report=replace(usage.report, rejected=usage.report.rejected + made),
    )


def _tools_of(tools: bytes | msgspec.Raw) -> _Tools:
    try:
        return _tools.decode(tools) if present(msgspec.Raw(tools)) else _Tools()
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _Tools()


def searches_in(items: bytes) -> int:
    """The searches on the web in a list of items, in JSON."""
    if _SEARCH.encode() not in items:
        return 0
    try:
        return sum(is_search(item.type, item.action) for item in _items.decode(items))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return 0


def is_search(kind: object, action: object) -> bool:
    """Whether an item is a search on the web. To open a page that was found, and to look in it, costs nothing."""
    return kind == _SEARCH and (not isinstance(action, dict) or action.get("type", "search") == "search")


def responses_usage(chat: Json) -> Json:
    """Convert the `usage` of a chat completion to that of a response."""
    into = object_of(chat, "prompt_tokens_details") or object_of(chat, "input_tokens_details")
    out = object_of(chat, "completion_tokens_details") or object_of(chat, "output_tokens_details")
    cached = int_of(into, "cached_tokens") or int_of(chat, "cached_tokens") or int_of(chat, "prompt_cache_hit_tokens")
    total_in = int_of(chat, "prompt_tokens") or int_of(chat, "input_tokens")
    total_out = int_of(chat, "completion_tokens") or int_of(chat, "output_tokens")
    return {
        "input_tokens": total_in,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": int_of(into, "cache_write_tokens")},
        "output_tokens": total_out,
        "output_tokens_details": {"reasoning_tokens": int_of(out, "reasoning_tokens")},
        "total_tokens": int_of(chat, "total_tokens") or total_in + total_out,
    }


def chat_usage(response: Json) -> Json:
    """Convert the `usage` of a response to that of a chat completion."""
    into = object_of(response, "input_tokens_details") or object_of(response, "prompt_tokens_details")
    out = object_of(response, "output_tokens_details") or object_of(response, "completion_tokens_details")
    total_in = int_of(response, "input_tokens") or int_of(response, "prompt_tokens")
    total_out = int_of(response, "output_tokens") or int_of(response, "completion_tokens")
    found_in: Json = {"cached_tokens": int_of(into, "cached_tokens"), "audio_tokens": int_of(into, "audio_tokens")}
    if "cache_write_tokens" in into:
        found_in["cache_write_tokens"] = int_of(into, "cache_write_tokens")
    return {
        "prompt_tokens": total_in,
        "completion_tokens": total_out,
        "total_tokens": int_of(response, "total_tokens") or total_in + total_out,
        "prompt_tokens_details": found_in,
        "completion_tokens_details": {
            "reasoning_tokens": int_of(out, "reasoning_tokens"),
            "audio_tokens": int_of(out, "audio_tokens"),
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def whole_usage(usage: Json) -> Json:
    """The `usage` of a response with every member that OpenAI's has."""
    into, out = object_of(usage, "input_tokens_details"), object_of(usage, "output_tokens_details")
    total_in = int_of(usage, "input_tokens") or int_of(usage, "prompt_tokens")
    total_out = int_of(usage, "output_tokens") or int_of(usage, "completion_tokens")
    return {
        "input_tokens": total_in,
        "output_tokens": total_out,
        "total_tokens": total_in + total_out,
        **usage,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **into},
        "output_tokens_details": {"reasoning_tokens": 0, **out},
    }


# -- what a stream has delivered --------------------------------------------------------------------------------------

# Bytes of events that are counted at once. A short stream whose upstream reports usage is never counted.
_UNCOUNTED_LIMIT: Final = 32 * 1024
_DELTA: Final = re.compile(rb'"delta"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
# The texts that a part ends with, by the names that they have.
_TEXT: Final = re.compile(rb'"(?:text|refusal|arguments|input|code|transcript)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"')
_INDEX: Final = re.compile(rb'"output_index"\s*:\s*(\d+)')
_ITEM_ID: Final = re.compile(rb'"item_id"\s*:\s*"([^"\\]+)"')
_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]+)"')
_PLACE: Final = re.compile(rb'"(?:content|summary)_index"\s*:\s*(\d+)')  # of a part in its item

_ITEMS: Final = ("response.output_item.added", "response.output_item.done")


class _Event(msgspec.Struct):
    item: msgspec.Raw = msgspec.Raw()


_event: Final = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class _Item:
    """What was told of one item, or of those that cannot be told apart."""

    deltas: float = 0.0  # estimated tokens
    # The same of what came whole, by kind of event and place. What is repeated counts once.
    wholes: dict[str, dict[bytes, float]] = field(default_factory=dict)

    def tell(self, level: str, name: bytes, units: float) -> None:
        texts = self.wholes.setdefault(level, {})
        texts[name] = max(texts.get(name, 0.0), units)

    def units(self) -> float:
        return max(self.deltas, *(sum(texts.values()) for texts in self.wholes.values()), 0.0)


@dataclass(slots=True)
class ItemCount:
    """The estimated tokens of one stream, counted once for each item, however its upstream tells it.

    OpenAI sends the text of a message in deltas, and again in the events at the end of the text, of the part and of the
    item. Items such as `local_shell_call` have no deltas, and other servers leave those of function calls out, or the
    repetitions. Of each item, the telling that says most counts. Events are counted when somebody asks, or when they
    are many.
    """

    audio: float = 0.0  # of the tokens, those of audio
    opaque: bool = False  # there is content whose tokens its text does not tell
    _uncounted: list[tuple[str, bytes]] = field(default_factory=list)  # events and their kinds
    _size: int = 0
    _output: bytes = b""  # of the response at the end
    _by_id: dict[bytes, _Item] = field(default_factory=dict)
    _items: dict[bytes, _Item] = field(default_factory=dict)  # by index, or by id where an item has none

    def add(self, kind: str, event: bytes) -> None:
        """Take an event that is passed on."""
        if kind.endswith((".delta", ".done", ".added", "partial_image")):
            self._uncounted.append((kind, event))
            self._size += len(event)
            if self._size > _UNCOUNTED_LIMIT:
                self._count()

    def end(self, output: bytes) -> None:
        """Take the output of the complete response, which repeats the items or has them alone."""
        self._output = output

    def units(self) -> float:
        """The estimated tokens of text and audio so far."""
        self._count()
        total = sum(item.units() for item in self._items.values())
        return max(total, answer_units(self._whole())) if self._output else total

    def is_opaque(self) -> bool:
        self._count()
        if not self.opaque and self._output:
            self.opaque = is_opaque_answer(self._whole())
        return self.opaque

    def _whole(self) -> bytes:
        return b'{"output":' + self._output + b"}"

    def _count(self) -> None:
        for kind, event in self._uncounted:
            self._count_event(kind, event)
        self._uncounted, self._size = [], 0

    def _count_event(self, kind: str, data: bytes) -> None:
        if kind.endswith(".delta"):
            match = _DELTA.search(data)
            if match is None:
                return
            if kind.endswith("audio.delta"):
                units = sample_units(match[1])
                self.audio += units
                self.opaque = True  # the rate of the samples is assumed
            else:
                units = token_units(match[1])
            self._item(data).deltas += units
        elif kind in _ITEMS:
            self._count_item(kind, data)
        elif kind.endswith("partial_image"):
            self.opaque = True
        else:
            level = "part" if "_part." in kind else "text"
            place = _PLACE.search(data)
            name = kind.rpartition(".")[0].encode() + (place[1] if place is not None else b"")
            self._item(data).tell(level, name, sum(map(token_units, _TEXT.findall(data))))

    def _count_item(self, kind: str, data: bytes) -> None:
        try:
            raw = read_typed(_event, payload(data)).item
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        if not present(raw):
            return
        item = bytes(raw)
        self.opaque = self.opaque or (kind.endswith(".done") and is_opaque_item(item))
        found = _ID.search(item)
        # Ids need not be unique: another content is another item.
        told = self._item(data, found[1] if found is not None else b"")
        told.tell(kind, b"%d" % hash(item), item_units(item))

    def _item(self, data: bytes, item_id: bytes = b"") -> _Item:
        """The item of an event. An id is known by the index with which it came first."""
        if not item_id and (found := _ITEM_ID.search(data)) is not None:
            item_id = found[1]
        item = self._by_id.get(item_id)
        if item is None:
            index = _INDEX.search(data)
            item = self._items.setdefault(index[1] if index is not None else item_id, _Item())
            if item_id:
                self._by_id[item_id] = item
        return item
