"""Converts between a client of /v1/responses and the hub, for upstreams that speak another API. Pure.

`relay.protocols.responses.client_stream` converts streams. A feature that no other API supports is refused with a 422
that names it when the answer depends on it; otherwise it is dropped and reported among the dropped parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, json_text, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import CITATIONS, THINKING, document_part, raw_message, raw_part
from relay.protocols.contract import ConvertedRequest
from relay.protocols.fields import BadRequest, unsupported
from relay.protocols.responses.answer import readable_thought, signatures_first, thinking_of
from relay.protocols.responses.client_stream import ResponsesEncoder
from relay.protocols.responses.objects import (
    PARTS,
    ending,
    filled_arguments,
    flat_annotations,
    image_item,
    image_link,
    lost_of_items,
    message_item,
    reasoning_item,
    response_object,
)
from relay.protocols.responses.request import PROTOCOL, item_as_text
from relay.protocols.responses.tools import (
    CUSTOM,
    FUNCTION,
    SEARCH,
    ToolNames,
    chat_tool_choice,
    chat_tools,
    function_names,
    tools_of,
)
from relay.protocols.responses.usage import responses_usage

# Members with the same meaning in both APIs.
_SAME: Final = (
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    "prompt_cache_retention",
    "prompt_cache_options",
)
# Members that the portal handles itself, or converts below.
_HANDLED: Final = frozenset(
    (
        "model", "input", "instructions", "stream", "stream_options", "store", "metadata", "previous_response_id",
        "conversation", "background", "include", "tools", "tool_choice", "max_output_tokens", "reasoning", "text",
        "top_logprobs", "client_metadata",
    )
)  # fmt: skip
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
# Items that are calls, by the kind of tool that they call; their results; and items that are no part of the
# conversation: tools are read by `tools_of`, a compaction is done by the endpoint.
_CALLS: Final = {"function_call": FUNCTION, "custom_tool_call": CUSTOM, "tool_search_call": SEARCH}
_OUTPUTS: Final = frozenset(("function_call_output", "custom_tool_call_output", "tool_search_output"))
_CONTROLS: Final = frozenset(("additional_tools", "compaction_trigger"))
_LOGPROBS: Final = "message.output_text.logprobs"
# What the hub calls otherwise.
MEMBERS: Final[Mapping[str, str]] = {
    "messages": "input",
    "messages[]": "input[]",
    "messages[].content[image_url]": "input[].content[input_image]",
    "messages[].reasoning_content": "input[reasoning]",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema.schema": "text.format.schema",
    "tools[].function.parameters": "tools[].parameters",
    "verbosity": "text.verbosity",
    "logprobs": f"include[{_LOGPROBS}]",
    "serviceTier": "service_tier",
}
# Values that mean the same as a missing member.
_NOTHING: Final[tuple[object, ...]] = ("disabled", "null", "", None, False, [], {})


@dataclass(slots=True)
class ResponsesClient:
    """One request of a Responses API client, with the input of earlier turns."""

    request: Json  # decoded
    items: Sequence[Json]  # the conversation so far, the request's own input last
    ids: Json  # members of the response that the portal sets: `id`, `created_at` …
    new_suffix: Callable[[], str]  # makes suffixes for the ids of items
    clock: Callable[[], int]  # seconds since 1970
    _names: ToolNames | None = None  # the client's tools behind the hub request's functions
    _hub: ConvertedRequest | None = None

    def hub_request(self) -> ConvertedRequest:
        if self._hub is None:
            self._hub, self._names = hub_request(self.request, self.items)
        return self._hub

    @property
    def names(self) -> ToolNames:
        self.hub_request()
        return self._names or ToolNames()

    def answer(self, completion: Json) -> Json:
        return response_of(
            completion, self.request, {**self.ids, "completed_at": self.clock()}, self.names, self.new_suffix
        )

    def encoder(self) -> ResponsesEncoder:
        return ResponsesEncoder(self.request, self.ids, self.names, self.new_suffix, self.clock)


def hub_request(request: Json, items: Sequence[Json]) -> tuple[ConvertedRequest, ToolNames]:
    """Convert a request to the hub form; returns it with the names of the client's tools. Raises BadRequest.

    `items`: the input of the request and of all earlier turns.
    """
    if request.get("prompt") is not None:
        message = (
            "The upstream of this model knows no prompt templates: send the prompt itself as “instructions” and "
            "“input”."
        )
        raise unsupported(message, "prompt")
    tools, names, dropped = chat_tools(tools_of(request, items))
    choice, tools = chat_tool_choice(request.get("tool_choice"), tools, names)
    body: Json = {
        "model": request.get("model"),
        "messages": messages_of(signatures_first(items), text_of(request, "instructions"), names),
    }
    body.update(
        {
            name: request[name]
            for name in _SAME
            if request.get(name) is not None and (name != "parallel_tool_calls" or tools)
        }
    )
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
    if request.get("max_output_tokens") is not None:
        body["max_completion_tokens"] = request["max_output_tokens"]
    effort = object_of(request, "reasoning").get("effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    _text_format(object_of(request, "text"), body)
    include = request.get("include")
    wanted = include if isinstance(include, list) else []
    if _LOGPROBS in wanted or request.get("top_logprobs"):
        body["logprobs"] = True
        if request.get("top_logprobs"):
            body["top_logprobs"] = request["top_logprobs"]
    dropped += [
        name for name, value in request.items() if name not in _HANDLED and name not in _SAME and value not in _NOTHING
    ]
    return ConvertedRequest(body, dropped + lost_of_items(items)), names


def _text_format(text: Json, body: Json) -> None:
    shape = object_of(text, "format")
    kind = text_of(shape, "type")
    if kind == "json_schema":
        keys = ("name", "description", "schema", "strict")
        schema = {key: shape[key] for key in keys if shape.get(key) is not None}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    if text.get("verbosity") is not None:
        body["verbosity"] = text["verbosity"]


# -- input items -----------------------------------------------------------------------------------------------------


def messages_of(items: Sequence[Json], instructions: str, names: ToolNames) -> list[Json]:
    """Convert input items to hub messages. Raises BadRequest.

    Calls join the preceding message of the assistant; their results follow as messages with the role `tool`.
    """
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    later: list[Json] = []  # images in tool results, which chat completions accept from users only
    thinking: list[Json] = []  # belongs to the assistant's next message
    for index, item in enumerate(items):
        kind = text_of(item, "type") or ("message" if "role" in item else "")
        called = _CALLS.get(kind)
        if called == SEARCH and not text_of(item, "call_id"):
            called = None  # the upstream searched
        if later and kind not in _OUTPUTS:
            messages += later
            later = []
        if kind == "message":
            message = _message(item, index)
            if message["role"] == "assistant":
                _add_thoughts(message, thinking)
            if message["role"] != "system":
                thinking = []  # those of an answer that was interrupted before it said anything
            messages.append(message)
        elif called is not None:
            holder = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
            if holder is None:
                holder = {"role": "assistant", "content": None}
                messages.append(holder)
            _add_thoughts(holder, thinking)
            thinking = []
            calls = holder.setdefault("tool_calls", [])
            assert isinstance(calls, list)  # noqa: S101  # made here
            calls.append(names.call(item, called))
        elif kind in _OUTPUTS and (kind != "tool_search_output" or text_of(item, "call_id")):
            text, images = _output(item, index, names)
            messages.append({"role": "tool", "tool_call_id": text_of(item, "call_id"), "content": text})
            if images:
                label = f"Images of the result of {text_of(item, 'call_id')}:"
                later.append({"role": "user", "content": [{"type": "text", "text": label}, *images]})
        elif kind == "reasoning":
            thinking.append(thinking_of(item))
        elif kind in _CONTROLS:
            continue
        else:
            messages.append(_other(item, kind, index))
    messages += later
    _show_thoughts(messages)
    if not messages:
        raise BadRequest("The field “input” is empty: send a text or a list with at least one item.", "input")
    return messages


def _other(item: Json, kind: str, index: int) -> Json:
    """An item that no other API has: the call of a hosted tool and its result, or one that is newer than this code."""
    name = f"an input item of the type “{kind[:60]}”" if kind else "an input item without a type"
    # What a reference stands for is unknown here, and what has no type is a mistake: neither can be told.
    text = item_as_text(item) if kind not in {"", "item_reference"} else ""
    return raw_message(PROTOCOL, item, name, f"input[{index}].type", text)


def _add_thoughts(message: Json, thinking: Sequence[Json]) -> None:
    """Add the model's reasoning to its message."""
    if thinking:
        known = message.setdefault(THINKING, [])
        assert isinstance(known, list)  # noqa: S101  # made here
        known += thinking


def _show_thoughts(messages: Sequence[Json]) -> None:
    """Write the readable reasoning of messages as vendors of chat completions do."""
    for message in messages:
        shown = "\n\n".join(text for thought in objects_of(message, THINKING) if (text := readable_thought(thought)))
        if shown:
            message["reasoning_content"] = shown


def _message(item: Json, index: int) -> Json:
    role = _ROLES.get(text_of(item, "role"))
    if role is None:
        error = f"The role of input[{index}] must be user, assistant, system or developer."
        raise BadRequest(error, f"input[{index}].role")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list):
        error = f"The content of input[{index}] must be a text or a list of parts."
        raise BadRequest(error, f"input[{index}].content")
    parts = [part for part in content if isinstance(part, dict)]
    if role != "assistant":
        converted = [_part(part, f"input[{index}].content[{number}]") for number, part in enumerate(parts)]
        return {"role": role, "content": _joined(converted)}
    text = "".join(text_of(part, "text") for part in parts if text_of(part, "type") != "refusal")
    refusal = "".join(text_of(part, "refusal") for part in parts)
    citations = [entry for part in parts for entry in objects_of(part, "annotations")]
    return {
        "role": role,
        "content": text or None,
        **({"refusal": refusal} if refusal else {}),
        **({CITATIONS: citations} if citations else {}),
    }


def _joined(parts: list[Json]) -> object:
    """Content as a string where it is text only: not every upstream accepts lists of parts."""
    if parts and all(part["type"] == "text" for part in parts):
        return "\n".join(text_of(part, "text") for part in parts)
    return parts


def _part(part: Json, where: str) -> Json:
    kind = text_of(part, "type")
    if kind in {"input_text", "output_text", "text"}:
        return {"type": "text", "text": text_of(part, "text")}
    if kind == "input_image":
        if not text_of(part, "image_url"):
            message = (
                "An image must be given as “image_url” (an address or a data URL) or as the “file_id” of a file "
                "stored here."
            )
            raise unsupported(message, f"{where}.image_url")
        detail: Json = {"detail": part["detail"]} if part.get("detail") is not None else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file":
        if not text_of(part, "file_data"):
            return document_part(text_of(part, "file_url"), part.get("filename"), f"{where}.file_url")
        return {
            "type": "file",
            "file": {key: part[key] for key in ("filename", "file_data") if part.get(key) is not None},
        }
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": object_of(part, "input_audio")}
    return raw_part(PROTOCOL, part, f"a content part of the type “{kind[:60]}”", f"{where}.type")


def _output(item: Json, index: int, names: ToolNames) -> tuple[str, list[Json]]:
    """A tool's result as text, and the images and files it contains."""
    if text_of(item, "type") == "tool_search_output":
        loaded = ", ".join(function_names(objects_of(item, "tools"), names))
        return f"Tools that can be called now: {loaded}" if loaded else "No tool was found.", []
    output = item.get("output")
    if isinstance(output, str):
        return output, []
    if not isinstance(output, list):
        return json_text(output) if output is not None else "", []
    parts = [_output_part(part, f"input[{index}].output") for part in output if isinstance(part, dict)]
    others = [part for part in parts if part["type"] != "text"]
    text = "\n".join(text_of(part, "text") for part in parts if part["type"] == "text")
    return text or ("See the next message." if others else ""), others


def _output_part(part: Json, where: str) -> Json:
    """A part of a tool's result; in words what no other API has, since results stay in the conversation for good."""
    kind = text_of(part, "type")
    if kind not in PARTS or (kind == "input_image" and not text_of(part, "image_url")):
        return {"type": "text", "text": item_as_text(part)}
    if kind == "input_file" and not text_of(part, "file_data"):
        return {"type": "text", "text": item_as_text(part)}
    return _part(part, where)


# -- the answer ------------------------------------------------------------------------------------------------------


def response_of(completion: Json, request: Json, ids: Json, names: ToolNames, new_suffix: Callable[[], str]) -> Json:
    """A hub completion as a response. `new_suffix` makes suffixes for the ids of items.

    The API has no choices: all that are there are one answer. GitHub Copilot sends text and calls in different ones.
    """
    choices = objects_of(completion, "choices")
    ends = [ending(text_of(choice, "finish_reason")) for choice in choices]
    status, incomplete = next((end for end in ends if end[1]), ending(""))
    output: list[Json] = []
    for choice in choices:
        output += _items_of(choice, status, names, new_suffix, output)
    if not any(text_of(item, "type") != "reasoning" for item in output):
        output.append(message_item(f"msg_{new_suffix()}", "", "", [], [], status))
    usage = responses_usage(object_of(completion, "usage")) if completion.get("usage") else None
    return response_object(
        request, ids, text_of(completion, "model") or text_of(request, "model"), output, usage, (status, incomplete)
    )


def _items_of(
    choice: Json, status: str, names: ToolNames, new_suffix: Callable[[], str], before: Sequence[Json]
) -> list[Json]:
    """The items of one choice. `before`: those of the choices before it."""
    message = object_of(choice, "message")
    output: list[Json] = []
    thoughts = text_of(message, "reasoning_content")
    signed = objects_of(message, THINKING)
    if thoughts or signed:
        output.append(reasoning_item(f"rs_{new_suffix()}", thoughts, signed[0] if signed else None))
        output += [reasoning_item(f"rs_{new_suffix()}", "", thought) for thought in signed[1:]]
    text, refusal = text_of(message, "content"), text_of(message, "refusal")
    images: list[Json] = []
    for image in objects_of(message, "images"):
        url = text_of(object_of(image, "image_url"), "url") or text_of(image, "image_url")
        if (item := image_item(f"ig_{new_suffix()}", url)) is not None:
            images.append(item)
        else:
            text = "\n\n".join(filter(None, (text, image_link(url))))
    if text or refusal:
        logprobs = objects_of(object_of(choice, "logprobs"), "content")
        output.append(message_item(f"msg_{new_suffix()}", text, refusal, flat_annotations(message), logprobs, status))
    output += images
    taken = {text_of(item, "call_id") for item in before}
    for call in objects_of(message, "tool_calls"):
        function = object_of(call, "function")
        suffix, name, call_id = new_suffix(), text_of(function, "name"), text_of(call, "id")
        arguments = filled_arguments(json_text(function.get("arguments") or ""), status)
        made = f"call_{suffix}" if not call_id or call_id in taken else call_id
        output.append(names.item(made, f"{names.item_prefix(name)}_{suffix}", name, arguments, status))
    return output
