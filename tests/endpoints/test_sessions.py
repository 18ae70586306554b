"""Sessions of clients on every path: the same one for the same id, kept as a digest, and the key of routing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from openai import OpenAI
from websockets.asyncio.client import connect

from relay.models.session import session_code
from tests.endpoints.batches.jobs import lines, results, submit, wait_for
from tests.support.asserts import until
from tests.support.peers import gemini, messages
from tests.support.peers.obedient import Obedient
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Upstream, hello

pytestmark = pytest.mark.shared
SESSION = "01a22ab3-89ed-7761-bebb-334118cd53c7"
HEADERS = {"x-session-id": SESSION, "user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0"}
PENDING = {"queued", "in_progress"}
RESPONSE = {"input": "Say hello."}
MESSAGE = {"max_tokens": 99, "messages": [{"role": "user", "content": "Say hello."}]}
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}


async def vectors(call: Call) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    await call.reply(200, {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1}})


def records_of(token: str) -> list[Any]:
    from relay.models import UsageRecord
    from relay.models.token import digest_of

    return list(UsageRecord.objects.filter(token__digest=digest_of(token)).order_by("pk"))


def everything() -> str:
    """All that the portal keeps of requests, but for the bodies of what clients have it store."""
    from relay.models import RefusedRequest, SessionPart, SessionSum, UsageRecord

    tables: list[Any] = [UsageRecord, RefusedRequest, SessionSum, SessionPart]
    return json.dumps([list(table.objects.values()) for table in tables], default=str)


def test_one_id_is_one_session_on_every_api(live: Portal, server: Server) -> None:
    from relay.models import UsageRecord

    token = live.token()
    chat, claude = live.model(hello, text_api="chat"), live.model(messages.saying(), provider="anthropic")
    google = live.model(gemini.saying({"text": "Hi"}), provider="gemini")
    answers = [
        server.post(token, ask(chat), headers=HEADERS),
        server.post(token, ask(chat, stream=True), headers=HEADERS),
        server.post(token, {"model": chat, **RESPONSE}, "/v1/responses", headers=HEADERS),
        server.post(token, {"model": claude, **MESSAGE}, "/v1/messages", headers=HEADERS),
        server.post(token, CONTENTS, f"/v1beta/models/{google}:generateContent", headers=HEADERS),
        server.post(token, {"model": live.model(vectors), "input": "a"}, "/v1/embeddings", headers=HEADERS),
    ]
    assert {answer.status_code for answer in answers} == {200}, [answer.text[:300] for answer in answers]
    records = [live.record(answer) for answer in answers]
    assert len({record.session for record in records}) == 1 and records[0].session is not None
    assert {record.app for record in records} == {"opencode"} and {record.agent for record in records} == {None}
    assert SESSION not in everything()
    other = live.record(server.post(live.token(), ask(chat), headers=HEADERS))
    assert other.session not in {None, records[0].session}, "another user has the same id"
    assert live.record(server.post(token, ask(chat))).session is None
    assert not UsageRecord.objects.filter(session=0).exists()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": ask("m")["messages"], "prompt_cache_key": SESSION}),
        ("/v1/chat/completions", {"messages": ask("m")["messages"], "session_id": SESSION}),
        ("/v1/responses", {**RESPONSE, "client_metadata": {"session_id": SESSION}}),
        ("/v1/messages", {**MESSAGE, "metadata": {"user_id": f"user_a_account__session_{SESSION}"}}),
        ("/v1/messages", {**MESSAGE, "metadata": {"user_id": json.dumps({"session_id": SESSION})}}),
    ],
    ids=["cache key", "member", "codex", "claude before 2.1.78", "claude"],
)
def test_an_id_in_the_body_is_the_same_session_as_in_a_header(
    live: Portal, server: Server, path: str, body: dict[str, Any]
) -> None:
    claude = path == "/v1/messages"
    model = live.model(messages.saying(), provider="anthropic") if claude else live.model(hello, text_api="chat")
    token, chat = live.token(), live.model(hello)
    by_body = live.record(server.post(token, {"model": model, **body}, path))
    by_header = live.record(server.post(token, ask(chat), headers=HEADERS))
    assert by_body.session == by_header.session is not None


def test_a_conversation_of_the_responses_api_is_a_session(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    server.catch_up()
    talk = sdk.conversations.create()
    for text in ("a", "b"):
        sdk.responses.create(model=model, input=text, conversation=talk.id)
    found = records_of(sdk.api_key)
    assert len(found) == 2 and found[0].session == found[1].session is not None


def test_a_response_made_in_the_background_is_of_its_session(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello, text_api="chat")
    server.catch_up()
    made = sdk.responses.create(model=model, input="a", background=True, extra_headers=HEADERS)
    assert until(lambda: (now := sdk.responses.retrieve(made.id).status) not in PENDING and now) == "completed"
    direct = live.record(server.post(sdk.api_key, ask(model), headers=HEADERS))
    (background,) = (record for record in records_of(sdk.api_key) if record.endpoint == "responses")
    assert background.session == direct.session is not None and background.app == direct.app == "opencode"


def test_lines_of_a_batch_are_of_the_sessions_that_they_name(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    server.catch_up()
    done = wait_for(sdk, submit(sdk, lines(model, 2, prompt_cache_key=SESSION)).id)
    direct = live.record(server.post(sdk.api_key, ask(model), headers=HEADERS))
    found = {record.session for record in records_of(sdk.api_key) if record.request_id != direct.request_id}
    assert len(results(sdk, done.output_file_id)) == 2 and found == {direct.session} and direct.session is not None


@pytest.mark.parametrize("named", [True, False])
def test_what_is_said_on_a_realtime_connection_is_one_session(live: Portal, server: Server, named: bool) -> None:
    upstream = Obedient()
    token, chat = live.token(), live.model(hello)
    model = live.model(None, base_url=upstream.base_url, upstream_name="gpt-realtime", price={"input": 1, "output": 1})
    server.catch_up()

    async def talk() -> None:
        headers = {"authorization": f"Bearer {token}", **({"x-session-id": SESSION} if named else {})}
        url = f"ws://127.0.0.1:{server.port}/v1/realtime?model={model}"
        async with connect(url, additional_headers=headers) as socket:
            for _ in range(2):
                await socket.send(json.dumps({"type": "response.create"}))
                while json.loads(await asyncio.wait_for(socket.recv(), 100))["type"] != "response.done":
                    pass

    try:
        asyncio.run(talk())
        found = until(lambda: len(rows := records_of(token)) >= 2 and rows)
    finally:
        upstream.stop()
    direct = live.record(server.post(token, ask(chat), headers=HEADERS))
    assert len({record.session for record in found}) == 1 and found[0].session is not None
    assert (found[0].session == direct.session) is named


def test_sub_agents_are_told_apart(live: Portal, server: Server) -> None:
    token, model = live.token(), live.model(messages.saying(), provider="anthropic")
    sent = [{}, {"agent-id": "a1"}, {"agent-id": "a2", "parent-agent-id": "a1"}, {"agent-id": "a1"}]
    found = []
    for more in sent:
        headers = {f"x-claude-code-{name}": value for name, value in {"session-id": SESSION, **more}.items()}
        answer = server.post(token, {"model": model, **MESSAGE}, "/v1/messages", headers=headers)
        found.append(live.record(answer))
    main, first, second, again = found
    assert len({record.session for record in found}) == 1
    assert (main.agent, main.parent_agent, first.parent_agent) == (None, None, None)
    assert first.agent == again.agent == second.parent_agent != second.agent and None not in {first.agent, second.agent}


@pytest.mark.parametrize("header", ["session-id", "x-claude-code-session-id", "x-session-affinity"])
def test_a_session_keeps_its_channel(live: Portal, server: Server, second: Upstream, header: str) -> None:
    model = live.model(channels=[live.channel(), live.channel(second.base_url)])
    token = live.token()
    homes: dict[int, set[str]] = {}
    for talk in range(12):
        for _ in range(3):
            # A sub-agent's own cache key, or a member that changes, does not lead it elsewhere.
            answer = server.post(token, ask(model, user=f"{talk}"), headers={header: f"talk-{talk}"})
            homes.setdefault(talk, set()).add(answer.headers["x-relay-channel"])
    assert all(len(channels) == 1 for channels in homes.values()) and len(set.union(*homes.values())) == 2


@pytest.mark.parametrize("value", ["", "x" * 257, "x" * 4000], ids=len)
def test_what_is_no_id_leaves_the_request_as_it_is(live: Portal, server: Server, value: str) -> None:
    record = live.record(server.post(live.token(), ask(live.model(hello)), headers={"x-session-id": value}))
    assert record.session is None and record.status == 200


def test_an_id_that_a_client_sends_as_that_of_its_request_too_is_not_kept(live: Portal, server: Server) -> None:
    token, model = live.token(), live.model(hello)
    codex = {"session-id": SESSION, "thread-id": SESSION, "x-client-request-id": SESSION}
    assert live.record(server.post(token, ask(model), headers=codex)).client_request_id == ""
    refused = server.post(token, ask("no-such-model"), headers=codex)
    assert refused.status_code == 404
    assert SESSION not in everything()


def test_the_receipt_of_a_request_names_its_session(live: Portal, server: Server) -> None:
    token, model = live.token(), live.model(hello)
    answer = server.post(token, ask(model), headers=HEADERS)
    found = server.get(token, f"/v1/usage/{answer.headers['x-request-id']}").json()
    assert found["session"] == session_code(live.record(answer).session) and found["app"] == "opencode"


def test_the_sdk_of_anthropic_names_sessions_by_a_header(live: Portal, server: Server) -> None:
    token, model = live.token(), live.model(messages.saying(), provider="anthropic")
    server.catch_up()
    ask_again: Callable[..., Any]
    with anthropic.Anthropic(
        base_url=server.url, api_key=token, max_retries=0, default_headers={"x-session-id": SESSION}
    ) as client:
        ask_again = client.messages.create
        for _ in range(2):
            ask_again(model=model, max_tokens=99, messages=[{"role": "user", "content": "Say hello."}])
    found = records_of(token)
    assert len({record.session for record in found}) == 1 and found[0].session is not None
    assert {record.app for record in found} == {"anthropic-sdk"}
