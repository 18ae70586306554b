"""Streams whose client leaves, does not read or loses its token."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.asserts import until
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.streams import raw_stream, read_until, request_id
from tests.support.upstream import Call, chunk, two_words

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_closes_the_upstream(server: Server, live: Portal, stream: bool) -> None:
    async def script(call: Call) -> None:
        if stream:
            await two_words(call)
        await call.closed_event()

    model = live.model(script)
    with raw_stream(server, live.token(), ask(model, stream=stream)) as connection:
        if stream:
            head = read_until(connection, b" there")
        else:
            until(lambda: live.upstream.count(model))
    live.upstream.wait_closed(model)
    from relay.models import UsageRecord

    record = until(lambda: UsageRecord.objects.filter(model=model).first())
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
            time.sleep(0.5)
        assert sent < 40_000_000
    live.upstream.wait_closed(model)


def test_never_reading_client_is_cut_off_at_the_total_timeout(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        while True:
            await call.event(chunk("x" * 60_000))

    model = live.model(script, total_timeout=1)
    with raw_stream(server, live.token(), ask(model, stream=True)):
        live.upstream.wait_closed(model)
        from relay.models import UsageRecord

        record = until(lambda: UsageRecord.objects.filter(model=model).first())
        assert record.end_reason == "timeout"


@pytest.mark.parametrize("how", ["revoke", "disable-user"])
def test_revoked_token_ends_its_running_stream(server: Server, live: Portal, how: str) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    async def script(call: Call) -> None:
        await two_words(call)
        await call.closed_event()

    model, user = live.model(script), live.user()
    secret = live.token(user)
    with raw_stream(server, secret, ask(model, stream=True)) as connection:
        head = read_until(connection, b" there")
        if how == "revoke":
            revoke_token(Token.objects.get(user=user), actor=None)
        else:
            user.is_active = False
            user.save()
        read_until(connection, b'"code":"request_ended"')
    assert live.record(request_id(head)).end_reason == "ended"
