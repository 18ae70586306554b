"""A client of /v1/responses at an upstream that speaks chat completions: the request, and the whole answer. Pure.

The stream is in `relay.protocols.responses.client_stream`. What chat cannot do is refused with a 422 that names it when it would change the answer;
what only bears on comfort is left out and said in the list of dropped parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib.json import Json, encode, json_text, object_of, objects_of, text_of
from relay.protocols.fields import BadRequest, unsupported
from relay.protocols.responses.tools import ToolNames, chat_tool_choice, chat_tools, custom_arguments
from relay.protocols.responses.usage_forms import responses_usage

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
class ChatForm:
    """A request of /v1/responses as a chat request. `names`: what its functions stand for. `dropped`: parameters that are not sent."""

    body: Json
    names: ToolNames
    dropped: list[str] = field(default_factory=list)


def chat_form(request: Json, items: Sequence[Json], output_field: str = "max_completion_tokens") -> ChatForm:
    """`items`: the input, with everything that came before it. `output_field`: what the upstream calls the limit of tokens. Raises BadRequest."""
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
        body[output_field] = request["max_output_tokens"]
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
    return ChatForm(body, names, dropped)


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
    """Items as chat messages: calls join the assistant's message before them, results follow as messages of the role tool. Raises BadRequest."""
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    later: list[Json] = []  # images that tools have answered with, which chat takes from users only
    reasoning = ""
    for index, item in enumerate(items):
        kind = text_of(item, "type") or ("message" if "role" in item else "")
        if later and kind not in {"function_call_output", "custom_tool_call_output"}:
            messages += later
            later = []
        if kind == "message":
            message = _message(item, index)
            if message["role"] == "assistant" and reasoning:
                message["reasoning_content"], reasoning = reasoning, ""
            messages.append(message)
        elif kind in {"function_call", "custom_tool_call"}:
            holder = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
            if holder is None:
                holder = {"role": "assistant", "content": None}
                messages.append(holder)
            if reasoning:
                holder["reasoning_content"], reasoning = reasoning, ""
            calls = holder.setdefault("tool_calls", [])
            assert isinstance(calls, list)  # noqa: S101  # made here
            calls.append(_call(item, kind, names))
        elif kind in {"function_call_output", "custom_tool_call_output"}:
            text, images = _output(item.get("output"), index)
            messages.append({"role": "tool", "tool_call_id": text_of(item, "call_id"), "content": text})
            if images:
                later.append({"role": "user", "content": [{"type": "text", "text": f"Images of the result of {text_of(item, 'call_id')}:"}, *images]})
        elif kind == "reasoning":
            reasoning = "\n".join(text_of(part, "text") for part in objects_of(item, "content"))
        elif kind == "additional_tools":
            continue
        else:
            what = f"of the type “{kind[:60]}”" if kind else "without a type"
            raise unsupported(f"The upstream of this model cannot be given an input item {what}. Leave it out, or use another model.", f"input[{index}].type")
    messages += later
    if not messages:
        raise BadRequest("The field “input” is empty: send a text or a list with at least one item.", "input")
    return messages


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
    return {"role": role, "content": text or None, **({"refusal": refusal} if refusal else {})}


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
            raise unsupported(
                "The upstream of this model cannot fetch files by “file_url”: send the file as “file_data”, or upload it and name its “file_id”.", f"{where}.file_url"
            )
        return {"type": "file", "file": {key: part[key] for key in ("filename", "file_data") if part.get(key) is not None}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": object_of(part, "input_audio")}
    raise unsupported(f"The upstream of this model cannot be given a content part of the type “{kind[:60]}”.", f"{where}.type")


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


def response_object(request: Json, ids: Json, model: str, output: list[Json], usage: Json | None, status: str, incomplete: str = "") -> Json:
    """The response object, with every member that OpenAI's has. `ids`: `id`, `created_at` and whatever else the portal knows better."""
    reasoning, text = object_of(request, "reasoning"), object_of(request, "text")
    shown: Json = {
        "id": "", "object": "response", "created_at": 0, "completed_at": None, "status": status, "background": bool(request.get("background")), "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None, "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"), "max_tool_calls": request.get("max_tool_calls"), "model": model, "output": output,
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False, "previous_response_id": request.get("previous_response_id"),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}, "safety_identifier": request.get("safety_identifier"),
        "service_tier": request.get("service_tier") or "default", "store": request.get("store") is not False, "temperature": _number(request.get("temperature")),
        "text": {"format": object_of(text, "format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tool_choice": request.get("tool_choice") or "auto", "tools": objects_of(request, "tools"), "top_logprobs": request.get("top_logprobs") or 0,
        "top_p": _number(request.get("top_p")), "truncation": request.get("truncation") or "disabled", "usage": usage, "user": request.get("user"),
        "metadata": object_of(request, "metadata"),
    }  # fmt: skip
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


def ending(finish: str) -> tuple[str, str]:
    """Status and reason of an incomplete response, from a finish_reason."""
    if finish == "length":
        return "incomplete", "max_output_tokens"
    if finish in {"content_filter", "sensitive"}:
        return "incomplete", "content_filter"
    return "completed", ""


def message_item(item_id: str, text: str, refusal: str, annotations: list[Json], logprobs: list[Json], status: str) -> Json:
    content: list[Json] = []
    if text or not refusal:
        content.append({"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs})
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(item_id: str, text: str) -> Json:
    return {"id": item_id, "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def reasoning_of(message: Json) -> str:
    """A model's thoughts, under whichever of the three names its vendor gives them."""
    return text_of(message, "reasoning_content") or text_of(message, "reasoning") or text_of(message, "thinking")


def text_content(content: object) -> str:
    """The text of a message's content; Mistral's may be a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(text_of(part, "text") for part in content if isinstance(part, dict)) if isinstance(content, list) else ""


def flat_annotations(message: Json) -> list[Json]:
    """Citations as the Responses API writes them."""
    found: list[Json] = []
    for entry in objects_of(message, "annotations"):
        cited = object_of(entry, "url_citation")
        if cited:
            found.append({"type": "url_citation", **{key: cited.get(key) for key in ("start_index", "end_index", "url", "title")}})
    return found


def response_of(completion: Json, request: Json, ids: Json, names: ToolNames, new_id: Sequence[str]) -> Json:
    """A chat completion as a response. `new_id`: endings for the ids of items, at least as many as there are items."""
    choice = next(iter(objects_of(completion, "choices")), {})
    message = object_of(choice, "message")
    status, incomplete = ending(text_of(choice, "finish_reason"))
    output: list[Json] = []
    fresh = iter(new_id)
    thoughts = reasoning_of(message)
    if thoughts:
        output.append(reasoning_item(f"rs_{next(fresh)}", thoughts))
    calls = objects_of(message, "tool_calls")
    text, refusal = text_content(message.get("content")), text_of(message, "refusal")
    if text or refusal or not calls:
        logprobs = objects_of(object_of(choice, "logprobs"), "content")
        output.append(message_item(f"msg_{next(fresh)}", text, refusal, flat_annotations(message), logprobs, status))
    for call in calls:
        function = object_of(call, "function")
        ending_id = next(fresh)
        output.append(
            names.item(text_of(call, "id") or f"call_{ending_id}", f"fc_{ending_id}", text_of(function, "name"), json_text(function.get("arguments") or "{}"), "completed")
        )
    usage = responses_usage(object_of(completion, "usage")) if completion.get("usage") else None
    return response_object(request, ids, text_of(completion, "model") or text_of(request, "model"), output, usage, status, incomplete)


def items_of(completion: Json) -> int:
    """How many output items a chat completion may become."""
    choice = next(iter(objects_of(completion, "choices")), {})
    return 2 + len(objects_of(object_of(choice, "message"), "tool_calls"))


def body_of(form: ChatForm, stream: bool, ask_usage: bool) -> bytes:
    """The bytes to send."""
    extra: Json = {}
    if stream:
        extra["stream"] = True
        if ask_usage:
            extra["stream_options"] = {"include_usage": True}
    return encode({**form.body, **extra})
