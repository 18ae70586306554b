"""A client of /v1/responses at an upstream of another API: its request as a hub request, and the whole answer. Pure.

The stream is in `relay.protocols.responses.client_stream`. What no other API can do is refused with a 422 that names it when it would
change the answer; what only bears on comfort is left out and said in the list of dropped parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from portal.lib.json import Json, json_text, object_of, objects_of, text_of
from relay.protocols.chat_completions.hub import CITATIONS, THINKING, document, raw_message, raw_part
from relay.protocols.contract import Form
from relay.protocols.fields import BadRequest, unsupported
from relay.protocols.responses.answer import thoughts_of
from relay.protocols.responses.client_stream import ResponsesEncoder
from relay.protocols.responses.objects import ending, flat_annotations, message_item, reasoning_item, reasoning_of, response_object, text_content
from relay.protocols.responses.request import PROTOCOL
from relay.protocols.responses.tools import ToolNames, chat_tool_choice, chat_tools, custom_arguments
from relay.protocols.responses.usage import responses_usage

# Members that mean the same on both sides.
_SAME: Final = ("temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key", "service_tier", "prompt_cache_retention", "prompt_cache_options")
# Members that the portal itself answers for, or that only say how much the client wants to see.
_OURS: Final = frozenset(
    (
        "model", "input", "instructions", "stream", "stream_options", "store", "metadata", "previous_response_id", "conversation", "background", "include", "tools", "tool_choice",
        "max_output_tokens", "reasoning", "text", "top_logprobs", "client_metadata",
    )
)  # fmt: skip
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_LOGPROBS: Final = "message.output_text.logprobs"
_NOTHING: Final[tuple[object, ...]] = ("disabled", "null", "", None, False, [], {})


@dataclass(slots=True)
class ResponsesClient:
    """One request, with the input that came before it."""

    request: Json  # decoded
    items: Sequence[Json]  # everything that was said, the request's own input last
    ids: Json  # what the portal knows of the response: `id`, `created_at` …
    fresh: Callable[[], str]  # makes endings of ids
    clock: Callable[[], int]  # seconds since 1970
    _names: ToolNames | None = None  # what the functions of the hub request stand for
    _hub: Form | None = None

    def hub_request(self) -> Form:
        if self._hub is None:
            self._hub, self._names = hub_request(self.request, self.items)
        return self._hub

    @property
    def names(self) -> ToolNames:
        self.hub_request()
        return self._names or ToolNames()

    def answer(self, completion: Json) -> Json:
        return response_of(completion, self.request, {**self.ids, "completed_at": self.clock()}, self.names, self.fresh)

    def encoder(self) -> ResponsesEncoder:
        return ResponsesEncoder(self.request, self.ids, self.names, self.fresh, self.clock)


def hub_request(request: Json, items: Sequence[Json]) -> tuple[Form, ToolNames]:
    """A request in the hub's form, and what its functions stand for. `items`: the input, with everything that came before it. Raises BadRequest."""
    if request.get("prompt") is not None:
        raise unsupported("The upstream of this model knows no prompt templates: send the prompt itself as “instructions” and “input”.", "prompt")
    tools, names, dropped = chat_tools(objects_of(request, "tools"))
    choice, tools = chat_tool_choice(request.get("tool_choice"), tools, names)
    body: Json = {"model": request.get("model"), "messages": messages_of(items, text_of(request, "instructions"), names)}
    body.update({name: request[name] for name in _SAME if request.get(name) is not None and (name != "parallel_tool_calls" or tools)})
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
    dropped += [name for name, value in request.items() if name not in _OURS and name not in _SAME and value not in _NOTHING]
    return Form(body, dropped), names


def _text_format(text: Json, body: Json) -> None:
    shape = object_of(text, "format")
    kind = text_of(shape, "type")
    if kind == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": {key: shape[key] for key in ("name", "description", "schema", "strict") if shape.get(key) is not None}}
    elif kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    if text.get("verbosity") is not None:
        body["verbosity"] = text["verbosity"]


# -- input items -----------------------------------------------------------------------------------------------------


def messages_of(items: Sequence[Json], instructions: str, names: ToolNames) -> list[Json]:
    """Items as messages of the hub: calls join the assistant's message before them, results follow as messages of the role tool. Raises BadRequest."""
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    later: list[Json] = []  # images that tools have answered with, which chat takes from users only
    thinking: list[Json] = []  # goes with the assistant's next message
    for index, item in enumerate(items):
        kind = text_of(item, "type") or ("message" if "role" in item else "")
        if later and kind not in {"function_call_output", "custom_tool_call_output"}:
            messages += later
            later = []
        if kind == "message":
            message = _message(item, index)
            if message["role"] == "assistant":
                thinking = _with_thoughts(message, thinking)
            messages.append(message)
        elif kind in {"function_call", "custom_tool_call"}:
            holder = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
            if holder is None:
                holder = {"role": "assistant", "content": None}
                messages.append(holder)
            thinking = _with_thoughts(holder, thinking)
            calls = holder.setdefault("tool_calls", [])
            assert isinstance(calls, list)  # noqa: S101  # made here
            calls.append(_call(item, kind, names))
        elif kind in {"function_call_output", "custom_tool_call_output"}:
            text, images = _output(item.get("output"), index)
            messages.append({"role": "tool", "tool_call_id": text_of(item, "call_id"), "content": text})
            if images:
                later.append({"role": "user", "content": [{"type": "text", "text": f"Images of the result of {text_of(item, 'call_id')}:"}, *images]})
        elif kind == "reasoning":
            thinking.append(thoughts_of(item))
        elif kind == "additional_tools":
            continue
        else:
            what = f"an input item of the type “{kind[:60]}”" if kind else "an input item without a type"
            messages.append(raw_message(PROTOCOL, item, what, f"input[{index}].type"))
    messages += later
    if not messages:
        raise BadRequest("The field “input” is empty: send a text or a list with at least one item.", "input")
    return messages


def _with_thoughts(message: Json, thinking: list[Json]) -> list[Json]:
    """Put what the model has thought into its message. Returns what is left to be put in: nothing."""
    if thinking:
        message[THINKING] = [*objects_of(message, THINKING), *thinking]
        shown = [text for text in ("\n".join(_texts(thought)) for thought in thinking) if text]
        if shown:
            message["reasoning_content"] = shown[-1]
    return []


def _texts(thought: Json) -> list[str]:
    found = thought.get("text")
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _message(item: Json, index: int) -> Json:
    role = _ROLES.get(text_of(item, "role"))
    if role is None:
        raise BadRequest(f"The role of input[{index}] must be user, assistant, system or developer.", f"input[{index}].role")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list):
        raise BadRequest(f"The content of input[{index}] must be a text or a list of parts.", f"input[{index}].content")
    parts = [part for part in content if isinstance(part, dict)]
    if role != "assistant":
        return {"role": role, "content": _joined([_part(part, f"input[{index}].content[{number}]") for number, part in enumerate(parts)])}
    text = "".join(text_of(part, "text") for part in parts if text_of(part, "type") != "refusal")
    refusal = "".join(text_of(part, "refusal") for part in parts)
    citations = [entry for part in parts for entry in objects_of(part, "annotations")]
    return {
        "role": role, "content": text or None, **({"refusal": refusal} if refusal else {}), **({CITATIONS: citations} if citations else {}),
    }  # fmt: skip


def _joined(parts: list[Json]) -> object:
    """One text is a string to every upstream; lists are not understood by all of them."""
    if parts and all(part["type"] == "text" for part in parts):
        return "\n".join(text_of(part, "text") for part in parts)
    return parts


def _part(part: Json, where: str) -> Json:
    kind = text_of(part, "type")
    if kind in {"input_text", "output_text", "text"}:
        return {"type": "text", "text": text_of(part, "text")}
    if kind == "input_image":
        if not text_of(part, "image_url"):
            raise unsupported("An image must be given as “image_url” (an address or a data URL) or as the “file_id” of a file stored here.", f"{where}.image_url")
        return {"type": "image_url", "image_url": {"url": part["image_url"], **({"detail": part["detail"]} if part.get("detail") is not None else {})}}
    if kind == "input_file":
        if not text_of(part, "file_data"):
            return document(text_of(part, "file_url"), part.get("filename"), f"{where}.file_url")
        return {"type": "file", "file": {key: part[key] for key in ("filename", "file_data") if part.get(key) is not None}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": object_of(part, "input_audio")}
    return raw_part(PROTOCOL, part, f"a content part of the type “{kind[:60]}”", f"{where}.type")


def _call(item: Json, kind: str, names: ToolNames) -> Json:
    name = names.joint(text_of(item, "name"), text_of(item, "namespace"))
    arguments = text_of(item, "arguments") if kind == "function_call" else custom_arguments(text_of(item, "input"))
    return {"id": text_of(item, "call_id"), "type": "function", "function": {"name": name, "arguments": arguments}}


def _output(output: object, index: int) -> tuple[str, list[Json]]:
    """A tool's result as text, and the images and files in it."""
    if isinstance(output, str):
        return output, []
    if not isinstance(output, list):
        return json_text(output) if output is not None else "", []
    parts = [_part(part, f"input[{index}].output[{number}]") for number, part in enumerate(output) if isinstance(part, dict)]
    others = [part for part in parts if part["type"] != "text"]
    text = "\n".join(text_of(part, "text") for part in parts if part["type"] == "text")
    return text or ("See the next message." if others else ""), others


# -- the answer ------------------------------------------------------------------------------------------------------


def response_of(completion: Json, request: Json, ids: Json, names: ToolNames, fresh: Callable[[], str]) -> Json:
    """A completion in the hub's form as a response. `fresh`: makes endings for the ids of items."""
    choice = next(iter(objects_of(completion, "choices")), {})
    message = object_of(choice, "message")
    status, incomplete = ending(text_of(choice, "finish_reason"))
    output: list[Json] = []
    thoughts = reasoning_of(message)
    signed = next(iter(objects_of(message, THINKING)), None)
    if thoughts or signed is not None:
        output.append(reasoning_item(f"rs_{fresh()}", thoughts, signed))
    calls = objects_of(message, "tool_calls")
    text, refusal = text_content(message.get("content")), text_of(message, "refusal")
    if text or refusal or not calls:
        logprobs = objects_of(object_of(choice, "logprobs"), "content")
        output.append(message_item(f"msg_{fresh()}", text, refusal, flat_annotations(message), logprobs, status))
    for call in calls:
        function = object_of(call, "function")
        ending_id = fresh()
        arguments = json_text(function.get("arguments") or "{}")
        output.append(names.item(text_of(call, "id") or f"call_{ending_id}", f"fc_{ending_id}", text_of(function, "name"), arguments, "completed"))
    usage = responses_usage(object_of(completion, "usage")) if completion.get("usage") else None
    return response_object(request, ids, text_of(completion, "model") or text_of(request, "model"), output, usage, (status, incomplete))
