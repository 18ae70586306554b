"""Non-streaming chat completions: parses what the portal needs, fills in members that some upstreams omit. Pure.

Also puts a completion together from its chunks, and takes one apart into chunks, for upstreams that stream although a
plain answer was asked for, or the reverse; of legacy completions, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import Json, decode, encode, int_of, json_text, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object, read_typed, read_whole_object
from relay.protocols.chat_completions.dialects import FAILED, error_of_choices, finish_reason
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.codec import DONE, says_something
from relay.protocols.error_objects import Envelope, is_error_object, named_error, states, unreadable_error
from relay.protocols.errors import Told
from relay.protocols.events import payload
from relay.protocols.sse import is_stream, split_events
from relay.protocols.usage import Usage, present

# Members of deltas that are repeated rather than continued.
_REPEATED: Final = frozenset(("role", "id", "type", "name", "index", "format", "expires_at", "signature"))
_LEGACY: Final = "text_completion"


# Members of a choice in which an answer is; the last is a legacy completion's.
_SAYING: Final = ("message", "delta", "text")
_NOTHING: Final = (b"", b"null", b"{}")
_LONGEST_NOTHING: Final = 4  # bytes of these


class _Ending(msgspec.Struct):
    finish_reason: object = None
    message: msgspec.Raw = msgspec.Raw()
    delta: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()  # OpenRouter


class _Answer(Envelope):
    usage: msgspec.Raw = msgspec.Raw()
    choices: list[_Ending] | None = None
    model: object = None


_answer = msgspec.json.Decoder(_Answer)


class ChatAnswer(msgspec.Struct, frozen=True):
    """The parts of a non-streaming answer that the portal needs."""

    usage: Usage | None  # None: the upstream reports none
    error: bytes | None  # the error object of a 200 that is none
    model: str  # empty when the answer does not name it
    has_failures: bool = False  # some of its choices have an error


def parse_chat_answer(body: bytes) -> ChatAnswer | None:
    """Parse the body of a chat completion, also of a legacy one; None when it is not one (empty, HTML, truncated,
    without a choice).
    """
    try:
        answer = read_typed(_answer, body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    choices = answer.choices or ()
    error = body if answer.is_error(answer.choices is not None) else None
    if error is None:
        if all([_is_missing(choice) for choice in choices]):
            return None
        if all([_has_failed(choice) for choice in choices]):
            error = error_of_choices(body)
    usage = parse_chat_usage(answer.usage) if present(answer.usage) else None
    failures = any([present(choice.error) for choice in choices])
    return ChatAnswer(usage, error, answer.model if isinstance(answer.model, str) else "", failures)


def clean_choices(body: bytes, told: Told) -> bytes:
    """A completion whose choices with an error say what the client is told of it."""
    whole = read_whole_object(body)
    if whole is None:
        return body
    for choice in objects_of(whole, "choices"):
        if states(choice.get("error")):
            choice["error"] = told(encode({"error": choice["error"]}))
    return encode(whole)


def _is_missing(choice: _Ending) -> bool:
    """Whether a choice has no answer, not even an empty one, and does not say that it was cut or kept back."""
    if len(choice.message) > _LONGEST_NOTHING or choice.finish_reason not in (None, "", "stop"):  # nearly always
        return False
    if present(choice.error):
        return False
    return all(bytes(memoryview(getattr(choice, name))[:4]).strip() in _NOTHING for name in _SAYING)


def _has_failed(choice: _Ending) -> bool:
    reason = choice.finish_reason
    if reason is not None and reason != "stop" and finish_reason(reason) == FAILED:
        return True
    return present(choice.error) and states(decode(choice.error))


def complete_answer(body: bytes, created: int) -> bytes:
    """Add the members that clients rely on to an answer; returns the same bytes when none is missing.

    `created`: seconds since 1970, used when the upstream sends no creation time.
    """
    if b'"logprobs"' in body and b'"refusal"' in body and b'"created"' in body and b'"object"' in body:
        return body
    answer = read_whole_object(body)
    if answer is None:
        return body
    whole: Json = {"id": f"chatcmpl-{created}", "object": "chat.completion", "created": created, "model": "", **answer}
    for index, choice in enumerate(objects_of(whole, "choices")):
        choice.setdefault("index", index)
        choice.setdefault("logprobs", None)
        message = choice.get("message")
        if isinstance(message, dict):
            message.setdefault("content", None)
            message.setdefault("refusal", None)
    return encode(whole)


# -- the form that was not asked for ----------------------------------------------------------------------------------


def whole_completion(body: bytes) -> tuple[bytes, bytes | None]:
    """The completion in a body, even if the upstream streamed it unasked, and the error object of such a stream.

    The completion is empty when the stream is incomplete.
    """
    if body.startswith(b"{") or not is_stream(body):
        return body, None
    found, done = _Assembly(), False
    for event in split_events(body):
        data = payload(event)
        done = data == b"[DONE]"
        if done:
            break
        error = found.feed(event, data) if data else named_error(event)
        if error is not None:
            return b"", error
    whole = found.choices and (done or all(choice.finished for choice in found.choices.values()))
    return encode(clean(found.completion())) if whole else b"", None


def chunks_of(completion: Json, include_usage: bool) -> bytes:
    """The stream of a complete answer. `include_usage`: the client wants a usage chunk at its end."""
    legacy = text_of(completion, "object") == _LEGACY
    head = {name: value for name, value in completion.items() if name not in {"choices", "usage"}}
    head["object"] = _LEGACY if legacy else "chat.completion.chunk"
    if include_usage:
        head["usage"] = None
    chunks: list[Json] = []
    for position, choice in enumerate(objects_of(completion, "choices")):
        rest: Json = {"index": position, **{name: value for name, value in choice.items() if name != "message"}}
        if legacy:
            chunks.append({**head, "choices": [rest]})
            continue
        message = object_of(choice, "message")
        calls = [{**call, "index": number} for number, call in enumerate(objects_of(message, "tool_calls"))]
        delta: Json = {"role": "assistant", **message, **({"tool_calls": calls} if calls else {})}
        chunks.append({**head, "choices": [{**rest, "delta": delta, "finish_reason": None}]})
        ending: Json = {"index": rest["index"], "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}
        chunks.append({**head, "choices": [ending]})
    if include_usage and isinstance(completion.get("usage"), dict):
        chunks.append({**head, "choices": [], "usage": completion["usage"]})
    return b"".join(b"data: " + encode(chunk) + b"\n\n" for chunk in chunks) + DONE


class _Pieces(list[str]):
    """A text that is arriving."""


@dataclass(slots=True)
class _Choice:
    message: Json = field(default_factory=dict)
    calls: list[Json] = field(default_factory=list)
    rest: Json = field(default_factory=dict)  # its other members
    finished: bool = False

    def add(self, choice: Json) -> None:
        delta = object_of(choice, "delta")
        if not delta and not says_something(self.message) and not self.calls:
            delta = object_of(choice, "message")
        for call in objects_of(delta, "tool_calls"):
            _merge(self._call(call), call)
        _merge(self.message, {name: value for name, value in delta.items() if name != "tool_calls"})
        for name, value in choice.items():
            if name in {"logprobs", "text"}:
                _merge(self.rest, {name: value})
            elif name not in {"delta", "message", "usage"} and value is not None:
                self.rest[name] = value
        self.finished = self.finished or bool(choice.get("finish_reason"))

    def _call(self, call: Json) -> Json:
        """The call that a delta belongs to: by its id, then by its index, otherwise the newest.

        One id under two indexes that both have a name is two calls: a relay made it of the function's name.
        """
        call_id, index = text_of(call, "id"), call.get("index")
        named = bool(text_of(object_of(call, "function"), "name"))
        for known in reversed(self.calls):
            if call_id and text_of(known, "id"):
                moved = named and index is not None and known.get("index") not in {None, index}
                if text_of(known, "id") == call_id and not moved:
                    return known
            elif index is None or known.get("index") == index:
                return known
        self.calls.append({})
        return self.calls[-1]


@dataclass(slots=True)
class _Assembly:
    choices: dict[int, _Choice] = field(default_factory=dict)
    head: Json = field(default_factory=dict)

    def feed(self, event: bytes, data: bytes) -> bytes | None:
        """Add a chunk; returns the error object of an event that is one, or that cannot be read."""
        chunk, _ = read_object(data)
        if chunk is None:
            return unreadable_error(event, data)
        failed = next((choice["error"] for choice in objects_of(chunk, "choices") if states(choice.get("error"))), None)
        if failed is not None:  # OpenRouter
            return encode({"error": clean(failed)})
        answered = isinstance(chunk.get("choices"), list) or isinstance(chunk.get("usage"), dict)
        if is_error_object(chunk, answered):
            return data
        self._add(chunk)
        return named_error(event)

    def _add(self, chunk: Json) -> None:
        usages = [choice["usage"] for choice in objects_of(chunk, "choices") if isinstance(choice.get("usage"), dict)]
        if usages and not isinstance(chunk.get("usage"), dict):
            chunk["usage"] = usages[-1]  # Moonshot
        for name, value in chunk.items():
            if name != "choices" and (value is not None or name not in self.head):
                self.head[name] = value
        for position, choice in enumerate(objects_of(chunk, "choices")):
            index = int_of(choice, "index") if choice.get("index") is not None else position
            self.choices.setdefault(index, _Choice()).add(choice)

    def completion(self) -> Json:
        legacy = text_of(self.head, "object") == _LEGACY
        choices: list[Json] = []
        for index, choice in sorted(self.choices.items()):
            whole: Json = {**_joined(choice.rest), "index": index}
            if not legacy:
                message: Json = {"role": "assistant", "content": None, **_joined(choice.message)}
                if choice.calls:
                    message["tool_calls"] = [_whole_call(_joined(call)) for call in choice.calls]
                whole["message"] = message
            choices.append(whole)
        return {**self.head, "object": _LEGACY if legacy else "chat.completion", "choices": choices}


def _whole_call(call: Json) -> Json:
    found = {name: value for name, value in call.items() if name != "index"}
    function = object_of(found, "function")
    if function:
        found["function"] = {**function, "arguments": json_text(function.get("arguments") or "{}")}
    return found


def _merge(into: Json, delta: Json) -> None:
    """Continue the members of an object with those of a delta."""
    for name, value in delta.items():
        old = into.get(name)
        if value is None or (value == "" and old is not None):
            into.setdefault(name, value)
        elif isinstance(value, str) and name not in _REPEATED:
            if isinstance(old, _Pieces):
                old.append(value)
            elif isinstance(old, list):
                old.append({"type": "text", "text": value})  # beside parts (Mistral)
            else:
                into[name] = _Pieces([old, value] if isinstance(old, str) else [value])
        elif isinstance(value, list):
            if isinstance(old, list) and not isinstance(old, _Pieces):
                old.extend(value)
            else:
                into[name] = [*([{"type": "text", "text": "".join(old)}] if isinstance(old, _Pieces) else []), *value]
        elif isinstance(value, dict):
            inner: Json = old if isinstance(old, dict) else {}
            _merge(inner, value)
            into[name] = inner
        else:
            into[name] = value


def _joined(found: Json) -> Json:
    """The same object with its texts in one piece."""
    return {
        name: "".join(value) if isinstance(value, _Pieces) else _joined(value) if isinstance(value, dict) else value
        for name, value in found.items()
    }
