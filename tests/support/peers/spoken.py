"""Models whose realtime upstreams do as scripts say, and connections to them."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.client import connect

from tests.support.asserts import until
from tests.support.peers.realtime import Call, RealtimeUpstream, secrets
from tests.support.portal import Portal
from tests.support.server import Server

PRICE = {"input": 4, "cached_input": "0.4", "audio_input": 32, "output": 16, "audio_output": 64}


class Realtime:
    """Models whose upstreams do as scripts say, and connections to them."""

    def __init__(self, live: Portal, server: Server, upstream: RealtimeUpstream) -> None:
        self.live, self.server, self.upstream = live, server, upstream

    def model(self, script: Any, **options: Any) -> str:
        name = self.live.name("spoken")
        self.upstream.scripts[name] = script
        options.setdefault("price", PRICE)
        keys = options.pop("keys", ("sk-upstream-secret-0123456789",))
        channel = self.live.channel(self.upstream.base_url, keys)
        return self.live.model(None, channels=[channel], upstream_name=name, **options)

    def transcriber(self, model: str, **price: Any) -> str:
        """Another model, on the channel of a model."""
        from relay.models import ChannelModel, Model

        name = self.live.model(None, channels=[], price=price)
        channel = ChannelModel.objects.get(model__name=model).channel
        ChannelModel.objects.create(channel=channel, model=Model.objects.get(name=name), upstream_name=f"{name}-theirs")
        return name

    def connect(self, model: str, token: str, query: str = "") -> Any:
        """`query`: in place of the one that names the model."""
        self.server.catch_up()
        address = f"ws://127.0.0.1:{self.server.port}/v1/realtime?{query or f'model={model}'}"
        return connect(address, additional_headers=secrets(token))

    def upstream_name(self, model: str) -> str:
        from relay.models import ChannelModel

        return str(ChannelModel.objects.filter(model__name=model)[0].upstream_name)

    def calls(self, model: str) -> list[Call]:
        return self.upstream.calls[self.upstream_name(model)]

    def records(self, model: str, count: int = 1) -> list[Any]:
        from relay.models import UsageRecord

        rows = UsageRecord.objects.filter(model=model).order_by("pk")
        found: list[Any] = until(lambda: len(found := list(rows.all())) >= count and found)
        return found
