"""OpenAI's SDK against /v1/realtime."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.support.asserts import until
from tests.support.peers.realtime import ANSWER, CREATED, Call, RealtimeUpstream
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared

USAGE = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {"text_tokens": 20, "audio_tokens": 0, "cached_tokens": 0},
    "output_token_details": {"text_tokens": 10, "audio_tokens": 0},
}


async def talk(call: Call) -> None:
    await call.send(CREATED)
    asked = await call.until("session.update")
    await call.send({"type": "session.updated", "event_id": "event_2", "session": asked["session"]})
    await call.until("response.create")
    of = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0}
    await call.send({"type": "response.created", "event_id": "event_3", "response": {"id": "r"}})
    await call.send({"type": "response.output_text.delta", "event_id": "event_4", "delta": "Hello", **of})
    done = {"id": "r", "status": "completed", "usage": USAGE}
    await call.send({"type": "response.done", "event_id": "event_5", "response": done})


@pytest.fixture
def talking() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    running.scripts["gpt-realtime"] = talk
    yield running
    running.stop()


@pytest.mark.parametrize("by_secret", [False, True])
def test_a_session_of_the_sdk(live: Portal, server: Server, talking: RealtimeUpstream, by_secret: bool) -> None:
    from relay.models import UsageRecord

    channel = live.channel(talking.base_url)
    model = live.model(None, channels=[channel], upstream_name="gpt-realtime", price={"input": 4, "output": 16})
    token = live.token()
    server.catch_up()

    async def run() -> list[str]:
        client = AsyncOpenAI(api_key=token, base_url=f"{server.url}/v1", max_retries=0)
        if by_secret:
            session: Any = {"type": "realtime", "model": model, "instructions": "Be brief."}
            secret = await client.realtime.client_secrets.create(session=session)
            await client.close()
            client = AsyncOpenAI(api_key=secret.value, base_url=f"{server.url}/v1", max_retries=0)
        kinds: list[str] = []
        text = ""
        async with client.realtime.connect(model=model) as connection:
            if not by_secret:
                await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
            await connection.response.create()
            async for event in connection:
                kinds.append(event.type)
                if event.type == "response.output_text.delta":
                    text += event.delta
                if event.type == "response.done":
                    assert event.response.usage is not None and event.response.usage.output_tokens == 10
                    break
        await client.close()
        assert text == "Hello"
        return kinds

    kinds = asyncio.run(run())
    assert kinds[0] == "session.created" and "session.updated" in kinds and kinds[-1] == "response.done"
    row = until(lambda: UsageRecord.objects.filter(model=model, end_reason="completed").first())
    assert row.cost == 20 * 4000 + 10 * 16000


def test_a_call_of_the_sdk(live: Portal, server: Server, talking: RealtimeUpstream) -> None:
    """Made over WebRTC, joined, and hung up."""
    from relay.models import UsageRecord

    channel = live.channel(talking.base_url)
    model = live.model(None, channels=[channel], upstream_name="gpt-realtime", price={"input": 4, "output": 16})
    token = live.token()
    server.catch_up()

    async def run() -> None:
        async with AsyncOpenAI(api_key=token, base_url=f"{server.url}/v1", max_retries=0) as client:
            made = await client.realtime.calls.create(sdp="v=0\r\n", session={"type": "realtime", "model": model})
            assert made.text == ANSWER and made.response.status_code == 201
            call_id = made.response.headers["location"].rpartition("/")[2]
            async with client.realtime.connect(call_id=call_id) as connection:
                await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.done":
                        break
            await client.realtime.calls.hangup(call_id)

    asyncio.run(run())
    row = until(lambda: UsageRecord.objects.filter(model=model, end_reason="completed").first())
    assert row.cost == 20 * 4000 + 10 * 16000
    assert all(call.over for call in talking.taken.values())
