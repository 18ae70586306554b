"""Members of answers that vendors at chat completions want back, packed for clients of other APIs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.dialects import DETAILS, EXTRA, REASONING_NAMES, Content
from relay.protocols.chat_completions.signatures.packed import packed, returned_members

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
