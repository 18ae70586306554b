"""Thinking blocks of the Messages API as thoughts of the hub, and back. Pure.

A block goes as a whole into the signature of its thought: its vendor accepts it unchanged only, and whoever keeps the
conversation need not keep its text. Thoughts of other APIs go to clients of this one in the same way.
"""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import THINKING, thinking_entry
from relay.protocols.chat_completions.signatures.packed import HUB, is_packed, packed, returned_members, unpacked

KINDS: Final = frozenset(("thinking", "redacted_thinking"))
_VENDOR: Final = "messages/"  # before the vendor's key; alone: a client brought it, and whose it is is not known


def thought_of_block(block: Json, vendor: str = "") -> Json:
    """A thinking block as an entry of `hub_thinking`. `vendor`: the upstream that wrote it; empty: a client brings it.

    An unsigned block has no signature.
    """
    signature = block.get("signature")
    if text_of(block, "type") == "thinking" and not signature:
        return thinking_entry("", [text_of(block, "thinking")], [], None)
    hub = object_of(returned_members(signature, HUB), "thought")
    if hub:
        return thinking_entry(text_of(hub, "id"), [text_of(block, "thinking")], [], hub.get("signature"))
    bare = {name: value for name, value in block.items() if name != "cache_control"}
    text = [told] if (told := text_of(block, "thinking")) else []
    return thinking_entry("", text, [], packed({"blocks": [bare]}, f"{_VENDOR}{vendor}"))


def blocks_of_thought(thought: Json, vendor: str | None = None) -> list[Json]:
    """The thinking blocks that a thought packs. `vendor`: the upstream that they are for; None: whose they are is the
    same.
    """
    found = unpacked(thought.get("signature"))
    whose = text_of(found, "vendor")
    if not whose.startswith(_VENDOR) or (vendor is not None and whose not in {_VENDOR, f"{_VENDOR}{vendor}"}):
        return []
    return [block for block in objects_of(found, "blocks") if text_of(block, "type") in KINDS]


def signature_for_client(thought: Json) -> str:
    """The signature of a thinking block, for a client, of a thought that another API wrote."""
    signature = thought.get("signature")
    if not signature:
        return ""
    return packed({"thought": {"id": text_of(thought, "id"), "signature": signature}}, HUB)


def is_foreign(block: Json, strict: bool) -> bool:
    """Whether a thinking block was not written by an upstream of this API, which would refuse it.

    `strict`: it refuses blocks without a signature, too; the vendors of other models write such.
    """
    if text_of(block, "type") != "thinking":
        return False
    signature = block.get("signature")
    return is_packed(signature) or (strict and not signature)


def signed_blocks(message: Json, vendor: str) -> list[Json]:
    """The thinking blocks of a hub message that this upstream accepts."""
    return [block for thought in objects_of(message, THINKING) for block in blocks_of_thought(thought, vendor)]
