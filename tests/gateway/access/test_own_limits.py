"""What Codex is told of its own limits, in the headers of answers."""

from __future__ import annotations

import time
from decimal import Decimal

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import Budget, Token
from relay.models.token import digest_of
from tests.support.asserts import until
from tests.support.money import COST, PRICE
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

CODEX = {"originator": "codex_exec", "user-agent": "codex_exec/0.171.0"}


def told(server: Server, token: str, model: str, **headers: str) -> dict[str, str]:
    """The headers for Codex on the answer to one request of it."""
    body = {"model": model, "input": "x", "max_output_tokens": 7}
    answer = server.post(token, body, path="/v1/responses", headers=headers)
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.headers.items() if name.startswith("x-codex-")}


def test_codex_is_told_the_budgets_and_the_quota_of_its_token(live: Portal, server: Server) -> None:
    user = live.user()
    secret, other = live.token(user), live.token(user)
    token = Token.objects.get(digest=digest_of(secret))
    Budget.objects.create(token=token, period="day", limit=Decimal(100 * COST) / NANO)
    Budget.objects.create(user=user, period="month", limit=Decimal(1000))
    movements.set_quota(token, 1000 * COST)
    model = live.model(hello, price=PRICE, text_api="chat")
    server.catch_up()
    assert told(server, secret, model) == {}, "only Codex reads them"
    live.record(server.post(secret, {"model": model, "input": "x", "max_output_tokens": 7}, path="/v1/responses"))

    def spent() -> bool:
        found = told(server, other, model, **CODEX)
        return found.get("x-codex-primary-window-minutes") == "43200"

    assert until(spent), "another token has the user's budget alone"
    assert until(lambda: "x-codex-primary-used-percent" in told(server, secret, model, **CODEX))
    found = told(server, secret, model, **CODEX)
    assert (found["x-codex-primary-window-minutes"], found["x-codex-secondary-window-minutes"]) == ("1440", "43200")
    assert 1 <= float(found["x-codex-primary-used-percent"]) <= 100
    assert int(found["x-codex-primary-reset-at"]) > time.time()
    assert found["x-codex-credits-has-credits"] == "true" and found["x-codex-credits-unlimited"] == "false"
    assert 0 < float(found["x-codex-credits-balance"]) < 1000 * COST / NANO


def test_who_has_no_limits_is_told_none(live: Portal, server: Server) -> None:
    token, model = live.token(live.user()), live.model(hello, price=PRICE, text_api="chat")
    server.catch_up()
    assert all(told(server, token, model, **CODEX) == {} for _ in range(3))
