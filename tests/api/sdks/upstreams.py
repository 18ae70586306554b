"""Upstreams of several APIs that say the same: what a client of any API must get from each of them, and send to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.endpoints.text.responses_upstream import response
from tests.support.peers import gemini, messages
from tests.support.peers.clouds import bedrock, converse
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Script, chunk, completion


@dataclass(frozen=True)
class Said:
    """What an upstream answers: a thought, a text, calls of tools by id, name and arguments."""

    text: str = ""
    thought: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = field(default=())


HELLO = Said("Hello there.")
PARIS, ROME = ("call_1", "weather", {"city": "Paris"}), ("call_2", "weather", {"city": "Rome"})
ACCOUNT = bedrock.Account()


async def _anthropic(call: Call, said: Said) -> None:
    blocks: list[dict[str, Any]] = [{**messages.THINKING, "thinking": said.thought}] if said.thought else []
    blocks += [{"type": "text", "text": said.text}] if said.text else []
    blocks += [{"type": "tool_use", "id": name, "name": tool, "input": given} for name, tool, given in said.calls]
    await messages.saying(*blocks, stop="tool_use" if said.calls else "end_turn")(call)


async def _gemini(call: Call, said: Said) -> None:
    parts: list[dict[str, Any]] = [{"text": said.thought, "thought": True}] if said.thought else []
    parts += [{"text": said.text}] if said.text else []
    for number, (name, tool, given) in enumerate(said.calls):
        signed = {} if number else {"thoughtSignature": gemini.SIGNATURE}
        parts.append({"functionCall": {"id": name, "name": tool, "args": given}, **signed})
    whole = gemini.response(*parts)
    if said.calls and call.path.endswith("alt=sse") and not gemini.fault(call):
        *pieces, last = gemini.pieces(whole)  # the reason stands beside the last call, as there
        pieces[-1]["candidates"][0]["finishReason"] = "STOP"
        pieces[-1]["usageMetadata"] = last["usageMetadata"]
        await call.open_stream()
        for piece in pieces:
            await call.send(_data(piece))
        await call.end()
    else:
        await gemini.answer(call, whole)


async def _chat(call: Call, said: Said) -> None:
    finish = "tool_calls" if said.calls else "stop"
    calls = [
        {"id": name, "type": "function", "function": {"name": tool, "arguments": json.dumps(given)}}
        for name, tool, given in said.calls
    ]
    if not call.json.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
        message |= {"reasoning_content": said.thought} if said.thought else {}
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        await call.reply(200, completion("", choices=[choice]))
        return
    await call.open_stream()
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": said.thought}] if said.thought else []
    deltas += [{"content": piece} for piece in said.text.partition(" ") if piece]
    for index, one in enumerate(calls):
        arguments: str = one["function"]["arguments"]  # type: ignore[index]
        opened = {**one, "function": {**one["function"], "arguments": ""}}  # type: ignore[dict-item]
        deltas.append({"tool_calls": [{"index": index, **opened}]})
        for piece in (arguments[:5], arguments[5:]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    for delta in deltas:
        await call.event(chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]))
    await call.event(chunk(None, finish))
    if call.wants_usage:
        await call.event(chunk(choices=[], usage=completion()["usage"]))
    await call.event("[DONE]")
    await call.end()


async def _responses(call: Call, said: Said) -> None:
    items: list[dict[str, Any]] = []
    if said.thought:
        summary = [{"type": "summary_text", "text": said.thought}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary})
    if said.text:
        items += response(1, said.text)["output"]
    for name, tool, given in said.calls:
        called = {"call_id": name, "name": tool, "arguments": json.dumps(given), "status": "completed"}
        items.append({"type": "function_call", "id": f"fc_{name}", **called})
    whole = response(1, "", output=items)
    if not call.json.get("stream"):
        await call.reply(200, whole)
        return
    await call.open_stream()
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(items):
        events += _item_events(index, item)
    events.append({"type": "response.completed", "response": whole})
    for number, event in enumerate(events):
        await call.send(b"event: %s\n" % event["type"].encode() + _data({**event, "sequence_number": number}))
    await call.end()


async def _converse(call: Call, said: Said) -> None:
    blocks: list[dict[str, Any]] = []
    if said.thought:
        blocks.append({"reasoningContent": {"reasoningText": {"text": said.thought}}})
    blocks += [{"text": said.text}] if said.text else []
    blocks += [{"toolUse": {"toolUseId": name, "name": tool, "input": given}} for name, tool, given in said.calls]
    await converse.saying(ACCOUNT, *blocks, stop="tool_use" if said.calls else "end_turn")(call)


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    of: dict[str, Any] = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        opened = {**item, "arguments": "", "status": "in_progress"}
        pieces = [item["arguments"][:5], item["arguments"][5:]]
        inner = [{"type": "response.function_call_arguments.delta", "delta": piece, **of} for piece in pieces]
        inner.append({"type": "response.function_call_arguments.done", "arguments": item["arguments"], **of})
    elif item["type"] == "reasoning":
        opened, text, of = {**item, "summary": []}, item["summary"][0]["text"], {**of, "summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        inner = [{"type": "response.reasoning_summary_part.added", "part": part, **of}]
        inner.append({"type": "response.reasoning_summary_text.delta", "delta": text, **of})
        inner.append({"type": "response.reasoning_summary_text.done", "text": text, **of})
        inner.append({"type": "response.reasoning_summary_part.done", "part": {**part, "text": text}, **of})
    else:
        opened, of = {**item, "content": [], "status": "in_progress"}, {**of, "content_index": 0}
        whole = item["content"][0]
        inner = [{"type": "response.content_part.added", "part": {**whole, "text": ""}, **of}]
        for piece in whole["text"].partition(" "):
            inner.append({"type": "response.output_text.delta", "delta": piece, "logprobs": [], **of})
        inner.append({"type": "response.output_text.done", "text": whole["text"], "logprobs": [], **of})
        inner.append({"type": "response.content_part.done", "part": whole, **of})
    first = {"type": "response.output_item.added", "output_index": index, "item": opened}
    return [first, *inner, {"type": "response.output_item.done", "output_index": index, "item": item}]


@dataclass(frozen=True)
class Kind:
    """An API of upstreams."""

    name: str
    answer: Callable[[Call, Said], Awaitable[None]]
    channel: dict[str, Any]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("anthropic", _anthropic, {"provider": "anthropic"}),
        Kind("gemini", _gemini, {"provider": "gemini"}),
        Kind("chat", _chat, {"provider": "openai", "text_api": "chat"}),
        Kind("responses", _responses, {"provider": "openai", "text_api": "responses"}),
    )
}


# Those and the API of a cloud, whose requests are signed.
EVERY_KIND = {**KINDS, "converse": Kind("converse", _converse, {"provider": "bedrock_claude"})}
# What models are called at the upstreams that go by it.
_NAMES = {"gemini": "gemini-3", "converse": "openai.gpt-oss"}


@dataclass
class Talk:
    """A model at an upstream, and what that was asked."""

    kind: Kind
    live: Portal
    model: str
    up: str

    @property
    def requests(self) -> list[Call]:
        return [call for call in self.live.upstream.calls if call.body and call.model == self.up]

    @property
    def last(self) -> dict[str, Any]:
        return self.requests[-1].json

    @property
    def seen(self) -> str:
        """The newest request as one text: what must have arrived in it, wherever its API has it."""
        return json.dumps(self.last, ensure_ascii=False)


def talk(live: Portal, server: Server, name: str, *turns: Said, **options: Any) -> Talk:
    """A model whose upstream answers the first request by the first of these, the next one by the next, and so on."""
    kind, left = EVERY_KIND[name], list(turns)

    async def script(call: Call) -> None:
        await kind.answer(call, left.pop(0) if len(left) > 1 else left[0])

    return at(live, server, name, script, **options)


def at(live: Portal, server: Server, name: str, script: Script, **options: Any) -> Talk:
    """A model whose upstream does as a script says."""
    kind = EVERY_KIND[name]
    up = live.name(_NAMES.get(name, "up"))
    channel = kind.channel
    if name == "converse":
        root = live.upstream.base_url.removesuffix("/v1")
        channel = {"channels": [live.channel(root, keys=(ACCOUNT.api_key,), **channel)]}
    model = live.model(script, upstream_name=up, **{**channel, **options})
    server.catch_up()
    return Talk(kind, live, model, up)
