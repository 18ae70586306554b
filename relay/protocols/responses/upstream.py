"""Converts between the hub and upstreams that speak the Responses API, for clients of other APIs. Pure.

`relay.protocols.responses.upstream_stream` converts streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import (
    CITATIONS,
    DOCUMENT,
    EXTENSIONS,
    RAW,
    THINKING,
    complete_parameters,
    failure_in_words,
    reported_extensions,
    unsupported_block_error,
)
from relay.protocols.chat_completions.signatures.packed import is_packed
from relay.protocols.chat_completions.transcript import with_results
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.events import Unreadable
from relay.protocols.fields import BadRequest, lost_members, lower_limit, unsupported
from relay.protocols.naming.tool_names import with_accepted_names
from relay.protocols.prompts.stops import sequences_of
from relay.protocols.responses.answer import (
    cancelled_error,
    completion_of,
    parse_responses_answer,
    strings_of,
    unfinished_error,
)
from relay.protocols.responses.objects import in_full_form
from relay.protocols.responses.request import LONGEST_ID, PROTOCOL, user_item, with_short_ids
from relay.protocols.responses.stream import whole_response
from relay.protocols.responses.tools import (
    lost_of_tools,
    response_tool_choice,
    response_tools,
    with_matching_outputs,
)
from relay.protocols.responses.upstream_stream import ResponsesDecoder

# Members with the same meaning in both APIs.
_SAME: Final = (
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "metadata",
)
# Members that are converted below.
_HANDLED: Final = frozenset(
    (
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "response_format",
        "reasoning_effort", "verbosity", "tools", "tool_choice", "functions", "function_call", "logprobs",
        "top_logprobs", "store", "stop",
    )
)  # fmt: skip
# Members that the answer depends on and the API lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "logit_bias": ({},),
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
}
# Members of messages, parts and calls that are converted, or say nothing to the model.
_MESSAGE_MEMBERS: Final = EXTENSIONS.union(("id", "role", "content", "refusal", "tool_calls", "annotations"))
_RESULT_MEMBERS: Final = _MESSAGE_MEMBERS.union(("name", "tool_call_id"))
_PART_MEMBERS: Final = EXTENSIONS.union(("type", "text", "refusal", "image_url", "file", "where"))
_THOUGHTS: Final = "reasoning_content"
_CALL_MEMBERS: Final = EXTENSIONS.union(("id", "index", "type", "function", "custom"))
_SEALED: Final = "reasoning.encrypted_content"
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})


class ResponsesUpstream:
    """Upstreams that speak the Responses API."""

    api = "responses"
    answer_name = "a response"
    refuses_longer = False

    def address(self, stream: bool) -> tuple[str, str]:
        return self.api, ""

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        stops = sequences_of(hub.get("stop"))
        if stops and hub.get("logprobs"):
            message = "The upstream of this model cannot honour “stop” beside “logprobs”. Leave one of them out."
            raise unsupported(message, "stop")
        hub, names = with_accepted_names(hub)
        body, dropped = responses_request(complete_parameters(hub), dialect.least_output)
        return ConvertedRequest(body, dropped, names, stops)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        body["max_output_tokens"] = lower_limit(body.get("max_output_tokens"), max(tokens, dialect.least_output))

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        return encode({**body, "stream": True} if stream else body)

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        text, error = whole_response(body)
        if error is not None:
            return Completion(None, None, error)
        answer = parse_responses_answer(text)
        if answer is None:
            return None
        if answer.is_error or answer.failed:
            return Completion(None, None, text)
        if answer.running:
            return Completion(None, None, unfinished_error())
        if answer.cancelled:
            return Completion(None, answer.usage, cancelled_error())
        response, broken = read_object(text)
        if response is not None and isinstance(output := response.get("output"), list):
            response["output"] = [in_full_form(item) if isinstance(item, dict) else item for item in output]
        if response is None or not _is_readable(response):
            return None
        try:
            completion = completion_of(response)
        except Unreadable:
            return None
        if broken:
            whole = clean(completion)
            completion = whole if isinstance(whole, dict) else {}
        return Completion(completion, answer.usage)

    def decoder(self, dialect: Dialect) -> ResponsesDecoder:
        return ResponsesDecoder()


def _is_readable(response: Json) -> bool:
    """Whether everything in the output has the form of the API, so that nothing of it is left out unnoticed."""
    output = response.get("output")
    if not isinstance(output, list):
        return False
    for item in output:
        if not isinstance(item, dict):
            return False
        content = item.get("content")
        if content is not None and not (isinstance(content, list) and all(isinstance(part, dict) for part in content)):
            return False
        texts = [part.get(name) for part in objects_of(item, "content") for name in ("text", "refusal")]
        if not all(text is None or isinstance(text, str) for text in texts):
            return False
        if text_of(item, "type") in {"function_call", "custom_tool_call"} and not text_of(item, "name"):
            return False
    return True


def responses_request(request: Json, least_output: int = 1) -> tuple[Json, list[str]]:
    """Convert a hub request to a request of /v1/responses; returns it with the dropped parameters. Raises BadRequest.

    `least_output`: the smallest output limit that the upstream accepts, in tokens.
    """
    for name, harmless in _NEEDED.items():
        if request.get(name) is not None and request[name] not in harmless:
            message = (
                f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. "
                "Leave it out, or use another model."
            )
            raise unsupported(message, name)
    messages, tools = objects_of(request, "messages"), objects_of(request, "tools")
    instructions, items = input_items_of(messages)
    body: Json = {
        "model": request.get("model"),
        "instructions": instructions,
        "input": with_short_ids(with_matching_outputs(items)),
        "store": False,
    }
    body.update({name: request[name] for name in _SAME if request.get(name) is not None})
    names = ("max_completion_tokens", "max_tokens")
    limits = [limit for name in names if isinstance(limit := request.get(name), int) and limit >= 0]
    if limits:
        body["max_output_tokens"] = max(min(limits), least_output)
    include: list[str] = []
    if request.get("reasoning_effort") is not None:
        body["reasoning"] = {"effort": request["reasoning_effort"], "summary": "auto"}
        include.append(_SEALED)  # what it thought is not stored there, and comes back with the conversation
    text = _text(request)
    if text:
        body["text"] = text
    choice = response_tool_choice(request.get("tool_choice"))
    if tools:
        body["tools"] = response_tools(tools)
        if choice is not None:
            body["tool_choice"] = choice
    else:
        body.pop("parallel_tool_calls", None)
    if request.get("logprobs"):
        include.append("message.output_text.logprobs")
        if request.get("top_logprobs"):
            body["top_logprobs"] = request["top_logprobs"]
    if include:
        body["include"] = include
    known = _HANDLED.union(_SAME, _NEEDED, EXTENSIONS)
    dropped = [name for name, value in request.items() if name not in known and value not in _EMPTY]
    dropped += reported_extensions(request)
    return body, [*dropped, *_lost_of_messages(messages), *lost_of_tools(tools)]


def _lost_of_messages(messages: Sequence[Json]) -> list[str]:
    """The names of members of messages that the API lacks, such as a speaker's `name`. A result is told by its id."""
    found: list[str] = []
    for message in messages:
        if RAW in message:
            raw = object_of(message, RAW)
            found += [text_of(raw, "ignored")] if text_of(raw, "protocol") != PROTOCOL else []
            continue
        known = _RESULT_MEMBERS if text_of(message, "role") == "tool" else _MESSAGE_MEMBERS
        if _own_thoughts(message):  # which say the same
            known = known.union((_THOUGHTS,))
        found += lost_members([message], known, "messages[].")
        if isinstance(message.get("content"), list):
            parts = objects_of(message, "content")
            found += lost_members(parts, _PART_MEMBERS, "messages[].content[].")
            images = [object_of(part, "image_url") for part in parts]
            found += lost_members(images, ("url", "detail"), "messages[].content[].image_url.")
        found += lost_members(objects_of(message, "tool_calls"), _CALL_MEMBERS, "messages[].tool_calls[].")
    return found


def _text(request: Json) -> Json:
    found: Json = {}
    shape = object_of(request, "response_format")
    kind = text_of(shape, "type")
    if kind == "json_schema":
        schema = object_of(shape, "json_schema")
        keys = ("name", "description", "schema", "strict")
        found["format"] = {"type": "json_schema", **{key: schema[key] for key in keys if schema.get(key) is not None}}
    elif kind in {"json_object", "text"}:
        found["format"] = {"type": kind}
    if request.get("verbosity") is not None:
        found["verbosity"] = request["verbosity"]
    return found


def input_items_of(messages: Sequence[Json]) -> tuple[str, list[Json]]:
    """Convert hub messages to instructions and input items. Raises BadRequest.

    System messages at the beginning become the instructions, unless nothing follows them; later ones stay in their
    place. OpenAI refuses calls without results, and results without calls.
    """
    instructions: list[str] = []
    items: list[Json] = []
    for index, message in enumerate(with_results(messages, objects=False)):
        role, content = text_of(message, "role"), message.get("content")
        where = f"messages[{index}]"
        if role in {"system", "developer"}:
            text = _plain(content, where)
            if items:
                items.append(
                    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]}
                )
            else:
                instructions.append(text)
        elif role == "user":
            items.append({"type": "message", "role": "user", "content": _user_parts(content, where)})
        elif role == "assistant":
            items += [_reasoning(thought) for thought in _own_thoughts(message)]
            items += _assistant(message, where)
        elif role == "tool":
            items.append(
                {
                    "type": "function_call_output",
                    "call_id": text_of(message, "tool_call_id") or f"call_{text_of(message, 'name')}",
                    "output": _output(failure_in_words(message).get("content"), where),
                }
            )
        elif RAW in message:
            items.append(_raw_item(message))
        else:
            error = f"The role of {where} must be system, developer, user, assistant or tool."
            raise BadRequest(error, f"{where}.role")
    said = "\n\n".join(part for part in instructions if part)
    if said and not items:  # something must be
        return "", [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": said}]}]
    return said, items


def _raw(block: Json) -> Json:
    """A raw block of the Responses API, unchanged. Raises BadRequest for a block of another API."""
    raw = object_of(block, RAW)
    if text_of(raw, "protocol") != PROTOCOL:
        raise unsupported_block_error(block)
    return object_of(raw, "value")


def _raw_item(message: Json) -> Json:
    """A raw item of the Responses API, unchanged; one of another API in words. Raises BadRequest for one without."""
    raw = object_of(message, RAW)
    if text_of(raw, "protocol") != PROTOCOL and text_of(raw, "text"):
        return user_item(text_of(raw, "text"))
    return _raw(message)


def _own_thoughts(message: Json) -> list[Json]:
    """The thoughts of a message that are sent as reasoning items: those that no other API has signed."""
    return [thought for thought in objects_of(message, THINKING) if not is_packed(thought.get("signature"))]


def _reasoning(thought: Json) -> Json:
    """An entry of `hub_thinking` as a reasoning item."""
    item: Json = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in strings_of(thought, "summary")],
    }
    if 0 < len(text_of(thought, "id")) <= LONGEST_ID:
        item["id"] = thought["id"]
    if texts := strings_of(thought, "text"):
        item["content"] = [{"type": "reasoning_text", "text": text} for text in texts]
    if thought.get("signature"):
        item["encrypted_content"] = thought["signature"]
    return item


def _plain(content: object, where: str) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    if any(text_of(part, "type") not in {"text", "refusal", ""} for part in parts) or not isinstance(content, list):
        raise BadRequest(f"The content of {where} must be text.", f"{where}.content")
    return "\n".join(text_of(part, "text") or text_of(part, "refusal") for part in parts)


def _output(content: object, where: str) -> object:
    """A tool's result: text, or parts where it has images or files, as some clients of chat completions send it."""
    kinds = {text_of(part, "type") for part in content if isinstance(part, dict)} if isinstance(content, list) else ()
    return _user_parts(content, where) if {"image_url", "file"}.intersection(kinds) else _plain(content, where)


def _user_parts(content: object, where: str) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if not isinstance(content, list):
        raise BadRequest(f"The content of {where} must be a text or a list of parts.", f"{where}.content")
    return [
        _user_part(part, f"{where}.content[{number}]") for number, part in enumerate(content) if isinstance(part, dict)
    ]


def _user_part(part: Json, where: str) -> Json:
    kind = text_of(part, "type")
    if kind in {"text", "input_text"}:
        return {"type": "input_text", "text": text_of(part, "text")}
    if kind == "image_url":
        image = part.get("image_url")
        holder = {"url": image} if isinstance(image, str) else object_of(part, "image_url")
        url, detail = holder.get("url"), holder.get("detail")
        return {"type": "input_image", "image_url": url, "detail": detail or "auto"}
    if kind == "file":
        file = object_of(part, "file")
        keys = ("filename", "file_data", "file_id")
        return {"type": "input_file", **{key: file[key] for key in keys if file.get(key) is not None}}
    if DOCUMENT in part:
        document = object_of(part, DOCUMENT)
        filename: Json = {"filename": document["filename"]} if document.get("filename") is not None else {}
        return {"type": "input_file", "file_url": document.get("url"), **filename}
    if RAW in part:
        return _raw(part)
    message = (
        f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”. Leave it out, or use "
        "another model."
    )
    raise unsupported(message, f"{where}.type")


def _assistant(message: Json, where: str) -> list[Json]:
    items: list[Json] = []
    text, refusal = _plain(message.get("content"), where), text_of(message, "refusal")
    content: list[Json] = [{"type": "output_text", "text": text}] if text else []
    if content and objects_of(message, CITATIONS):
        content[0]["annotations"] = objects_of(message, CITATIONS)
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    if content:
        items.append({"type": "message", "role": "assistant", "content": content})
    for call in objects_of(message, "tool_calls"):
        custom, function = object_of(call, "custom"), object_of(call, "function")
        if custom:
            name, inner = text_of(custom, "name"), {"input": text_of(custom, "input")}
            items.append({"type": "custom_tool_call", "call_id": text_of(call, "id"), "name": name, **inner})
        else:
            name, inner = text_of(function, "name"), {"arguments": text_of(function, "arguments")}
            items.append({"type": "function_call", "call_id": text_of(call, "id"), "name": name, **inner})
    return items
