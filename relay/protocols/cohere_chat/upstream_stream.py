"""Decodes the answers of Cohere's /v2/chat into hub chunks, and finds usage, errors and the end. Pure.

A stream is named events, each with its `type`; the last one is `message-end`. What is charged are the billed units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, int_of, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.contract import Completion
from relay.protocols.error_objects import named_error, states, unreadable_error
from relay.protocols.events import NOTHING_MADE, UNREADABLE, payload
from relay.protocols.usage import Counts, Usage, count

_FINISHES: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
_FAILED: Final = frozenset(("ERROR", "TIMEOUT", "ERROR_TOXIC", "ERROR_LIMIT"))


@dataclass(slots=True)
class CohereDecoder:
    """The decoder of one answer."""

    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the answer is complete
    _head: Json = field(
        default_factory=lambda: {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
    )
    _calls: dict[int, int] = field(default_factory=dict)  # numbers of calls, by their index in the stream
    _argued: set[int] = field(default_factory=set)  # of them, those whose arguments have begun
    _said: bool = False

    def chunks(self, event: bytes) -> list[Json]:
        data = payload(event)
        if not data:
            self.error = named_error(event)
            return []
        found, broken = read_object(data)
        if found is None:
            self.error = unreadable_error(event, data)
            return []
        if is_error(found):
            self.error = encode(clean(found)) if broken else data
            return []
        out = self._chunks_of(found)
        if broken:
            whole = clean(out)
            return whole if isinstance(whole, list) else []
        return out

    def finish(self, clean: bool) -> None:
        """An answer ends with its last event only."""

    def _chunks_of(self, found: Json) -> list[Json]:
        kind, delta = text_of(found, "type"), object_of(found, "delta")
        message = object_of(delta, "message")
        if kind == "message-start":
            self._head["id"] = text_of(found, "id")
        elif kind in {"content-start", "content-delta"}:
            content = object_of(message, "content")
            return self._said_chunk("reasoning_content", content, "thinking") + self._said_chunk(
                "content", content, "text"
            )
        elif kind == "tool-plan-delta":
            return self._said_chunk("reasoning_content", message, "tool_plan")
        elif kind in {"tool-call-start", "tool-call-delta"}:
            return self._call(int_of(found, "index"), object_of(message, "tool_calls"), kind == "tool-call-start")
        elif kind == "tool-call-end":
            return self._closed(int_of(found, "index"))
        elif kind == "citation-start":
            cited = annotations_of([object_of(message, "citations")])
            return [self._chunk({"annotations": cited})] if cited else []
        elif kind == "message-end":
            return self._end(delta)
        return []

    def _said_chunk(self, told: str, holder: Json, name: str) -> list[Json]:
        text = text_of(holder, name)
        self._said = self._said or bool(text)
        return [self._chunk({told: text})] if text else []

    def _call(self, index: int, call: Json, begins: bool) -> list[Json]:
        function = object_of(call, "function")
        piece: Json = {"arguments": text_of(function, "arguments")}
        if begins:
            self._calls[index] = len(self._calls)
            piece["name"] = text_of(function, "name")
        if index not in self._calls or (begins and not piece["name"]):
            self.error = UNREADABLE
            return []
        self._said = True
        if piece["arguments"]:
            self._argued.add(index)
        whole: Json = {"index": self._calls[index], "function": piece}
        if begins:
            whole |= {"id": text_of(call, "id"), "type": "function"}
        return [self._chunk({"tool_calls": [whole]})]

    def _closed(self, index: int) -> list[Json]:
        """What a call lacks whose arguments are complete: an object, where no piece of it came."""
        if index not in self._calls or index in self._argued:
            return []
        self._argued.add(index)
        return [self._chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": "{}"}}]})]

    def _end(self, delta: Json) -> list[Json]:
        reason = text_of(delta, "finish_reason")
        self.usage = usage_of(object_of(delta, "usage"))
        if reason in _FAILED or states(delta.get("error")):
            self.error = failure_of(reason, delta)
            return []
        if not self._said and not (self.usage is not None and self.usage.output):
            self.error = NOTHING_MADE
            return []
        self.done = True
        out = [chunk for index in self._calls for chunk in self._closed(index)]
        out.append(self._chunk({}, finish_of(reason, bool(self._calls))))
        if self.usage is not None:
            out.append({**self._head, "choices": [], "usage": chat_usage(self.usage)})
        return out

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "choices": [choice]}


def annotations_of(citations: list[Json]) -> list[Json]:
    """Citations as annotations of chat completions: those of documents and results of tools that have an address."""
    found: list[Json] = []
    for citation in citations:
        place: Json = {"start_index": int_of(citation, "start"), "end_index": int_of(citation, "end")}
        for source in objects_of(citation, "sources"):
            cited = object_of(source, "document") or object_of(source, "tool_output")
            if url := text_of(cited, "url"):
                told: Json = {"url": url, "title": text_of(cited, "title") or url, **place}
                found.append({"type": "url_citation", "url_citation": told})
    return found


def is_error(found: Json) -> bool:
    """Whether an object is an error, such as `{"id", "message": "…"}`: the message of an answer is an object."""
    return isinstance(found.get("message"), str) or states(found.get("error"))


def failure_of(reason: str, holder: Json) -> bytes:
    """The error behind an answer that ended with one."""
    told = holder.get("error")
    said = told if isinstance(told, str) and told else f"The upstream ended its answer with {reason or 'an error'}."
    return encode(
        {"error": {"message": said, "type": "server_error", "param": None, "code": reason.lower() or "error"}}
    )


def finish_of(reason: str, called: bool) -> str:
    finish = _FINISHES.get(reason, "stop")
    return "tool_calls" if called and finish == "stop" else finish


def _whole_call(call: Json) -> Json:
    function = object_of(call, "function")
    arguments = text_of(function, "arguments")
    whole: Json = {**function, "arguments": arguments if arguments.strip() else "{}"}
    return {"id": text_of(call, "id"), "type": "function", "function": whole}


def completion_of(found: Json) -> Completion:
    """A complete answer in the hub form."""
    reason, usage = text_of(found, "finish_reason"), usage_of(object_of(found, "usage"))
    if reason in _FAILED:
        return Completion(None, usage, failure_of(reason, found))
    message = object_of(found, "message")
    parts = objects_of(message, "content")
    text = "".join(text_of(part, "text") for part in parts)
    thoughts = "".join((text_of(message, "tool_plan"), *(text_of(part, "thinking") for part in parts)))
    calls = list(map(_whole_call, objects_of(message, "tool_calls")))
    if not (text or thoughts or calls or (usage is not None and usage.output)):
        return Completion(None, usage, NOTHING_MADE)
    told: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    told["annotations"] = annotations_of(objects_of(message, "citations"))
    if thoughts:
        told["reasoning_content"] = thoughts
    if calls:
        told["tool_calls"] = calls
    choice: Json = {"index": 0, "message": told, "logprobs": None, "finish_reason": finish_of(reason, bool(calls))}
    whole: Json = {
        "id": text_of(found, "id"), "object": "chat.completion", "created": 0, "model": "", "choices": [choice],
    }  # fmt: skip
    if usage is not None:
        whole["usage"] = chat_usage(usage)
    return Completion(whole, usage)


def usage_of(found: Json) -> Usage | None:
    """What is charged; None where it is not told."""
    billed = object_of(found, "billed_units")
    if "input_tokens" not in billed and "output_tokens" not in billed:
        return None
    return Counts(
        input=count(billed.get("input_tokens")),
        output=count(billed.get("output_tokens")),
        total=0,
        cached=min(count(found.get("cached_tokens")), count(billed.get("input_tokens"))),
        written=0,
        reasoning=0,
    ).usage(encode({"billed_units": billed, "cached_tokens": found.get("cached_tokens")}))


def chat_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input, "audio_tokens": 0},
    }
