"""Which tool call a piece of a chat stream belongs to. Pure; one object per choice of a stream.

A call is known by its id, otherwise by its index, otherwise by its position. Vendors reuse one index for several calls
(Ollama, Gemini's compatible API), send no ids, send a new id with each piece, or write the name in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, json_text, objects_of, text_of
from relay.protocols.events import Unreadable

# What vendors call the arguments of a call: OpenAI and nearly all; Cohere and Llama's own format; Anthropic's.
_ARGUMENTS: Final = ("arguments", "parameters", "input")
# Members of a piece that say neither what is called nor with what; some come before or after the call itself.
_BESIDE: Final = frozenset(
    ("id", "index", "type", "status", "extra_content", "signature", "thought_signature", "provider_specific_fields")
)
_DEEPEST: Final = 8  # levels of a piece in an unknown form that are looked through for content


@dataclass(slots=True)
class Call:
    """One call of which pieces arrive."""

    number: int  # its index in the hub's chunks
    id: str
    index: int | None
    name: str = ""
    said: bool = False  # its id and its name are in a chunk
    pieces: list[str] = field(default_factory=list)  # its arguments
    held: str = ""  # arguments that are in no chunk yet
    whole: bool = False  # its arguments arrived as an object
    begun: bool = False  # a piece had an `arguments` member

    def is_complete(self) -> bool:
        """Whether another piece with a name can only be another call."""
        return self.whole or (bool(self.pieces) and decode_object("".join(self.pieces)) is not None)

    def chunk_form(self) -> Json:
        """What is new of it, as an entry of `delta.tool_calls`: its id and its name the first time only."""
        arguments, self.held = self.held, ""
        if self.said:
            return {"index": self.number, "function": {"arguments": arguments}}
        self.said = True
        named: Json = {"name": self.name, "arguments": arguments}
        return {"index": self.number, **({"id": self.id} if self.id else {}), "type": "function", "function": named}


class ToolCalls:
    """The calls of one choice. `feed` takes the pieces of a delta and returns those of the hub's."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}

    def feed(self, pieces: list[Json]) -> tuple[list[Json], list[Call]]:
        """The entries for the hub's chunk, and the call of each piece. Raises Unreadable."""
        out: list[Json] = []
        found: list[Call] = []
        for position, piece in enumerate(pieces):
            function = called_function(piece)
            name = function.get("name")
            if name is not None and not isinstance(name, str):
                raise Unreadable
            before = len(self.calls)
            call = self._find(piece, function, position if len(pieces) > 1 else None)
            if len(self.calls) > before:  # the calls before it will get no more of their names
                out += [earlier.chunk_form() for earlier in self.calls[:before] if not earlier.said and earlier.name]
            found.append(call)
            if name and not call.pieces and not call.said:
                call.name = name if name.startswith(call.name) else call.name + name
            value = function.get("arguments")
            if value is None:
                continue
            call.begun = True
            arguments = "" if value == {} else json_text(value)
            call.whole = call.whole or isinstance(value, dict)
            if name and call.is_complete() and arguments == "".join(call.pieces):
                continue  # the whole call after its pieces
            if arguments:
                call.pieces.append(arguments)
                call.held += arguments
                if call.name:
                    out.append(call.chunk_form())
        return out, found

    def finish(self) -> list[Json]:
        """The entries for calls of which nothing but the name arrived. Raises Unreadable for one without a name."""
        unnamed = [call for call in self.calls if not call.name]
        # A piece may announce a call that the next one makes under another id, but not all of them.
        if any(call.held for call in unnamed) or (len(unnamed) == len(self.calls) and any(call.id for call in unnamed)):
            raise Unreadable
        return [call.chunk_form() for call in self.calls if not call.said and call.name]

    def _find(self, piece: Json, function: Json, position: int | None) -> Call:
        """The call of a piece. `position`: in its list; None when it is alone there."""
        call_id, index, name = call_id_of(piece), _index_of(piece), text_of(function, "name")
        at = self._by_index.get(index) if index is not None else None
        if call_id:
            known = self._by_id.get(call_id)
            if known is not None:
                if index is None or known.index in {None, index} or not name:
                    return known
                # One id for two calls: a relay made it of the function's name. The second gets an id of its own.
                return at if at is not None else self._new("", index)
            candidate = at if index is not None else self._newest()
            if candidate is None or self._begins(candidate, name):
                return self._new(call_id, index)
            if not candidate.id and not candidate.said:
                candidate.id = call_id
            self._by_id[call_id] = candidate
            return candidate
        if index is not None and at is None and not name and self.calls:
            return self.calls[-1]  # the index counts pieces
        if index is not None:
            return self._new("", index) if at is None or (name and at.name and at.is_complete()) else at
        candidate = self._newest()
        if position is not None:
            candidate = self.calls[position] if position < len(self.calls) else None
        another = candidate is None or (
            name and candidate.name and (candidate.is_complete() or candidate.begun or "arguments" in function)
        )
        return self._new("", None) if candidate is None or another else candidate

    def _begins(self, candidate: Call, name: str) -> bool:
        """Whether a piece with an unknown id begins another call than the one that its index or position names."""
        if not candidate.id and not candidate.said and name in {"", candidate.name}:
            return candidate.is_complete()
        if name and not (name == candidate.name and candidate.pieces):
            return True
        return candidate.is_complete()

    def _newest(self) -> Call | None:
        return self.calls[-1] if self.calls else None

    def _new(self, call_id: str, index: int | None) -> Call:
        call = Call(len(self.calls), call_id, index)
        self.calls.append(call)
        if call_id:
            self._by_id[call_id] = call
        if index is not None:
            self._by_index[index] = call
        return call


def pieces_of(message: Json) -> list[Json]:
    """The tool calls in a message or delta, the deprecated `function_call` among them. Raises Unreadable."""
    found = message.get("tool_calls")
    if not found:
        called = message.get("function_call")
        if called and not isinstance(called, dict):
            raise Unreadable
        return [{"index": 0, "function": called}] if called else []
    if not isinstance(found, list) or not all(isinstance(piece, dict) for piece in found):
        raise Unreadable
    return objects_of(message, "tool_calls")


def called_function(piece: Json) -> Json:
    """The function of a call; a custom tool counts as one whose arguments are its input.

    Some vendors leave the object around name and arguments out, or half of it (Workers AI's own API). Raises Unreadable
    for a piece that says something in another form; nulls and empty strings say nothing (DashScope ends each call so).
    """
    custom, function = piece.get("custom"), piece.get("function")
    if custom and isinstance(custom, dict):
        return {"name": custom.get("name"), "arguments": custom.get("input")}
    if function and not isinstance(function, dict):
        raise Unreadable
    found: Json = {}
    for holder in (piece, function if isinstance(function, dict) else {}):
        if holder.get("name") is not None:
            found["name"] = holder["name"]
        if (given := next((holder[name] for name in _ARGUMENTS if holder.get(name) is not None), None)) is not None:
            found["arguments"] = given
    if not found and any(_has_content(value) for name, value in piece.items() if name not in _BESIDE):
        raise Unreadable
    return found


def _has_content(value: object, depth: int = 0) -> bool:
    inner = list(value.values()) if isinstance(value, dict) else value
    if isinstance(inner, list) and depth < _DEEPEST:
        return any(_has_content(entry, depth + 1) for entry in inner)
    return bool(value) and isinstance(value, (str, dict, list))


def call_id_of(piece: Json) -> str:
    """The id of a call; empty when it has none."""
    found = piece.get("id")
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else ""


def _index_of(piece: Json) -> int | None:
    found = piece.get("index")
    if isinstance(found, str) and found.isdecimal() and len(found) < 10:
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def whole_calls(message: Json) -> list[Json]:
    """The tool calls of a complete message in the hub form. A call that is listed twice is one. Raises Unreadable."""
    found: list[Json] = []
    ids: set[str] = set()
    for piece in pieces_of(message):
        function, call_id = called_function(piece), call_id_of(piece)
        name, value = function.get("name"), function.get("arguments")
        if not (name or call_id or _has_content(value)):
            continue  # a place that nothing is in
        if not isinstance(name, str) or not name:
            raise Unreadable
        arguments = "" if value is None else json_text(value)
        call: Json = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        if call_id in ids and call_id:
            if call in found:
                continue
            call["id"] = ""
        ids.add(call_id)
        found.append(call)
    return found
