"""The endpoints that tell a token its use and limits."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import Budget, Token
from relay.models.token import digest_of
from tests.support.money import COST, PRICE
from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_usage_of_a_token_and_what_limits_it(live: Portal, server: Server) -> None:
    user = live.user(balance=3 * COST)
    secret, other = live.token(user), live.token(user)
    token = Token.objects.get(digest=digest_of(secret))
    movements.set_quota(token, 2 * COST)
    Budget.objects.create(user=user, period="month", limit=Decimal(1))
    model = live.model(price=PRICE)
    assert server.post(secret, ask(model, max_tokens=7)).status_code == 200
    assert server.post(other, ask(model, max_tokens=7)).status_code == 200
    found = server.get(secret, "/v1/usage").json()
    assert found["totals"] == {
        "requests": 1,
        "input_tokens": 9,
        "cached_input_tokens": 4,
        "output_tokens": 7,
        "cost_usd": "0.0000875",
    }
    assert found["spent_usd"] == {"day": "0.0000875", "week": "0.0000875", "month": "0.0000875"}
    limits = {(line["kind"], line["of"]): line for line in found["limits"]}
    assert set(limits) == {("wallet", "user"), ("quota", "token"), ("budget", "user")}
    assert limits["quota", "token"]["limit_usd"] == "0.000175" and limits["quota", "token"]["used_usd"] == "0.0000875"
    assert limits["wallet", "user"]["used_usd"] == "0.000175"
    assert limits["budget", "user"]["period"] == "month" and limits["budget", "user"]["resets_at"] > 1_700_000_000
    assert server.post(secret, ask(model)).status_code in {200, 429}
    assert server.post(secret, ask(model, max_tokens=7)).status_code == 429
    assert server.get(secret, "/v1/usage").status_code == 200, "an exhausted token may still ask"


@pytest.mark.parametrize("prefix", ["/dashboard/billing", "/v1/dashboard/billing"])
def test_one_apis_clients_read_limits_and_use(live: Portal, server: Server, prefix: str) -> None:
    user = live.user(balance=NANO)
    secret = live.token(user)
    live.record(server.post(secret, ask(live.model(price=PRICE))))
    found = server.get(secret, f"{prefix}/subscription").json()
    assert (
        found["object"] == "billing_subscription" and found["has_payment_method"] is True and found["access_until"] == 0
    )
    assert found["hard_limit_usd"] == found["soft_limit_usd"] == found["system_hard_limit_usd"] == pytest.approx(1.0)
    assert server.get(secret, f"{prefix}/usage?start_date=2026-01-01&end_date=2026-02-01").json() == {
        "object": "list",
        "total_usage": 0.00875,
    }
    movements.set_quota(Token.objects.get(digest=digest_of(secret)), NANO // 4)
    assert server.get(secret, f"{prefix}/subscription").json()["hard_limit_usd"] == pytest.approx(0.25)
    assert server.get(live.token(), f"{prefix}/subscription").json()["hard_limit_usd"] == 100_000_000


TEXT = {"accept": "text/plain"}


def test_limits_in_a_line(live: Portal, server: Server) -> None:
    """For status lines. Another token of the user, and another user, are told their own."""
    user = live.user(balance=10 * NANO)
    secret, other, stranger = live.token(user), live.token(user), live.token()
    token = Token.objects.get(digest=digest_of(secret))
    Budget.objects.create(token=token, period="day", limit=Decimal(0))
    Budget.objects.create(user=user, period="month", limit=Decimal(20))
    movements.set_quota(token, NANO)
    server.catch_up()
    answer = server.get(secret, "/v1/usage", **TEXT)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    duration = r"new in \d+ (d|h|min)"
    assert re.fullmatch(
        rf"day 100% of \$0\.00, {duration} · month 0% of \$20\.00, {duration} · quota \$1\.00 · balance \$10\.00\n",
        answer.text,
    ), answer.text
    assert re.fullmatch(
        rf"month 0% of \$20\.00, {duration} · balance \$10\.00\n", server.get(other, "/v1/usage", **TEXT).text
    )
    assert server.get(stranger, "/v1/usage", **TEXT).text == "no limit\n"
    assert server.get("sk-nobody", "/v1/usage", **TEXT).status_code == 401
    assert server.get(secret, "/v1/usage", accept="*/*").json()["object"] == "usage"


def test_menu_bar_apps_read_the_same_numbers(live: Portal, server: Server) -> None:
    """In the members, and of the types, that readers of sub2api's answer want. Other tokens' use is not in them."""
    user = live.user(balance=10 * COST)
    secret, other = live.token(user), live.token(user)
    token = Token.objects.get(digest=digest_of(secret))
    movements.set_quota(token, 4 * COST)
    Budget.objects.create(user=user, period="day", limit=Decimal(2))
    Budget.objects.create(token=token, period="day", limit=Decimal(1))
    Budget.objects.create(user=user, period="month", limit=Decimal(20))
    model = live.model(price=PRICE)
    live.record(server.post(secret, ask(model, max_tokens=7)))
    live.record(server.post(other, ask(model, max_tokens=7)))
    found = server.get(secret, "/v1/usage").json()
    cost = COST / NANO
    assert (found["isValid"], found["status"], found["mode"], found["unit"]) == (True, "active", "quota_limited", "USD")
    assert found["planName"] == token.name and isinstance(found["request_limits"], dict)
    counters = {
        "requests": 1,
        "input_tokens": 5,
        "cache_read_tokens": 4,
        "output_tokens": 7,
        "total_tokens": 16,
        "actual_cost": pytest.approx(cost),
    }
    assert found["usage"] == {"today": counters, "total": counters}
    assert [{**line, "date": len(line["date"])} for line in found["daily_usage"]] == [{"date": 10, **counters}]
    assert found["model_stats"] == [{"model": model, **counters}]
    assert found["quota"] == {
        "limit": pytest.approx(4 * cost),
        "used": pytest.approx(cost),
        "remaining": pytest.approx(3 * cost),
        "unit": "USD",
    }
    assert found["remaining"] == pytest.approx(3 * cost) and found["balance"] == pytest.approx(8 * cost)
    plan = found["subscription"]
    assert (plan["daily_limit_usd"], plan["weekly_limit_usd"], plan["monthly_limit_usd"]) == (1, None, 20)
    assert (plan["daily_usage_usd"], plan["monthly_usage_usd"]) == (pytest.approx(cost), pytest.approx(2 * cost))
    assert plan["daily_reset_at"] > "2026" and "weekly_reset_at" not in plan


def test_what_is_not_limited_is_not_told_as_a_number(live: Portal, server: Server) -> None:
    found = server.get(live.token(live.user()), "/v1/usage").json()
    assert found["mode"] == "unrestricted" and found["usage"]["total"]["requests"] == 0
    assert not {"remaining", "balance", "quota", "subscription"} & set(found)
