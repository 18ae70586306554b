"""Images without usage, or with one that is a lie, cost what images of their quality and size have."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from relay.models import UsageRecord
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared
PRICE = {"input": 0, "output": 40}


def made(live: Portal, server: Server, answer: dict[str, Any], **asked: Any) -> Any:
    """The record of a plain answer."""

    async def script(call: Call) -> None:
        await call.reply(200, {"created": 1, **answer})

    body = {"model": live.model(script, price=PRICE), "prompt": "a cat", **asked}
    response = server.post(live.token(), body, path="/v1/images/generations")
    assert response.status_code == 200, response.text
    return live.record(response)


def test_a_usage_that_is_a_lie(live: Portal, server: Server) -> None:
    usage = {"input_tokens": 10, "output_tokens": 10**9}
    record = made(live, server, {"data": [{"b64_json": "AAAA"}] * 2, "usage": usage}, n=2, quality="low")
    assert (record.usage_source, record.output_tokens, record.cost) == ("estimated", 2 * 272, 2 * 272 * 40_000)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_answer_says_of_its_image(live: Portal, server: Server, stream: bool) -> None:
    """The request says nothing, which means “auto”."""
    said = {"quality": "low", "size": "1024x1536"}

    async def script(call: Call) -> None:
        if not stream:
            await call.reply(200, {"created": 1, "data": [{"b64_json": "AAAA"}], **said})
            return
        await call.open_stream()
        await call.event({"type": "image_generation.completed", "b64_json": "A" * 4000, "created_at": 1, **said})
        await call.end()

    body = {"model": live.model(script, price=PRICE), "prompt": "a cat", "stream": stream}
    record = live.record(server.post(live.token(), body, path="/v1/images/generations"))
    assert (record.end_reason, record.usage_source, record.output_tokens) == ("completed", "estimated", 408)


def test_an_error_after_partial_images(live: Portal, server: Server) -> None:
    """As much as the image that it would have become, and what partial images cost beside it; not all that is held."""

    async def script(call: Call) -> None:
        await call.open_stream()
        for index in range(2):
            partial = {"type": "image_generation.partial_image", "partial_image_index": index}
            await call.event({**partial, "b64_json": "A" * 4000})
        await call.event({"type": "error", "error": {"message": "It broke.", "type": "server_error", "code": None}})
        await call.end()

    body = {"model": live.model(script, price=PRICE), "prompt": "x", "n": 1, "stream": True, "partial_images": 2}
    token = live.token(live.user(balance=10**10))
    server.catch_up()
    record = live.record(server.post(token, body, path="/v1/images/generations"))
    assert (record.end_reason, record.images, record.output_tokens) == ("upstream_error", 1, 1056 + 200)
    assert record.cost == 1256 * 40_000 < record.reserved


def test_an_image_of_which_nothing_was_seen(live: Portal, server: Server) -> None:
    """Its client has left for good, and the upstream makes it all the same."""
    asked = threading.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        asked.set()
        await asyncio.Event().wait()

    body = {"model": live.model(script, price=PRICE), "prompt": "x", "n": 2, "stream": True, "quality": "high"}
    token = live.token(live.user(balance=10**10))
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}

    async def leave() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            request = asyncio.ensure_future(client.post(f"{server.v1}/images/generations", json=body, headers=headers))
            await asyncio.to_thread(asked.wait)
            request.cancel()
            await asyncio.wait((request,))

    asyncio.run(leave())
    record = until(lambda: UsageRecord.objects.filter(model=body["model"]).first())
    assert (record.end_reason, record.output_tokens) == ("client_gone", 2 * 4160)


@pytest.mark.parametrize(("quality", "tokens"), [("low", 196), ("high", 7024)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_behind_an_alias_counts_by_its_name_at_the_upstream(
    live: Portal, server: Server, quality: str, tokens: int, stream: bool
) -> None:
    """Of several channels, by the one that answers."""
    image = {"b64_json": "A" * 4000, "created_at": 1}

    async def script(call: Call) -> None:
        if not stream:
            await call.reply(200, {"created": 1, "data": [image]})
            return
        await call.open_stream()
        await call.event({"type": "image_generation.completed", **image})
        await call.end()

    name = live.name("gpt-image-2")
    body = {"model": live.model(script, price=PRICE, upstream_name=name), "prompt": "a cat", "stream": stream}
    token = live.token(live.user(balance=10**10))
    server.catch_up()
    response = server.post(token, {**body, "quality": quality, "size": "1024x1024"}, path="/v1/images/generations")
    record = live.record(response)
    assert (record.usage_source, record.output_tokens, record.cost) == ("estimated", tokens, tokens * 40_000)
    assert record.reserved >= record.cost
