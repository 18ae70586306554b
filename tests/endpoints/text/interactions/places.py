"""What tests of interactions need: an upstream of their own, its model, and requests without an SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.peers.interactions import InteractionsUpstream, Peer
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server

PATH = "/v1beta/interactions"
PRICE = {"input": 1, "cached_input": "0.5", "output": 8, "reasoning": 16}
COST = (11 - 4) * 1000 + 4 * 500 + 7 * 8000 + 5 * 16000  # nano-USD, of the usage that the mock reports


@contextmanager
def upstream_of(*turns: list[dict[str, Any]]) -> Iterator[tuple[Peer, InteractionsUpstream]]:
    peer = Peer(*turns)
    upstream = InteractionsUpstream(peer)
    try:
        yield peer, upstream
    finally:
        upstream.stop()


def model_at(live: Portal, *upstreams: InteractionsUpstream, **options: Any) -> str:
    """A model on a channel of Gemini's for each upstream, of falling priority."""
    of_channel = {name: options.pop(name) for name in ("keys", "overrides", "disconnect_policy") if name in options}
    channels = [
        live.channel(upstream.base_url, provider="gemini", priority=10 - number, **of_channel)
        for number, upstream in enumerate(upstreams)
    ]
    return live.model(channels=channels, price=options.pop("price", PRICE), **options)


def create(server: Server, token: str, body: dict[str, Any], **options: Any) -> httpx.Response:
    return server.post(token, body, path=PATH, **options)


@contextmanager
def streamed(
    server: Server, token: str, body: dict[str, Any]
) -> Iterator[tuple[httpx.Response, Iterator[dict[str, Any]]]]:
    """The answer and the data of its events, as they come."""
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    options: dict[str, Any] = {"timeout": 100, "trust_env": False, "verify": NO_CERTIFICATES}
    with httpx.stream("POST", server.url + PATH, json={**body, "stream": True}, headers=headers, **options) as answer:
        yield answer, data_in(answer)


def data_in(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])
