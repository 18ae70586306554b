"""Messages that are not streamed: parses what the portal needs. Pure.

Also puts a message together from its events, and takes one apart into events, for upstreams that stream although a
plain answer was asked for, or the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, int_of, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.usage import parse_messages_usage
from relay.protocols.characters import clean, read_object, read_typed
from relay.protocols.error_objects import Envelope, is_error_object, named_error, unreadable_error
from relay.protocols.events import payload, typed_event
from relay.protocols.sse import is_stream, split_events
from relay.protocols.usage import Usage, count, present

# The members of blocks that arrive in pieces, by the type of their delta, and what the delta calls them.
_PIECES: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("input", "partial_json"),
}
_DELTA_OF: Final = {"text": "text_delta", "thinking": "thinking_delta"}
_BLANK: Final = 256  # bytes of a block, or of an event with a piece of one, that may say nothing


class _Text(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Piece(msgspec.Struct):
    type: str = ""
    content_block: _Text | None = None
    delta: _Text | None = None


class _Answer(Envelope):
    usage: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    stop_reason: object = None


_answer: Final = msgspec.json.Decoder(_Answer)
_texts: Final = msgspec.json.Decoder(list[_Text])
_piece: Final = msgspec.json.Decoder(_Piece)


class MessagesAnswer(msgspec.Struct, frozen=True):
    """The parts of a message that the portal needs."""

    usage: Usage | None  # None: the upstream reports none
    error: bytes | None  # the error object of a 200 that is none


def parse_messages_answer(body: bytes) -> MessagesAnswer | None:
    """Parse the body of a message; None when it is not one (empty, HTML, truncated, without content, or with nothing
    in it although nothing has cut it).
    """
    try:
        answer = read_typed(_answer, body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    answered = bytes(answer.content).startswith(b"[")
    if answer.is_error(answered):
        return MessagesAnswer(None, body)
    if not answered:
        return None
    usage = parse_messages_usage(answer.usage) if present(answer.usage) else None
    if is_nothing(answer.stop_reason, usage.output if usage is not None else None) and _is_blank(answer.content):
        return None
    return MessagesAnswer(usage, None)


def _is_blank(content: msgspec.Raw) -> bool:
    """Whether content has no block but texts in which nothing is."""
    if len(bytes(content)) > _BLANK:
        return False
    try:
        return all(one.type == "text" and not one.text for one in _texts.decode(content))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False


def says_nothing(event: bytes) -> bool:
    """Whether an event of a content block opens or closes a text, or continues it by nothing."""
    if len(event) > _BLANK:
        return False
    try:
        found = _piece.decode(event)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    opening, delta = found.content_block, found.delta
    if opening is not None:
        return opening.type == "text" and not opening.text
    return found.type == "content_block_stop" or (delta is not None and delta.type == "text_delta" and not delta.text)


def is_nothing(stop_reason: object, output: object) -> bool:
    """Whether a message without content is no answer: nothing was made for it, and nothing has cut or refused it.

    `output`: its `output_tokens`, as they were last reported.
    """
    return stop_reason in (None, "", "end_turn") and not count(output)


def whole_message(body: bytes) -> tuple[bytes, bytes | None]:
    """The message in a body, even if the upstream streamed it unasked, and the error object of such a stream.

    The message is empty when the stream is incomplete.
    """
    if body.startswith(b"{") or not is_stream(body):
        return body, None
    found = _Assembly()
    for event in split_events(body):
        data = payload(event)
        error = found.feed(event, data) if data else named_error(event)
        if error is not None:
            return b"", error
        if found.done:
            return encode(clean(found.message)), None
    return b"", None


@dataclass(slots=True)
class _Assembly:
    """A message whose events arrive."""

    message: Json = field(default_factory=dict)
    done: bool = False
    _blocks: dict[int, Json] = field(default_factory=dict)
    _pieces: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    def feed(self, event: bytes, data: bytes) -> bytes | None:
        """Add an event; returns the error object of one that is an error, or that cannot be read."""
        found, _ = read_object(data)
        if found is None:
            return unreadable_error(event, data)
        kind, index = text_of(found, "type"), int_of(found, "index")
        if is_error_object(found, False):
            return data
        if kind == "message_start":
            self.message = object_of(found, "message")
        elif kind == "content_block_start":
            self._blocks[index] = object_of(found, "content_block")
        elif kind == "content_block_delta":
            self._add(index, object_of(found, "delta"))
        elif kind == "message_delta":
            usage = {name: value for name, value in object_of(found, "usage").items() if value is not None}
            self.message.update(object_of(found, "delta"))
            self.message["usage"] = {**object_of(self.message, "usage"), **usage}
        elif kind == "message_stop":
            self._end()
        return None

    def _add(self, index: int, delta: Json) -> None:
        kind = text_of(delta, "type")
        if kind == "citations_delta":
            block = self._blocks.setdefault(index, {"type": "text", "text": ""})
            block["citations"] = [*objects_of(block, "citations"), object_of(delta, "citation")]
        elif kind in _PIECES:
            member, name = _PIECES[kind]
            self._pieces.setdefault((index, member), []).append(text_of(delta, name))

    def _end(self) -> None:
        for (index, member), pieces in self._pieces.items():
            block = self._blocks.setdefault(index, {"type": member})
            text = "".join(pieces)
            if member != "input":
                block[member] = text_of(block, member) + text
            elif text.strip():
                block["input"] = decode_object(text.encode("utf-8", "replace")) or {}
        self.message["content"] = [block for _, block in sorted(self._blocks.items())]
        self.done = bool(self.message)


def events_of(message: Json) -> bytes:
    """The stream of a complete message."""
    opening = {name: value for name, value in message.items() if name != "stop_details"}
    usage = object_of(message, "usage")
    opening.update(content=[], stop_reason=None, stop_sequence=None, usage={**usage, "output_tokens": 0})
    out = [_event("message_start", message=opening)]
    for index, block in enumerate(objects_of(message, "content")):
        out += _block_events(index, block)
    ending = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    ending |= {name: message[name] for name in ("stop_details", "container") if message.get(name) is not None}
    out.append(_event("message_delta", delta=ending, usage=usage))
    out.append(_event("message_stop"))
    return b"".join(out)


def _block_events(index: int, block: Json) -> list[bytes]:
    kind, deltas, opening = text_of(block, "type"), [], dict(block)
    if kind in _DELTA_OF:
        opening[kind] = ""
        opening.pop("citations", None)
        if text_of(block, kind):
            deltas.append({"type": _DELTA_OF[kind], kind: block[kind]})
        deltas += [{"type": "citations_delta", "citation": one} for one in objects_of(block, "citations")]
        if text_of(block, "signature"):
            opening["signature"] = ""
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind in {"tool_use", "server_tool_use"}:
        opening["input"] = {}
        partial = encode(object_of(block, "input")).decode()
        deltas.append({"type": "input_json_delta", "partial_json": partial})
    return [
        _event("content_block_start", index=index, content_block=opening),
        *(_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        _event("content_block_stop", index=index),
    ]


def _event(kind: str, **members: object) -> bytes:
    return typed_event(kind, encode({"type": kind, **members}))
