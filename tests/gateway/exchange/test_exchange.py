"""The exchange with the client."""

from __future__ import annotations

import asyncio

from relay.gateway.exchange.exchange import Exchange, Message
from relay.gateway.exchange.interrupts import Interrupt


async def test_nobody_listens_for_the_clients_leaving_before_the_body_has_been_read() -> None:
    """Two readers would take the pieces of an upload from each other."""
    pieces: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
    ]

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()  # nothing more comes
        return pieces.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    exchange = Exchange({"headers": []}, receive, send, "127.0.0.1")
    listening = []
    for _ in range(2):
        exchange.listen(lambda gone: gone.interrupt(Interrupt.CLIENT_GONE))
        listening.append(exchange.listener)
        if pieces:
            assert await exchange.read_body(100) == b"ab"
    assert listening[0] is None and listening[1] is not None
    listening[1].cancel()
