"""Converts between the hub and upstreams that speak the Messages API, for clients of other APIs. Pure.

`relay.protocols.anthropic_messages.upstream_stream` converts streams.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.anthropic_messages.answer import parse_messages_answer, whole_message
from relay.protocols.anthropic_messages.conversion.schemas import structured_schema
from relay.protocols.anthropic_messages.conversion.thinking import fit_thinking, set_thinking, takes_beginnings
from relay.protocols.anthropic_messages.conversion.tools import messages_tool_choice, messages_tools
from relay.protocols.anthropic_messages.conversion.turns import turns_of
from relay.protocols.anthropic_messages.upstream_stream import MessagesDecoder, completion_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.hub import EXTENSIONS
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.events import Unreadable
from relay.protocols.fields import lower_limit, unsupported
from relay.protocols.naming.tool_names import with_accepted_names

_LIMIT: Final = "max_tokens"
_DEFAULT_LIMIT: Final = 4096  # tokens, where neither the request nor the model says how long an answer may be
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
# Members that are converted below.
_HANDLED: Final = frozenset((
    "model", "messages", "stream", "stream_options", "n", "stop", "temperature", "top_p", "top_k", "tools",
    "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format", "reasoning_effort", "user",
    "safety_identifier", "service_tier", "store", "cache_control", *_LIMITS,
))  # fmt: skip
# Members that the answer depends on and the API lacks, with the values for which that makes no difference.
_NEEDED: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
}
_EMPTY: Final[tuple[object, ...]] = (None, False, 0, "", [], {})
# A person is not named to the vendor: an address, or a telephone number.
_PERSONAL: Final = re.compile(r"@|^\+?[\d\s()./-]{7,}$")
_TIERS: Final = {"auto": "auto", "default": "standard_only"}
_LONGEST_USER: Final = 256  # characters of an id (API reference)
_MARK: Final = "cache_control"
_MOST_MARKS: Final = 4  # ends of cached prefixes
_GO_ON: Final = "(Go on.)"
_ONLY_JSON: Final = "Answer with a JSON object and nothing else."


class MessagesUpstream:
    """Upstreams that speak the Messages API."""

    api = "messages"
    answer_name = "a message"
    refuses_longer = True

    def address(self, stream: bool) -> tuple[str, str]:
        return self.api, ""

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        for name, harmless in _NEEDED.items():
            if hub.get(name) is not None and hub[name] not in harmless:
                message = (
                    f"The upstream of this model cannot honour “{name}”, and without it the answer would be another. "
                    "Leave it out, or use another model."
                )
                raise unsupported(message, name)
        hub, names = with_accepted_names(hub)
        system, turns, dropped = turns_of(objects_of(hub, "messages"), dialect.vendor)
        body: Json = {"model": hub.get("model"), _LIMIT: _limit(hub, dialect)}
        if turns and turns[-1]["role"] == "assistant" and not takes_beginnings(text_of(hub, "model")):
            turns.append({"role": "user", "content": [{"type": "text", "text": _GO_ON}]})
        body["messages"] = turns
        dropped += _set_format(hub, body, system)
        if system:
            body["system"] = system
        dropped += _set_tools(hub, body)
        stops = hub.get("stop")
        stops = [stops] if isinstance(stops, str) else stops
        if isinstance(stops, list) and (told := [one for one in stops if isinstance(one, str) and one.strip()]):
            body["stop_sequences"] = told
        dropped += set_thinking(hub, body, turns)
        dropped += _set_user(hub, body)
        if tier := text_of(hub, "service_tier"):
            if tier in _TIERS:
                body["service_tier"] = _TIERS[tier]
            else:
                dropped.append("service_tier")
        if isinstance(hub.get("cache_control"), dict):
            body["cache_control"] = hub["cache_control"]
        dropped += _limit_marks(body)
        known = _HANDLED.union(_NEEDED, EXTENSIONS)
        dropped += [name for name, value in hub.items() if name not in known and value not in _EMPTY]
        return ConvertedRequest(body, list(dict.fromkeys(dropped)), names)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        body[_LIMIT] = lower_limit(body.get(_LIMIT), max(tokens, 1))
        fit_thinking(body)

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        whole = {**body, "stream": True} if stream else body
        return encode(whole if dialect.envelope is None else dialect.envelope.put(whole))

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        text, error = whole_message(body)
        if error is not None:
            return Completion(None, None, error)
        answer = parse_messages_answer(text)
        if answer is None:
            return None
        if answer.error is not None:
            return Completion(None, None, answer.error)
        message, broken = read_object(text)
        if message is None:
            return None
        try:
            completion = completion_of(message, dialect.vendor)
        except Unreadable:
            return None
        if broken:
            whole = clean(completion)
            completion = whole if isinstance(whole, dict) else {}
        return Completion(completion, answer.usage)

    def decoder(self, dialect: Dialect) -> MessagesDecoder:
        return MessagesDecoder(dialect.vendor, not dialect.sends_done)


def _limit(hub: Json, dialect: Dialect) -> int:
    """The limit of the answer, which this API demands: without one, the longest answer of the model."""
    limits = [limit for name in _LIMITS if isinstance(limit := hub.get(name), int) and limit > 0]
    return min(limits) if limits else dialect.longest or _DEFAULT_LIMIT


def _set_tools(hub: Json, body: Json) -> list[str]:
    tools, dropped = messages_tools(objects_of(hub, "tools"))
    choice, tools = messages_tool_choice(hub.get("tool_choice"), hub.get("parallel_tool_calls"), tools)
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
    return dropped


def _set_format(hub: Json, body: Json, system: list[Json]) -> list[str]:
    shape = object_of(hub, "response_format")
    kind = text_of(shape, "type")
    if kind == "json_schema":
        schema = structured_schema(object_of(object_of(shape, "json_schema"), "schema"))
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif kind == "json_object":  # the API has it with a schema only
        system.append({"type": "text", "text": _ONLY_JSON})
        return ["response_format"]
    return []


def _limit_marks(body: Json) -> list[str]:
    """Leave four ends of cached prefixes, and name what is left out: the first stays, which conversations share, and
    the last ones, up to which this one is cached.
    """
    turns = [block for turn in objects_of(body, "messages") for block in objects_of(turn, "content")]
    holders = [one for one in (*objects_of(body, "tools"), *objects_of(body, "system"), *turns) if _MARK in one]
    most = _MOST_MARKS - (1 if _MARK in body else 0)
    surplus = holders[1 : len(holders) - most + 1]
    for holder in surplus:
        del holder[_MARK]
    return [f"messages[].content[].{_MARK}"] if surplus else []


def _set_user(hub: Json, body: Json) -> list[str]:
    name = next((name for name in ("safety_identifier", "user") if text_of(hub, name)), "")
    user = text_of(hub, name)
    if not user:
        return []
    if _PERSONAL.search(user):
        return [name]
    told = user if len(user) <= _LONGEST_USER else hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
    body["metadata"] = {"user_id": told}
    return []
