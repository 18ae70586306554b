"""Decodes the answers of Ollama's /api/chat into hub chunks, and finds usage, errors and the end. Pure.

A stream is JSON objects, one a line; the transport makes events of the lines. The last one has `done`. Calls arrive
whole, without ids of their own in older versions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.contract import Completion
from relay.protocols.error_objects import is_error_object, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE, UNREADABLE, Unreadable, payload
from relay.protocols.usage import Counts, Usage, count

_FINISHES: Final = {"length": "length"}  # of `done_reason`; all others are a stop


@dataclass(slots=True)
class OllamaDecoder:
    """The decoder of one answer."""

    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object
    done: bool = False  # the answer is complete
    _head: Json = field(default_factory=dict)
    _calls: int = 0
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
        if is_error_object(found, isinstance(found.get("message"), dict)):
            self.error = encode(clean(found)) if broken else data
            return []
        try:
            out = self._chunks_of(found)
        except Unreadable:
            self.error = UNREADABLE
            return []
        if broken:
            whole = clean(out)
            return whole if isinstance(whole, list) else []
        return out

    def finish(self, clean: bool) -> None:
        """An answer ends with its last line only."""

    def _chunks_of(self, found: Json) -> list[Json]:
        """Raises Unreadable."""
        if not self._head:
            self._head = {"id": "", "object": "chat.completion.chunk", **_named(found)}
        message = found.get("message")
        if message is not None and not isinstance(message, dict):
            raise Unreadable
        out = []
        if message and (delta := delta_of(message, self._calls)):
            self._calls += len(objects_of(delta, "tool_calls"))
            self._said = True
            out.append(self._chunk(delta))
        if found.get("done") is True:
            self.done, self.usage = True, usage_of(found)
            if not self._said and not (self.usage is not None and self.usage.output):
                self.error = NOTHING_MADE
                return []
            out.append(self._chunk({}, finish_of(found, self._calls > 0)))
            if self.usage is not None:
                out.append({**self._head, "choices": [], "usage": chat_usage(self.usage)})
        return out

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "choices": [choice]}


def completion_of(found: Json) -> Completion:
    """A complete answer in the hub form."""
    try:
        delta = delta_of(object_of(found, "message"), 0)
    except Unreadable:
        return Completion(None, None, UNREADABLE)
    usage = usage_of(found)
    if not delta and not (usage is not None and usage.output):
        return Completion(None, usage, NOTHING_MADE)
    calls = [
        {name: value for name, value in call.items() if name != "index"} for call in objects_of(delta, "tool_calls")
    ]
    message: Json = {
        "role": "assistant",
        "content": delta.get("content") or (None if calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if "reasoning_content" in delta:
        message["reasoning_content"] = delta["reasoning_content"]
    if calls:
        message["tool_calls"] = calls
    choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(found, bool(calls))}
    whole: Json = {"id": "", "object": "chat.completion", **_named(found), "choices": [choice]}
    if usage is not None:
        whole["usage"] = chat_usage(usage)
    return Completion(whole, usage)


def delta_of(message: Json, first: int) -> Json:
    """A message, or a piece of one, as a delta of the hub. `first`: the number of its first call. Raises Unreadable."""
    delta: Json = {}
    for name, told in (("thinking", "reasoning_content"), ("content", "content")):
        text = message.get(name)
        if text is not None and not isinstance(text, str):
            raise Unreadable
        if text:
            delta[told] = text
    if calls := objects_of(message, "tool_calls"):
        delta["tool_calls"] = [_call(call, first + number) for number, call in enumerate(calls)]
    return delta


def _call(call: Json, index: int) -> Json:
    function = object_of(call, "function")
    name, arguments = text_of(function, "name"), function.get("arguments")
    if not name or not (arguments is None or isinstance(arguments, dict)):
        raise Unreadable
    text = encode(arguments or {}).decode("utf-8", "replace")
    found: Json = {"index": index, "type": "function", "function": {"name": name, "arguments": text}}
    return {**found, "id": given} if (given := text_of(call, "id")) else found


def finish_of(found: Json, called: bool) -> str:
    finish = _FINISHES.get(text_of(found, "done_reason"), "stop")
    return "tool_calls" if called and finish == "stop" else finish


def usage_of(found: Json) -> Usage | None:
    """The counts of an answer's last line; None where one is missing: the prompt's is when all of it was cached."""
    if found.get("prompt_eval_count") is None or found.get("eval_count") is None:
        return None
    names = ("prompt_eval_count", "eval_count")
    return Counts(
        input=count(found["prompt_eval_count"]),
        output=count(found["eval_count"]),
        total=0,
        cached=0,
        written=0,
        reasoning=0,
    ).usage(encode({name: found[name] for name in names}))


def chat_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }


def _named(found: Json) -> Json:
    """What an answer says of itself."""
    try:
        created = int(datetime.fromisoformat(text_of(found, "created_at")[:19] + "+00:00").timestamp())
    except ValueError:
        created = 0
    return {"created": created, "model": text_of(found, "model")}
