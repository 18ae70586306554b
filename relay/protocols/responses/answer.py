"""Parses non-streaming responses, and converts them to hub completions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, encode, json_text, object_of, objects_of, text_of
from relay.protocols.characters import read_typed
from relay.protocols.chat_completions.hub import THINKING, thinking_entry
from relay.protocols.chat_completions.signatures.packed import is_packed
from relay.protocols.error_objects import Envelope
from relay.protocols.events import Unreadable
from relay.protocols.output_items import distinct
from relay.protocols.responses.objects import RUNNING, is_nothing
from relay.protocols.responses.usage import chat_usage, parse_responses_usage, searches_in, with_tools
from relay.protocols.usage import Usage, present


class _Answer(Envelope):
    id: str = ""
    status: str = ""
    usage: msgspec.Raw = msgspec.Raw()
    tool_usage: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()


_answer: Final = msgspec.json.Decoder(_Answer)
# Calls that the client carries out itself (OpenAI's reference of the Responses API, November 2026).
_CLIENT_CALLS: Final = frozenset(
    ("computer_call", "local_shell_call", "shell_call", "apply_patch_call", "mcp_approval_request")
)


# Items of an answer, beside messages.
_SAID: Final = frozenset(("reasoning", "function_call", "custom_tool_call", "tool_search_call"))


@dataclass(frozen=True, slots=True)
class ResponsesAnswer:
    """The parts of a complete response that the portal needs."""

    id: str
    usage: Usage | None  # None: the upstream reports none
    is_error: bool  # a 200 with an error object in place of a response
    failed: bool  # its status is `failed`
    running: bool = False  # it is still being made, although nobody asked for one in the background
    cancelled: bool = False  # its status is `cancelled`


def parse_responses_answer(body: bytes) -> ResponsesAnswer | None:
    """Parse the body of a response; None when it is not one."""
    try:
        answer = read_typed(_answer, body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    failed = answer.status == "failed"
    is_error = answer.is_error(present(answer.output)) and not (answer.id and present(answer.output))
    if not is_error and not present(answer.output):
        return None
    usage = parse_responses_usage(answer.usage) if present(answer.usage) else None
    usage = with_tools(usage, answer.tool_usage, searches_in(bytes(answer.output)))
    if not is_error and is_nothing(answer.status, bytes(memoryview(answer.output)[:64]), usage):
        return None
    running, cancelled = answer.status in RUNNING, answer.status == "cancelled"
    return ResponsesAnswer(answer.id, usage, is_error, failed, running, cancelled)


# -- for clients of other APIs ---------------------------------------------------------------------------------------


def finish_of(response: Json, called: bool, incomplete: bool) -> str:
    """The finish_reason of a response. `called`: it contains tool calls. `incomplete`: it was cut short."""
    if incomplete:
        return (
            "content_filter"
            if text_of(object_of(response, "incomplete_details"), "reason") == "content_filter"
            else "length"
        )
    return "tool_calls" if called else "stop"


def call_of(item: Json) -> Json | None:
    """An output item as a tool call of chat completions; None when it is not a call."""
    kind, call_id = text_of(item, "type"), text_of(item, "call_id") or text_of(item, "id")
    if kind == "function_call":
        given = item.get("arguments")
        arguments = json_text(given) if given is not None else ""
        function = {"name": text_of(item, "name"), "arguments": arguments if arguments.strip(" \t\r\n") else "{}"}
        return {"id": call_id, "type": "function", "function": function}
    if kind == "custom_tool_call":
        custom = {"name": text_of(item, "name"), "input": text_of(item, "input")}
        return {"id": call_id, "type": "custom", "custom": custom}
    return None


def is_unknown_call(item: Json) -> bool:
    """Whether an item is a call that the client must carry out, and that chat completions have no form for.

    Calls of tools that the upstream itself runs (`web_search_call` and others) are not for the client.
    """
    kind = text_of(item, "type")
    return kind in _CLIENT_CALLS or (kind == "tool_search_call" and text_of(item, "execution") == "client")


def after_message(said: str, text: str) -> str:
    """The texts of two messages of a response as one content, with an empty line between them.

    OpenAI's SDKs join them without one (`Response.output_text`), but have the items as well.
    """
    return f"{said}{message_break(said, text)}{text}"


def message_break(said: str, text: str) -> str:
    """What stands between what is said of one message and a text of the next."""
    return "\n\n" if said and text and not (said[-1].isspace() or text[0].isspace()) else ""


def thinking_of(item: Json) -> Json:
    """A reasoning item as an entry of `hub_thinking`."""
    texts, summary = ([text_of(part, "text") for part in objects_of(item, name)] for name in ("content", "summary"))
    return thinking_entry(text_of(item, "id"), texts, summary, item.get("encrypted_content"))


def signatures_first(items: Sequence[Json]) -> list[Json]:
    """Items with each signature that came late in an answer before the message and the calls that it belongs to."""
    found: list[Json] = []
    start = 0  # where the answer begins to which an item belongs
    late: list[Json] = []
    for item in items:
        if text_of(item, "type") not in _SAID and text_of(item, "role") != "assistant":
            found[start:start] = late
            found.append(item)
            start, late = len(found), []
        elif is_packed(item.get("encrypted_content")):
            late.append(item)
        else:
            found += [*late, item]
            late = []
    found[start:start] = late
    return found


def readable_thought(thought: Json) -> str:
    """The text of an entry of `hub_thinking`; its summary from models that do not reveal it."""
    return "\n".join(strings_of(thought, "text")) or "\n\n".join(strings_of(thought, "summary"))


def strings_of(holder: Json, name: str) -> list[str]:
    """The texts in a list member; empty if it is missing or of another type."""
    found = holder.get(name)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def reasoning_summary(item: Json) -> str:
    """The readable text of a reasoning item: its summary, or the reasoning itself from models that reveal it."""
    summary = "\n\n".join(text_of(part, "text") for part in objects_of(item, "summary"))
    return summary or "\n".join(text_of(part, "text") for part in objects_of(item, "content"))


def nested_annotation(entry: Json) -> Json | None:
    """A citation in the form of chat completions; None for an annotation of another kind."""
    if text_of(entry, "type") != "url_citation":
        return None
    keys = ("start_index", "end_index", "url", "title")
    return {"type": "url_citation", "url_citation": {key: entry.get(key) for key in keys}}


def nested_annotations(part: Json) -> list[Json]:
    """The citations of a content part in the form of chat completions."""
    return [cited for entry in objects_of(part, "annotations") if (cited := nested_annotation(entry)) is not None]


def generated_image(item: Json) -> Json | None:
    """The image in an output item, as OpenRouter has them in chat completions; None when the item has none."""
    data = text_of(item, "result")
    if text_of(item, "type") != "image_generation_call" or not data:
        return None
    kind = text_of(item, "output_format") or "png"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def cancelled_error() -> bytes:
    """The error object for a response that its upstream cancelled."""
    message = "The upstream cancelled the answer. Try again."
    return encode({"error": {"message": message, "type": "server_error", "param": None, "code": "upstream_error"}})


def unfinished_error() -> bytes:
    """The error object for a response that its upstream has not made yet."""
    message = "The upstream sent a response that it had not made yet. Try again."
    return encode({"error": {"message": message, "type": "server_error", "param": None, "code": "upstream_error"}})


def completion_of(response: Json) -> Json:
    """A complete response as a hub completion. Raises Unreadable."""
    text, refusal = "", ""
    shown: list[str] = []
    thinking: list[Json] = []
    calls: list[Json] = []
    annotations: list[Json] = []
    logprobs: list[Json] = []
    images: list[Json] = []
    call_ids: set[object] = {""}
    for item in distinct(objects_of(response, "output")):
        kind, call = text_of(item, "type"), call_of(item)
        if call is not None:
            if call["id"] in call_ids:  # of another call: the client's own code gives this one an id
                call["id"] = ""
            call_ids.add(call["id"])
            calls.append(call)
        elif is_unknown_call(item):
            raise Unreadable
        elif kind == "message":
            parts = objects_of(item, "content")
            text = after_message(text, "".join(text_of(part, "text") for part in parts))
            refusal = after_message(refusal, "".join(text_of(part, "refusal") for part in parts))
            for part in parts:
                annotations += nested_annotations(part)
                logprobs += objects_of(part, "logprobs")
        elif kind == "reasoning":
            shown.append(reasoning_summary(item))
            if item.get("encrypted_content"):
                thinking.append(thinking_of(item))
        elif (image := generated_image(item)) is not None:
            images.append(image)
    message: Json = {
        "role": "assistant",
        "content": text or (None if calls or refusal else ""),
        "refusal": refusal or None,
        "annotations": annotations,
    }
    if any(shown):
        message["reasoning_content"] = "\n\n".join(filter(None, shown))
    if thinking:
        message[THINKING] = thinking
    if calls:
        message["tool_calls"] = calls
    if images:
        message["images"] = images
    finish = finish_of(response, bool(calls), text_of(response, "status") == "incomplete")
    choice: Json = {
        "index": 0,
        "message": message,
        "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
        "finish_reason": finish,
    }
    created, response_id = response.get("created_at"), text_of(response, "id")
    found: Json = {
        "id": f"chatcmpl-{response_id.removeprefix('resp_')}" if response_id else "",
        "object": "chat.completion",
        "created": int(created) if isinstance(created, (int, float)) else 0,
        "model": text_of(response, "model"),
        "choices": [choice],
    }
    if response.get("service_tier"):
        found["service_tier"] = response["service_tier"]
    if isinstance(response.get("usage"), dict):
        found["usage"] = chat_usage(object_of(response, "usage"))
    return found
