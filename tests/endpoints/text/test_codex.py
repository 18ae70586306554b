"""Sessions of the newest Codex, recorded through the relay, and played again: shell, MCP tools behind a tool search,
patches, code mode, interruptions, steering, compactions, and a change of models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.protocols.responses.compaction import expand_summaries
from tests.endpoints.text.responses_upstream import USED, response
from tests.protocols.chat_rules import refusal
from tests.protocols.codecs import chat_form
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import USAGE, Call, chunk, completion

pytestmark = pytest.mark.shared

KINDS = ("chat", "responses")


def recording(kind: str) -> dict[str, Any]:
    path = Path(__file__).with_name("recordings") / f"codex_{kind}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def requests_of(session: dict[str, Any]) -> list[dict[str, Any]]:
    """The body of each exchange, without the model."""
    return [
        {**session["members"][one["members"]], "input": [session["items"][number] for number in one["input"]]}
        for one in session["exchanges"]
    ]


class Replay:
    """An upstream that says what the recording says, and refuses what strict ones refuse."""

    def __init__(self, session: dict[str, Any]) -> None:
        self.answers = [one["answer"] for one in session["exchanges"]]
        self.next = 0
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, call: Call) -> None:
        body = call.json
        if call.path == "/v1/responses/compact":
            await call.reply(404, {"detail": "Not Found"})
            return
        self.asked.append(body)
        answer = self.answers[self.next]
        if call.path == "/v1/chat/completions":
            if refused := refusal(body):
                await call.error(400, refused)
                return
            await self._chat(call, answer)
        else:
            assert call.path == "/v1/responses" and "compaction_trigger" not in str(body["input"])
            await self._responses(call, answer)

    async def _chat(self, call: Call, answer: Any) -> None:
        if isinstance(answer, str):
            await call.reply(200, completion(answer))
            return
        await call.open_stream()
        for delta in answer:
            await call.event({**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        if self.interrupted(answer):
            await call.closed_event()
        await call.event(chunk(None, "tool_calls" if "tool_calls" in str(answer) else "stop"))
        await call.event({**chunk(), "choices": [], "usage": USAGE})
        await call.event("[DONE]")
        await call.end()

    async def _responses(self, call: Call, answer: Any) -> None:
        if isinstance(answer, str):
            await call.reply(200, response(1, answer))
            return
        made = response(1, "", output=answer)
        await call.open_stream()
        await call.event({"type": "response.created", "response": {**made, "status": "in_progress", "output": []}})
        for index, item in enumerate(answer):
            await call.event({"type": "response.output_item.added", "output_index": index, "item": item})
            if item["type"] == "message":
                where = {"output_index": index, "content_index": 0, "item_id": item["id"]}
                text = item["content"][0]["text"]
                await call.event({"type": "response.output_text.delta", **where, "delta": text})
            if item["type"] != "message" or not self.interrupted(answer):
                await call.event({"type": "response.output_item.done", "output_index": index, "item": item})
        if self.interrupted(answer):
            await call.closed_event()
        await call.event({"type": "response.completed", "response": made})
        await call.end()

    def interrupted(self, answer: Any) -> bool:
        return "It began when" in "".join(_texts(answer))


def _texts(answer: Any) -> list[str]:
    found = [delta.get("content") or "" for delta in answer if isinstance(delta.get("content"), str)]
    return found + [part["text"] for item in answer if item.get("type") == "message" for part in item["content"]]


def _events(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def _without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_codex_goes_through_every_channel(live: Portal, server: Server, kind: str) -> None:
    session = recording(kind)
    replay = Replay(session)
    model = live.model(replay, text_api=kind, price={"input": 1, "output": 1})
    token = live.token()
    server.catch_up()
    client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False)
    for number, (body, one) in enumerate(zip(requests_of(session), session["exchanges"], strict=True)):
        replay.next = number
        with client.stream("POST", f"{server.v1}/responses", json={**body, "model": model}) as answer:
            assert answer.status_code == 200, answer.read()
            lines: list[str] = []
            for line in answer.iter_lines():
                lines.append(line)
                if one.get("interrupted") and "response.output_text.delta" in line and line.startswith("data"):
                    break
        if one.get("interrupted"):
            live.upstream.wait_closed(model)
            continue
        events = _events(lines)
        assert events[-1]["type"] == "response.completed", events[-1]
        output = events[-1]["response"]["output"]
        done = [event for event in events if event["type"] == "response.output_item.done"]
        items = [event["item"] for event in sorted(done, key=lambda event: event["output_index"])]
        assert items == output, "Codex reads the items, not the response"
        if isinstance(one["answer"], str):
            assert [item["type"] for item in output] == ["compaction"]
        assert _without_ids(output) == one["output"]
    client.close()
    assert len(session["exchanges"]) == len(replay.asked) == 25
    assert USED["output_tokens"] == USAGE["completion_tokens"] == live.record(answer).output_tokens


def test_every_turn_of_a_session_can_go_on_at_a_chat_channel() -> None:
    """Also one that began at a channel of the Responses API."""
    for kind in KINDS:
        session = recording(kind)
        for body, one in zip(requests_of(session), session["exchanges"], strict=True):
            if isinstance(one["answer"], str):
                continue  # asks for a compaction
            form = chat_form({**body, "model": "m"}, expand_summaries(body["input"]))
            assert not refusal(form.body)
            own = ".internal_chat_message_metadata_passthrough]"  # of Codex, on each item
            assert {name for name in form.dropped if not name.endswith(own)} <= {"tools[web_search]"}
            names = [tool["function"]["name"] for tool in form.body["tools"]]
            assert "exec_command" in names or "functions__exec" in names
            called = [
                call["function"]["name"] for message in form.body["messages"] for call in message.get("tool_calls", [])
            ]
            assert set(called) <= set(names), "the history calls tools by the names under which they are offered"
