"""Streams whose client leaves, does not read or loses its token."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.streams import raw_stream, read_until, request_id
from tests.support.upstream import Call, chunk, two_words

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_closes_the_upstream_within_a_second(server: Server, live: Portal, stream: bool) -> None:
    async def script(call: Call) -> None:
        if stream:
            await two_words(call)
        await asyncio.sleep(60)

    model = live.model(script)
    with raw_stream(server, live.token(), ask(model, stream=stream)) as connection:
        if stream:
            head = read_until(connection, b" there")
        else:
            deadline = time.monotonic() + 5
            while not live.upstream.count(model):
                assert time.monotonic() < deadline
                time.sleep(0.01)
    assert live.upstream.last(model).closed.wait(1), "the upstream sees the close within a second"
    from relay.models import UsageRecord

    deadline = time.monotonic() + 3
    while (record := UsageRecord.objects.filter(model=model).first()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (record.end_reason, record.usage_source) == ("client_gone", "estimated")
    assert record.input_tokens > 0
    if stream:
        assert record.request_id == request_id(head) and 1 <= record.output_tokens <= 10


def test_reader_that_never_reads_holds_back_the_upstream(server: Server, live: Portal) -> None:
    """Bytes that the client does not take are not taken from the upstream either."""
    sent = 0

    async def script(call: Call) -> None:
        nonlocal sent
        await call.open_stream()
        piece = b"data: " + json.dumps(chunk("x" * 60_000)).encode() + b"\n\n"
        while True:
            await call.send(piece)
            sent += len(piece)

    model = live.model(script)
    with raw_stream(server, live.token(), ask(model, stream=True)):
        last = -1
        while sent != last or not sent:  # until nothing moves any more
            last = sent
            time.sleep(0.7)
        assert sent < 40_000_000
    assert live.upstream.last(model).closed.wait(1.5)


def test_never_reading_client_is_cut_off_at_the_total_timeout(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        while True:
            await call.event(chunk("x" * 60_000))

    model = live.model(script, total_timeout=1)
    with raw_stream(server, live.token(), ask(model, stream=True)):
        assert live.upstream.last_closed(model, 4)
        from relay.models import UsageRecord

        deadline = time.monotonic() + 3
        while (record := UsageRecord.objects.filter(model=model).first()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert record.end_reason == "timeout"


@pytest.mark.parametrize("how", ["revoke", "disable-user"])
def test_revoked_token_ends_its_running_stream(server: Server, live: Portal, how: str) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    async def script(call: Call) -> None:
        await two_words(call)
        await asyncio.sleep(60)

    model, user = live.model(script), live.user()
    secret = live.token(user)
    with raw_stream(server, secret, ask(model, stream=True)) as connection:
        head = read_until(connection, b" there")
        began = time.monotonic()
        if how == "revoke":
            revoke_token(Token.objects.get(user=user), actor=None)
        else:
            user.is_active = False
            user.save()
        read_until(connection, b'"code":"request_ended"')
        assert time.monotonic() - began < 1.5
    assert live.record(request_id(head)).end_reason == "ended"
