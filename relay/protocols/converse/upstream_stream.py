"""Decodes answers of the Converse API and the events of its streams into the hub form. Pure; one decoder per stream.

The frames of a stream arrive as server-sent events (`relay.protocols.framing.event_stream`): each has the name of a
frame, and a frame that is an exception has become an event named `error`. The last one, `metadata`, has the usage.

Source: botocore 1.44's model of bedrock-runtime and Bedrock's user guide, November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, int_of, json_text, object_of, objects_of, text_of
from relay.protocols.characters import TextJoiner, clean, read_object
from relay.protocols.chat_completions.dialects import FAILED, finish_reason, with_calls
from relay.protocols.chat_completions.hub import STOP, THINKING
from relay.protocols.contract import Completion
from relay.protocols.converse.turns import signed_thought
from relay.protocols.converse.usage import hub_usage, usage_of
from relay.protocols.error_objects import event_name, is_error_object, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE, UNREADABLE, Unreadable, payload
from relay.protocols.usage import Usage

# Reasons that say more than the hub's finish reason.
_TELLING: Final = frozenset((
    "stop_sequence", "guardrail_intervened", "content_filtered", "model_context_window_exceeded",
))  # fmt: skip
_EVENTS: Final = frozenset((
    "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata",
))  # fmt: skip
_HIDDEN: Final = "[REDACTED]"  # what Nova shows in place of its thoughts
_SERVER: Final = "server_tool_use"  # the type of calls that the upstream answers itself


def completion_of(found: Json, vendor: str) -> Completion:
    """A complete answer as a hub completion. `vendor`: the upstream's. Raises Unreadable."""
    usage = usage_of(object_of(found, "usage"))
    reason = text_of(found, "stopReason")
    ending = _ending(reason)
    if ending["finish_reason"] == FAILED:
        return Completion(None, usage, failure_of(reason))
    blocks = objects_of(object_of(object_of(found, "output"), "message"), "content")
    text, shown, thoughts, calls, images, cited = "", [], [], [], [], []
    for block in blocks:
        if "text" in block:
            text += _string(block["text"])
        elif "citationsContent" in block:
            said = object_of(block, "citationsContent")
            start = len(text)
            text += "".join(text_of(part, "text") for part in objects_of(said, "content"))
            cited += _annotations(objects_of(said, "citations"), start, len(text))
        elif "reasoningContent" in block:
            thought = object_of(block, "reasoningContent")
            shown.append(text_of(object_of(thought, "reasoningText"), "text"))
            thoughts.append(signed_thought(thought, vendor))
        elif "toolUse" in block and text_of(object_of(block, "toolUse"), "type") != _SERVER:
            calls.append(_call(object_of(block, "toolUse")))
        elif "image" in block:
            image = object_of(block, "image")
            images += _images(text_of(image, "format"), object_of(image, "source"))
    thinking = "\n\n".join(part for part in shown if part and part != _HIDDEN)
    if not (text or thinking or calls or images or (usage is not None and usage.output) or STOP in ending):
        return Completion(None, usage, NOTHING_MADE)
    message: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    message["annotations"] = cited
    message |= {"reasoning_content": thinking} if thinking else {}
    message |= {THINKING: signed} if (signed := [thought for thought in thoughts if thought]) else {}
    message |= {"tool_calls": calls} if calls else {}
    message |= {"images": images} if images else {}
    choice: Json = {"index": 0, "message": message, "logprobs": None, **with_calls(ending, bool(calls))}
    whole: Json = {"id": "", "object": "chat.completion", "created": 0, "model": "", "choices": [choice]}
    if usage is not None:
        whole["usage"] = hub_usage(usage)
    return Completion(whole, usage)


def failure_of(reason: str) -> bytes:
    """The error behind an answer that stopped since the model wrote something malformed."""
    said = f"The model broke its answer off ({reason[:60]}). Try again."
    return encode({"error": {"message": said, "type": "server_error", "param": None, "code": "upstream_error"}})


def _ending(reason: str) -> Json:
    """The finish reason, with the reason in this API's words where these say more."""
    found: Json = {"finish_reason": finish_reason(reason) or "stop"}
    if reason in _TELLING:
        found[STOP] = {"reason": reason, "sequence": None}
    return found


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Unreadable
    return value


def _call(used: Json) -> Json:
    if not text_of(used, "name"):
        raise Unreadable
    called: Json = {"name": used["name"], "arguments": json_text(used.get("input") or {})}
    return {"id": text_of(used, "toolUseId"), "type": "function", "function": called}


def _images(form: str, source: Json) -> list[Json]:
    data = text_of(source, "bytes")
    url = f"data:image/{form or 'png'};base64,{data}"
    return [{"type": "image_url", "image_url": {"url": url}}] if data else []


def _annotations(citations: list[Json], start: int, end: int) -> list[Json]:
    """The sources of the web that a text cites, as annotations of chat completions."""
    found: list[Json] = []
    for citation in citations:
        if url := text_of(object_of(object_of(citation, "location"), "web"), "url"):
            place: Json = {"url": url, "title": text_of(citation, "title") or url}
            found.append({"type": "url_citation", "url_citation": {**place, "start_index": start, "end_index": end}})
    return found


@dataclass(slots=True)
class _Block:
    number: int = -1  # of a call: its index in the hub's chunks; -1 for other blocks
    foreign: bool = False  # of a tool that the upstream runs
    called: bool = False  # some of the call's arguments are in a chunk
    begun: bool = False  # some of its thoughts are in a chunk
    pieces: list[str] = field(default_factory=list)  # of thoughts
    signature: str = ""
    hidden: str = ""  # encrypted thoughts
    form: str = ""  # of an image


@dataclass(slots=True)
class ConverseDecoder:
    """The decoder of one stream."""

    vendor: str = ""
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the usage, which is last, has arrived
    _blocks: dict[int, _Block] = field(default_factory=dict)  # that are open, by their index
    _calls: int = 0
    _length: int = 0  # characters of text so far
    _thought: bool = False  # thoughts have been shown
    _began: bool = False  # something has been said
    _finished: bool = False  # the reason why it stopped has arrived
    _opened: bool = False
    _halves: TextJoiner = field(default_factory=TextJoiner)

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        if not data:
            self.error = named_error(event)
            return []
        found, broken = read_object(data)
        if found is None:
            self.error = unreadable_error(event, data)
            return []
        kind = event_name(event)
        if kind == "error" or (kind not in _EVENTS and is_error_object(found, False)):
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
        """A stream may end without its usage, once it has said why the model stopped."""
        self.done = self.done or (self._finished and clean)

    def _event(self, kind: str, found: Json) -> list[Json]:
        index = int_of(found, "contentBlockIndex")
        match kind:
            case "messageStart":
                opened, self._opened = self._opened, True
                return [] if opened else [self._chunk({})]
            case "contentBlockStart":
                return self._open(index, object_of(found, "start"))
            case "contentBlockDelta":
                return self._delta(index, object_of(found, "delta"))
            case "contentBlockStop":
                return self._close(index)
            case "messageStop":
                return self._stop(text_of(found, "stopReason"))
            case "metadata":
                return self._end(found)
            case "":
                raise Unreadable  # an event of another API
        return []  # newer than this code

    def _chunk(self, delta: Json, **choice: object) -> Json:
        head: Json = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **choice}]}

    def _open(self, index: int, start: Json) -> list[Json]:
        out = self._close(index)
        block = self._blocks[index] = _Block(form=text_of(object_of(start, "image"), "format"))
        used = object_of(start, "toolUse")
        if not used:
            block.foreign = "toolResult" in start
            return out
        self._began = True
        if text_of(used, "type") == _SERVER:
            block.foreign = True
            return out
        if not text_of(used, "name"):
            raise Unreadable
        block.number, self._calls = self._calls, self._calls + 1
        called: Json = {"name": used["name"], "arguments": ""}
        call: Json = {"index": block.number, "id": text_of(used, "toolUseId"), "type": "function", "function": called}
        return [*out, self._chunk({"tool_calls": [call]})]

    def _delta(self, index: int, delta: Json) -> list[Json]:
        block = self._blocks.setdefault(index, _Block())
        if "text" in delta:
            return self._say(index, block, _string(delta["text"]))
        if "reasoningContent" in delta:
            thought = object_of(delta, "reasoningContent")
            block.signature += text_of(thought, "signature")
            block.hidden += text_of(thought, "redactedContent")
            return self._think(index, block, text_of(thought, "text"))
        if "toolUse" in delta:
            if block.foreign:
                return []
            if block.number < 0:
                raise Unreadable
            return self._argue(index, block, _string(object_of(delta, "toolUse").get("input")))
        if "citation" in delta:
            cited = _annotations([object_of(delta, "citation")], 0, self._length)
            return [self._chunk({"annotations": cited})] if cited else []
        if "image" in delta:
            images = _images(block.form, object_of(object_of(delta, "image"), "source"))
            self._began = self._began or bool(images)
            return [self._chunk({"images": images})] if images else []
        return []

    def _say(self, index: int, block: _Block, text: str) -> list[Json]:
        text = self._halves.join((index, "text"), text)
        if not text or block.foreign:
            return []
        self._began = True
        self._length += len(text)
        return [self._chunk({"content": text})]

    def _think(self, index: int, block: _Block, text: str) -> list[Json]:
        text = self._halves.join((index, "thought"), text)
        if not text:
            return []
        self._began = True
        block.pieces.append(text)
        if text == _HIDDEN:
            return []
        shown = f"\n\n{text}" if self._thought and not block.begun else text
        self._thought = block.begun = True
        return [self._chunk({"reasoning_content": shown})]

    def _argue(self, index: int, block: _Block, text: str) -> list[Json]:
        text = self._halves.join((index, "call"), text)
        if not text:
            return []
        block.called = True
        return [self._chunk({"tool_calls": [{"index": block.number, "function": {"arguments": text}}]})]

    def _close(self, index: int) -> list[Json]:
        block = self._blocks.pop(index, None)
        if block is None:
            return []
        out: list[Json] = []
        for kind, go_on in (("text", self._say), ("thought", self._think), ("call", self._argue)):
            if rest := self._halves.rest((index, kind)):
                out += go_on(index, block, rest)
        if block.number >= 0 and not block.called:
            out.append(self._chunk({"tool_calls": [{"index": block.number, "function": {"arguments": "{}"}}]}))
        whole: Json = {"reasoningText": {"text": "".join(block.pieces), "signature": block.signature}}
        if block.hidden:
            whole = {"redactedContent": block.hidden}
        if thought := signed_thought(whole, self.vendor):
            out.append(self._chunk({THINKING: [thought]}))
        return out

    def _stop(self, reason: str) -> list[Json]:
        ending = _ending(reason)
        if ending["finish_reason"] == FAILED:
            self.error = failure_of(reason)
            return []
        if not self._began and STOP not in ending:
            self.error = NOTHING_MADE
            return []
        out = [chunk for index in list(self._blocks) for chunk in self._close(index)]
        self._finished = True
        return [*out, self._chunk({}, **with_calls(ending, self._calls > 0))]

    def _end(self, found: Json) -> list[Json]:
        self.usage = usage_of(object_of(found, "usage"))
        if not self._finished:
            raise Unreadable
        self.done = True
        if self.usage is None:
            return []
        return [{**self._chunk({}), "choices": [], "usage": hub_usage(self.usage)}]
