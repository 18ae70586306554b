"""Anthropic's Messages API, as clients and upstreams speak it."""

from __future__ import annotations

from typing import Any, Final

from tests.api.compatibility.apis.common import at, put
from tests.api.compatibility.conversation import (
    SCHEMA,
    TOOLS,
    Ask,
    Inexpressible,
    Json,
    Part,
    Reply,
    Turn,
    Used,
    has_member,
    joined,
    parameters_of,
)
from tests.support.apis.answers import Answer
from tests.support.peers import messages as peer

NAME: Final = "messages"
ENDS: Final = frozenset(("stop", "calls", "length", "sequence", "refusal"))
STOP: Final = "END"  # the stop sequence of asks
_OPTIONS: Final = {
    "limit": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "effort": "output_config.effort",
    "tier": "service_tier",
}
_SEARCH: Final = {"type": "web_search_20250305", "name": "web_search"}
_MARK: Final = {"cache_control": {"type": "ephemeral"}}
_ENDS: Final = {
    "stop": "end_turn",
    "calls": "tool_use",
    "length": "max_tokens",
    "sequence": "stop_sequence",
    "refusal": "refusal",
}


# -- requests ----------------------------------------------------------------------------------------------------------


def write_ask(ask: Ask) -> Json:
    if ask.options.get("developer"):
        raise Inexpressible("developer")
    body: Json = {"max_tokens": 4000}
    body["messages"] = [{"role": turn.role, "content": [_block(part) for part in turn.parts]} for turn in ask.turns]
    for message, turn in zip(body["messages"], ask.turns, strict=True):
        if len(turn.parts) == 1 and turn.parts[0].kind == "text":
            message["content"] = turn.parts[0].value
    if ask.system:
        marked = [{"type": "text", "text": ask.system, **_MARK}]
        body["system"] = marked if ask.options.get("cache_mark") else ask.system
    choice: Json = {}
    for name, value in ask.options.items():
        if name == "tier":
            body["service_tier"] = {"default": "standard_only"}[value] if value != "flex" else _no(value)
        elif name in _OPTIONS:
            put(body, _OPTIONS[name], value)
        elif name == "tools":
            body["tools"] = [{"name": one, "input_schema": parameters_of(one)} for one in value]
        elif name == "choice":
            tool = value.removeprefix("tool:")
            choice |= {"type": "tool", "name": tool} if tool != value else {"type": value}
        elif name == "single":
            choice |= {"type": choice.get("type", "auto"), "disable_parallel_tool_use": True}
        elif name == "schema":
            put(body, "output_config.format", {"type": "json_schema", "schema": SCHEMA})
        elif name == "search":
            body["tools"] = [_SEARCH]
        elif name == "budget":
            body["thinking"] = {"type": "enabled", "budget_tokens": value}
        elif name != "cache_mark":
            raise Inexpressible(name)
    if ask.options.get("effort") == "none":
        del body["output_config"]
        body["thinking"] = {"type": "disabled"}
    elif "effort" in ask.options:
        body["thinking"] = {"type": "adaptive"}
    return {**body, "tool_choice": choice} if choice else body


def _no(value: str) -> str:
    raise Inexpressible(value)


def _block(part: Part) -> Json:
    match part.kind:
        case "text":
            return {"type": "text", "text": part.value}
        case "image":
            return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": part.value}}
        case "image_url":
            return {"type": "image", "source": {"type": "url", "url": part.value}}
        case "pdf":
            source = {"type": "base64", "media_type": "application/pdf", "data": part.value}
            return {"type": "document", "source": source, "title": "one.pdf"}
        case "pdf_url":
            return {"type": "document", "source": {"type": "url", "url": part.value}}
        case "call":
            return {
                "type": "tool_use",
                "id": f"call_{part.name}",
                "name": part.name,
                "input": {TOOLS[part.name]: part.value},
            }
        case "result":
            inner = [{"type": "text", "text": part.value}, *map(_block, part.inner)]
            found: Json = {"type": "tool_result", "tool_use_id": f"call_{part.name}", "content": inner}
            return {**found, "is_error": True} if part.failed else found
    raise Inexpressible(part.kind)


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it. The peers look themselves."""
    return ""


def read_ask(body: Json) -> Ask:
    system = body.get("system") or ""
    blocks = [{"text": system}] if isinstance(system, str) else system
    found, names = Ask(system=joined(block["text"] for block in blocks)), dict[str, str]()
    for message in body["messages"]:
        content = message["content"]
        given = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found.turns.append(Turn(message["role"], tuple(_read_block(block, names) for block in given)))
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    if tier := found.options.get("tier"):
        found.options["tier"] = {"standard_only": "default"}.get(tier, tier)
    if any("cache_control" in block for block in blocks):
        found.options["cache_mark"] = True
    tools = body.get("tools") or []
    if functions := [tool for tool in tools if "input_schema" in tool]:
        found.options["tools"] = tuple(
            tool["name"] for tool in functions if has_member(tool["input_schema"], TOOLS[tool["name"]])
        )
    if any(str(tool.get("type", "")).startswith("web_search") for tool in tools):
        found.options["search"] = True
    choice = body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        found.options["choice"] = f"tool:{choice['name']}"
    elif choice:
        found.options["choice"] = choice["type"]
    if choice.get("disable_parallel_tool_use"):
        found.options["single"] = True
    if has_member(at(body, "output_config.format.schema"), "city"):
        found.options["schema"] = True
    if "JSON object" in found.system:  # the API has no other way to say it
        found.options["json"] = True
    thinking = body.get("thinking") or {}
    if budget := thinking.get("budget_tokens"):
        found.options["budget"] = budget
    if thinking.get("type") == "disabled":
        found.options["effort"] = "none"
    return found


def _read_block(block: Json, names: dict[str, str]) -> Part:
    match block["type"]:
        case "text":
            return Part("text", block["text"])
        case "image" | "document":
            source = block["source"]
            kind = "image" if block["type"] == "image" else "pdf"
            if source["type"] == "url":
                return Part(f"{kind}_url", source["url"])
            right = source["media_type"] == {"image": "image/png", "pdf": "application/pdf"}[kind]
            return Part(kind if right else source["media_type"], source["data"])
        case "tool_use":
            names[block["id"]] = block["name"]
            return Part("call", block["input"][TOOLS[block["name"]]], block["name"])
        case "tool_result":
            content = block["content"]
            inner = (
                [Part("text", content)] if isinstance(content, str) else [_read_block(one, names) for one in content]
            )
            text = joined(part.value for part in inner if part.kind == "text")
            others = tuple(part for part in inner if part.kind != "text")
            return Part("result", text, names.get(block["tool_use_id"], ""), block.get("is_error", False), others)
        case "thinking":
            return Part("thought", block["thinking"], block["signature"])
        case "redacted_thinking":
            return Part("redacted", block["data"])
    return Part(block["type"], "")


# -- answers -----------------------------------------------------------------------------------------------------------


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    if reply.others or reply.logprobs or reply.used.audio_in or reply.used.audio_out:
        raise Inexpressible("what messages lack")
    content: list[Json] = []
    if reply.thought:
        content.append({"type": "thinking", "thinking": reply.thought, "signature": reply.signature or "EqQBCkYIBxgC"})
    if reply.redacted:
        content.append({"type": "redacted_thinking", "data": reply.redacted})
    if text := reply.text or reply.refusal:
        block: Json = {"type": "text", "text": text}
        if reply.cited:
            where = {"type": "web_search_result_location", "url": reply.cited[0], "title": reply.cited[1]}
            block["citations"] = [{**where, "cited_text": reply.text, "encrypted_index": "Eo8BCio"}]
        content.append(block)
    for number, part in enumerate(reply.calls):
        called = {"id": f"toolu_{number}", "name": part.name, "input": {TOOLS[part.name]: part.value}}
        content.append({"type": "tool_use", **called})
    whole = peer.message(*content, stop=_ENDS[reply.end], usage=_usage(reply.used))
    if reply.end == "sequence":
        whole["stop_sequence"] = STOP
    return whole, Reply(**{**vars(reply), "used": reply.used.without("audio_in", "audio_out")})


def _usage(used: Used) -> Json:
    assert used.input is not None
    cached, written, hour = used.cached or 0, used.written or 0, used.hour or 0
    found: Json = {
        "input_tokens": used.input - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": used.output,
        "service_tier": "standard",
    }
    return {**found, "output_tokens_details": {"thinking_tokens": used.reasoning}} if used.reasoning else found


def events(whole: Json) -> list[bytes]:
    return [peer.wire([event]) for event in peer.events(whole)]


def error_of(text: str) -> Json:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": text}, "request_id": "req_up"}


def error_event(text: str) -> bytes:
    return peer.wire([{"type": "error", "error": {"type": "api_error", "message": text}}])


def read_reply(answer: Answer) -> Reply:
    """What a client of this API is told."""
    for event in answer.events:
        if event.get("type") == "error":
            assert {"type", "message"} <= event["error"].keys(), event
            return Reply(error=event["error"]["message"], begins=answer.events[0].get("type") == "message_start")
    content = answer.final["content"]
    cited = [one for block in content for one in block.get("citations") or ()]
    stop = answer.final["stop_reason"]
    called = [block for block in content if block["type"] == "tool_use"]
    return Reply(
        text=answer.said,
        thought=answer.thought,
        redacted=joined(block["data"] for block in content if block["type"] == "redacted_thinking"),
        calls=tuple(Part("call", block["input"][TOOLS[block["name"]]], block["name"]) for block in called),
        cited=(cited[0]["url"], cited[0]["title"]) if cited else None,
        end=next((end for end, reason in _ENDS.items() if reason == stop), str(stop)),
        used=_used(answer.final["usage"]),
    )


def _used(usage: Any) -> Used:
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return Used(
        input=usage["input_tokens"] + cached + written,
        cached=cached,
        written=written,
        hour=at(usage, "cache_creation.ephemeral_1h_input_tokens"),
        output=usage["output_tokens"],
        reasoning=at(usage, "output_tokens_details.thinking_tokens") or 0,
        audio_in=None,
        audio_out=None,
    )
