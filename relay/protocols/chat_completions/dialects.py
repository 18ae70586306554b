"""How vendors deviate from OpenAI's chat completions in their answers, brought to the hub form. Pure.

Reasoning comes as `reasoning_content` (DeepSeek, Moonshot), `reasoning` (OpenRouter, Groq, newer vLLM), `thinking`,
`reasoning_details` (OpenRouter) or content parts (Mistral). Tags such as `<think>` inside the text stay what they are:
a model may write about them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_whole_object
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


# -- signatures --------------------------------------------------------------------------------------------------------

# What a vendor wants back in the next request goes to clients of other APIs as the opaque signature of a thought. It is
# given to the same vendor only: others refuse members that they do not know.
MARK: Final = "airelays-reasoning."
_TEXTS: Final = ("text", "summary", "thinking")


@dataclass(slots=True)
class Returned:
    """Members of one message that its vendor wants to have back with the conversation."""

    details: list[Json] = field(default_factory=list)  # `reasoning_details`
    blocks: list[Json] = field(default_factory=list)  # `thinking_blocks` (LiteLLM)
    part: Json = field(default_factory=dict)  # a content part with thoughts (Mistral)
    extra: object = None  # `extra_content` of the message
    calls: list[Json] = field(default_factory=list)  # {"id", "position", "extra_content"} of its tool calls

    def __bool__(self) -> bool:
        return bool(self.details or self.blocks or self.part or self.extra or self.calls)

    def add(self, message: Json, content: Content) -> None:
        """Collect from a whole message, or from a delta."""
        for name, kept in ((DETAILS, self.details), ("thinking_blocks", self.blocks)):
            if message.get(name):
                _merge(kept, objects_of(message, name))
        if content.thoughts:
            self.part["text"] = text_of(self.part, "text") + content.thoughts
        if content.signature:
            self.part["signature"] = content.signature
        self.extra = message.get(EXTRA) or self.extra

    def add_call(self, call: Json, call_id: str, position: int) -> None:
        if call.get(EXTRA):
            self.calls.append({"id": call_id, "position": position, EXTRA: call[EXTRA]})

    def packed(self, vendor: str) -> str:
        """All of it as the signature of a thought; empty when there is nothing. Clears it."""
        members: Json = {
            "details": self.details,
            "blocks": self.blocks,
            "part": self.part,
            "extra": self.extra,
            "calls": self.calls,
        }
        shown = {name: value for name, value in members.items() if value}
        if not shown:
            return ""
        self.details, self.blocks, self.part, self.extra, self.calls = [], [], {}, None, []
        return packed(shown, vendor)


def packed(members: Json, vendor: str) -> str:
    """Members for a vendor as an opaque signature; `returned_members` reads them again."""
    return MARK + base64.b64encode(encode(clean({"vendor": vendor, **members}))).decode()


def is_packed(signature: object) -> bool:
    """Whether the portal made this signature, so that only `returned_members` can read it."""
    return isinstance(signature, str) and signature.startswith(MARK)


def returned_members(signature: object, vendor: str) -> Json:
    """What a signature packs for a vendor, as the members of `Returned`; empty for any other signature or vendor."""
    found = unpacked(signature)
    return found if text_of(found, "vendor") == vendor else {}


def unpacked(signature: object) -> Json:
    """What a signature packs, with its `vendor`; empty for one that the portal did not make."""
    if not isinstance(signature, str) or not signature.startswith(MARK):
        return {}
    try:
        return decode_object(base64.b64decode(signature[len(MARK) :], validate=True)) or {}
    except (binascii.Error, ValueError):
        return {}


def _merge(kept: list[Json], entries: list[Json]) -> None:
    """Add entries, of which text may arrive in pieces: consecutive ones of one kind and index are one."""
    for entry in entries:
        last = kept[-1] if kept else {}
        same = bool(kept) and all(last.get(name) == entry.get(name) for name in ("type", "index"))
        if same and any(isinstance(entry.get(name), str) for name in _TEXTS):
            for name, value in entry.items():
                if name in _TEXTS:
                    last[name] = text_of(last, name) + (value if isinstance(value, str) else "")
                elif value is not None:
                    last[name] = value
        elif same and entry.get("signature") and not entry.get("data"):
            last["signature"] = entry["signature"]
        elif entry not in kept:
            kept.append(dict(entry))


def returned_messages(messages: list[Json], signatures: str, vendor: str) -> list[Json]:
    """Messages of a request with the members that their vendor wants back.

    `signatures`: the member of a message that lists its thoughts, each with a `signature`.
    """
    packs = [
        [
            members
            for thought in objects_of(message, signatures)
            if (members := returned_members(thought.get("signature"), vendor))
        ]
        if signatures in message
        else []
        for message in messages
    ]
    if not any(packs):
        return messages
    by_id = {
        text_of(call, "id"): call[EXTRA] for pack in packs for found in pack for call in objects_of(found, "calls")
    }
    by_id.pop("", None)
    return [_with_members(message, pack, by_id) for message, pack in zip(messages, packs, strict=True)]


def _with_members(message: Json, packs: list[Json], by_id: Mapping[str, object]) -> Json:
    found = dict(message)
    by_position: dict[object, object] = {}
    for pack in packs:
        for name, member in (("details", DETAILS), ("blocks", "thinking_blocks")):
            if entries := objects_of(pack, name):
                found[member] = [*objects_of(found, member), *entries]
        if pack.get("extra"):
            found[EXTRA] = pack["extra"]
        if part := object_of(pack, "part"):
            found = _with_thinking_part(found, part)
        by_position.update({call.get("position"): call[EXTRA] for call in objects_of(pack, "calls")})
    calls = objects_of(found, "tool_calls")
    if calls and (by_id or by_position):
        found["tool_calls"] = [
            {**call, EXTRA: extra}
            if (extra := by_id.get(text_of(call, "id"), by_position.get(position))) is not None
            else call
            for position, call in enumerate(calls)
        ]
    return found


def _with_thinking_part(message: Json, part: Json) -> Json:
    """A message whose thoughts are a content part again, as the vendor wrote them."""
    thoughts: Json = {"type": "thinking", "thinking": [{"type": "text", "text": text_of(part, "text")}]}
    if part.get("signature"):
        thoughts["signature"] = part["signature"]
    content = message.get("content")
    texts: list[object] = [{"type": "text", "text": content}] if isinstance(content, str) and content else []
    if isinstance(content, list):
        texts = content
    rest = {name: value for name, value in message.items() if name not in REASONING_NAMES}
    return {**rest, "content": [thoughts, *texts]}
