"""An upstream as Bedrock's Converse and CountTokens, for `tests.support.upstream`: as strict as the real one.

Every body is checked against the service model, and answers are, too. What the model does not say is from Bedrock's
user guide (“Using the Converse API”, “Call a tool”, “Prompt caching”), November 2026.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from tests.support.peers.clouds import frames
from tests.support.peers.clouds.bedrock import Account, refuse
from tests.support.peers.clouds.shapes import fault
from tests.support.upstream import Call, Script

USAGE: dict[str, Any] = {
    "inputTokens": 9,
    "outputTokens": 7,
    "totalTokens": 26,
    "cacheReadInputTokens": 4,
    "cacheWriteInputTokens": 6,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 2}, {"ttl": "5m", "inputTokens": 4}],
}
TEXT: dict[str, Any] = {"text": "Hello there."}
TOOL: dict[str, Any] = {
    "toolUse": {"toolUseId": "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", "name": "weather", "input": {"city": "Oslo"}}
}
THOUGHT: dict[str, Any] = {"reasoningContent": {"reasoningText": {"text": "They greet me.", "signature": "c2lnbmVk"}}}
HIDDEN: dict[str, Any] = {"reasoningContent": {"redactedContent": base64.b64encode(b"hidden").decode()}}
_PATH = re.compile(r"/model/([^/]+)/(converse|converse-stream|count-tokens)")


def answer(*content: dict[str, Any], stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    whole = {
        "output": {"message": {"role": "assistant", "content": list(content or (TEXT,))}},
        "stopReason": stop,
        "usage": USAGE,
        "metrics": {"latencyMs": 551},
        **more,
    }
    assert not fault("ConverseResponse", whole), fault("ConverseResponse", whole)
    return whole


def events(whole: dict[str, Any], size: int = 5) -> list[tuple[str, dict[str, Any]]]:
    """The frames of a stream that says the same, with texts in pieces."""
    found: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(whole["output"]["message"]["content"]):
        at = {"contentBlockIndex": index}
        if "toolUse" in block:
            used = block["toolUse"]
            start = {name: value for name, value in used.items() if name != "input"}
            found.append(("contentBlockStart", {"start": {"toolUse": start}, **at}))
            written = json.dumps(used["input"]) if used["input"] else ""
            deltas: Iterable[dict[str, Any]] = ({"toolUse": {"input": piece}} for piece in _pieces(written, size))
        elif "reasoningContent" in block:
            thought = block["reasoningContent"]
            said = thought.get("reasoningText", {})
            deltas = [{"reasoningContent": {"text": piece}} for piece in _pieces(said.get("text", ""), size)]
            deltas += [{"reasoningContent": {"signature": said["signature"]}}] if "signature" in said else []
            hidden = thought.get("redactedContent")
            deltas += [{"reasoningContent": {"redactedContent": hidden}}] if hidden else []
        elif "citationsContent" in block:
            said = block["citationsContent"]
            deltas = [{"text": part["text"]} for part in said["content"]]
            deltas += [{"citation": one} for one in said["citations"]]
        elif "image" in block:
            found.append(("contentBlockStart", {"start": {"image": {"format": block["image"]["format"]}}, **at}))
            deltas = [{"image": {"source": block["image"]["source"]}}]
        else:
            deltas = [{"text": piece} for piece in _pieces(block["text"], size)]
        found += [("contentBlockDelta", {"delta": delta, **at}) for delta in deltas]
        found.append(("contentBlockStop", at))
    found.append(("messageStop", {"stopReason": whole["stopReason"]}))
    found.append(("metadata", {"usage": whole["usage"], "metrics": whole["metrics"]}))
    for name, event in found:
        assert not fault("ConverseStreamOutput", {name: event}), fault("ConverseStreamOutput", {name: event})
    return found


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def saying(account: Account, *content: dict[str, Any], ending: bytes = b"", tokens: int = 0, **more: Any) -> Script:
    """Answers every request, which must be right, with these blocks. `ending`: in place of the last two frames.

    `tokens`: what is counted.
    """
    whole = answer(*content, **more)
    return answering(account, lambda _call: whole, ending, tokens)


def answering(account: Account, made: Callable[[Call], dict[str, Any]], ending: bytes = b"", tokens: int = 0) -> Script:
    """The same with an answer that depends on the request."""

    async def script(call: Call) -> None:
        wrong_key = account.fault(call)
        found = _PATH.fullmatch(call.path)
        if wrong_key is not None:
            await refuse(call, 403, *wrong_key)
        elif found is None:
            await refuse(call, 404, "UnknownOperationException", "")
        elif wrong := _wrong(call, found[2]):
            await refuse(call, 400, "ValidationException", wrong)
        elif found[2] == "count-tokens":
            await call.reply(200, {"inputTokens": tokens})
        elif found[2] == "converse":
            await call.reply(200, made(call))
        else:
            await _stream(call, events(made(call)), ending)

    return script


async def _stream(call: Call, sent: list[tuple[str, dict[str, Any]]], ending: bytes) -> None:
    await call.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for name, event in sent[:-2] if ending else sent:
        await call.send(frames.event(name, {**event, "p": "abcdefghij"}))  # with its padding
    if ending:
        await call.send(ending)
    await call.end()


_REQUESTS = {
    "converse": "ConverseRequest",
    "converse-stream": "ConverseStreamRequest",
    "count-tokens": "CountTokensRequest",
}


def wrong_call(call: Call) -> str:
    """What the API finds wrong with a request, whoever makes it; empty: nothing."""
    found = _PATH.fullmatch(call.path)
    return _wrong(call, found[2]) if found is not None else f"unknown path {call.path}"


def _wrong(call: Call, operation: str) -> str:
    body = call.json
    if wrong := fault(_REQUESTS[operation], body):
        return wrong
    if operation == "count-tokens":
        counted = json.loads(base64.b64decode(body["input"]["invokeModel"]["body"]))
        needed = {"anthropic_version", "max_tokens", "messages"}
        return "" if needed <= counted.keys() and "model" not in counted else "Malformed input request"
    return _conversation(body)


def _conversation(body: dict[str, Any]) -> str:
    """What the model of the service does not say of conversations."""
    turns = body.get("messages", [])
    if not turns or turns[0]["role"] != "user":
        return "A conversation must start with a user message. Try again with a conversation that starts with one."
    names: list[str] = []
    called: set[str] = set()
    for number, turn in enumerate(turns):
        content = turn["content"]
        if not content:
            return f"The content field in the Message object at messages.{number} is empty."
        if number and turn["role"] == turns[number - 1]["role"]:
            return "roles must alternate between user and assistant"
        if any("text" in block and not block["text"].strip() for block in content):
            return f"The text field in the ContentBlock object at messages.{number}.content is blank."
        results = {block["toolResult"]["toolUseId"] for block in content if "toolResult" in block}
        if results != called:
            return f"Expected toolResult blocks at messages.{number}.content for the following Ids: {sorted(called)}"
        used = [block["toolUse"] for block in content if "toolUse" in block]
        called = {one["toolUseId"] for one in used}
        if any(not isinstance(one["input"], dict) for one in used):
            return f"The value at messages.{number}.content.toolUse.input is no object"
        if (used or results) and "toolConfig" not in body:
            return "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        files = [block["document"] for block in content if "document" in block]
        if files and not any("text" in block for block in content):
            return "A text block must be included along with a document block."
        names += [file["name"] for file in files]
        if any(not re.fullmatch(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*", name) for name in names):
            return f"The document file name can only contain alphanumeric characters: {names}"
    if len(names) > len(set(names)):
        return "Messages can not contain duplicate document names."
    return ""


def models(account: Account, *on_demand: str, profiles: tuple[str, ...] = ()) -> Script:
    """Both lists of a region's models, as the control plane has them."""

    async def script(call: Call) -> None:
        if (wrong := account.fault(call)) is not None:
            await refuse(call, 403, *wrong)
        elif call.path == "/inference-profiles?maxResults=1000":
            listed = [{"inferenceProfileId": name, "status": "ACTIVE", "type": "SYSTEM_DEFINED"} for name in profiles]
            await call.reply(200, {"inferenceProfileSummaries": listed})
        elif call.path == "/foundation-models?byOutputModality=TEXT&byInferenceType=ON_DEMAND":
            kinds = {"inferenceTypesSupported": ["ON_DEMAND"], "outputModalities": ["TEXT"]}
            await call.reply(200, {"modelSummaries": [{"modelId": name, **kinds} for name in on_demand]})
        else:
            await refuse(call, 404, "UnknownOperationException", "")

    return script
