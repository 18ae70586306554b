"""Large bodies are parsed for those alone who may have them served, and can pay for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portal import limits
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/responses", {"input": 7}),
        ("/v1/embeddings", {"input": "a", "dimensions": "b", "Model": "x"}),
    ],
)
def test_permission_and_money_come_before_a_large_body_is_parsed(
    live: Portal, server: Server, path: str, wrong: dict[str, Any]
) -> None:
    model = live.model(hello, price={"input": 1, "output": 1})
    closed = live.model(hello, is_open=False)
    poor, rich = live.token(live.user(balance=0)), live.token(live.user(balance=10**9))
    server.catch_up()

    def asked(token: str, name: str, size: int) -> tuple[int, str]:
        body = {**wrong, "x": "y" * size, "model": name}
        answer = server.post(token, json.dumps(body).encode(), path, headers={"content-type": "application/json"})
        return answer.status_code, answer.json()["error"]["code"]

    large = limits.LARGE_BODY_BYTES
    assert asked(poor, model, large) == (429, "insufficient_quota")
    assert asked(poor, closed, large)[0] == 403
    assert asked(poor, "none", large)[0] == 404
    assert asked(rich, model, large)[0] == 400
    assert asked(poor, model, 10)[0] == 400
