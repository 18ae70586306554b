"""Responses that are deleted while they run: their id is known from `response.created` on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.endpoints.text.responses_upstream import response
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server, serving
from tests.support.upstream import Call, chunk

pytestmark = pytest.mark.shared

PATH = "/v1/responses"


class Slow:
    """An upstream of either API whose stream pauses in its middle until `go`."""

    def __init__(self) -> None:
        self.go, self.deleted = asyncio.Event(), list[str]()

    async def __call__(self, call: Call) -> None:
        if call.method == "DELETE":
            self.deleted.append(call.path.rpartition("/")[2])
            await call.reply(200, {"deleted": True})
            return
        await call.open_stream()
        if call.path == PATH:
            whole = response(7, "Hello there.")
            await call.event({"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}})
            delta = {"item_id": "msg_7", "output_index": 0, "content_index": 0, "delta": "Hello"}
            await call.event({"type": "response.output_text.delta", **delta})
            await self.go.wait()
            await call.event({"type": "response.completed", "response": whole})
        else:
            await call.event(chunk("Hello"))
            await self.go.wait()
            await call.event(chunk(" there.", "stop"))
            await call.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7}})
            await call.event("[DONE]")
        await call.end()


@contextmanager
def stream(server: Server, token: str, body: dict[str, Any]) -> Iterator[tuple[str, str, Iterator[str]]]:
    """The id of a response whose stream has begun, that of its request, and the lines that are left."""
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    options: dict[str, Any] = {"timeout": 100, "trust_env": False, "verify": NO_CERTIFICATES}
    with httpx.stream("POST", server.url + PATH, json={**body, "stream": True}, headers=headers, **options) as answer:
        pieces = answer.iter_lines()
        created = next(line for line in pieces if line.startswith("data:"))
        yield json.loads(created[5:])["response"]["id"], answer.headers["x-request-id"], pieces


def delete(server: Server, token: str, response_id: str) -> int:
    return server.request("DELETE", token, f"{PATH}/{response_id}").status_code


@pytest.mark.parametrize("text_api", ["responses", "chat"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_response_that_is_deleted_while_it_is_streamed_is_not_kept(
    live: Portal, server: Server, tmp_path: Path, text_api: str, elsewhere: bool
) -> None:
    from relay.models import StoredResponse

    upstream = Slow()
    model, token = live.model(upstream, price={"input": 1, "output": 1}, text_api=text_api), live.token()
    with contextlib.ExitStack() as stack:
        env = {"AIRELAYS_FEED_POLL_SECONDS": "0.05"}
        other = stack.enter_context(serving(tmp_path / "log", env=env)) if elsewhere else server
        with stream(server, token, {"model": model, "input": "x"}) as (name, request_id, pieces):
            assert delete(other, live.token(), name) == 404, "of another user"
            deleted = other.request("DELETE", token, f"{PATH}/{name}")
            assert deleted.json() == {"id": name, "object": "response", "deleted": True}
            assert delete(other, token, name) == 404
            live.upstream.set(upstream.go)
            assert any('"response.completed"' in line for line in pieces)
        assert delete(other, token, name) == 404
    record = live.record(request_id)
    assert (record.end_reason, record.cost) == ("completed", 16_000)
    assert not StoredResponse.objects.filter(response_id=name).exists()
    if text_api == "responses":
        until(lambda: upstream.deleted == [f"resp_{7:032x}"])


def test_what_others_try_to_delete_is_kept(live: Portal, server: Server) -> None:
    upstream = Slow()
    model, token = live.model(upstream), live.token()
    with stream(server, token, {"model": model, "input": "x"}) as (name, _, pieces):
        assert delete(server, live.token(live.user(is_staff=True, is_superuser=True)), name) == 404
        live.upstream.set(upstream.go)
        list(pieces)
    assert server.get(token, f"{PATH}/{name}").status_code == 200
    assert delete(server, token, name) == 200


def test_its_items_stay_in_their_conversation(live: Portal, server: Server) -> None:
    """As they do when a response is deleted that has ended."""
    upstream = Slow()
    model, token = live.model(upstream), live.token()
    talk = server.post(token, {}, path="/v1/conversations").json()["id"]
    body = {"model": model, "input": "x", "conversation": talk}
    with stream(server, token, body) as (name, _, pieces):
        assert delete(server, token, name) == 200
        live.upstream.set(upstream.go)
        list(pieces)
    assert server.get(token, f"{PATH}/{name}").status_code == 404
    items = server.get(token, f"/v1/conversations/{talk}/items").json()["data"]
    assert len(items) == 2


def test_one_in_the_background_does_not_come_back(live: Portal, server: Server) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await go.wait()
        await call.reply(200, response(8, "Hello there."))

    model, token = live.model(script, price={"input": 1, "output": 1}), live.token()
    made = server.post(token, {"model": model, "input": "x", "background": True}, path=PATH)
    name = made.json()["id"]
    until(lambda: live.upstream.count(model))
    assert delete(server, token, name) == 200
    live.upstream.set(go)
    assert live.record(made).cost == 16_000
    assert server.get(token, f"{PATH}/{name}").status_code == 404
