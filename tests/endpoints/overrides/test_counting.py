"""Overrides and parameter policies where nothing is answered: counting, vectors, and sessions of realtime."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.api.gemini.clients import HELLO as CONTENTS
from tests.api.gemini.clients import ask as ask_gemini
from tests.support.peers import gemini, messages
from tests.support.peers.obedient import Obedient
from tests.support.portal import Portal
from tests.support.server import Server

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


def setting(path: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"do": "set", "path": path, "value": value, **more}


def test_what_is_counted_is_what_would_be_sent(live: Portal, server: Server) -> None:
    rules = [
        setting("system", "Be brief."),
        setting("temperature", 0.5),  # which a request that is counted must not have
        setting("max_tokens", 50),
        {"do": "remove", "path": "tools"},
    ]
    model = live.model(messages.saying(), provider="anthropic", overrides=rules)
    body = {"model": model, "messages": HELLO, "tools": [{"name": "t", "input_schema": {"type": "object"}}]}
    answer = server.post(live.token(), body, path="/v1/messages/count_tokens")
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last(model)
    assert sent.path == "/v1/messages/count_tokens"
    assert sent.json == {"model": model, "messages": HELLO, "system": "Be brief."}
    assert answer.headers["x-airelays-ignored-parameters"] == "tools"


@pytest.mark.parametrize("whole", [False, True])
def test_the_same_of_geminis_count(live: Portal, server: Server, whole: bool) -> None:
    rules = [setting("systemInstruction", {"parts": [{"text": "Be brief."}]}), {"do": "remove", "path": "tools"}]
    policy = {"generate_content/labels": "drop"}
    model = live.model(gemini.saying(), provider="gemini", overrides=rules, parameters=policy)
    inner = {**CONTENTS, "labels": {"a": "b"}, "tools": [{"googleSearch": {}}]}
    asked = {"generateContentRequest": {"model": "models/x", **inner}} if whole else inner
    server.catch_up()
    answer = ask_gemini(server, model, live.token(), asked, method="countTokens")
    assert answer.status_code == 200, answer.text
    found = live.upstream.last(model).json["generateContentRequest"]
    assert found.keys() == {"model", "contents", "systemInstruction"} and found["contents"] == CONTENTS["contents"]
    assert answer.headers["x-airelays-ignored-parameters"] == "labels,tools"


def test_a_count_that_no_rule_is_about_passes_as_it_came(live: Portal, server: Server) -> None:
    model = live.model(gemini.saying(), provider="gemini")
    server.catch_up()
    assert ask_gemini(server, model, live.token(), method="countTokens").status_code == 200
    assert live.upstream.last(model).json == CONTENTS


@pytest.mark.parametrize("method", ["embedContent", "batchEmbedContents"])
def test_policies_hold_for_vectors_in_geminis_api(live: Portal, server: Server, method: str) -> None:
    policy = {"generate_content/title": "drop", "generate_content/taskType": 'refuse:"RETRIEVAL_QUERY"'}
    model, token = live.model(gemini.saying(), provider="gemini", parameters=policy), live.token()
    one = {"content": {"parts": [{"text": "tea"}]}, "title": "T", "taskType": "RETRIEVAL_QUERY"}
    server.catch_up()

    def asked(**more: str) -> Any:
        request = {**one, **more}
        body = request if method == "embedContent" else {"requests": [request, request]}
        return ask_gemini(server, model, token, body, method=method)

    answer = asked()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-airelays-ignored-parameters"] == "title"
    sent = live.upstream.last(model).json
    assert "title" not in (sent if method == "embedContent" else sent["requests"][0])
    refused = asked(taskType="CLUSTERING")
    assert refused.status_code in {400, 422} and "taskType" in refused.text


# -- realtime ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def realtime() -> Iterator[Obedient]:
    running = Obedient()
    yield running
    running.stop()


async def _sent_to(server: Server, model: str, token: str, *events: dict[str, Any]) -> None:
    """Open a session and send events; returns when the upstream has seen the last of them."""
    address = f"ws://127.0.0.1:{server.port}/v1/realtime?model={model}"
    async with connect(address, additional_headers={"authorization": f"Bearer {token}"}) as socket:
        for event in events:
            await socket.send(json.dumps(event))
        await socket.send('{"type":"response.create"}')
        while json.loads(await asyncio.wait_for(socket.recv(), 100))["type"] != "response.done":
            pass


def test_overrides_for_realtime_hold_for_its_sessions(live: Portal, server: Server, realtime: Obedient) -> None:
    rules = [
        setting("instructions", "Be brief.", apis=["realtime"]),
        setting("audio.output.voice", "marin", apis=["realtime"]),
        {"do": "default", "path": "truncation", "value": "auto", "apis": ["realtime"]},
        {"do": "remove", "path": "tracing", "apis": ["realtime"]},
        setting("temperature", 0.5),  # for no API in particular: its sessions have other members
    ]
    name = live.model(None, base_url=realtime.base_url, upstream_name="gpt-realtime", overrides=rules)
    token = live.token()
    server.catch_up()
    update = {"type": "realtime", "instructions": "Be long.", "tracing": "auto", "output_modalities": ["audio"]}
    response = {"type": "response.create", "response": {"instructions": "Sing."}}
    asyncio.run(_sent_to(server, name, token, {"type": "session.update", "session": update}, response))
    got = realtime.calls["gpt-realtime"][-1].got
    sessions = [one["session"] for one in got if one["type"] == "session.update"]
    opened = {"instructions": "Be brief.", "audio": {"output": {"voice": "marin"}}, "truncation": "auto"}
    assert sessions[0] == {"type": "realtime", **opened}
    assert sessions[1] == {"type": "realtime", "instructions": "Be brief.", "output_modalities": ["audio"]}
    asked = [one for one in got if one["type"] == "response.create" and "response" in one]
    assert asked[0]["response"] == {"instructions": "Be brief."}


def test_a_session_of_a_channel_without_such_rules_opens_as_it_did(
    live: Portal, server: Server, realtime: Obedient
) -> None:
    rules = [setting("temperature", 0.5)]
    name = live.model(None, base_url=realtime.base_url, upstream_name="gpt-realtime", overrides=rules)
    token = live.token()
    server.catch_up()
    asyncio.run(_sent_to(server, name, token))
    assert [one["type"] for one in realtime.calls["gpt-realtime"][-1].got] == ["response.create"]
