"""Messages of the hub as turns of the Converse API. Pure.

The system prompt stands apart; user and assistant take turns, and the user begins. The results of all calls of a turn
stand in the next one of the user. No text is blank, documents stand beside a text, and no two have the same name.

Source: botocore 1.44's model of bedrock-runtime and Bedrock's user guide, November 2026.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, decode_object, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import (
    CACHE_CONTROL,
    DOCUMENT,
    EXTENSIONS,
    FAILED_TOOL,
    RAW,
    THINKING,
    failure_in_words,
    thinking_entry,
    unsupported_block_error,
)
from relay.protocols.chat_completions.signatures.packed import packed, unpacked
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.converse import models
from relay.protocols.converse.media import Names, file_block, film_block, image_block, sound_block, url_of
from relay.protocols.fields import BadRequest, lost_members, unsupported
from relay.protocols.naming.call_ids import CallIds

_SYSTEM: Final = frozenset(("system", "developer"))
_MARK: Final = "cache_control"  # as clients of chat completions write it for Anthropic's models, too
_TEXTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_.:-]")  # in the id of a call
_LONGEST_ID: Final = 64
_BEGIN: Final = "(The conversation begins with the assistant.)"
_NO_OUTPUT: Final = "(no output)"
_SEE: Final = "See the attached document."
_WHOSE: Final = "converse/"  # before the vendor's key, in packed thoughts
_MESSAGE: Final = EXTENSIONS.union((
    "role", "content", "refusal", "tool_calls", "tool_call_id", "annotations", "reasoning_content", "reasoning", "id",
    "images", _MARK,
))  # fmt: skip
_PART: Final = EXTENSIONS.union((
    "type", "text", "refusal", "image_url", "file", "input_audio", "video_url", "where", "annotations", _MARK,
))  # fmt: skip


@dataclass(slots=True)
class Turns:
    """The turns of one request."""

    model: str  # the upstream's name
    vendor: str
    names: Mapping[str, str]  # what the upstream is told of each tool
    system: list[Json] = field(default_factory=list)
    turns: list[Json] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    _files: Names = field(default_factory=Names)
    _calls: CallIds = field(default_factory=lambda: CallIds(call_id, _LONGEST_ID))

    def add(self, messages: Sequence[Json]) -> None:
        """Add the messages of a request. Raises BadRequest."""
        leading = next((n for n, one in enumerate(messages) if text_of(one, "role") not in _SYSTEM), len(messages))
        for message in messages[:leading]:
            self.system += self._system(message)
        rest, told = strict_messages(messages[leading:], late_system=False)
        self.dropped += [*told, *_lost(rest, self.vendor)]
        for number, message in enumerate(rest, leading):
            role, where = text_of(message, "role"), f"messages[{number}]"
            if role == "assistant":
                self._append("assistant", self._assistant(message, where))
            elif role == "tool":
                self._append("user", self._result(message, where))
            elif role == "user":
                self._append("user", self._marked(self._blocks(message.get("content"), where), message))
            elif role in _SYSTEM:  # behind an assistant that said nothing
                self.system += self._system(message)
            else:
                error = f"The role of {where} must be system, developer, user, assistant or tool."
                raise BadRequest(error, f"{where}.role")
        if not self.turns and self.system:
            self.turns, self.system = [{"role": "user", "content": self.system}], []
        if self.turns and self.turns[0]["role"] == "assistant":
            self.turns.insert(0, {"role": "user", "content": [{"text": _BEGIN}]})
        for turn in self.turns:
            blocks = objects_of(turn, "content")
            if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
                turn["content"] = [{"text": _SEE}, *blocks]

    @property
    def calls(self) -> bool:
        """Whether tools are called in them."""
        return any("toolUse" in block for turn in self.turns for block in objects_of(turn, "content"))

    def _append(self, role: str, blocks: list[Json]) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] = [*objects_of(self.turns[-1], "content"), *blocks]
        else:
            self.turns.append({"role": role, "content": blocks})

    # -- blocks ------------------------------------------------------------------------------------------------------

    def _system(self, message: Json) -> list[Json]:
        content = message.get("content")
        blocks: list[Json] = []
        plain: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else []
        for part in plain or objects_of(message, "content"):
            if text_of(part, "type") not in _TEXTS:
                raise BadRequest("The content of a system message must be text.", "messages")
            if (text := text_of(part, "text")).strip():
                blocks += self._marked([{"text": text}], part)
        return self._marked(blocks, message)

    def _marked(self, blocks: list[Json], holder: Json) -> list[Json]:
        """Blocks, and behind them the end of a cached prefix, where the holder says so and the model takes it."""
        mark = holder.get(CACHE_CONTROL) or holder.get(_MARK)
        if not blocks or not mark or not models.caches(self.model) or "cachePoint" in blocks[-1]:
            return blocks
        return [*blocks, cache_point(mark, self.model)]

    def _blocks(self, content: object, where: str) -> list[Json]:
        if isinstance(content, str) or content is None:
            return [{"text": content}] if content and content.strip() else []
        if not isinstance(content, list):
            raise BadRequest(f"The content of {where} must be a text or a list of parts.", f"{where}.content")
        found: list[Json] = []
        for number, part in enumerate(content):
            if isinstance(part, dict):
                found += self._marked(self._part(part, f"{where}.content[{number}]"), part)
        return found

    def _part(self, part: Json, where: str) -> list[Json]:
        kind = text_of(part, "type")
        if kind in _TEXTS:
            text = text_of(part, _TEXTS[kind])
            return [{"text": text}] if text.strip() else []
        if kind == "image_url":
            url = url_of(part, "image_url")
            if url[:21].lower() == "data:application/pdf;":
                return [file_block({"file_data": url}, self._files, where)]
            return [image_block(url, f"{where}.image_url")]
        if kind == "video_url":
            return [film_block(url_of(part, "video_url"), f"{where}.video_url")]
        if kind == "input_audio":
            return [sound_block(object_of(part, "input_audio"), f"{where}.input_audio")]
        if kind == "file":
            return [file_block(object_of(part, "file"), self._files, f"{where}.file")]
        if DOCUMENT in part or RAW in part:
            raise unsupported_block_error(part)
        raise unsupported(
            f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”. Leave it out, or "
            "use another model.",
            f"{where}.type",
        )

    def _assistant(self, message: Json, where: str) -> list[Json]:
        content = message.get("content")
        if isinstance(content, list):
            content = [part for part in content if isinstance(part, dict) and text_of(part, "type") != "thinking"]
        blocks = [*thoughts_of(message, self.vendor), *self._blocks(content, where)]
        if (refusal := text_of(message, "refusal")).strip():
            blocks.append({"text": refusal})
        for call in objects_of(message, "tool_calls"):
            function = object_of(call, "function")
            name = text_of(function, "name")
            used: Json = {"toolUseId": self._calls.begin(text_of(call, "id")), "name": self.names.get(name, name)}
            used["input"] = decode_object(text_of(function, "arguments")) or {}
            blocks += self._marked([{"toolUse": used}], call)
        return self._marked(blocks, message)

    def _result(self, message: Json, where: str) -> list[Json]:
        """A tool's message as the result of its call, which some models are told as failed in words only."""
        failed = bool(message.get(FAILED_TOOL))
        if failed and not models.tells_failures(self.model):
            message, failed = failure_in_words(message), False
        blocks = [block for block in self._blocks(message.get("content"), where) if "cachePoint" not in block]
        result: Json = {"toolUseId": self._calls.of(text_of(message, "tool_call_id"))}
        result["content"] = blocks or [{"text": _NO_OUTPUT}]
        if failed:
            result["status"] = "error"
        return self._marked([{"toolResult": result}], message)


def cache_point(mark: object, model: str) -> Json:
    """The end of a cached prefix. `mark`: as the client wrote it."""
    ttl = text_of(mark, "ttl") if isinstance(mark, dict) and models.caches_tools(model) else ""
    return {"cachePoint": {"type": "default", **({"ttl": ttl} if ttl in {"5m", "1h"} else {})}}


def call_id(given: str) -> str:
    """The id of a call in letters that the API takes, at most 64 of them."""
    found = _FOREIGN.sub("_", given) or "call"
    if len(found) > _LONGEST_ID:
        found = f"{found[: _LONGEST_ID - 9]}_{hashlib.sha256(given.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return found


def _lost(messages: Sequence[Json], vendor: str) -> list[str]:
    found: list[str] = []
    for message in messages:
        known = _MESSAGE.union(("name",)) if text_of(message, "role") == "tool" else _MESSAGE
        found += lost_members([message], known, "messages[].")
        parts = objects_of(message, "content")
        found += lost_members(parts, _PART, "messages[].content[].")
        images = [
            {**image, "detail": ""} if image.get("detail") == "auto" else image
            for image in (object_of(part, "image_url") for part in parts)
        ]
        found += lost_members(images, ("url",), "messages[].content[].image_url.")
        thought = text_of(message, "role") == "assistant" and text_of(message, "reasoning_content")
        found += ["messages[].reasoning_content"] if thought and not thoughts_of(message, vendor) else []
        found += ["messages[].images"] if message.get("images") else []
    return found


# -- thoughts ----------------------------------------------------------------------------------------------------------


def thoughts_of(message: Json, vendor: str) -> list[Json]:
    """The thoughts that this upstream has signed, as the blocks that it wrote."""
    found: list[Json] = []
    for thought in objects_of(message, THINKING):
        members = unpacked(thought.get("signature"))
        if text_of(members, "vendor") == f"{_WHOSE}{vendor}":
            found += [{"reasoningContent": block} for block in objects_of(members, "blocks")]
    return found


def signed_thought(block: Json, vendor: str) -> Json | None:
    """A block of thoughts as an entry of `hub_thinking`; None for one that its vendor need not have back."""
    if not (block.get("redactedContent") or object_of(block, "reasoningText").get("signature")):
        return None
    return thinking_entry("", [], [], packed({"blocks": [block]}, f"{_WHOSE}{vendor}"))
