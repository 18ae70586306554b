"""Amazon Bedrock's Converse, as upstreams speak it; what differs by model is Nova 2's."""

from __future__ import annotations

import base64
from typing import Final

from tests.api.compatibility.apis.common import at
from tests.api.compatibility.conversation import TOOLS, Ask, Inexpressible, Json, Part, Reply, Turn, has_member, joined
from tests.support.peers.clouds import converse as peer
from tests.support.peers.clouds import frames

NAME: Final = "converse"
_OPTIONS: Final = {
    "limit": "inferenceConfig.maxTokens",
    "temperature": "inferenceConfig.temperature",
    "top_p": "inferenceConfig.topP",
    "stop": "inferenceConfig.stopSequences",
    "top_k": "additionalModelRequestFields.inferenceConfig.topK",
    "effort": "additionalModelRequestFields.reasoningConfig.maxReasoningEffort",
    "tier": "serviceTier.type",
}
_REASONS: Final = {
    "stop": "end_turn",
    "calls": "tool_use",
    "length": "max_tokens",
    "sequence": "stop_sequence",
    "refusal": "content_filtered",
}
_KINDS: Final = {"png": "image", "pdf": "pdf", "wav": "audio"}


def fault(body: Json, native: bool) -> str:
    """Why a strict upstream refuses it. The peer looks itself."""
    return ""


def read_ask(body: Json) -> Ask:
    found, names = Ask(system=joined(block.get("text", "") for block in body.get("system") or ())), dict[str, str]()
    for message in body["messages"]:
        parts = tuple(_read_block(block, names) for block in message["content"] if "cachePoint" not in block)
        found.turns.append(Turn(message["role"], parts))
    found.options |= {name: value for name, path in _OPTIONS.items() if (value := at(body, path)) is not None}
    if any("cachePoint" in block for block in body.get("system") or ()):
        found.options["cache_mark"] = True
    if specs := [tool["toolSpec"] for tool in at(body, "toolConfig.tools") or () if "toolSpec" in tool]:
        fitting = (one for one in specs if has_member(one["inputSchema"]["json"], TOOLS[one["name"]]))
        found.options["tools"] = tuple(one["name"] for one in fitting)
        choice = at(body, "toolConfig.toolChoice") or {"auto": {}}
        named = at(choice, "tool.name")
        found.options["choice"] = f"tool:{named}" if named else next(iter(choice))
    if at(body, "outputConfig.textFormat.type") == "json_schema":
        found.options["schema"] = True
    if "JSON object" in found.system:  # the API has no other way to say it
        found.options["json"] = True
    if at(body, "additionalModelRequestFields.reasoningConfig.type") == "disabled":
        found.options["effort"] = "none"
    return found


def _read_block(block: Json, names: dict[str, str]) -> Part:
    ((kind, value),) = block.items()
    if kind in {"image", "document", "audio"}:
        return Part(_KINDS.get(value["format"], value["format"]), value["source"]["bytes"])
    match kind:
        case "text":
            return Part("text", value)
        case "toolUse":
            names[value["toolUseId"]] = value["name"]
            return Part("call", value["input"][TOOLS[value["name"]]], value["name"])
        case "toolResult":
            inner = [_read_block(one, names) for one in value["content"]]
            text = joined(part.value for part in inner if part.kind == "text")
            others = tuple(part for part in inner if part.kind != "text")
            return Part("result", text, names[value["toolUseId"]], value.get("status") == "error", others)
        case "reasoningContent" if "redactedContent" in value:
            return Part("redacted", base64.b64decode(value["redactedContent"]).decode())
        case "reasoningContent":
            return Part("thought", value["reasoningText"]["text"], value["reasoningText"]["signature"])
    return Part(kind, "")


def write_reply(reply: Reply) -> tuple[Json, Reply]:
    """A complete answer, and what it says in this API."""
    used = reply.used
    if reply.others or reply.logprobs or used.audio_in or used.audio_out or used.reasoning:
        raise Inexpressible("what Converse lacks")
    content: list[Json] = []
    if reply.thought:
        said = {"text": reply.thought, **({"signature": reply.signature} if reply.signature else {})}
        content.append({"reasoningContent": {"reasoningText": said}})
    if reply.redacted:
        hidden = base64.b64encode(reply.redacted.encode()).decode()
        content.append({"reasoningContent": {"redactedContent": hidden}})
    if reply.cited:
        where = {"title": reply.cited[1], "location": {"web": {"url": reply.cited[0]}}}
        content.append({"citationsContent": {"content": [{"text": reply.text}], "citations": [where]}})
    elif text := reply.text or reply.refusal:
        content.append({"text": text})
    content += [
        {"toolUse": {"toolUseId": f"up_{number}", "name": part.name, "input": {TOOLS[part.name]: part.value}}}
        for number, part in enumerate(reply.calls)
    ]
    assert used.input is not None and used.output is not None
    cached, written, hour = used.cached or 0, used.written or 0, used.hour or 0
    usage: Json = {
        "inputTokens": used.input - cached - written,
        "outputTokens": used.output,
        "totalTokens": used.input + used.output,
        "cacheReadInputTokens": cached,
        "cacheWriteInputTokens": written,
        "cacheDetails": [{"ttl": "5m", "inputTokens": written - hour}, {"ttl": "1h", "inputTokens": hour}],
    }
    whole = peer.answer(*content, stop=_REASONS[reply.end], usage=usage)
    return whole, Reply(**{**vars(reply), "used": used.without("reasoning", "audio_in", "audio_out")})


def events(whole: Json) -> list[bytes]:
    return [frames.event(name, event) for name, event in peer.events(whole)]


def error_of(text: str) -> Json:
    return {"message": text}


def error_event(text: str) -> bytes:
    return frames.exception("modelStreamErrorException", text)
