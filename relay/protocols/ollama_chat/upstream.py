"""Converts between the hub and upstreams that speak Ollama's own API, /api/chat, for clients of other APIs. Pure.

Source: Ollama's API reference and its SDK 0.6, November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import BUDGET, TOP_K, reported_extensions, without_extensions
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.error_objects import is_error_object
from relay.protocols.fields import lower_limit, unsupported
from relay.protocols.naming.tool_names import with_accepted_names
from relay.protocols.ollama_chat.upstream_stream import OllamaDecoder, completion_of

API: Final = "ollama.chat"
_OPTIONS: Final = "options"
_LIMIT: Final = "num_predict"
_SINGLE: Final = "parallel_tool_calls"
# Members with the same meaning, by their names among its options.
_SAME: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    TOP_K: "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
    "num_ctx": "num_ctx",
}
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_OWN: Final = ("keep_alive", "think", "truncate", "shift")  # members of its own that clients send as they are
_HANDLED: Final = frozenset((
    "model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "reasoning_effort",
    _SINGLE, "functions", "function_call", "n", "modalities", _OPTIONS, BUDGET, *_LIMITS, *_SAME, *_OWN,
))  # fmt: skip
# Members that the answer depends on and the API lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "audio": (),
    "modalities": (["text"],),
    "logit_bias": ({},),
    "prediction": (),
    "web_search_options": (),
}
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})
# Levels that its models know; the others mean the nearest one.
_LEVELS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_DATA_URL: Final = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


class OllamaUpstream:
    """Upstreams that speak Ollama's API."""

    api = API
    answer_name = "an answer of /api/chat"
    refuses_longer = False

    def address(self, stream: bool) -> tuple[str, str]:
        return self.api, ""

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        for name, harmless in _NEEDED.items():
            if hub.get(name) is not None and hub[name] not in harmless:
                raise unsupported(
                    f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. "
                    "Leave it out, or use another model.",
                    name,
                )
        hub, names = with_accepted_names(hub)
        messages, dropped = strict_messages(objects_of(hub, "messages"), late_system=True)
        chat = without_extensions({**hub, "messages": messages})
        called: dict[str, str] = {}
        body: Json = {
            "model": hub.get("model"),
            "messages": [_message(message, called) for message in objects_of(chat, "messages")],
        }
        options = {**object_of(hub, _OPTIONS), **_options(hub)}
        if options:
            body[_OPTIONS] = options
        body.update({name: hub[name] for name in _OWN if hub.get(name) is not None})
        _set_tools(hub, chat, body)
        _set_format(hub, body)
        _set_thinking(hub, body)
        dropped += [
            *reported_extensions({name: value for name, value in hub.items() if name not in {TOP_K, BUDGET}}),
            *(name for name, value in chat.items() if name not in _HANDLED | _NEEDED.keys() and value not in _EMPTY),
            *([_SINGLE] if hub.get(_SINGLE) is False and "tools" in body else []),
        ]
        return ConvertedRequest(body, list(dict.fromkeys(dropped)), names)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        options = object_of(body, _OPTIONS)
        told = options.get(_LIMIT)
        own = told if isinstance(told, int) and told > 0 else None  # -1 and -2: without a limit
        body[_OPTIONS] = {**options, _LIMIT: lower_limit(own, max(tokens, 1))}

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        return encode({**body, "stream": stream})  # its default is a stream

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        found, broken = read_object(body)
        if found is None:
            return None
        answered = isinstance(found.get("message"), dict)
        if is_error_object(found, answered):
            return Completion(None, None, encode(clean(found)) if broken else body)
        if not answered or found.get("done") is not True:
            return None
        if broken:
            whole = clean(found)
            found = whole if isinstance(whole, dict) else {}
        return completion_of(found)

    def decoder(self, dialect: Dialect) -> OllamaDecoder:
        return OllamaDecoder()


def _options(hub: Json) -> Json:
    found: Json = {told: hub[name] for name, told in _SAME.items() if hub.get(name) is not None}
    stop = found.get("stop")
    if isinstance(stop, str):
        found["stop"] = [stop]
    limits = [limit for name in _LIMITS if isinstance(limit := hub.get(name), int) and limit > 0]
    return {**found, _LIMIT: min(limits)} if limits else found


def _message(message: Json, names: dict[str, str]) -> Json:
    """A message in its form. `names`: of the tools that were called, by the ids of the calls. Raises BadRequest."""
    role, content = text_of(message, "role"), message.get("content")
    found: Json = {"role": "system" if role == "developer" else role}
    texts: list[str] = [content] if isinstance(content, str) else []
    images: list[str] = []
    for number, part in enumerate(objects_of(message, "content")):
        kind = text_of(part, "type")
        if kind in {"text", "refusal"}:
            texts.append(text_of(part, kind))
        elif kind == "image_url":
            images.append(_image(text_of(object_of(part, "image_url"), "url"), number))
        else:
            raise unsupported(
                f"The upstream of this model takes texts and images only, and no “{kind[:60]}”. Leave it out, or use "
                "another model.",
                f"messages[].content[{number}]",
            )
    found["content"] = "\n".join(texts)
    if images:
        found["images"] = images
    if thoughts := text_of(message, "reasoning_content"):
        found["thinking"] = thoughts
    if role == "tool":
        found["tool_name"] = names.get(text_of(message, "tool_call_id"), "")
    if calls := objects_of(message, "tool_calls"):
        found["tool_calls"] = [_call(call, names) for call in calls]
    return found


def _call(call: Json, names: dict[str, str]) -> Json:
    function = object_of(call, "function")
    name = text_of(function, "name")
    names[text_of(call, "id")] = name
    return {"function": {"name": name, "arguments": decode_object(text_of(function, "arguments")) or {}}}


def _image(url: str, number: int) -> str:
    """The Base64 of an image. Raises BadRequest: the server fetches nothing."""
    if (found := _DATA_URL.match(url)) is None:
        raise unsupported(
            "The upstream of this model fetches no images: send the image itself, as a data URL in Base64.",
            f"messages[].content[{number}].image_url",
        )
    return url[found.end() :]


def _set_tools(hub: Json, chat: Json, body: Json) -> None:
    """Raises BadRequest where a call is demanded: the model decides."""
    choice = hub.get("tool_choice")
    if choice == "none":
        return
    if choice not in (None, "auto"):
        raise unsupported(
            "The upstream of this model cannot be made to call a tool: leave “tool_choice” out, or use another model.",
            "tool_choice",
        )
    if tools := objects_of(chat, "tools"):
        body["tools"] = tools


def _set_format(hub: Json, body: Json) -> None:
    shape = object_of(hub, "response_format")
    kind = text_of(shape, "type")
    if kind == "json_object":
        body["format"] = "json"
    elif kind == "json_schema":
        body["format"] = object_of(object_of(shape, "json_schema"), "schema") or "json"


def _set_thinking(hub: Json, body: Json) -> None:
    """Only what is asked for: without it a model does as it is made, and one that cannot think refuses to."""
    effort = text_of(hub, "reasoning_effort")
    if hub.get(BUDGET) == 0 or effort == "none":
        body.setdefault("think", False)
    elif effort in _LEVELS:
        body.setdefault("think", _LEVELS[effort])
