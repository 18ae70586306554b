"""Compacts a conversation into a summary item, for upstreams without the compaction endpoint. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.fields import BadRequest
from relay.protocols.output_items import CALLS
from relay.protocols.prompts.raw_calls import ends_in_call
from relay.protocols.prompts.thoughts import said_in, says_something
from relay.protocols.responses.answer import is_unknown_call
from relay.protocols.responses.request import COMPACTIONS, item_as_text, user_item

_MARK: Final = "airelays-summary."  # begins our own summaries; any other content is an upstream's, and opaque
INSTRUCTIONS: Final = (
    "You hand over a conversation to a colleague who has not read it. Write down everything needed to go on without "
    "loss: the user's aims and wishes, facts and decisions, names, numbers, code and file names that matter, results "
    "of tools, what is done and what is still open. Do not answer the user."
)
ASK: Final = "Write the hand-over of the conversation above now."
TRIGGER: Final = "compaction_trigger"
_SHORT: Final = 2_000  # characters of a summary that nobody minds
_INTRODUCTION: Final = "Summary of the conversation so far:\n\n"


def compaction_item(item_id: str, summary: str) -> Json:
    """The item of the Responses API that stands for a compacted conversation."""
    content = _MARK + base64.b64encode(summary.encode()).decode()
    return {"id": item_id, "type": "compaction", "encrypted_content": content}


def summary_of(item: Json) -> str | None:
    """The summary in an item that the portal made; empty when it is broken. None for any other item."""
    if text_of(item, "type") not in COMPACTIONS:
        return None
    return _summary_in_content(text_of(item, "encrypted_content"))


def _summary_in_content(content: str) -> str | None:
    if not content.startswith(_MARK):
        return None
    try:
        summary = base64.b64decode(content[len(_MARK) :], validate=True).decode().strip()
    except (binascii.Error, ValueError):
        return ""
    return summary if says_something(summary) else ""


def check_summaries(items: Sequence[Json], where: str = "input") -> None:
    """Raises BadRequest for an item of the portal's own whose summary cannot be read: a client has changed it.

    `where`: the field of the request.
    """
    for index, item in enumerate(items):
        if summary_of(item) == "":
            message = (
                "This compaction item is damaged: its “encrypted_content” begins like one of this portal, and has no "
                "summary that can be read. Send it as you received it, or leave it out."
            )
            raise BadRequest(message, f"{where}[{index}].encrypted_content")


def expand_summaries(items: Sequence[Json]) -> list[Json]:
    """Replace the portal's own compaction items by messages, which any upstream understands."""
    found: list[Json] = []
    for item in items:
        summary = summary_of(item)
        if summary is not None:
            text = _INTRODUCTION + summary if summary else item_as_text(item)
            item = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]}
        found.append(item)
    return found


def wants_compaction(items: Sequence[Json]) -> bool:
    """Whether the input of a request asks for a compaction instead of an answer.

    Codex and OpenAI's API: the last item is {"type": "compaction_trigger"}, and the output is one compaction item.
    """
    return any(text_of(item, "type") == TRIGGER for item in items)


def conversation_to_compact(items: Sequence[Json]) -> list[Json]:
    """The items of a conversation without those that only a request for an answer needs."""
    return [item for item in items if text_of(item, "type") not in {TRIGGER, "additional_tools"}]


def summary_in(response: Json) -> str:
    """The text of the response in which a model wrote a summary, without its thinking; empty when it says nothing."""
    items = (item for item in objects_of(response, "output") if text_of(item, "type") == "message")
    parts = [part for item in items for part in objects_of(item, "content")]
    return said_in("".join(text_of(part, "text") for part in parts))


def calls_tools(response: Json) -> bool:
    """Whether a response asks the client for something, so that its text is none of a summary but what announces that.

    Models call tools that are only in the history, and servers without a tool parser leave calls in the text.
    """
    calls = any(text_of(item, "type") in CALLS or is_unknown_call(item) for item in objects_of(response, "output"))
    return calls or ends_in_call(summary_in(response))


def why_incomplete(response: Json) -> str:
    """Why a response is not complete: `content_filter`, `max_output_tokens` or its status; empty when it is.

    Some servers send no status.
    """
    status = text_of(response, "status")
    if status in {"", "completed"}:
        return ""
    return text_of(object_of(response, "incomplete_details"), "reason") or status


def is_longer(summary: str, items: Sequence[Json]) -> bool:
    """Whether a summary is longer than the conversation that it would replace. Short ones may be."""
    return len(summary) > _SHORT and len(summary.encode()) > len(encode(items))


def upstream_compaction(answer: Json) -> Json | None:
    """The compaction item in an upstream's answer of /responses/compact, under the name that clients know today.

    None when it has none, or an empty one: the conversation would be lost.
    """
    for item in reversed(objects_of(answer, "output")):
        if text_of(item, "type") in COMPACTIONS:
            content = text_of(item, "encrypted_content")
            empty = not says_something(content) or _summary_in_content(content) == ""
            return None if empty else {**item, "type": "compaction"}
    return None


def resolve_references(items: Sequence[Json], history: Sequence[Json]) -> list[Json]:
    """Replace references by the items of the history, where known, and the portal's own summaries by messages.

    Raises BadRequest for an item that is referenced twice: OpenAI refuses it, and each time would be a copy.
    """
    known = {text_of(item, "id"): item for item in history}
    found: list[Json] = []
    taken: set[str] = set()
    for index, item in enumerate(items):
        name = text_of(item, "id") if text_of(item, "type") == "item_reference" else ""
        if name in known and name in taken:
            message = f"The item “{name[:80]}” is referenced twice. Leave one of the references out."
            raise BadRequest(message, f"input[{index}].id")
        taken.add(name)
        found.append(known.get(name, item) if name else item)
    return expand_summaries(found)


def compaction_object(compaction_id: str, created: int, items: Sequence[Json], response: Json) -> Json:
    """The answer of /v1/responses/compact: the user's last message, and the summary of the rest."""
    summary = summary_in(response)
    messages = [item for item in items if text_of(item, "type") in {"message", ""} and item.get("role") == "user"]
    last = messages[-1:] or [user_item("Go on.")]
    return {
        "id": compaction_id,
        "object": "response.compaction",
        "created_at": created,
        "output": [*last, compaction_item(f"cmp_{compaction_id.partition('_')[2]}", summary)],
        "usage": object_of(response, "usage") or None,
    }
