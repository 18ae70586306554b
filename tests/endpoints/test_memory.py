"""What runs without a client's connection, or on a websocket, has its share of memory as plain requests have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from websockets.asyncio.client import ClientConnection, connect

from tests.endpoints.batches.jobs import lines, results, submit, wait_for
from tests.support.asserts import until
from tests.support.environment import OwnDatabase
from tests.support.peers.obedient import Obedient
from tests.support.portal import Portal
from tests.support.server import Server, serving
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared

MEMORY = 4 << 20  # of which a user has half
LARGE = "x" * 900_000


@pytest.fixture(scope="module")
def small(own_database: OwnDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little memory, alone on its database: another one would run its batches."""
    env = {**own_database.env, "AIRELAYS_MAX_MEMORY_BYTES": str(MEMORY), "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    log: Path = tmp_path_factory.mktemp("small") / "log"
    with serving(log, env=env) as own:
        yield own


def ask(server: Server, token: str, model: str, **more: Any) -> Any:
    return server.post(token, {"model": model, "input": LARGE, **more}, path="/v1/responses")


def ended(server: Server, token: str, response_id: str) -> str:
    """The status with which a response ends."""

    def status() -> str:
        found = server.get(token, f"/v1/responses/{response_id}").json()["status"]
        return "" if found in {"queued", "in_progress"} else str(found)

    return str(until(status))


def test_they_count_as_plain_requests_do(live: Portal, small: Server) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await go.wait()
        await call.reply(200, completion())

    model, token = live.model(script, text_api="chat"), live.token()
    small.catch_up()
    made = [ask(small, token, model, background=True) for _ in range(2)]
    assert [answer.status_code for answer in made] == [200, 200]
    until(lambda: live.upstream.count(model) == 2)
    for more in ({"background": True}, {}):
        refused = ask(small, token, model, **more)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "overloaded", refused.text
        assert refused.headers["retry-after"]
    assert live.upstream.count(model) == 2
    assert small.get(token, f"/v1/responses/{made[0].json()['id']}").status_code == 200
    live.upstream.set(go)
    assert [ended(small, token, answer.json()["id"]) for answer in made] == ["completed", "completed"]
    last = until(lambda: (answer := ask(small, token, model, background=True)).status_code == 200 and answer)
    assert ended(small, token, last.json()["id"]) == "completed"


def test_what_is_cancelled_or_never_begun_gives_its_memory_back(live: Portal, small: Server) -> None:
    async def hangs(call: Call) -> None:
        await call.closed_event()

    model, token = live.model(hangs, text_api="chat"), live.token()
    closed = live.model(hangs, text_api="chat", is_open=False)
    small.catch_up()
    for _ in range(3):
        assert ask(small, token, closed, background=True).status_code == 403
        assert ask(small, token, model, background=True, stream=True).status_code == 422
    for _ in range(3):
        made = until(lambda: (answer := ask(small, token, model, background=True)).status_code == 200 and answer)
        response_id = made.json()["id"]
        small.post(token, {}, path=f"/v1/responses/{response_id}/cancel")
        assert ended(small, token, response_id) == "cancelled"


def test_lines_of_batches_wait_for_memory(live: Portal, small: Server) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        if call.json["messages"][0]["content"] == LARGE:
            await go.wait()
        await call.reply(200, completion())

    model, user = live.model(script, text_api="chat"), live.user()
    token = live.token(user)
    small.catch_up()
    made = [ask(small, token, model, background=True).json()["id"] for _ in range(2)]
    until(lambda: live.upstream.count(model) == 2)
    with OpenAI(base_url=small.url + "/v1", api_key=token, max_retries=0) as sdk:
        messages = [{"role": "user", "content": "y" * 900_000}]
        batch = submit(sdk, lines(model, 1, messages=messages))
        until(lambda: sdk.batches.retrieve(batch.id).to_dict().get("waiting_for"))
        assert live.upstream.count(model) == 2
        live.upstream.set(go)
        assert [ended(small, token, response_id) for response_id in made] == ["completed", "completed"]
        done = wait_for(sdk, batch.id)
        assert [line["response"]["status_code"] for line in results(sdk, done.output_file_id)] == [200]


def test_large_messages_on_websockets_have_their_share(live: Portal, small: Server) -> None:
    go, realtime = asyncio.Event(), Obedient()

    async def script(call: Call) -> None:
        await go.wait()
        await call.reply(200, completion())

    model, token = live.model(script, text_api="chat"), live.token()
    spoken = live.model(None, base_url=realtime.base_url, upstream_name="gpt-realtime")
    small.catch_up()
    made = [ask(small, token, model, background=True).json()["id"] for _ in range(2)]
    until(lambda: live.upstream.count(model) == 2)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": LARGE}]}
    large = json.dumps({"type": "conversation.item.create", "item": item})

    async def event(socket: ClientConnection, kind: str) -> dict[str, Any]:
        while (found := json.loads(await socket.recv()))["type"] != kind:
            continue
        return dict(found)

    async def talk() -> None:
        address = f"ws://127.0.0.1:{small.port}/v1/realtime?model={spoken}"
        async with connect(address, additional_headers={"authorization": f"Bearer {token}"}) as socket:
            await event(socket, "session.created")
            await socket.send(large)
            error = (await event(socket, "error"))["error"]
            assert error["code"] == "overloaded" and "memory" in error["message"]
            live.upstream.set(go)
            for response_id in made:
                await asyncio.to_thread(ended, small, token, response_id)
            for _ in range(3):  # each is let go of when it has been sent on
                await socket.send(large)
            await socket.send('{"type":"response.create"}')
            await event(socket, "response.done")

    try:
        asyncio.run(talk())
    finally:
        realtime.stop()
