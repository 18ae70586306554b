"""Encodes hub completions and chunks as messages and events of the Messages API. Pure; one encoder per stream.

Blocks of a stream do not overlap: what belongs to another block than the one that is open waits until that is closed,
which a call is as soon as its arguments are whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, int_of, json_text, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.conversion.tools import ToolNames
from relay.protocols.anthropic_messages.errors import stream_failure
from relay.protocols.anthropic_messages.thoughts import blocks_of_thought, signature_for_client
from relay.protocols.anthropic_messages.usage import messages_usage
from relay.protocols.characters import read_whole_object
from relay.protocols.chat_completions.hub import STOP, THINKING, made_call_id
from relay.protocols.events import typed_event
from relay.protocols.token_estimate import token_units

_STOPS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
# Those of this API; other upstreams have words of their own, of which the finish reason tells as much.
_OWN_STOPS: Final = frozenset((
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "compaction",
    "model_context_window_exceeded",
))  # fmt: skip
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_TEXT: Final = "text"
_THOUGHT: Final = "thinking"
_Key = tuple[str, int, int]  # the kind of a block; of a call also its choice and its index


def stop_of(choices: Sequence[Json], called: bool) -> Json:
    """Why a message ended: `stop_reason`, `stop_sequence` and, of a refusal, `stop_details`.

    `called`: the message has calls of tools, which some upstreams end as if it had none.
    """
    found: Json = {}
    for choice in choices:
        finish = text_of(choice, "finish_reason")
        found = {"finish": finish, "stop": object_of(choice, STOP), "refusal": _refusal(choice)} if finish else found
        if finish and finish != "stop":
            break
    stop = object_of(found, "stop")
    if text_of(stop, "reason") in _OWN_STOPS:
        shown: Json = {"stop_reason": stop.get("reason"), "stop_sequence": stop.get("sequence")}
        return {**shown, "stop_details": stop["details"]} if stop.get("details") else shown
    reason = _STOPS.get(text_of(found, "finish"), "end_turn")
    if called and reason == "end_turn":
        reason = "tool_use"
    elif reason == "end_turn" and text_of(found, "refusal"):  # OpenAI ends a refusal of the model like any answer
        reason = "refusal"
    told: Json = {"stop_reason": reason, "stop_sequence": None}
    if reason == "refusal":
        explanation = text_of(found, "refusal") or None
        told["stop_details"] = {"type": "refusal", "category": None, "explanation": explanation}
    return told


def _refusal(choice: Json) -> str:
    return text_of(object_of(choice, "message"), "refusal")


def content_of(message: Json, names: ToolNames) -> list[Json]:
    """The content blocks of a hub message."""
    content = _thinking_blocks(message)
    text = text_of(message, "content") or text_of(message, "refusal")
    for image in objects_of(message, "images"):
        text = "\n\n".join(filter(None, (text, _image_link(image))))
    if text:
        block: Json = {"type": "text", "text": text}
        if cited := [one for entry in objects_of(message, "annotations") if (one := _citation(entry, text))]:
            block["citations"] = cited
        content.append(block)
    for number, call in enumerate(objects_of(message, "tool_calls")):
        function = object_of(call, "function")
        content.append(
            {
                "type": "tool_use",
                "id": text_of(call, "id") or made_call_id("toolu", number),
                "name": names.own(text_of(function, "name")),
                "input": input_of(json_text(function.get("arguments") or "")),
            }
        )
    return content


def input_of(arguments: str) -> Json:
    """The input of a call, which is an object: also where arguments are missing, cut off, or no object."""
    if not arguments.strip():
        return {}
    found = read_whole_object(arguments.encode("utf-8", "replace"))
    return found if found is not None else {"arguments": arguments}


def _thinking_blocks(message: Json) -> list[Json]:
    thoughts = objects_of(message, THINKING)
    own = [block for thought in thoughts for block in blocks_of_thought(thought)]
    shown = text_of(message, "reasoning_content")
    if own or not (shown or thoughts):
        return own
    signatures = [signature for thought in thoughts if (signature := signature_for_client(thought))] or [""]
    texts = [shown, *[""] * (len(signatures) - 1)]
    return [
        {"type": "thinking", "thinking": text, "signature": one} for text, one in zip(texts, signatures, strict=True)
    ]


def _image_link(image: Json) -> str:
    return f"![image]({text_of(object_of(image, 'image_url'), 'url') or text_of(image, 'image_url')})"


def _citation(annotation: Json, text: str) -> Json:
    """A source of the web as a citation; empty for others."""
    cited = object_of(annotation, "url_citation")
    if not text_of(cited, "url"):
        return {}
    start, end = int_of(cited, "start_index"), int_of(cited, "end_index")
    return {
        "type": "web_search_result_location",
        "url": cited["url"],
        "title": text_of(cited, "title") or None,
        "cited_text": text[start:end],
        "encrypted_index": "",
    }


@dataclass(slots=True)
class _Block:
    """A block that is open, or that waits for its turn."""

    kind: str
    opening: Json
    pieces: list[str] = field(default_factory=list)  # of a call: all its arguments; of others, those that wait
    said: int = 0  # pieces that have been written


@dataclass(slots=True)
class MessagesEncoder:
    """Writes the events of one message."""

    answer_id: str
    model: str  # as the request names it
    names: ToolNames
    units: float = 0.0  # estimated tokens of the text written so far
    ending: bytes = typed_event("message_stop", b'{"type":"message_stop"}')
    final: Json | None = None  # always None: messages are not stored
    _started: bool = False
    _index: int = -1  # of the newest block
    _open: _Key | None = None
    _blocks: dict[_Key, _Block] = field(default_factory=dict)  # that are open or wait, in their order
    _called: bool = False
    _usage: Json = field(default_factory=dict)
    _ends: dict[int, Json] = field(default_factory=dict)  # of the choices
    _refusal: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)  # of the open text block, for its citations

    def chunk(self, chunk: Json) -> bytes:
        out = self._start(chunk) if not self._started else b""
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        for choice in objects_of(chunk, "choices"):
            out += self._choice(choice)
        return out

    def _start(self, chunk: Json) -> bytes:
        self._started = True
        self.model = text_of(chunk, "model") or self.model
        usage = messages_usage(object_of(chunk, "usage"))
        message: Json = {
            "id": self.answer_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 0},
        }
        return _event("message_start", message=message) + _PING

    def _choice(self, choice: Json) -> bytes:
        number, delta, out = int_of(choice, "index"), object_of(choice, "delta"), b""
        if thoughts := text_of(delta, "reasoning_content"):
            if self._index >= 0 and (_THOUGHT, 0, 0) not in self._blocks:  # the hub divides thoughts by an empty line
                thoughts = thoughts.removeprefix("\n\n")
            out += self._add((_THOUGHT, 0, 0), thoughts)
        for thought in objects_of(delta, THINKING):
            out += self._sign(thought)
        if text := text_of(delta, "content"):
            out += self._add((_TEXT, 0, 0), text)
        if refusal := text_of(delta, "refusal"):
            self._refusal.append(refusal)
            out += self._add((_TEXT, 0, 0), refusal)
        for image in objects_of(delta, "images"):
            out += self._add((_TEXT, 0, 0), f"\n\n{_image_link(image)}")
        for annotation in objects_of(delta, "annotations"):
            out += self._cite(annotation)
        for call in objects_of(delta, "tool_calls"):
            out += self._add_call((("call", number, int_of(call, "index"))), call)
        if text_of(choice, "finish_reason"):
            self._ends[number] = {name: choice[name] for name in ("finish_reason", STOP) if name in choice}
        return out

    # -- blocks ------------------------------------------------------------------------------------------------------

    def _add(self, key: _Key, text: str) -> bytes:
        """Add text to the open block of a kind, or to a new one."""
        out = self._turn_to(key, {"type": key[0], key[0]: "", **({"signature": ""} if key[0] == _THOUGHT else {})})
        self._blocks[key].pieces.append(text)
        self.units += token_units(text.encode("utf-8", "replace"))
        return out + (self._say() if self._open == key else b"")

    def _add_call(self, key: _Key, call: Json) -> bytes:
        function = object_of(call, "function")
        out = b""
        if key not in self._blocks and not (text_of(function, "name") or text_of(function, "arguments").strip()):
            return b""  # white space after a call whose block is closed
        if key not in self._blocks:
            ident = text_of(call, "id") or made_call_id(self.answer_id, key[2])
            name = self.names.own(text_of(function, "name"))
            out = self._turn_to(key, {"type": "tool_use", "id": ident, "name": name, "input": {}})
            self._called = True
        if arguments := text_of(function, "arguments"):
            self._blocks[key].pieces.append(arguments)
            self.units += token_units(arguments.encode("utf-8", "replace"))
        return out + (self._say() if self._open == key else b"")

    def _turn_to(self, key: _Key, opening: Json) -> bytes:
        """Make sure that there is a block for a key, and open it if the open one can be closed."""
        if key in self._blocks:
            return b""
        self._blocks[key] = _Block(key[0], opening)
        if self._open is None:
            return self._begin(key)
        return self._next() if self._is_whole(self._open) else b""

    def _is_whole(self, key: _Key) -> bool:
        block = self._blocks[key]
        return block.kind != "call" or decode_object("".join(block.pieces)) is not None

    def _begin(self, key: _Key) -> bytes:
        self._open, self._index, self._text = key, self._index + 1, []
        opening = _event("content_block_start", index=self._index, content_block=self._blocks[key].opening)
        return opening + self._say()

    def _say(self) -> bytes:
        """Write what has not been written of the open block."""
        assert self._open is not None  # noqa: S101
        block, out = self._blocks[self._open], b""
        for piece in block.pieces[block.said :]:
            if block.kind == "call":
                delta: Json = {"type": "input_json_delta", "partial_json": piece}
            elif block.kind == _TEXT:
                self._text.append(piece)
                delta = {"type": "text_delta", "text": piece}
            else:
                delta = {"type": "thinking_delta", "thinking": piece}
            out += _event("content_block_delta", index=self._index, delta=delta)
        if block.kind == "call":
            block.said = len(block.pieces)
        else:
            block.pieces, block.said = [], 0
        return out

    def _next(self) -> bytes:
        """Close the open block, and open the one that has waited longest, if any."""
        out = self._close()
        waiting = next(iter(self._blocks), None)
        if waiting is None:
            return out
        out += self._begin(waiting)
        more = len(self._blocks) > 1 and self._is_whole(waiting)
        return out + (self._next() if more else b"")

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        block, out = self._blocks.pop(self._open), b""
        self._open = None
        if block.kind == "call" and not "".join(block.pieces).strip():
            out += _event(
                "content_block_delta", index=self._index, delta={"type": "input_json_delta", "partial_json": "{}"}
            )
        return out + _event("content_block_stop", index=self._index)

    def _signature(self, signature: str) -> bytes:
        delta: Json = {"type": "signature_delta", "signature": signature}
        return _event("content_block_delta", index=self._index, delta=delta)

    def _sign(self, thought: Json) -> bytes:
        """Write the signature of the thought that is open, or thinking that has nothing to be read."""
        blocks = blocks_of_thought(thought)
        if self._open is not None and self._open[0] == _THOUGHT:
            own = next((block for block in blocks if text_of(block, "type") == "thinking"), None)
            signature = text_of(own, "signature") if own is not None else signature_for_client(thought)
            return (self._signature(signature) if signature else b"") + self._next()
        if self._open is not None and not self._is_whole(self._open):
            return b""  # a thought in the middle of a call: its text was told
        out = self._close()
        if not blocks and (signature := signature_for_client(thought)):
            blocks = [{"type": "thinking", "thinking": "", "signature": signature}]
        for block in blocks:
            self._index += 1
            opening = {**block, "signature": ""} if text_of(block, "type") == "thinking" else block
            out += _event("content_block_start", index=self._index, content_block=opening)
            if signature := text_of(block, "signature"):
                out += self._signature(signature)
            out += _event("content_block_stop", index=self._index)
        return out + (self._next() if self._blocks else b"")

    def _cite(self, annotation: Json) -> bytes:
        """Name a source of the text that is open. Vendors name some before the text begins: those have no place."""
        if self._open is None or self._open[0] != _TEXT:
            return b""
        citation = _citation(annotation, "".join(self._text))
        if not citation:
            return b""
        delta: Json = {"type": "citations_delta", "citation": citation}
        return _event("content_block_delta", index=self._index, delta=delta)

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self) -> tuple[bytes, bytes]:
        """Close the blocks; returns the bytes to send now, and the last events."""
        out = self._start({}) if not self._started else b""
        while self._blocks:
            out += self._next()
        ends = [{**end, "message": {"refusal": "".join(self._refusal)}} for _, end in sorted(self._ends.items())]
        usage = messages_usage(self._usage) if self._usage else {"output_tokens": 0}
        last = _event("message_delta", delta=stop_of(ends, self._called), usage=usage)
        return out, last + self.ending

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        return stream_failure(message, kind, code)

    def so_far(self) -> None:
        """Messages are not stored."""


def _event(kind: str, **members: object) -> bytes:
    return typed_event(kind, encode({"type": kind, **members}))
