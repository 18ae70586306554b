"""Compaction of a conversation for upstreams that have none of their own: a summary, in the item that the Responses API has for it. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.responses.request import user_item

_MARK: Final = "airelays-summary."  # what we wrote; anything else is an upstream's own, and opaque
INSTRUCTIONS: Final = (
    "You hand over a conversation to a colleague who has not read it. Write down everything needed to go on without loss: the user's aims and wishes, "
    "facts and decisions, names, numbers, code and file names that matter, results of tools, what is done and what is still open. Do not answer the user."
)
ASK: Final = "Write the hand-over of the conversation above now."
_INTRODUCTION: Final = "Summary of the conversation so far:\n\n"


def compaction_item(item_id: str, summary: str) -> Json:
    return {"id": item_id, "type": "compaction", "encrypted_content": _MARK + base64.b64encode(summary.encode()).decode()}


def summary_of(item: Json) -> str | None:
    """The summary in an item that was made here, None for any other."""
    content = text_of(item, "encrypted_content")
    if text_of(item, "type") not in {"compaction", "compaction_summary"} or not content.startswith(_MARK):
        return None
    try:
        return base64.b64decode(content[len(_MARK) :]).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def opened(items: Sequence[Json]) -> list[Json]:
    """Items with our own compactions written out, so that any upstream understands them."""
    found: list[Json] = []
    for item in items:
        summary = summary_of(item)
        found.append(item if summary is None else {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": _INTRODUCTION + summary}]})
    return found


def compaction_object(compaction_id: str, created: int, items: Sequence[Json], response: Json) -> Json:
    """The answer of /v1/responses/compact: what users have said stays as it is, everything else is in the summary."""
    summary = "".join(text_of(part, "text") for item in objects_of(response, "output") for part in objects_of(item, "content"))
    kept = [item for item in items if text_of(item, "type") in {"message", ""} and item.get("role") == "user"]
    last = kept[-1:] or [user_item("Go on.")]
    return {
        "id": compaction_id, "object": "response.compaction", "created_at": created,
        "output": [*last, compaction_item(f"cmp_{compaction_id.partition('_')[2]}", summary)], "usage": object_of(response, "usage") or None,
    }  # fmt: skip
