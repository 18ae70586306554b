"""How vendors deviate from OpenAI's chat completions in their answers, brought to the hub form. Pure.

Reasoning comes as `reasoning_content` (DeepSeek, Moonshot), `reasoning` (OpenRouter, Groq, newer vLLM), `thinking`,
`reasoning_details` (OpenRouter) or content parts (Mistral). Tags such as `<think>` inside the text stay what they are:
a model may write about them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import read_whole_object
from relay.protocols.chat_completions.hub import CACHE_CONTROL
from relay.protocols.error_objects import states
from relay.protocols.events import Unreadable

REASONING_NAMES: Final = ("reasoning_content", "reasoning", "thinking")
THINKING_PARTS: Final = frozenset(("thinking", "reasoning"))  # types of content parts
DETAILS: Final = "reasoning_details"
EXTRA: Final = "extra_content"  # Google: `extra_content.google.thought_signature`
FAILED: Final = "error"  # a finish reason that says the answer failed

# Finish reasons in lower case, up to a colon: Gemini's compatible API writes `content_filter: RECITATION`.
# Sources: the vendors' API references and SDKs, read in November 2026.
_FINISH: Final[Mapping[str, str]] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(
        (
            "length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded",
            "context_length_exceeded", "continuation", "pause_turn",
        ),
        "length",
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"), "tool_calls"),
    **dict.fromkeys(
        (
            "content_filter", "content_filtered", "sensitive", "refusal", "safety", "recitation", "language",
            "blocklist", "prohibited_content", "spii", "model_armor", "guardrail_intervened", "image_safety",
            "image_prohibited_content", "image_recitation", "image_other",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "error", "network_error", "server_error", "internal_error", "failed", "abort", "aborted", "cancelled",
            "canceled", "timeout", "insufficient_system_resource", "malformed_function_call", "function_call_filter",
            "unexpected_tool_call", "too_many_tool_calls", "missing_thought_signature", "malformed_response",
            "malformed_model_output", "malformed_tool_use", "no_image",
        ),
        FAILED,
    ),
}  # fmt: skip


def finish_reason(found: object) -> str:
    """A vendor's finish reason in OpenAI's words, or FAILED; empty when there is none, `stop` when it is unknown."""
    if not isinstance(found, str) or not found:
        return ""
    return _FINISH.get(found.partition(":")[0].strip().lower(), "stop")


def with_calls(ending: Json, called: bool) -> Json:
    """The end of a choice that may have calls: because of them, whatever reason is given for a whole answer."""
    return {**ending, "finish_reason": "tool_calls"} if called and ending.get("finish_reason") == "stop" else ending


def error_of_choices(body: bytes) -> bytes:
    """The error object of a completion or chunk with a choice that has failed."""
    choices = objects_of(read_whole_object(body) or {}, "choices")
    errors = [choice["error"] for choice in choices if states(choice.get("error"))]  # OpenRouter
    if errors:
        return encode({"error": errors[0]})
    failed = (choice for choice in choices if finish_reason(choice.get("finish_reason")) == FAILED)
    return failure_of(next(failed, {}))


def failure_of(choice: Json) -> bytes:
    """The error object of a choice whose finish reason says that the answer failed."""
    error = object_of(choice, "error")  # OpenRouter
    reason = text_of(choice, "finish_reason")[:60]
    message = text_of(error, "message") or f"The upstream broke its answer off ({reason})."
    shown: Json = {"type": "server_error", "param": None, "code": "upstream_error", **error, "message": message}
    return encode({"error": shown})


# -- content -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Content:
    """What the `content` of a message or delta contains."""

    text: str = ""
    thoughts: str = ""
    signature: object = None  # of the thoughts
    images: list[Json] = field(default_factory=list)


def content_of(content: object) -> Content:
    """Read a `content`, which may be a list of parts (Mistral). Raises Unreadable."""
    if content is None or isinstance(content, str):
        return Content(content or "")
    if not isinstance(content, list):
        raise Unreadable
    found = Content()
    for part in content:
        if isinstance(part, str):
            found.text += part
            continue
        if not isinstance(part, dict):
            raise Unreadable
        kind = text_of(part, "type")
        if kind in THINKING_PARTS:
            found.thoughts += _thoughts(part.get("thinking") or part.get("reasoning") or part.get("text"))
            found.signature = part.get("signature") or found.signature
        elif kind == "image_url":
            found.images.append(part)
        elif isinstance(part.get("text"), str):
            found.text += text_of(part, "text")
        elif kind != "reference":  # Mistral: numbers of sources, which it does not send
            raise Unreadable
    return found


def _thoughts(value: object) -> str:
    """Reasoning as a string, an object with one, or a list of either. Raises Unreadable."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, list):
        return "".join(_thoughts(entry) for entry in value)
    if isinstance(value, dict):
        return _thoughts(
            next((value[name] for name in ("text", "content", "summary", "thinking") if name in value), "")
        )
    raise Unreadable


def reasoning_of(message: Json) -> str:
    """The reasoning in a message or delta, outside its content; once, although it may be there under two names.

    Raises Unreadable.
    """
    for name in REASONING_NAMES:
        if message.get(name) and (found := _thoughts(message[name])):
            return found
    return "".join(
        text_of(entry, "text") or text_of(entry, "summary") or text_of(entry, "thinking")
        for name in (DETAILS, "thinking_blocks")
        if message.get(name)
        for entry in objects_of(message, name)
    )


def images_of(message: Json) -> list[Json]:
    """Images that a model made, in OpenRouter's form."""
    return [image for image in objects_of(message, "images") if text_of(object_of(image, "image_url"), "url")]


def citations_of(holder: Json) -> list[Json]:
    """The sources that stand beside the choices of an answer or chunk, as annotations of its message.

    `citations`: addresses (Perplexity, xAI); `search_results`: objects with titles (Perplexity).
    """
    found: dict[str, Json] = {}
    for result in objects_of(holder, "search_results"):
        found[text_of(result, "url")] = _citation(text_of(result, "url"), text_of(result, "title"))
    listed = holder.get("citations")
    for url in listed if isinstance(listed, list) else ():
        if isinstance(url, str):
            found.setdefault(url, _citation(url, ""))
    found.pop("", None)
    return list(found.values())


def _citation(url: str, title: str) -> Json:
    cited: Json = {"url": url, "title": title or url, "start_index": 0, "end_index": 0}
    return {"type": "url_citation", "url_citation": cited}


def cited_url(annotation: Json) -> str:
    """The address that an annotation cites; empty when it is of another kind."""
    return text_of(object_of(annotation, "url_citation"), "url")


# -- the ends of cached prefixes ---------------------------------------------------------------------------------------


def with_cache_marks(message: Json, members: Collection[str]) -> Json:
    """A hub message with the ends of prefixes that are to be cached, for vendors that take them as Anthropic does.

    `members`: those of a `cache_control` that they know.
    """
    content, mark = message.get("content"), object_of(message, CACHE_CONTROL)
    if isinstance(content, str):
        parts: list[Json] = [{"type": "text", "text": content}] if mark and content.strip() else []
    else:
        parts = objects_of(message, "content")
    if not parts or not (mark or any(CACHE_CONTROL in part for part in parts)):
        return message
    marks = [object_of(part, CACHE_CONTROL) for part in parts]
    marks[-1] = mark or marks[-1]
    told = [
        {**part, "cache_control": {name: one[name] for name in one if name in members}} if one else part
        for part, one in zip(parts, marks, strict=True)
    ]
    return {**message, "content": told}
