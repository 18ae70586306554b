"""Non-streaming chat completions: parses what the portal needs, fills in members that some upstreams omit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from portal.lib.json import Json, decode, encode, object_of, objects_of
from relay.protocols.characters import read_typed, read_whole_object
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.codec import says_something
from relay.protocols.error_objects import Envelope, states
from relay.protocols.usage import Usage, present


class _Answer(Envelope):
    usage: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    model: object = None


_answer = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The parts of a non-streaming answer that the portal needs."""

    usage: Usage | None  # None: the upstream reports none
    is_error: bool  # a 200 whose body is an error object
    model: str  # empty when the answer does not name it


def parse_chat_answer(body: bytes) -> ChatAnswer | None:
    """Parse the body of a chat completion; None when it is not one (empty, HTML, truncated)."""
    try:
        answer = read_typed(_answer, body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    is_error = answer.is_error(present(answer.choices)) or _all_choices_failed(answer.choices)
    if not is_error and not present(answer.choices):
        return None
    usage = parse_chat_usage(answer.usage) if present(answer.usage) else None
    return ChatAnswer(usage, is_error, answer.model if isinstance(answer.model, str) else "")


def _all_choices_failed(choices: msgspec.Raw) -> bool:
    """Whether every choice has an error in place of a message, as OpenRouter's have."""
    if b'"error"' not in bytes(choices):
        return False
    found = objects_of({"choices": decode(choices)}, "choices")
    return bool(found) and all(
        states(choice.get("error")) and not says_something(object_of(choice, "message")) for choice in found
    )


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
