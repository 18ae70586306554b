"""Calls over WebRTC at a running portal, as its clients make them, and what the upstream says in them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from tests.support.asserts import until
from tests.support.peers.realtime import CREATED, Call, RealtimeUpstream, WebRtc, secrets
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server

PATH = "/v1/realtime/calls"
OFFER = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
PRICE = {"input": 4, "output": 16}
USAGE = {"input_tokens": 20_000, "output_tokens": 10, "total_tokens": 20_010}  # more than was seen here
COST = 20_000 * 4_000 + 10 * 16_000


class Calls:
    """Models whose calls go as scripts say."""

    def __init__(self, live: Portal, server: Server, upstream: RealtimeUpstream) -> None:
        self.live, self.server, self.upstream = live, server, upstream

    def model(self, script: Any, keys: tuple[str, ...] = ("sk-upstream-secret-0123456789",), **options: Any) -> str:
        name = self.live.name("called")
        self.upstream.scripts[name] = script
        options.setdefault("price", PRICE)
        channel = self.live.channel(self.upstream.base_url, keys)
        return self.live.model(None, channels=[channel], upstream_name=name, **options)

    def upstream_name(self, model: str) -> str:
        from relay.models import ChannelModel

        return str(ChannelModel.objects.filter(model__name=model)[0].upstream_name)

    def make(self, token: str, model: str, server: Server | None = None, **session: Any) -> httpx.Response:
        body = {"type": "realtime", "model": model, **session}
        server = server or self.server
        server.catch_up()
        return post(server, token, {"sdp": OFFER, "session": json.dumps(body)})

    def taken(self, model: str) -> WebRtc:
        found: WebRtc = until(lambda: next(iter(self.upstream.of(self.upstream_name(model))), None))
        return found

    def records(self, model: str, count: int = 1) -> list[Any]:
        from relay.models import UsageRecord

        rows = UsageRecord.objects.filter(model=model).order_by("pk")
        found: list[Any] = until(lambda: len(found := list(rows.all())) >= count and found)
        return found

    def say(self, model: str, *events: dict[str, Any], to: int = 0) -> None:
        """Have the upstream tell a sideband, the portal's own or a client's, what the call's client has caused."""
        sideband = self.taken(model).sidebands[to]
        for event in events:
            asyncio.run_coroutine_threadsafe(sideband.send(event), self.upstream._loop).result(10)


def post(server: Server, token: str, fields: dict[str, str]) -> httpx.Response:
    kinds = {"sdp": "application/sdp", "session": "application/json"}
    files: Any = {name: (None, text, kinds[name]) for name, text in fields.items()}
    with httpx.Client(headers=secrets(token), timeout=60, trust_env=False, verify=NO_CERTIFICATES) as client:
        return client.post(server.url + PATH, files=files)


async def listen(call: Call) -> None:
    await call.send(CREATED)


def done(response_id: str, usage: Any = USAGE, status: str = "completed") -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": response_id, "status": status, "usage": usage}}


def begun(response_id: str) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": response_id, "status": "in_progress"}}


def delta(response_id: str, words: int = 100) -> dict[str, Any]:
    return {"type": "response.output_audio_transcript.delta", "response_id": response_id, "delta": "word " * words}
