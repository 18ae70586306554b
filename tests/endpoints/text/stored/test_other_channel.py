"""A conversation that goes on at a channel of another kind: the portal has put it together, so it is never refused."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import response
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, hello

pytestmark = pytest.mark.shared
# Output items of hosted tools, as OpenAI's reference lists them.
HOSTED: dict[str, dict[str, Any]] = {
    "web_search_call": {"id": "ws_1", "status": "completed", "action": {"type": "search", "query": "weather"}},
    "file_search_call": {"id": "fs_1", "status": "completed", "queries": ["weather"], "results": None},
    "code_interpreter_call": {
        "id": "ci_1",
        "status": "completed",
        "code": "print(1)",
        "container_id": "cntr_1",
        "outputs": [{"type": "logs", "logs": "1"}],
    },
    "image_generation_call": {"id": "ig_1", "status": "completed", "result": "iVBORw0KGgo" * 200},
    "local_shell_call": {
        "id": "lsh_1",
        "call_id": "call_1",
        "status": "completed",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
    },
    "mcp_list_tools": {"id": "mcpl_1", "server_label": "docs", "tools": []},
    "mcp_call": {"id": "mcp_1", "server_label": "docs", "name": "find", "arguments": "{}", "output": "found"},
    "computer_call": {
        "id": "cu_1",
        "call_id": "call_2",
        "status": "completed",
        "action": {"type": "screenshot"},
        "pending_safety_checks": [],
    },
    "apply_patch_call": {
        "id": "ap_1",
        "call_id": "call_3",
        "status": "completed",
        "operation": {"type": "delete_file"},
    },
    "an_item_of_next_year": {"id": "x_1", "content": "?"},
}


def native_then_chat(live: Portal, server: Server, item: dict[str, Any]) -> str:
    """A model whose first channel answers with an item, once, and is down from then on; the second speaks chat."""
    answered = []

    async def script(call: Call) -> None:
        if call.path == "/v1/chat/completions":
            await hello(call)
            return
        answered.append(call)
        if len(answered) > 1:
            await call.error(503, "overloaded", "overloaded")
            return
        answer = response(1, "It rains.")
        sealed = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
        await call.reply(200, {**answer, "output": [sealed, item, *answer["output"]]})

    channels = [live.channel(priority=5, text_api="responses"), live.channel(text_api="chat")]
    model = live.model(script, channels=channels)
    server.catch_up()
    return model


@pytest.mark.parametrize("kind", HOSTED)
@pytest.mark.parametrize("way", ["previous_response_id", "conversation"])
def test_calls_of_hosted_tools_are_told_to_a_channel_of_chat(
    sdk: OpenAI, live: Portal, server: Server, kind: str, way: str
) -> None:
    model = native_then_chat(live, server, {"type": kind, **HOSTED[kind]})
    talk: Any = {"conversation": sdk.conversations.create().id} if way == "conversation" else {}
    first = sdk.responses.create(model=model, input="What is the weather?", tools=[{"type": "web_search"}], **talk)
    follow = talk or {"previous_response_id": first.id}
    second = sdk.responses.with_raw_response.create(model=model, input="And tomorrow?", **follow)
    assert second.parse().output_text == "Hello there."
    left_out = second.headers["x-airelays-ignored-parameters"].split(",")
    assert f"input[{kind}]" in left_out and "input[reasoning.encrypted_content]" in left_out
    told = live.upstream.last(model).json["messages"]
    assert [message["role"] for message in told if message["role"] == "user"][-1:] == ["user"]
    assert told[-1]["content"] == "And tomorrow?" and any("It rains." in str(one["content"]) for one in told)
    assert "gAAA" not in str(told)
    assert sdk.responses.retrieve(second.parse().id).output_text == "Hello there."


def test_a_stream_goes_on_at_a_channel_of_chat(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = native_then_chat(live, server, {"type": "web_search_call", **HOSTED["web_search_call"]})
    first = sdk.responses.create(model=model, input="What is the weather?")
    with sdk.responses.stream(model=model, input="And tomorrow?", previous_response_id=first.id) as events:
        second = events.get_final_response()
    assert second.output_text == "Hello there." and second.previous_response_id == first.id
    third = sdk.responses.create(model=model, input="And then?", previous_response_id=second.id)
    told = [message["content"] for message in live.upstream.last(model).json["messages"]]
    assert third.output_text == "Hello there." and told[-3:] == ["And tomorrow?", "Hello there.", "And then?"]


def test_only_the_history_is_sent_when_the_client_has_nothing_to_add(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = native_then_chat(live, server, {"type": "web_search_call", **HOSTED["web_search_call"]})
    first = sdk.responses.create(model=model, input="What is the weather?")
    assert sdk.responses.create(model=model, previous_response_id=first.id).output_text == "Hello there."
    assert live.upstream.last(model).json["messages"][-1]["content"] == "It rains."
