"""A client that leaves while its upstream cannot be reached pays nothing: nobody has seen its request."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from portal.lib.money import NANO
from relay.models import UsageRecord
from tests.support.asserts import until
from tests.support.money import books_balance
from tests.support.portal import Portal, ask
from tests.support.server import Server


@pytest.fixture
def unreachable() -> Iterator[str]:
    """The address of a server whose queue of connections is full: connecting neither succeeds nor fails."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/images/generations", {"prompt": "x"}),
    ],
)
def test_nothing_is_charged_for_what_was_never_sent(
    live: Portal, server: Server, unreachable: str, path: str, body: dict[str, object]
) -> None:
    price = {"input": 1000, "output": 1000, "per_call": 1, "per_image": 1 if "images" in path else None}
    channel = live.channel(unreachable, disconnect_policy="reserved")
    model, token = live.model(channels=[channel], price=price), live.token(live.user(balance=1000 * NANO))
    server.catch_up()
    asked = ask(model, **body) if "chat" in path else {"model": model, **body}
    options = {"headers": {"authorization": f"Bearer {token}"}, "timeout": 0.5, "trust_env": False}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(server.url + path, json=asked, **options)  # type: ignore[arg-type]
    record = until(lambda: UsageRecord.objects.filter(model=model).first())
    assert (record.end_reason, record.usage_source, record.cost) == ("client_gone", "none", 0)
    assert record.input_tokens == record.output_tokens == 0
    books_balance()
