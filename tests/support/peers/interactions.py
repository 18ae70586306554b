"""An upstream that speaks Gemini's Interactions API: as strict as the real one, with a memory for each key.

Source: google-genai 3.6.1 (`interactions`), ai.google.dev/gemini-api/docs/{interactions,streaming,api-errors,
background-execution}; November 2026.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.upstream import Call, Script, Upstream

USAGE: dict[str, Any] = {
    "total_tokens": 23,
    "total_input_tokens": 9,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 9}],
    "total_cached_tokens": 4,
    "total_output_tokens": 7,
    "output_tokens_by_modality": [{"modality": "text", "tokens": 7}],
    "total_tool_use_tokens": 2,
    "total_thought_tokens": 5,
}
THOUGHT: dict[str, Any] = {
    "type": "thought",
    "summary": [{"type": "text", "text": "They greet me."}],
    "signature": "AY89a18iOcE=",
}
HELLO: dict[str, Any] = {"type": "model_output", "content": [{"type": "text", "text": "Hello there."}]}
CALL: dict[str, Any] = {"type": "function_call", "id": "fc_8f2b", "name": "weather", "arguments": {"city": "Paris"}}
_TOP = {
    "model", "agent", "agent_config", "background", "cached_content", "continuation_token", "environment",
    "generation_config", "input", "labels", "previous_interaction_id", "response_format", "response_mime_type",
    "response_modalities", "safety_settings", "service_tier", "store", "stream", "system_instruction", "tools",
    "webhook_config",
}  # fmt: skip
_PATH = re.compile(r"/v1(?:beta)?/interactions(?:/([^/]+)(/cancel)?)?")
_DONE = b"event: done\ndata: [DONE]\n\n"


@dataclass
class Kept:
    """An interaction that this upstream keeps."""

    key: str
    whole: dict[str, Any]  # as it is when it has ended
    status: str
    events: list[dict[str, Any]] = field(default_factory=list)


class Peer:
    """Answers with these steps, one list after the other; the last again and again."""

    def __init__(self, *turns: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
        self.turns = list(turns) or [[THOUGHT, HELLO]]
        self.usage = USAGE if usage is None else usage
        self.kept: dict[str, Kept] = {}
        self.asked: list[dict[str, Any]] = []  # bodies of requests for one
        self.keys: list[str] = []  # with which they came
        self.revisions: list[str] = []  # of the API, as all requests name it
        self.polls = 0
        self.polls_needed = 2  # until one in the background has ended
        self.cancelled: list[str] = []
        self.deleted: list[str] = []
        self.ends: dict[str, Any] = {"status": "completed"}  # members of the last one at its end
        self.pause: asyncio.Event | None = None  # in the middle of a stream
        self.cut = False  # there

    async def __call__(self, call: Call) -> None:
        url = urlsplit(call.path)
        found = _PATH.fullmatch(url.path)
        key = call.headers.get("x-goog-api-key", "")
        self.revisions.append(call.headers.get("api-revision", ""))
        if found is None or not key:
            code, status = ("authentication", 401) if found is not None else ("not_found", 404)
            await refuse(call, status, code, "Authentication is missing." if found else "Not found.")
        elif found[1] is None:
            await self._create(call, key)
        else:
            await self._of_one(call, key, found[1], found[2] is not None, parse_qs(url.query))

    # -- create --------------------------------------------------------------------------------------------------------

    async def _create(self, call: Call, key: str) -> None:
        body = call.json
        self.asked.append(body)
        self.keys.append(key)
        if wrong := self._wrong(body, key):
            await refuse(call, *wrong)
            return
        name = self._name()
        steps = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        status = "requires_action" if any(step["type"] == "function_call" for step in steps) else "completed"
        made: dict[str, Any] = {
            "id": name,
            "object": "interaction",
            "status": status,
            **{one: body[one] for one in ("model", "agent", "previous_interaction_id") if one in body},
            "created": "2026-11-30T07:00:00Z",
            "updated": "2026-11-30T07:00:01Z",
            "role": "model",
            "steps": steps,
            "usage": self.usage,
            **({} if status == "requires_action" else self.ends),
        }
        kept = Kept(key, made, "in_progress" if body.get("background") else made["status"], events_of(made))
        if body.get("store", True):
            self.kept[name] = kept
        if body.get("stream"):
            await self._stream(call, kept.events)
        else:
            await call.reply(200, self._shown(kept))

    def _wrong(self, body: dict[str, Any], key: str) -> tuple[int, str, str] | None:
        unknown = next((name for name in body if name not in _TOP), None)
        previous = body.get("previous_interaction_id")
        if unknown is not None:
            return 400, "parameter_unknown", f"Unknown parameter '{unknown}'."
        if ("model" in body) == ("agent" in body):
            return 400, "invalid_request", "Exactly one of 'model' and 'agent' must be set."
        if "agent" in body and "generation_config" in body:
            return 400, "invalid_request", "'generation_config' is not supported with 'agent'."
        if body.get("background") and not body.get("store", True):
            return 400, "invalid_request", "background=true requires store=true."
        if str(body.get("agent", "")).startswith("deep-research") and not body.get("background"):
            return 400, "invalid_request", "Agent interactions must be run with background=true."
        if not body.get("input") and not previous:
            return 400, "invalid_request", "'input' is required."
        if previous and (previous not in self.kept or self.kept[previous].key != key):
            return 404, "not_found", f"Interaction {previous} not found."
        return None

    def _name(self) -> str:
        number = len(self.asked).to_bytes(6, "big") + bytes(range(18))
        return "v1_" + base64.urlsafe_b64encode(number).decode()

    def _shown(self, kept: Kept) -> dict[str, Any]:
        if kept.status != "in_progress":
            return kept.whole | {"status": kept.status}
        done = kept.whole["steps"][: self.polls]
        return {**{name: kept.whole[name] for name in kept.whole if name != "usage"}, "status": kept.status,
                "steps": done}  # fmt: skip

    async def _stream(self, call: Call, events: list[dict[str, Any]]) -> None:
        await call.open_stream()
        for number, event in enumerate(events):
            if number == len(events) // 2:
                if self.cut:
                    call.cut()
                    return
                if self.pause is not None:
                    await self.pause.wait()
            await call.send(written(event))
        await call.send(_DONE)
        await call.end()

    # -- one that is kept ----------------------------------------------------------------------------------------------

    async def _of_one(self, call: Call, key: str, name: str, cancel: bool, query: dict[str, list[str]]) -> None:
        kept = self.kept.get(name)
        if kept is None or kept.key != key:
            await refuse(call, 404, "not_found", f"Interaction {name} not found.")
        elif cancel:
            self.cancelled.append(name)
            if kept.status == "in_progress":
                kept.status = "cancelled"
            await call.reply(200, self._shown(kept))
        elif call.method == "DELETE":
            self.deleted.append(name)
            del self.kept[name]
            await call.reply(200, {})
        elif query.get("stream") == ["true"]:
            after = query.get("last_event_id", [""])[0]
            names = [event["event_id"] for event in kept.events]
            await self._stream(call, kept.events[names.index(after) + 1 if after else 0 :])
        else:
            self.polls += 1
            if kept.status == "in_progress" and self.polls >= self.polls_needed:
                kept.status = kept.whole["status"]
            await call.reply(200, self._shown(kept))


class InteractionsUpstream(Upstream):
    """A server of its own: its GET and DELETE requests name no model."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer

    def _script(self, call: Call, model: str) -> Script:
        return self.peer


def written(event: dict[str, Any]) -> bytes:
    return f"event: {event['event_type']}\ndata: {json.dumps(event)}\n\n".encode()


def events_of(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of an interaction: texts in pieces, and no steps in the last one."""
    head = {name: whole[name] for name in ("id", "object", "model", "agent", "created") if name in whole}
    found: list[dict[str, Any]] = [
        {"interaction": {**head, "status": "in_progress"}, "event_type": "interaction.created"},
        {"interaction_id": whole["id"], "status": "in_progress", "event_type": "interaction.status_update"},
    ]
    for index, step in enumerate(whole["steps"]):
        shell = {name: step[name] for name in step if name not in {"content", "summary", "signature", "arguments"}}
        found.append({"index": index, "step": shell, "event_type": "step.start"})
        found += [{"index": index, "delta": delta, "event_type": "step.delta"} for delta in _deltas(step)]
        found.append({"index": index, "event_type": "step.stop"})
    ended = {name: whole[name] for name in whole if name != "steps"}
    found.append({"interaction": ended, "event_type": "interaction.completed"})
    return [{**event, "event_id": f"ev{number}"} for number, event in enumerate(found)]


def _deltas(step: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for content in step.get("content", ()):
        if content["type"] != "text":
            found.append(content)
            continue
        found += [{"type": "text", "text": text} for text in re.findall(r".{1,5}", content["text"], re.S)]
    for content in step.get("summary", ()):
        pieces = re.findall(r".{1,5}", content["text"], re.S)
        found += [{"type": "thought_summary", "content": {"type": "text", "text": text}} for text in pieces]
    if "signature" in step:
        found.append({"type": "thought_signature", "signature": step["signature"]})
    if "arguments" in step:
        pieces = re.findall(r".{1,6}", json.dumps(step["arguments"]))
        found += [{"type": "arguments_delta", "arguments": piece} for piece in pieces]
    return found


async def refuse(call: Call, status: int, code: str, text: str) -> None:
    await call.reply(status, {"error": {"code": code, "message": text}})
