"""Summaries by models whose server leaves in the text what they think, and the calls that they write."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared

TALK = [{"role": "user", "content": f"{number}. They like tea."} for number in range(20)]
COMPACT, TRIGGER = "/v1/responses/compact", "/v1/responses"
BODIES: list[tuple[str, list[dict[str, Any]]]] = [(COMPACT, TALK), (TRIGGER, [*TALK, {"type": "compaction_trigger"}])]


def model_that_writes(live: Portal, text: str) -> str:
    async def script(call: Call) -> None:
        await call.reply(200, completion(text))

    return live.model(script, text_api="chat", price={"input": 1, "output": 1})


@pytest.mark.parametrize(
    "text",
    [
        "Okay. <think>The user wants a summary of the whales.</think>",
        "<THINK>whales</THINK>",
        "<thought>whales</thought>",
        "Here is my thought process: the user wants a summary of the whales.",
        "<|start|>assistant<|channel|>analysis<|message|>whales<|end|>",
        "<|begin_of_thought|>whales<|end_of_thought|>",
        "<|inner_prefix|>whales<|inner_suffix|>",
        "<summary></summary>",
    ],
)
def test_thinking_alone_replaces_no_conversation(live: Portal, server: Server, text: str) -> None:
    model, token = model_that_writes(live, text), live.token()
    for path, given in BODIES:
        answer = server.post(token, {"model": model, "input": given}, path=path)
        assert answer.status_code == 502 and live.record(answer).cost == 0, answer.text


def test_a_call_in_the_text_replaces_no_conversation(live: Portal, server: Server) -> None:
    text = 'I read it first.\n<tool_call>{"name": "read", "arguments": {}}</tool_call>'
    model, token = model_that_writes(live, text), live.token()
    for path, given in BODIES:
        answer = server.post(token, {"model": model, "input": given}, path=path)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "compaction_incomplete"
        assert "tool calls" in answer.json()["error"]["message"] and live.record(answer).cost > 0


@pytest.mark.parametrize("text", ["<summary>They like tea.</summary>", "<thought>whales</thought>They like tea."])
def test_what_is_said_beside_is_the_summary(live: Portal, server: Server, text: str) -> None:
    model, token = model_that_writes(live, text), live.token()
    made = server.post(token, {"model": model, "input": TALK}, path=COMPACT).json()["output"]
    assert server.post(token, {"model": model, "input": made[1:]}, path=TRIGGER).status_code == 200
    told = str(live.upstream.last(model).json)
    assert "They like tea." in told and "whales" not in told
