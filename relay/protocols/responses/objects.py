"""Builds the objects of the Responses API with every member that OpenAI's have, and replaces ids in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.characters import read_typed, read_whole_object
from relay.protocols.chat_completions.dialects import EXTRA
from relay.protocols.events import typed_event
from relay.protocols.fields import lost_members
from relay.protocols.usage import Usage

TERMINAL: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_TYPE: Final = re.compile(rb'"type"\s*:\s*"((?:response\.[a-z_.]+)|error)"')
RUNNING: Final = frozenset(("queued", "in_progress"))  # statuses of a response that is still being made
DONE_ALIAS: Final = "response.done"  # what some servers call the last event, whatever the response's status
ERRORS: Final = frozenset(("error", "response.error"))  # types of events that are errors, OpenAI's and relays'
# The error of an answer that begins a conversation of its own, in place of the one that the request goes on from.
IGNORED: Final = (
    b'{"error":{"message":"The upstream ignored previous_response_id: it does not keep responses.",'
    b'"type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}'
)
# Members of items and of their parts that are converted, or say nothing to the model.
_ITEM_MEMBERS: Final = {
    "message": ("role", "content"),
    "reasoning": ("summary", "content", "encrypted_content"),
    **dict.fromkeys(
        ("function_call", "custom_tool_call", "tool_search_call"),
        ("call_id", "name", "namespace", "arguments", "input", "execution", EXTRA),
    ),
    **dict.fromkeys(
        ("function_call_output", "custom_tool_call_output", "tool_search_output"),
        ("call_id", "name", "output", "tools", "execution"),
    ),
}
# Types of parts that other APIs have as well.
PARTS: Final = frozenset(("input_text", "output_text", "text", "input_image", "input_file", "input_audio"))
_ANY_ITEM: Final = ("type", "id", "status", "created_by", "metadata")
_PART_MEMBERS: Final = (
    "type", "text", "refusal", "annotations", "logprobs", "image_url", "detail", "filename", "file_data", "file_url",
    "file_id", "input_audio",
)  # fmt: skip


class _Typed(msgspec.Struct):
    type: object = None


_typed: Final = msgspec.json.Decoder(_Typed)
_SECRETS: Final = frozenset(("authorization", "headers"))
Ending = tuple[str, str]  # the status of a response, and why it is incomplete, empty when it is not


def is_nothing(status: str, output: bytes, usage: Usage | None) -> bool:
    """Whether a response is complete without an item, and nothing was generated for it either: it is no answer.

    `output`: the beginning of its list of items.
    """
    empty = status == "completed" and output[:64].translate(None, b" \t\r\n") == b"[]"
    return empty and not (usage is not None and usage.output)


def _shown_tool(tool: Json) -> Json:
    """A tool without what the client signs in with at its MCP server, which nobody is told again, or stores."""
    return {name: value for name, value in tool.items() if name not in _SECRETS} if tool.get("type") == "mcp" else tool


def response_object(request: Json, ids: Json, model: str, output: list[Json], usage: Json | None, end: Ending) -> Json:
    """A response object with every member that OpenAI's has.

    `ids`: `id`, `created_at` and other members that override those taken from the request.
    """
    status, incomplete = end
    reasoning, text = object_of(request, "reasoning"), object_of(request, "text")
    shown: Json = {
        "id": "",
        "object": "response",
        "created_at": 0,
        "completed_at": None,
        "status": status,
        "background": bool(request.get("background")),
        "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "max_tool_calls": request.get("max_tool_calls"),
        "model": model,
        "output": output,
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
        "previous_response_id": request.get("previous_response_id"),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": request.get("safety_identifier"),
        "service_tier": request.get("service_tier") or "default",
        "store": request.get("store") is not False,
        "temperature": _number(request.get("temperature")),
        "text": {
            "format": object_of(text, "format") or {"type": "text"},
            "verbosity": text.get("verbosity") or "medium",
        },
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": [_shown_tool(tool) for tool in objects_of(request, "tools")],
        "top_logprobs": request.get("top_logprobs") or 0,
        "top_p": _number(request.get("top_p")),
        "truncation": request.get("truncation") or "disabled",
        "usage": usage,
        "user": request.get("user"),
        "metadata": object_of(request, "metadata"),
    }
    if request.get("conversation") is not None:
        shown["conversation"] = _conversation(request["conversation"])
    for name in ("prompt_cache_key", "safety_identifier", "user", "max_tool_calls"):
        if shown[name] is None:
            del shown[name]
    return {**shown, **ids}


def _number(value: object) -> object:
    return value if isinstance(value, (int, float)) else 1.0


def _conversation(value: object) -> Json:
    return {"id": value if isinstance(value, str) else text_of(value, "id") if isinstance(value, dict) else ""}


def lost_of_items(items: Sequence[Json]) -> list[str]:
    """The names of members of items that no other API has, such as `input[message.phase]`."""
    found: list[str] = []
    for item in items:
        kind = text_of(item, "type") or "message"
        if (known := _ITEM_MEMBERS.get(kind)) is None:
            continue
        found += lost_members([item], (*_ANY_ITEM, *known), f"input[{kind}.")
        for name in ("content", "output"):
            if isinstance(item.get(name), list) and kind != "reasoning":
                parts = [part for part in objects_of(item, name) if text_of(part, "type") in PARTS]
                found += lost_members(parts, _PART_MEMBERS, f"input[{kind}.{name}.")
    return [f"{name}]" for name in found]


def ending(finish: str) -> Ending:
    """The status of a response and the reason why it is incomplete, from a finish_reason."""
    if finish == "length":
        return "incomplete", "max_output_tokens"
    if finish in {"content_filter", "sensitive"}:
        return "incomplete", "content_filter"
    return "completed", ""


def terminal_kind(response: Json) -> str:
    """The type of the last event of a response, by its status."""
    status = text_of(response, "status")
    if status in RUNNING:
        return "response.failed"
    return f"response.{status}" if f"response.{status}" in TERMINAL else "response.completed"


def ignores_previous(response: Json) -> bool:
    """Whether a response says that it goes on from none, though its request named one (mlx-vlm #1046).

    Not one without the member, nor one with another id: relays have ids of their own (LiteLLM).
    """
    return "previous_response_id" in response and not response["previous_response_id"]


def event_type(data: bytes) -> str | None:
    """The type of an event of this API; None for all others. `data`: of the event.

    Where it does not stand first, what precedes it may be the request's own tools and metadata, with types in them.
    """
    match = _TYPE.search(data)
    if match is None or data.count(b"{", 0, match.start()) < 2:
        return match[1].decode() if match is not None else None
    try:
        found = read_typed(_typed, data).type
    except (msgspec.DecodeError, ValueError, RecursionError):
        return match[1].decode()
    kind = found if isinstance(found, str) else ""
    return kind if kind == "error" or kind.startswith("response.") else None


def event_error(event: Json) -> Json:
    """The error object of an error event: its members stand in it, in `error` or in the error of its `response`."""
    inner = object_of(event, "error") or object_of(object_of(event, "response"), "error") or event
    return {
        "message": text_of(inner, "message") or text_of(event, "error"),
        "type": "server_error",
        "code": inner.get("code"),
        "param": inner.get("param"),
        **{name: inner[name] for name in ("metadata", "upstream_error") if name in inner},
    }


def message_item(
    item_id: str, text: str, refusal: str, annotations: list[Json], logprobs: list[Json], status: str
) -> Json:
    content: list[Json] = []
    if text or not refusal:
        content.append({"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs})
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def in_full_form(item: Json) -> Json:
    """An item of an output; a message in the short form that inputs may have (no type, a text for content) in full."""
    content = item.get("content")
    kind = text_of(item, "type") or ("message" if item.get("role") and content else "")
    if kind != "message" or (isinstance(content, list) and item.get("type")):
        return item
    parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
    return {**item, "type": kind, "content": parts}


def reasoning_item(item_id: str, text: str, signed: Json | None = None) -> Json:
    """A reasoning item. `signed`: the reasoning with its vendor's signature, for vendors that sign it."""
    content = [{"type": "reasoning_text", "text": text}] if text else []
    item: Json = {"id": item_id, "type": "reasoning", "summary": [], "content": content}
    if signed is not None and signed.get("signature"):
        item["encrypted_content"] = signed["signature"]
    return item


def image_item(item_id: str, url: str) -> Json | None:
    """The item of an image that the model made; None for one at an address, which the item cannot name."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        return None
    return {"id": item_id, "type": "image_generation_call", "status": "completed", "result": data}


def image_link(url: str) -> str:
    """The text for an image at an address."""
    return f"![image]({url})"


def filled_arguments(arguments: str, status: str) -> str:
    """The arguments of a call: an object also where a function without parameters was called with nothing at all.

    Not in an answer that was cut off: there they may be missing.
    """
    return arguments if arguments.strip(" \t\r\n") or status != "completed" else "{}"


def flat_annotations(message: Json) -> list[Json]:
    """The citations of a message in the form of the Responses API."""
    found: list[Json] = []
    for entry in objects_of(message, "annotations"):
        cited = object_of(entry, "url_citation")
        if cited:
            found.append(
                {
                    "type": "url_citation",
                    **{key: cited.get(key) for key in ("start_index", "end_index", "url", "title")},
                }
            )
    return found


# -- ids ---------------------------------------------------------------------------------------------------------------

_NO_PREVIOUS: Final = re.compile(rb'"previous_response_id"\s*:\s*null')


class _Ids(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()


class _EventIds(msgspec.Struct):
    response: _Ids


class _RawResponse(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw()


_ids: Final = msgspec.json.Decoder(_Ids)
_event_ids: Final = msgspec.json.Decoder(_EventIds)
_raw_response: Final = msgspec.json.Decoder(_RawResponse)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_ids(response: bytes, ids: Json) -> bytes:
    """A response with some of its ids replaced. All else stays as it is, byte for byte."""
    return _readably(response, ids, _response_with_ids)


def event_with_ids(event: bytes, ids: Json) -> bytes:
    """The data of an event with some of the ids of its response replaced."""
    return _readably(event, ids, _whole_event_with_ids)


def _readably(text: bytes, ids: Json, replace: Callable[[bytes, Json], bytes]) -> bytes:
    """`replace`, also where half a character in the text is no JSON; the text itself where it cannot be read."""
    if not ids:
        return text
    try:
        return replace(text, ids)
    except (msgspec.DecodeError, ValueError, RecursionError):
        whole = read_whole_object(text)
    try:
        return replace(encode(whole), ids) if whole is not None else text
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text  # it is not stored either


def _response_with_ids(response: bytes, ids: Json) -> bytes:
    return _replaced(response, _ids.decode(response), ids) or encode({**_members.decode(response), **ids})


def _whole_event_with_ids(event: bytes, ids: Json) -> bytes:
    return _replaced(event, _event_ids.decode(event).response, ids) or encode(
        {**_members.decode(event), "response": {**_members.decode(_raw_response.decode(event).response), **ids}}
    )


def _replaced(text: bytes, was: _Ids, ids: Json) -> bytes:
    """A text with ids replaced in place; empty when it is not certain where they are."""
    for name, value in ids.items():
        old = bytes(was.id if name == "id" else was.previous_response_id)
        if old == b"null":
            found = _NO_PREVIOUS.findall(text) if name == "previous_response_id" else []
            if len(found) != 1:
                return b""
            text = text.replace(found[0], b'"previous_response_id":' + encode(value), 1)
        elif len(old) < 3 or text.count(old) != 1:  # it is missing, or an item has the same
            return b""
        else:
            text = text.replace(old, encode(value), 1)
    return text


def first_error_event(body: bytes) -> bytes:
    """The only event of a stream that fails before its answer, from the error's body."""
    error = object_of(decode_object(body) or {}, "error")
    code, param = error.get("code"), error.get("param")
    return responses_error_event(
        0, text_of(error, "message"), code if isinstance(code, str) else None, param if isinstance(param, str) else None
    )


def responses_error_event(number: int, message: str, code: str | None, param: str | None) -> bytes:
    """The Responses API's error event, for a stream that cannot continue."""
    return typed_event(
        "error", encode({"type": "error", "sequence_number": number, "code": code, "message": message, "param": param})
    )
