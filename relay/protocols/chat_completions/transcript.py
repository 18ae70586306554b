"""Puts messages in the order that strict chat completions upstreams accept. Pure.

What they demand, and other APIs do not:

- the results of an assistant's calls right behind its message, one per call and in the order of the calls (OpenAI,
  Moonshot, DeepSeek: "an assistant message with 'tool_calls' must be followed by tool messages"), and no other results
- one system message, which is the first (templates of Qwen and others on vLLM: "System message must be at the
  beginning")
- arguments of calls that are JSON objects, and an assistant that says or calls something
- no items of other kinds
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import CACHE_CONTROL, RAW, unsupported_block_error

_INTERRUPTED: Final = "There is no result: the call was interrupted, or its result was not recorded."
_LOST_CALL: Final = "[Result of an earlier call that is not part of this conversation]"
_SYSTEM: Final = frozenset(("system", "developer"))


def strict_messages(messages: Sequence[Json], late_system: bool) -> tuple[list[Json], list[str]]:
    """The messages in a strict upstream's order; returns them with the names of what had to be told in words.

    `late_system`: the upstream accepts system messages behind others; without it they become the user's.
    Raises BadRequest for an item that cannot be told.
    """
    dropped: list[str] = []
    told = [_told(message, dropped) for message in messages if not _is_empty(message)]
    leading = next((number for number, message in enumerate(told) if _role(message) not in _SYSTEM), len(told))
    found = _first_system(told[:leading])
    for message in with_results(told[leading:]):
        if _role(message) in _SYSTEM and not late_system:
            message = _as_user(message)
        found.append(message)
    return found, list(dict.fromkeys(dropped))


def _role(message: Json) -> str:
    return text_of(message, "role")


def _is_empty(message: Json) -> bool:
    """Whether the assistant said nothing, as in an answer that was interrupted: strict upstreams demand content."""
    return _role(message) == "assistant" and not any(map(message.get, ("content", "refusal", "tool_calls")))


def _told(message: Json, dropped: list[str]) -> Json:
    """A message, or an item of another API in words. Raises BadRequest for an item without words."""
    if RAW not in message:
        return message
    raw = object_of(message, RAW)
    if not text_of(raw, "text"):
        raise unsupported_block_error(message)
    dropped.append(text_of(raw, "ignored"))
    return {"role": "user", "content": raw["text"]}


# -- system messages -------------------------------------------------------------------------------------------------


def _first_system(messages: Sequence[Json]) -> list[Json]:
    """The system messages at the beginning as one. What is not text in them follows as a message of the user."""
    if len(messages) == 1 and isinstance(messages[0].get("content"), str):
        return [{**messages[0], "role": "system"}]
    texts = [text for message in messages if (text := _text(message))]
    others = [part for message in messages for part in objects_of(message, "content") if "text" not in part]
    found: list[Json] = []
    if texts:
        holders = [holder for message in messages for holder in (*objects_of(message, "content"), message)]
        marks = [holder[CACHE_CONTROL] for holder in holders if CACHE_CONTROL in holder]
        marked: Json = {CACHE_CONTROL: marks[-1]} if marks else {}
        found.append({"role": "system", "content": "\n\n".join(texts), **marked})
    if others:
        found.append({"role": "user", "content": others})
    return found


def _text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(text for part in objects_of(message, "content") if (text := text_of(part, "text")))


def _as_user(message: Json) -> Json:
    """A system message as one of the user, marked as what it was."""
    content = message.get("content")
    if isinstance(content, list):
        opening, closing = ({"type": "text", "text": mark} for mark in ("<system_message>", "</system_message>"))
        return {**message, "role": "user", "content": [opening, *content, closing]}
    return {**message, "role": "user", "content": f"<system_message>\n{_text(message)}\n</system_message>"}


# -- results of calls ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Slot:
    """A call, and its results once they are found."""

    id: str  # of the call, as it is sent
    given: str  # the same as the client wrote it
    results: list[Json] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    """The calls of one id, in their order."""

    slots: list[_Slot] = field(default_factory=list)
    answered: int = 0  # how many have a result

    def take(self, result: Json) -> None:
        """Give a result to the first call without one, or to the last, which then has several (Codex' `notify`)."""
        self.slots[min(self.answered, len(self.slots) - 1)].results.append(result)
        self.answered += 1


def with_results(messages: Sequence[Json], objects: bool = True) -> list[Json]:
    """The messages with each result right behind its call; what stood between them follows.

    A result belongs to the newest call of its id, since vendors number the calls of each answer anew. Calls without a
    result get one that says so; results without a call become messages of the user.
    `objects`: the arguments of calls must be objects.
    """
    slots: dict[int, list[_Slot]] = {}  # by the position of the assistant's message
    newest: dict[str, _Waiting] = {}  # of the newest message with calls of an id
    early: list[int] = []  # positions of results that no call precedes
    for position, message in enumerate(messages):
        calls = objects_of(message, "tool_calls") if _role(message) == "assistant" else []
        if calls:
            slots[position] = _slots(calls, position, newest)
        elif _role(message) == "tool":
            if (waiting := newest.get(text_of(message, "tool_call_id"))) is not None:
                waiting.take(message)
            else:
                early.append(position)
    later: dict[str, _Waiting] = {}
    for slot in (slot for own in slots.values() for slot in own if not slot.results):
        later.setdefault(slot.given, _Waiting()).slots.append(slot)
    lost: set[int] = set()
    for position in early:
        if (waiting := later.get(text_of(messages[position], "tool_call_id"))) is not None:
            waiting.take(messages[position])
        else:
            lost.add(position)
    found: list[Json] = []
    for position, message in enumerate(messages):
        if position in slots:
            found += _answered(message, slots[position], objects)
        elif position in lost:
            found.append({"role": "user", "content": f"{_LOST_CALL}\n{_text(message)}"})
        elif _role(message) != "tool":
            found.append(message)
    return found


def _slots(calls: Sequence[Json], position: int, newest: dict[str, _Waiting]) -> list[_Slot]:
    """The slots of one message's calls, each with an id that no other of them has."""
    found: list[_Slot] = []
    own: dict[str, _Waiting] = {}
    for number, call in enumerate(calls):
        given = text_of(call, "id")
        slot = _Slot(given if given and given not in own else f"{given or 'call'}_{position}_{number}", given)
        own.setdefault(given, _Waiting()).slots.append(slot)
        found.append(slot)
    newest.update(own)
    return found


def _answered(message: Json, slots: Sequence[_Slot], objects: bool) -> list[Json]:
    """A message with calls, and their results."""
    pairs = zip(objects_of(message, "tool_calls"), slots, strict=True)
    calls = [_readable(call, slot.id) if objects else {**call, "id": slot.id} for call, slot in pairs]
    return [{**message, "tool_calls": calls}, *map(_result, slots)]


def _readable(call: Json, call_id: str) -> Json:
    """A call whose arguments are an object: vLLM and others decode those of earlier calls for the model's template."""
    function = object_of(call, "function")
    arguments = text_of(function, "arguments")
    if decode_object(arguments) is None:
        function = {
            **function,
            "arguments": encode({} if arguments.strip() in {"", "null"} else {"arguments": arguments}).decode(),
        }
    return {**call, "id": call_id, "function": function}


def _result(slot: _Slot) -> Json:
    if not slot.results:
        return {"role": "tool", "tool_call_id": slot.id, "content": _INTERRUPTED}
    content = "\n".join(map(_text, slot.results)) if len(slot.results) > 1 else slot.results[0].get("content")
    return {**slot.results[0], "tool_call_id": slot.id, "content": content}
