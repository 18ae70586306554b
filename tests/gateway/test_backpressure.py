"""Streams whose client leaves, does not read or loses its token."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.support.asserts import until
from tests.support.money import settled
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.streams import raw_stream, read_until, request_id
from tests.support.upstream import Call, chunk, completion, two_words

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


@pytest.mark.parametrize("stream", [True, False])
def test_what_an_upstream_used_is_charged_although_the_client_left(server: Server, live: Portal, stream: bool) -> None:
    """A model that reasons reports most of its tokens at the end, for which the client does not wait."""
    usage = {"prompt_tokens": 9, "completion_tokens": 5010, "completion_tokens_details": {"reasoning_tokens": 5000}}

    async def script(call: Call) -> None:
        if stream:
            await two_words(call)
        for _ in range(40):  # four times as long as it takes to notice that a client has left
            await asyncio.sleep(0.025)
            if stream:
                await call.event(chunk("."))
        if not stream:
            await call.reply(200, completion("Hello there", usage=usage))
            return
        await call.event({**chunk(None, "stop"), "usage": usage})
        await call.event("[DONE]")
        await call.end()

    user = live.user(balance=10**12)
    model = live.model(script, price={"input": 1, "output": 10})
    with raw_stream(server, live.token(user), ask(model, stream=stream)) as connection:
        if stream:
            read_until(connection, b" there")
        else:
            until(lambda: live.upstream.count(model))
    from relay.models import UsageRecord

    record = until(lambda: UsageRecord.objects.filter(model=model).first())
    assert (record.end_reason, record.status) == ("client_gone", 200 if stream else 499)
    assert (record.output_tokens, record.usage_source, record.billing) == (5010, "reported", "usage")
    assert record.cost == 9 * 1000 + 5010 * 10_000 == settled(user).used


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
        assert record.end_reason in {"client_gone", "timeout"}  # whichever is noticed first


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
        said = read_until(connection, b'"code":"request_ended"')
        assert (b"account of its token was disabled" in said) == (how == "disable-user")
    assert live.record(request_id(head)).end_reason == "client_gone"
