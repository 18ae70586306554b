"""A model that says what it is told to, at an upstream of any protocol that refuses what strict ones refuse.

For coding agents: it thinks, calls several tools at once, and wants its thoughts back as it gave them. Sources: the
API references of OpenAI, Anthropic and Google, and what their servers were seen to refuse, November 2026.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.protocols.chat_rules import refusal
from tests.support.peers import gemini, messages
from tests.support.upstream import Call, chunk, completion

CACHED, WRITTEN, THOUGHT = 4, 7, 3  # tokens of each answer that its usage reports
CHAT, RESPONSES, MESSAGES, GEMINI = "chat", "responses", "messages", "gemini"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SEALED = ("signature", "thoughtSignature", "encrypted_content")  # members of which the model must know the value
_IDS = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
_CALLS = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}


@dataclass(frozen=True)
class Said:
    """An answer: thoughts where the request wants them, a text, calls of tools as (name, arguments)."""

    text: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    thought: str = ""
    prompt: int = 0  # tokens that the usage reports; 0: as many as the request seems to have


@dataclass
class ScriptedModel:
    """A script of `tests.support.upstream`: each request is answered by what `decide` says of it."""

    decide: Callable[[Call], Said]
    asked: list[dict[str, Any]] = field(default_factory=list)  # the bodies
    wrong: list[str] = field(default_factory=list)  # why requests were refused
    sealed: list[str] = field(default_factory=list)  # of thoughts: what may come back, unchanged
    needed: list[str] = field(default_factory=list)  # those of answers with calls: they must come back
    prompts: list[int] = field(default_factory=list)  # tokens of them, as the answers report
    thoughts: list[str] = field(default_factory=list)  # what each answer shows of its thought
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def __call__(self, call: Call) -> None:
        self.asked.append(call.json)
        if wrong := self._refusal(call):
            self.wrong.append(wrong)
            await call.error(400, wrong)
            return
        if call.path.partition("?")[0].endswith(("countTokens", "count_tokens")):
            await (gemini.saying() if protocol(call) == GEMINI else messages.saying())(call)
            return
        said = self.decide(call)
        names = tool_names(call.json)
        calls = tuple((_offered(name, names), arguments) for name, arguments in said.calls)
        said = replace(said, calls=calls, prompt=said.prompt or max(len(call.body) // 4, 2 * CACHED))
        self.prompts.append(said.prompt)
        await _ANSWERS[protocol(call)](self, call, said)

    def seal(self, said: Said) -> str:
        """What stands for the thought of an answer, and is told from all others."""
        self.sealed.append(base64.b64encode(f"thought number {next(self.numbers):04}".encode()).decode())
        if said.calls:
            self.needed.append(self.sealed[-1])
        return self.sealed[-1]

    def show(self, said: Said, asked: bool) -> str:
        """The thought of an answer, where the request asks to see it."""
        self.thoughts.append(said.thought if asked else "")
        return self.thoughts[-1]

    def _refusal(self, call: Call) -> str:
        unknown = sorted(set(sealed_in(call.json)) - {*self.sealed, gemini.BYPASS})
        if unknown:
            return f"This thought is none of this model: {unknown[0][:40]}"
        match protocol(call):
            case "chat":
                return refusal(call.json)
            case "responses":
                return responses_refusal(call.json)
            case "messages":
                return messages.fault(call)
            case _:
                return gemini.fault(call)


def protocol(call: Call) -> str:
    path = call.path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return CHAT
    if path.endswith("/responses"):
        return RESPONSES
    return MESSAGES if "/messages" in path else GEMINI


def tool_names(body: Mapping[str, Any]) -> list[str]:
    """The names of functions that a request of any protocol offers."""
    found: list[str] = []
    for tool in body.get("tools") or []:
        inner = [tool.get("function") or tool, *tool.get("functionDeclarations", ())]
        if tool.get("type") == "namespace":
            inner = list(tool["tools"])
        found += [one["name"] for one in inner if "name" in one]
    return found


def sealed_in(value: object) -> Iterator[str]:
    """Signatures and sealed thoughts anywhere in a body, where they are no schema's."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name in _SEALED and isinstance(one, str):
                yield one
            elif name not in {"tools", "input_schema", "parameters"}:
                yield from sealed_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from sealed_in(one)


def responses_refusal(body: Mapping[str, Any]) -> str:
    """Why OpenAI's Responses API answers a request with 400; empty: it does not."""
    for name in tool_names(body):
        if not _NAME.fullmatch(name):
            return f"Invalid 'tools[].name': {name}"
    items = body["input"] if isinstance(body["input"], list) else []
    called: dict[str, str] = {}
    answered: set[str] = set()
    for number, item in enumerate(items):
        kind, prefix = item.get("type", "message"), _IDS.get(item.get("type", "message"), "")
        if item.get("id") and prefix and not item["id"].startswith(prefix):
            return f"Invalid 'input[{number}].id': '{item['id']}'. Expected an ID that begins with '{prefix}'."
        if kind in _CALLS:
            called[item["call_id"]] = _CALLS[kind]
        elif kind in _CALLS.values():
            if called.get(item["call_id"]) != kind:
                return f"No tool call found for function call output with call_id {item['call_id']}."
            answered.add(item["call_id"])
        elif kind == "reasoning" and not item.get("encrypted_content"):
            return f"Item '{item.get('id')}' of type 'reasoning' was provided without its content."
    for call_id in called:
        if call_id not in answered:
            return f"No tool output found for function call {call_id}."
    return ""


def _offered(name: str, names: list[str]) -> str:
    """The upstream's name of a tool, which may stand in a space of names."""
    found = [one for one in names if one == name or one.endswith((f"_{name}", f".{name}"))]
    assert found, f"{name} is not among {sorted(names)}"
    return found[0]


async def _chat(model: ScriptedModel, call: Call, said: Said) -> None:
    usage = {
        "prompt_tokens": said.prompt,
        "completion_tokens": WRITTEN,
        "total_tokens": said.prompt + WRITTEN,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": THOUGHT},
    }
    reason, thought = "tool_calls" if said.calls else "stop", model.show(said, True)
    calls = [
        {
            "id": f"call_a{next(model.numbers)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in said.calls
    ]
    own = {"id": f"chatcmpl-{next(model.numbers)}"}
    if not call.json.get("stream"):
        whole = completion(said.text, usage=usage, **own)
        if thought:
            whole["choices"][0]["message"]["reasoning_content"] = said.thought
        if calls:
            whole["choices"][0]["message"]["tool_calls"] = calls
        whole["choices"][0]["finish_reason"] = reason
        await call.reply(200, whole)
        return
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in _pieces(thought)]
    deltas += [{"content": piece} for piece in _pieces(said.text)]
    for index, one in enumerate(calls):
        function: Any = one["function"]
        deltas.append(
            {"tool_calls": [{"index": index, **one, "function": {"name": function["name"], "arguments": ""}}]}
        )
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in _pieces(function["arguments"])
        ]
    await call.open_stream()
    for delta in deltas:
        await call.event({**chunk(), **own, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await call.event(chunk(None, reason, **own))
    if call.wants_usage:
        await call.event({**chunk(), **own, "choices": [], "usage": usage})
    await call.event("[DONE]")
    await call.end()


async def _responses(model: ScriptedModel, call: Call, said: Said) -> None:
    number = next(model.numbers)
    whole: dict[str, Any] = {
        "id": f"resp_{number:032}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": "u",
        "output": _items(model, call.json, said, number),
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "auto",
        "metadata": {},
        "usage": {
            "input_tokens": said.prompt,
            "input_tokens_details": {"cached_tokens": CACHED},
            "output_tokens": WRITTEN,
            "output_tokens_details": {"reasoning_tokens": THOUGHT},
            "total_tokens": said.prompt + WRITTEN,
        },
    }
    if not call.json.get("stream"):
        await call.reply(200, whole)
        return
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    for index, item in enumerate(whole["output"]):
        events += _item_events(index, item)
    await call.open_stream()
    for position, event in enumerate([*events, {"type": "response.completed", "response": whole}]):
        text = json.dumps({**event, "sequence_number": position})
        await call.send(f"event: {event['type']}\ndata: {text}\n\n".encode())
    await call.end()


def _items(model: ScriptedModel, body: Mapping[str, Any], said: Said, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    reasoning = body.get("reasoning") or {}
    thought = model.show(said, bool(reasoning.get("summary")))
    if said.thought and reasoning and "reasoning.encrypted_content" in (body.get("include") or ()):
        summary = [{"type": "summary_text", "text": thought}] if thought else []
        item = {"id": f"rs_{number}", "type": "reasoning", "summary": summary, "status": "completed"}
        found.append({**item, "encrypted_content": model.seal(said)})
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        item = {"id": f"msg_{number}", "type": "message", "status": "completed", "role": "assistant"}
        found.append({**item, "content": [part]})
    for name, arguments in said.calls:
        one = next(model.numbers)
        item = {"id": f"fc_{one}", "type": "function_call", "status": "completed", "call_id": f"call_a{one}"}
        space = _namespace(body, name)
        named = {"name": name, "arguments": json.dumps(arguments), **({"namespace": space} if space else {})}
        found.append(item | named)
    return found


def _item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    where = {"output_index": index, "item_id": item["id"]}
    match item["type"]:
        case "message":
            empty: dict[str, Any] = {"content": []}
            part = item["content"][0]
            inner = {"content_index": 0, **where}
            between = [{"type": "response.content_part.added", **inner, "part": {**part, "text": ""}}]
            between += [
                {"type": "response.output_text.delta", "delta": piece, "logprobs": [], **inner}
                for piece in _pieces(part["text"])
            ]
            between.append({"type": "response.output_text.done", "text": part["text"], "logprobs": [], **inner})
            between.append({"type": "response.content_part.done", "part": part, **inner})
        case "reasoning":
            empty, between = {"summary": [], "encrypted_content": ""}, []
            for number, part in enumerate(item["summary"]):
                inner = {"summary_index": number, **where}
                told = "response.reasoning_summary"
                between.append({"type": f"{told}_part.added", "part": {**part, "text": ""}, **inner})
                between += [{"type": f"{told}_text.delta", "delta": piece, **inner} for piece in _pieces(part["text"])]
                between.append({"type": f"{told}_text.done", "text": part["text"], **inner})
                between.append({"type": f"{told}_part.done", "part": part, **inner})
        case _:
            empty, told = {"arguments": ""}, "response.function_call_arguments"
            between = [{"type": f"{told}.delta", "delta": piece, **where} for piece in _pieces(item["arguments"])]
            between.append({"type": f"{told}.done", "name": item["name"], "arguments": item["arguments"], **where})
    added = {**item, "status": "in_progress", **empty}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": added},
        *between,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


async def _messages(model: ScriptedModel, call: Call, said: Said) -> None:
    usage = {
        "input_tokens": said.prompt - CACHED,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": CACHED,
        "output_tokens": WRITTEN,
        "output_tokens_details": {"thinking_tokens": THOUGHT},
    }
    blocks: list[dict[str, Any]] = []
    thinking = (call.json.get("thinking") or {}).get("type") in {"enabled", "adaptive"}
    if thought := model.show(said, thinking):
        blocks.append({"type": "thinking", "thinking": thought, "signature": model.seal(said)})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    blocks += [
        {"type": "tool_use", "id": f"toolu_a{next(model.numbers)}", "name": name, "input": dict(arguments)}
        for name, arguments in said.calls
    ]
    # Claude Code takes answers with one id for pieces of one answer.
    own = {"id": f"msg_01{next(model.numbers):022}", "usage": usage}
    await messages.saying(*blocks, stop="tool_use" if said.calls else "end_turn", **own)(call)


async def _gemini(model: ScriptedModel, call: Call, said: Said) -> None:
    usage = {
        "promptTokenCount": said.prompt,
        "cachedContentTokenCount": CACHED,
        "candidatesTokenCount": WRITTEN - THOUGHT,
        "thoughtsTokenCount": THOUGHT,
        "totalTokenCount": said.prompt + WRITTEN,
    }
    thinking = (call.json.get("generationConfig") or {}).get("thinkingConfig") or {}
    parts: list[dict[str, Any]] = []
    if thought := model.show(said, bool(thinking.get("includeThoughts"))):
        parts.append({"text": thought, "thought": True})
    if said.text:
        parts.append({"text": said.text})
    for position, (name, arguments) in enumerate(said.calls):
        part = {"functionCall": {"id": f"fa{next(model.numbers)}", "name": name, "args": dict(arguments)}}
        parts.append(part | ({} if position else {"thoughtSignature": model.seal(said)}))
    await gemini.answer(call, gemini.response(*parts, usageMetadata=usage, responseId=f"r{next(model.numbers):015}"))


_ANSWERS = {CHAT: _chat, RESPONSES: _responses, MESSAGES: _messages, GEMINI: _gemini}


def _namespace(body: Mapping[str, Any], name: str) -> str:
    """The namespace that offers a tool to an upstream of responses, which its calls name; empty: none."""
    for tool in body.get("tools") or ():
        if tool.get("type") == "namespace" and any(one.get("name") == name for one in tool["tools"]):
            return str(tool["name"])
    return ""


def _pieces(text: str) -> list[str]:
    return re.findall(r".{1,7}", text, re.S)
