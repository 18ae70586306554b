"""Compacts a conversation into a summary item, for upstreams without the compaction endpoint. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from portal.lib.json import Json, object_of, objects_of, text_of
from relay.protocols.responses.request import user_item

_MARK: Final = "airelays-summary."  # begins our own summaries; any other content is an upstream's, and opaque
INSTRUCTIONS: Final = (
    "You hand over a conversation to a colleague who has not read it. Write down everything needed to go on without "
    "loss: the user's aims and wishes, facts and decisions, names, numbers, code and file names that matter, results "
    "of tools, what is done and what is still open. Do not answer the user."
)
ASK: Final = "Write the hand-over of the conversation above now."
_INTRODUCTION: Final = "Summary of the conversation so far:\n\n"


def compaction_item(item_id: str, summary: str) -> Json:
    """The item of the Responses API that stands for a compacted conversation."""
    content = _MARK + base64.b64encode(summary.encode()).decode()
    return {"id": item_id, "type": "compaction", "encrypted_content": content}


def summary_of(item: Json) -> str | None:
    """The summary in an item that the portal made; None for any other item."""
    content = text_of(item, "encrypted_content")
    if text_of(item, "type") not in {"compaction", "compaction_summary"} or not content.startswith(_MARK):
        return None
    try:
        return base64.b64decode(content[len(_MARK) :]).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def expand_summaries(items: Sequence[Json]) -> list[Json]:
    """Replace the portal's own compaction items by messages, which any upstream understands."""
    found: list[Json] = []
    for item in items:
        summary = summary_of(item)
        if summary is not None:
            part = {"type": "input_text", "text": _INTRODUCTION + summary}
            item = {"type": "message", "role": "developer", "content": [part]}
        found.append(item)
    return found


def compaction_object(compaction_id: str, created: int, items: Sequence[Json], response: Json) -> Json:
    """The answer of /v1/responses/compact: the user's last message, and the summary of the rest."""
    parts = [part for item in objects_of(response, "output") for part in objects_of(item, "content")]
    summary = "".join(text_of(part, "text") for part in parts)
    messages = [item for item in items if text_of(item, "type") in {"message", ""} and item.get("role") == "user"]
    last = messages[-1:] or [user_item("Go on.")]
    return {
        "id": compaction_id,
        "object": "response.compaction",
        "created_at": created,
        "output": [*last, compaction_item(f"cmp_{compaction_id.partition('_')[2]}", summary)],
        "usage": object_of(response, "usage") or None,
    }
