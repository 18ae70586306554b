"""Objects of the account at an upstream are named in no request, on no way to it, but for those of the user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from websockets.asyncio.client import connect

from tests.endpoints.batches.jobs import results, submit, wait_for
from tests.endpoints.text.responses_upstream import response
from tests.support.asserts import until
from tests.support.peers.calling import Calls, listen
from tests.support.peers.realtime import CREATED, RealtimeUpstream, secrets, wait_until_closed
from tests.support.peers.realtime import Call as Connection
from tests.support.portal import Portal
from tests.support.server import Server, serving
from tests.support.upstream import Call, hello

pytestmark = pytest.mark.shared

STORE = {"type": "file_search", "vector_store_ids": ["vs_OperatorsSecrets01"]}
CONTAINER, IMAGE, MESSAGE = "cntr_0123456789abcdef", "ig_0123456789abcdef", "msg_0123456789abcdef"
FOREIGN = "file-OperatorsSecretFile0001"
AUTO = {"type": "code_interpreter", "container": {"type": "auto"}}
RAN = {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "ls", "container_id": CONTAINER}


async def worked(call: Call) -> None:
    """An answer for which code ran and an image was made."""
    answer = response(1, "Done.")
    (message,) = answer["output"]
    made = {"type": "image_generation_call", "id": IMAGE, "status": "completed", "result": "iVBORw0KGgo"}
    shell: dict[str, Any] = {"type": "shell_call", "id": "sh_1", "call_id": "c", "status": "completed"}
    shell["environment"] = {"type": "container_reference", "container_id": f"{CONTAINER}-shell"}
    await call.reply(200, {**answer, "output": [{**RAN, "outputs": []}, shell, made, {**message, "id": MESSAGE}]})


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("responses", {"input": "x", "tools": [STORE]}, "tools[0].vector_store_ids"),
        ("responses", {"prompt": {"id": "pmpt_1"}}, "prompt.id"),
        ("responses/compact", {"input": "x", "tools": [STORE]}, "tools[0].vector_store_ids"),
        ("responses/input_tokens", {"prompt": {"id": "pmpt_1"}}, "prompt.id"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [STORE]}, "tools[0]"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "container": "container_1"}, "container"),
        ("completions", {"prompt": {"id": "pmpt_1"}}, "prompt.id"),
        ("embeddings", {"input": "x", "vector_store_ids": ["vs_1"]}, "vector_store_ids"),
        ("moderations", {"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt.id"),
        ("rerank", {"query": "x", "documents": ["y"], "vector_store_ids": ["vs_1"]}, "vector_store_ids"),
        ("images/generations", {"prompt": "x", "skill_id": "skill_1"}, "skill_id"),
        ("audio/speech", {"input": "x", "voice": {"id": "voice_1"}}, "voice.id"),
        ("conversations", {"items": [{"type": "tool_search_output", "tools": [STORE]}]}, "items[0].tools[0]"),
        ("realtime/client_secrets", {"session": {"type": "realtime", "tools": [STORE]}}, "session.tools[0]"),
        ("realtime/client_secrets", {"session": {"prompt": {"id": "pmpt_1"}}}, "session.prompt.id"),
        ("realtime/sessions", {"prompt": {"id": "pmpt_1"}}, "prompt.id"),
    ],
)
def test_refused_by_every_endpoint(live: Portal, server: Server, path: str, body: dict[str, Any], param: str) -> None:
    model = live.model(hello)
    owner = live.user()
    for user in (owner, live.user(), live.user(is_staff=True, is_superuser=True)):
        answer = server.post(live.token(user), {"model": model, **body}, path=f"/v1/{path}")
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["code"] == "invalid_value" and error["param"].startswith(param), error
    assert live.upstream.count(model) == 0


def test_a_portal_whose_users_may_know_its_accounts_sends_them_on(live: Portal, tmp_path: Path) -> None:
    model, token = live.model(worked, text_api="responses"), live.token()
    tools = [STORE, {"type": "code_interpreter", "container": CONTAINER}]
    items = [{"type": "item_reference", "id": MESSAGE}, {"role": "user", "content": "why?"}]
    with serving(
        tmp_path / "log", env={"AIRELAYS_UPSTREAM_OBJECTS": "allow", "AIRELAYS_UNPRICED_TOOLS": "allow"}
    ) as open_portal:
        answer = open_portal.post(token, {"model": model, "tools": tools, "input": items}, path="/v1/responses")
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last(model).json
    assert (sent["tools"], sent["input"]) == (tools, items)


def test_a_line_of_a_batch_is_refused_alone(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="responses")
    server.catch_up()
    body = {"model": model, "input": "x", "tools": [STORE]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    done = wait_for(sdk, submit(sdk, json.dumps(line).encode(), "/v1/responses").id)
    (failed,) = results(sdk, done.error_file_id)
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["param"] == "tools[0].vector_store_ids"
    assert live.upstream.count(model) == 0


NAMING: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "code_interpreter", "container": CONTAINER}]}, "tools[0].container"),
    ({"input": [RAN, {"role": "user", "content": "go on"}], "tools": [AUTO]}, "input[0].container_id"),
    (
        {
            "tools": [
                {
                    "type": "shell",
                    "environment": {"type": "container_reference", "container_id": f"{CONTAINER}-shell"},
                }
            ]
        },
        "tools[0].environment.container_id",
    ),
    ({"input": [{"type": "image_generation_call", "id": IMAGE}, {"role": "user", "content": "red"}]}, "input[0].id"),
    ({"input": [{"type": "item_reference", "id": MESSAGE}, {"role": "user", "content": "why?"}]}, "input[0].id"),
]


@pytest.mark.parametrize(("more", "param"), NAMING)
def test_what_a_users_own_response_made_may_be_named_by_that_user(
    live: Portal, server: Server, more: dict[str, Any], param: str
) -> None:
    model, owner = live.model(worked, text_api="responses"), live.user()
    token = live.token(owner)
    body = {"model": model, "input": "x", **more}

    def refused(by: str) -> None:
        answer = server.post(by, body, path="/v1/responses")
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_value", param)

    refused(token)  # before it was made
    assert live.upstream.count(model) == 0
    assert server.post(token, {"model": model, "input": "work"}, path="/v1/responses").status_code == 200
    answer = server.post(live.token(owner), body, path="/v1/responses")  # also by another token of the user
    assert answer.status_code == 200, answer.text
    assert param.split("[")[0] in live.upstream.last(model).json
    asked = live.upstream.count(model)
    for other in (live.user(), live.user(is_staff=True, is_superuser=True)):
        refused(live.token(other))
    assert live.upstream.count(model) == asked


def test_what_a_client_has_claimed_is_not_its_own(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    item = {"type": "message", "id": MESSAGE, "role": "user", "content": [{"type": "input_text", "text": CONTAINER}]}
    claimed: Any = [item]
    conversation = sdk.conversations.create(items=claimed)
    sdk.responses.create(model=model, input=claimed)
    sdk.responses.create(model=model, input="x", conversation=conversation.id)
    for more, param in NAMING:
        answer = server.post(sdk.api_key, {"model": model, "input": "x", **more}, path="/v1/responses")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_items_of_a_conversation_name_only_what_is_the_users(live: Portal, server: Server) -> None:
    model, token = live.model(worked, text_api="responses"), live.token()
    body = {"items": [RAN]}
    answer = server.post(token, body, path="/v1/conversations")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "items[0].container_id"), answer.text
    assert server.post(token, {"model": model, "input": "work"}, path="/v1/responses").status_code == 200
    made = server.post(token, body, path="/v1/conversations")
    assert made.status_code == 200, made.text
    more = {"items": [{"type": "image_generation_call", "id": "ig_ofsomebodyelse"}]}
    answer = server.post(token, more, path=f"/v1/conversations/{made.json()['id']}/items")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "items[0].id"), answer.text


def test_how_a_client_signs_in_at_its_mcp_server_goes_there_alone(live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    native = live.model(worked, text_api="responses")
    token = live.token()
    tool: dict[str, Any] = {"type": "mcp", "server_label": "a", "server_url": "https://a.example/mcp"}
    tool |= {"authorization": "tok-client", "headers": {"x-key": "key-client"}}
    answer = server.post(token, {"model": native, "input": "x", "tools": [tool]}, path="/v1/responses")
    assert answer.status_code == 200 and live.upstream.last(native).json["tools"] == [tool]
    converted = server.post(token, {"model": model, "input": "x", "tools": [tool]}, path="/v1/responses")
    assert converted.status_code == 200, converted.text
    shown = {name: value for name, value in tool.items() if name not in ("authorization", "headers")}
    assert converted.json()["tools"] == [shown]
    stored = server.request("GET", token, f"/v1/responses/{converted.json()['id']}")
    assert "tok-client" not in stored.text and "key-client" not in stored.text


# -- realtime ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speaking() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    yield running
    running.stop()


EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "session.update", "session": {"prompt": {"id": "pmpt_1"}}}, "session.prompt.id"),
    ({"type": "session.update", "session": {"tools": [STORE]}}, "session.tools[0].vector_store_ids"),
    (
        {"type": "session.update", "session": {"audio": {"output": {"voice": {"id": "voice_1"}}}}},
        "session.audio.output.voice.id",
    ),
    ({"type": "response.create", "response": {"prompt": {"id": "pmpt_1"}}}, "response.prompt.id"),
    (
        {
            "type": "response.create",
            "response": {"tools": [{"type": "mcp", "server_label": "a", "tunnel_id": "tunnel_1"}]},
        },
        "response.tools[0].tunnel_id",
    ),
    (
        {
            "type": "response.create",
            "response": {"input": [{"type": "message", "content": [{"type": "input_image", "file_id": FOREIGN}]}]},
        },
        "response.input[0].content[0].file_id",
    ),
    (
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": FOREIGN}]},
        },
        "item.content[0].file_id",
    ),
    (
        {
            "type": "session.update",
            "session": {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [FOREIGN]}}]},
        },
        "session.tools[0].container.file_ids",
    ),
]


def test_no_event_of_a_realtime_session_names_one(live: Portal, server: Server, speaking: RealtimeUpstream) -> None:
    got: list[Any] = []

    async def script(connection: Connection) -> None:
        await connection.send(CREATED)
        got.append(await connection.receive())
        await connection.say("session.updated")
        await wait_until_closed(connection)

    calls = Calls(live, server, speaking)
    model, token = calls.model(script), live.token()
    server.catch_up()

    async def run() -> None:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime?model={model}"
        async with connect(url, additional_headers=secrets(token)) as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            for event, param in EVENTS:
                await socket.send(json.dumps(event))
                refused = json.loads(await asyncio.wait_for(socket.recv(), 100))
                assert (refused["type"], refused["error"]["param"]) == ("error", param), refused
            await socket.send(json.dumps({"type": "session.update", "session": {"instructions": "Be brief."}}))
            assert json.loads(await asyncio.wait_for(socket.recv(), 100))["type"] == "session.updated"

    asyncio.run(run())
    assert [event["session"] for event in got] == [{"instructions": "Be brief."}]


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"prompt": {"id": "pmpt_1"}}, "session.prompt.id"),
        ({"tools": [STORE]}, "session.tools[0].vector_store_ids"),
        ({"tools": [{"type": "x", "file_ids": [FOREIGN]}]}, "session.tools[0].file_ids"),
    ],
)
def test_no_session_of_a_call_or_a_secret_names_one(
    live: Portal, server: Server, speaking: RealtimeUpstream, session: dict[str, Any], param: str
) -> None:
    calls = Calls(live, server, speaking)
    model, token = calls.model(listen), live.token()
    answer = calls.make(token, model, **session)
    assert answer.status_code in (400, 422) and answer.json()["error"]["param"] == param, answer.text
    body = {"session": {"type": "realtime", "model": model, **session}}
    secret = server.post(token, body, path="/v1/realtime/client_secrets")
    assert secret.status_code in (400, 422) and secret.json()["error"]["param"] == param, secret.text
    assert not speaking.of(calls.upstream_name(model))


def test_a_call_whose_client_names_one_to_the_upstream_is_ended(
    live: Portal, server: Server, speaking: RealtimeUpstream
) -> None:
    calls = Calls(live, server, speaking)
    model = calls.model(listen)
    assert calls.make(live.token(), model).status_code == 201
    calls.say(model, {"type": "session.updated", "session": {"type": "realtime", "prompt": {"id": "pmpt_1"}}})
    until(lambda: calls.taken(model).over)
    (record,) = calls.records(model)
    assert "prompt template" in record.error_message
