"""Decodes messages and their events into hub completions and chunks. Pure; one decoder per stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, int_of, json_text, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.answer import is_nothing
from relay.protocols.anthropic_messages.thoughts import KINDS, thought_of_block
from relay.protocols.anthropic_messages.usage import NO_OUTPUT, hub_usage, parse_messages_usage
from relay.protocols.characters import TextJoiner, clean, read_object
from relay.protocols.chat_completions.dialects import FAILED, finish_reason, with_calls
from relay.protocols.chat_completions.hub import STOP, THINKING
from relay.protocols.error_objects import event_name, is_error_object, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE, UNREADABLE, Unreadable, payload
from relay.protocols.usage import Usage, newer

# Deltas with text: the type of their block, and the member with the text.
_DELTAS: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_use", "partial_json"),
}
# Reasons that say more than the hub's finish reason.
_TELLING: Final = frozenset(("stop_sequence", "pause_turn", "refusal", "model_context_window_exceeded", "compaction"))


def completion_of(message: Json, vendor: str) -> Json:
    """A complete message as a hub completion. `vendor`: the upstream's. Raises Unreadable."""
    blocks = message.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise Unreadable
    found: Json = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
    thoughts: list[Json] = []
    calls: list[Json] = []
    shown: list[str] = []
    text = ""
    for block in blocks:
        kind = text_of(block, "type")
        if kind == "text":
            said = _string(block.get("text"))
            annotations = _annotations(objects_of(block, "citations"), len(text), len(text) + len(said))
            found["annotations"] = [*objects_of(found, "annotations"), *annotations]
            text += said
        elif kind in KINDS:
            shown.append(_string(block.get("thinking")))
            thoughts.append(thought_of_block(block, vendor))
        elif kind == "tool_use":
            calls.append(_call(block))
    found["content"] = text or (None if calls else "")
    if thinking := "\n\n".join(filter(None, shown)):
        found["reasoning_content"] = thinking
    if signed := [{**thought, "text": []} for thought in thoughts if thought["signature"]]:
        found[THINKING] = signed
    if calls:
        found["tool_calls"] = calls
    choice: Json = {"index": 0, "message": found, "logprobs": None, **with_calls(_ending(message), bool(calls))}
    if choice["finish_reason"] == "content_filter":
        found["refusal"] = text_of(object_of(message, "stop_details"), "explanation") or None
    return {
        "id": text_of(message, "id"),
        "object": "chat.completion",
        "created": 0,
        "model": text_of(message, "model"),
        "choices": [choice],
        **({"usage": hub_usage(object_of(message, "usage"))} if isinstance(message.get("usage"), dict) else {}),
    }


def _string(value: object) -> str:
    """A text, empty where it is missing. Raises Unreadable for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable
    return value


def _call(block: Json) -> Json:
    name = text_of(block, "name")
    if not name:
        raise Unreadable
    arguments = block.get("input")
    called: Json = {"name": name, "arguments": json_text(arguments) if arguments is not None else "{}"}
    return {"id": text_of(block, "id"), "type": "function", "function": called}


def _annotations(citations: list[Json], start: int, end: int) -> list[Json]:
    """The sources of the web that a text cites, as annotations of chat completions."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": citation["url"],
                "title": text_of(citation, "title") or text_of(citation, "url"),
                "start_index": start,
                "end_index": end,
            },
        }
        for citation in citations
        if text_of(citation, "url")
    ]


def _ending(holder: Json) -> Json:
    """The finish reason of a message, or of what its last event says, with the reason in this API's words."""
    reason = text_of(holder, "stop_reason")
    finish = finish_reason(reason) or "stop"
    found: Json = {"finish_reason": "stop" if finish == FAILED else finish}
    details = object_of(holder, "stop_details")
    if reason in _TELLING or details:
        stop: Json = {"reason": reason, "sequence": holder.get("stop_sequence")}
        found[STOP] = {**stop, "details": details} if details else stop
    return found


@dataclass(slots=True)
class _Block:
    opening: Json
    number: int = -1  # of a call: its index in the hub's chunks
    pieces: list[str] = field(default_factory=list)  # of thinking: its text
    signature: str = ""
    begun: bool = False  # some of its text is in a chunk
    start: int = 0  # of a text: characters before it


@dataclass(slots=True)
class MessagesDecoder:
    """The decoder of one stream. What later events say of usage replaces what earlier ones did."""

    vendor: str = ""
    watch_finish: bool = False  # the upstream sends no `message_stop`, and its body may end without proof
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # `message_stop` has arrived
    _head: Json = field(default_factory=dict)
    _usage: Json = field(default_factory=dict)
    _blocks: dict[int, _Block] = field(default_factory=dict)  # that are open, by their index
    _calls: int = 0
    _length: int = 0  # characters of text so far
    _thought: bool = False  # thinking has been shown
    _began: bool = False  # there was a block with something in it
    _finished: bool = False  # the reason why it stopped has arrived
    _halves: TextJoiner = field(default_factory=TextJoiner)

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        if not data or data == b"[DONE]":
            self.error = named_error(event)
            self.done = self.done or (data == b"[DONE]" and self._finished)
            return []
        found, broken = read_object(data)
        if found is None:
            self.error = unreadable_error(event, data)
            return []
        kind = text_of(found, "type") or event_name(event)
        if kind == "error" or (not kind and is_error_object(found, False)):
            self.error = data if not broken else encode(clean(found))
            return []
        try:
            out = self._event(kind, found)
        except Unreadable:
            self.error = UNREADABLE
            return []
        if broken:
            whole = clean(out)
            return whole if isinstance(whole, list) else []
        return out

    def finish(self, clean: bool) -> None:
        self.done = self.done or (self._finished and (clean or self.watch_finish))

    def _event(self, kind: str, found: Json) -> list[Json]:
        match kind:
            case "message_start":
                return self._start(object_of(found, "message"))
            case "content_block_start":
                return self._open(int_of(found, "index"), object_of(found, "content_block"))
            case "content_block_delta":
                return self._delta(int_of(found, "index"), object_of(found, "delta"))
            case "content_block_stop":
                return self._close(int_of(found, "index"))
            case "message_delta":
                return self._finish(found)
            case "message_stop":
                if not (self._began or self._finished):
                    self.error = NOTHING_MADE
                    return []
                out = [chunk for index in list(self._blocks) for chunk in self._close(index)]
                self.done = True
                return out
            case "":
                if found:
                    raise Unreadable  # an event of another API
        return []  # a ping, or an event that is newer than this code

    def _chunk(self, delta: Json, **choice: object) -> Json:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]}

    def _start(self, message: Json) -> list[Json]:
        if self._head:
            return []  # the same once more
        self._head = {
            "id": text_of(message, "id"),
            "object": "chat.completion.chunk",
            "created": 0,
            "model": text_of(message, "model"),
        }
        self._report(object_of(message, "usage"), begins=True)
        chunk = self._chunk({})
        return [{**chunk, "usage": hub_usage(self._usage)} if self._usage else chunk]

    def _report(self, usage: Json, begins: bool = False) -> None:
        """Take counts over: those of a later event stand for the earlier ones, and null says nothing.

        `begins`: of an answer of which nothing has been made, so that its output counts once the answer ends only.
        """
        self._usage = {**self._usage, **{name: value for name, value in usage.items() if value is not None}}
        counted = {**self._usage, **NO_OUTPUT} if begins and self._usage else self._usage
        self.usage = newer(self.usage, parse_messages_usage(encode(clean(counted))))

    def _open(self, index: int, opening: Json) -> list[Json]:
        out = self._close(index) if index in self._blocks else []
        kind = text_of(opening, "type")
        self._began = self._began or kind != "text"
        block = self._blocks[index] = _Block(opening, start=self._length)
        if kind == "tool_use":
            if not text_of(opening, "name"):
                raise Unreadable
            block.number, self._calls = self._calls, self._calls + 1
            called: Json = {"name": opening["name"], "arguments": ""}
            call: Json = {"index": block.number, "id": text_of(opening, "id"), "type": "function", "function": called}
            out.append(self._chunk({"tool_calls": [call]}))
        elif kind == "text":
            out += self._say(block, "text", _string(opening.get("text")))
            if cited := _annotations(objects_of(opening, "citations"), block.start, self._length):
                out.append(self._chunk({"annotations": cited}))
        elif kind == "thinking":
            block.signature = text_of(opening, "signature")
            out += self._say(block, "thinking", _string(opening.get("thinking")))
        return out

    def _delta(self, index: int, delta: Json) -> list[Json]:
        block, kind = self._blocks.get(index), text_of(delta, "type")
        if kind == "signature_delta" and block is not None:
            block.signature += text_of(delta, "signature")
        elif kind == "citations_delta" and block is not None:
            cited = _annotations([object_of(delta, "citation")], block.start, self._length)
            return [self._chunk({"annotations": cited})] if cited else []
        elif kind in _DELTAS:
            wanted, member = _DELTAS[kind]
            if block is None:
                if wanted == "tool_use":
                    raise Unreadable
                block = self._blocks[index] = _Block({"type": wanted}, start=self._length)
            said = _string(delta.get(member))
            if wanted == "tool_use" and text_of(block.opening, "type") != "tool_use":
                return []  # of a tool that the upstream runs
            return self._say(block, wanted, said)
        return []

    def _say(self, block: _Block, kind: str, text: str) -> list[Json]:
        text = self._halves.join((id(block), kind), text)
        if not text:
            return []
        begun, block.begun = block.begun, True
        self._began = True
        if kind == "tool_use":
            return [self._chunk({"tool_calls": [{"index": block.number, "function": {"arguments": text}}]})]
        if kind == "thinking":
            block.pieces.append(text)
            shown = f"\n\n{text}" if self._thought and not begun else text
            self._thought = True
            return [self._chunk({"reasoning_content": shown})]
        self._length += len(text)
        return [self._chunk({"content": text})]

    def _close(self, index: int) -> list[Json]:
        block = self._blocks.pop(index, None)
        if block is None:
            return []
        kind, out = text_of(block.opening, "type"), []
        if rest := self._halves.rest((id(block), kind)):
            out += self._say(block, kind, rest)
        if kind == "tool_use" and not block.begun:
            out += self._say(block, kind, json_text(block.opening.get("input") or {}))
        elif kind in KINDS:
            whole = {**block.opening}
            if kind == "thinking":
                whole.update(thinking="".join(block.pieces), signature=block.signature)
            thought = thought_of_block(whole, self.vendor)
            if thought["signature"]:
                out.append(self._chunk({THINKING: [{**thought, "text": []}]}))
        return out

    def _finish(self, found: Json) -> list[Json]:
        delta = object_of(found, "delta")
        self._report(object_of(found, "usage"))
        out = [chunk for index in list(self._blocks) for chunk in self._close(index)]
        if reason := text_of(delta, "stop_reason"):
            if not self._began and is_nothing(reason, self._usage.get("output_tokens")):
                self.error = NOTHING_MADE
                return []
            self._finished = True
            ending = with_calls(_ending(delta), self._calls > 0)
            explained = text_of(object_of(delta, "stop_details"), "explanation")
            if ending["finish_reason"] == "content_filter" and explained:
                out.append(self._chunk({"refusal": explained}))
            out.append(self._chunk({}, **ending))
        if self._usage:
            out.append({**self._head, "choices": [], "usage": hub_usage(self._usage)})
        return out
