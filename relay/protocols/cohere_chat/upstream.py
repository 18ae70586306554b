"""Converts between the hub and upstreams that speak Cohere's own API, /v2/chat, for clients of other APIs. Pure.

Source: Cohere's API reference and its SDK 7.3, November 2026.
"""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import BUDGET, TOP_K, reported_extensions, without_extensions
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.cohere_chat.upstream_stream import CohereDecoder, completion_of, is_error
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.fields import BadRequest, lower_limit, unsupported
from relay.protocols.naming.tool_names import with_accepted_names

API: Final = "cohere.chat"
_LIMIT: Final = "max_tokens"
# Members with the same meaning, by their names there.
_SAME: Final = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    TOP_K: "k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
# Members of its own that clients send as they are.
_OWN: Final = ("documents", "citation_options", "safety_mode", "strict_tools", "priority", "thinking")
_HANDLED: Final = frozenset((
    "model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "reasoning_effort",
    "functions", "function_call", "stop", "n", "modalities", BUDGET, *_LIMITS, *_SAME, *_OWN,
))  # fmt: skip
# Members that the answer depends on and the API lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "audio": (),
    "modalities": (["text"],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "prediction": (),
    "web_search_options": (),
}
_NO_OUTPUT: Final = "(no output)"  # the API refuses a result without content
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})
_MOST_STOPS: Final = 5
_EFFORTS: Final = frozenset(("minimal", "low", "medium", "high", "xhigh", "max"))
# Tokens of thinking for the efforts that mean less than it thinks by itself: it knows budgets, and no efforts.
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 4096}
_SINGLE: Final = "parallel_tool_calls"


class CohereUpstream:
    """Upstreams that speak Cohere's API."""

    api = API
    answer_name = "an answer of /v2/chat"
    refuses_longer = True

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
        body: Json = {
            "model": hub.get("model"),
            "messages": [_message(message) for message in objects_of(chat, "messages") if _says(message)],
        }
        body.update({told: hub[name] for name, told in _SAME.items() if hub.get(name) is not None})
        # It need not look for citations that nobody asks for.
        body["citation_options"] = {"mode": "OFF"}
        body.update({name: hub[name] for name in _OWN if hub.get(name) is not None})
        if _loses_citations(hub):
            dropped.append("citation_options")
        limits = [limit for name in _LIMITS if isinstance(limit := hub.get(name), int) and limit > 0]
        if limits:
            body[_LIMIT] = min(limits)
        stops = hub.get("stop")
        stops = [stops] if isinstance(stops, str) else stops
        if isinstance(stops, list) and stops:
            if len(stops) > _MOST_STOPS:
                raise BadRequest(f"The upstream of this model takes {_MOST_STOPS} stop sequences at most.", "stop")
            body["stop_sequences"] = stops
        _set_tools(hub, chat, body)
        _set_format(hub, body)
        _set_thinking(hub, body)
        dropped += [
            *reported_extensions({name: value for name, value in hub.items() if name not in {TOP_K, BUDGET}}),
            *(name for name, value in chat.items() if name not in _HANDLED | _NEEDED.keys() and value not in _EMPTY),
            *([_SINGLE] if chat.get(_SINGLE) is False and "tools" in body else []),
        ]
        return ConvertedRequest(body, list(dict.fromkeys(dropped)), names)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        body[_LIMIT] = lower_limit(body.get(_LIMIT), max(tokens, 1))
        _fit_thinking(body, tokens)

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        return encode({**body, "stream": stream})

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        found, broken = read_object(body)
        if found is None:
            return None
        if is_error(found):
            return Completion(None, None, encode(clean(found)) if broken else body)
        if not isinstance(found.get("message"), dict):
            return None
        if broken:
            whole = clean(found)
            found = whole if isinstance(whole, dict) else {}
        return completion_of(found)

    def decoder(self, dialect: Dialect) -> CohereDecoder:
        return CohereDecoder()


def _loses_citations(hub: Json) -> bool:
    """Whether citations are asked for that others have no form for: of documents without an address."""
    mode = text_of(object_of(hub, "citation_options"), "mode")
    documents = hub.get("documents")
    if mode in {"", "OFF"} or not isinstance(documents, list):
        return False
    return not all(isinstance(one, dict) and text_of(object_of(one, "data"), "url") for one in documents)


def _fit_thinking(body: Json, tokens: int) -> None:
    """Keep the budget of thinking, which is part of the answer's tokens, below this limit of them."""
    thinking = object_of(body, "thinking")
    budget = thinking.get("token_budget")
    if isinstance(budget, int) and budget >= tokens:
        body["thinking"] = {**thinking, "token_budget": tokens - 1} if tokens > 1 else {"type": "disabled"}


def _says(message: Json) -> bool:
    """Whether a message may be sent: the API refuses those of users and systems that are empty."""
    return bool(message.get("content")) or text_of(message, "role") in {"assistant", "tool"}


def _message(message: Json) -> Json:
    """A message in its form. Raises BadRequest."""
    role, content = text_of(message, "role"), message.get("content")
    found: Json = {"role": "system" if role == "developer" else role}
    parts: list[Json] = []
    for number, part in enumerate(objects_of(message, "content")):
        kind = text_of(part, "type")
        if kind in {"text", "refusal"}:
            parts.append({"type": "text", "text": text_of(part, kind)})
        elif kind == "image_url" and role == "user":
            parts.append({"type": "image_url", "image_url": object_of(part, "image_url")})
        else:
            raise unsupported(
                f"The upstream of this model takes texts, and images of the user, and no “{kind[:60]}” here. Leave it "
                "out, or use another model.",
                f"messages[].content[{number}]",
            )
    if role == "assistant":
        if thoughts := text_of(message, "reasoning_content"):
            parts.insert(0, {"type": "thinking", "thinking": thoughts})
            if isinstance(content, str) and content:
                parts.append({"type": "text", "text": content})
        if calls := objects_of(message, "tool_calls"):
            found["tool_calls"] = [
                {"id": call.get("id"), "type": "function", "function": object_of(call, "function")} for call in calls
            ]
    if role == "tool":
        found["tool_call_id"] = message.get("tool_call_id")
        content = content or _NO_OUTPUT
    if parts:
        found["content"] = parts
    elif isinstance(content, str) and (content or role != "assistant"):
        found["content"] = content
    return found


def _set_tools(hub: Json, chat: Json, body: Json) -> None:
    choice, tools = hub.get("tool_choice"), objects_of(chat, "tools")
    named = text_of(object_of(choice, "function"), "name") if isinstance(choice, dict) else ""
    if named:  # one tool that must be called is the only one that can be
        tools = [tool for tool in tools if text_of(object_of(tool, "function"), "name") == named]
    if not tools:
        return
    body["tools"] = tools
    if choice == "none":
        body["tool_choice"] = "NONE"
    elif named or choice == "required":
        body["tool_choice"] = "REQUIRED"


def _set_format(hub: Json, body: Json) -> None:
    shape = object_of(hub, "response_format")
    kind = text_of(shape, "type")
    if kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        schema = object_of(object_of(shape, "json_schema"), "schema")
        body["response_format"] = {"type": "json_object", "json_schema": schema} if schema else {"type": "json_object"}


def _set_thinking(hub: Json, body: Json) -> None:
    """Only what is asked for, and what the client has not set in the API's own way."""
    budget, effort = hub.get(BUDGET), text_of(hub, "reasoning_effort")
    if "thinking" in body:
        return
    if budget == 0 or effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif isinstance(budget, int):
        body["thinking"] = {"type": "enabled", "token_budget": budget}
    elif effort in _EFFORTS:
        body["thinking"] = {"type": "enabled"}
        if effort in _BUDGETS:
            body["thinking"] = {"type": "enabled", "token_budget": _BUDGETS[effort]}
            if isinstance(limit := body.get(_LIMIT), int):
                _fit_thinking(body, limit)
