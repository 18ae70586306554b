"""The pages of tokens: three actors, and nobody sees what is anothers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent
from portal.lib import clock
from relay.billing.ledger import movements
from relay.models import Budget, LedgerAccount, Model, ModelPermission, Token, UsageRecord
from relay.models.token import digest_of
from relay.tokens.lifecycle import create_token, revoke_token
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_owners_set_quota_and_budgets_of_their_tokens(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    path = f"/tokens/{token.pk}/limits/"
    form = {"quota": "2.5", "day": "1", "week": "", "month": "20"}
    assert signed_in(people.other).post(path, form).status_code == 404
    assert signed_in(people.staff).post(path, form).status_code == 404
    client = signed_in(people.owner)
    assert client.post(path, form).status_code == 302
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 2_500_000_000
    assert set(Budget.objects.filter(token=token).values_list("period", flat=True)) == {"day", "month"}
    page = client.get(f"/tokens/{token.pk}/").content.decode()
    assert 'value="2.5"' in page and 'value="20"' in page
    assert client.post(path, {"quota": "", "day": "", "week": "", "month": ""}).status_code == 302
    assert (
        not Budget.objects.filter(token=token).exists()
        and not LedgerAccount.objects.get(token=token, kind="quota").limited
    )
    assert client.post(path, {"quota": "-1"}).status_code == 422
    assert client.post(path, {"quota": "much"}).status_code == 422


@pytest.fixture
def owned(people: People) -> tuple[Token, str]:
    return create_token(people.owner, "laptop", actor=people.owner)


def test_create_shows_the_token_once_and_stores_no_clear_text(
    clients: tuple[Client, Client, Client], people: People
) -> None:
    response = clients[0].post(
        "/tokens/new/", {"name": "phone", "validity": "30", "allowed_ips": "203.0.113.7\n10.0.0.0/8"}
    )
    token = Token.objects.get(user=people.owner, name="phone")
    page = response.content.decode()
    secret = page.split('id="secret">', 1)[1].split("<", 1)[0]
    assert secret.startswith("sk-") and len(secret) == 51
    assert token.digest == digest_of(secret)
    assert "no-store" in response["cache-control"]
    assert all(secret not in str(value) for value in Token.objects.filter(pk=token.pk).values()[0].values())
    assert token.expires_at is not None and 29 < (token.expires_at - clock.now()).days + 1 <= 31
    assert token.allowed_ips == ["203.0.113.7/32", "10.0.0.0/8"]
    assert secret in page and "http://testserver/v1" in page
    assert secret not in clients[0].get(f"/tokens/{token.pk}/").content.decode()


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"name": ""}, "required"),
        ({"name": "x", "allowed_ips": "nonsense"}, "neither an IP address"),
        ({"name": "x", "validity": "7777"}, "valid choice"),
    ],
)
def test_wrong_forms_say_what_is_wrong(
    clients: tuple[Client, Client, Client], form: dict[str, str], words: str
) -> None:
    response = clients[0].post("/tokens/new/", form)
    assert response.status_code == 422 and words in response.content.decode()


def test_token_may_be_limited_only_to_models_of_its_owner(
    clients: tuple[Client, Client, Client], people: People
) -> None:
    mine, closed = Model.objects.create(name="mine"), Model.objects.create(name="closed")
    ModelPermission.objects.create(model=mine, user=people.owner)
    page = clients[0].get("/tokens/new/").content.decode()
    assert "mine" in page and "closed" not in page
    assert clients[0].post("/tokens/new/", {"name": "a", "models_allowed": [closed.pk]}).status_code == 422
    assert clients[0].post("/tokens/new/", {"name": "a", "models_allowed": [mine.pk]}).status_code == 200
    assert list(Token.objects.get(name="a").models_allowed.all()) == [mine]


def test_reveal_is_for_the_owner_alone_and_leaves_a_trace(
    clients: tuple[Client, Client, Client], owned: tuple[Token, str], people: People
) -> None:
    token, secret = owned
    owner, other, staff = clients
    assert secret in owner.post(f"/tokens/{token.pk}/reveal/").content.decode()
    assert other.post(f"/tokens/{token.pk}/reveal/").status_code == 404
    assert staff.post(f"/tokens/{token.pk}/reveal/").status_code == 404
    assert owner.get(f"/tokens/{token.pk}/reveal/").status_code == 405
    event = AuditEvent.objects.get(action="token.reveal")
    assert (event.actor, event.target_name, event.ip) == (people.owner, "laptop", "127.0.0.1")
    assert secret not in str(event.detail)


def test_revealing_can_be_turned_off(
    clients: tuple[Client, Client, Client], owned: tuple[Token, str], settings: Any
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"tokens_revealable": False})
    token, secret = owned
    assert "Show the token" not in clients[0].get(f"/tokens/{token.pk}/").content.decode()
    assert secret not in clients[0].post(f"/tokens/{token.pk}/reveal/", follow=True).content.decode()
    fresh, _ = create_token(token.user, "new", actor=None)
    assert fresh.sealed == "", "no copy is kept"


def test_reveals_are_limited(
    clients: tuple[Client, Client, Client], owned: tuple[Token, str], one_window: None
) -> None:
    statuses = [clients[0].post(f"/tokens/{owned[0].pk}/reveal/").status_code for _ in range(31)]
    assert statuses[29] == 200 and statuses[30] == 429


@pytest.mark.parametrize("action", ["rotate", "revoke", "enabled"])
def test_others_cannot_touch_a_token(
    clients: tuple[Client, Client, Client], owned: tuple[Token, str], action: str
) -> None:
    token, _ = owned
    before = Token.objects.filter(pk=token.pk).values().get()
    for client in clients[1:]:
        assert client.post(f"/tokens/{token.pk}/{action}/").status_code == 404
        assert client.get(f"/tokens/{token.pk}/").status_code == 404
    assert Token.objects.filter(pk=token.pk).values().get() == before


def test_rotate_disable_and_revoke(clients: tuple[Client, Client, Client], owned: tuple[Token, str]) -> None:
    token, secret = owned
    page = clients[0].post(f"/tokens/{token.pk}/rotate/").content.decode()
    fresh = page.split('id="secret">', 1)[1].split("<", 1)[0]
    token.refresh_from_db()
    assert fresh != secret and token.digest == digest_of(fresh) and token.rotated_at
    clients[0].post(f"/tokens/{token.pk}/enabled/", {"enabled": "0"})
    token.refresh_from_db()
    assert token.state() == "disabled"
    clients[0].post(f"/tokens/{token.pk}/revoke/")
    token.refresh_from_db()
    assert token.state() == "revoked" and token.sealed == ""
    assert clients[0].get(f"/tokens/{token.pk}/").status_code == 404
    assert [event.action for event in AuditEvent.objects.filter(target_id=str(token.pk)).order_by("pk")] == [
        "token.create",
        "token.rotate",
        "token.disable",
        "token.revoke",
    ]


def test_the_list_says_which_budgets_there_are_and_which_is_used_up(people: People) -> None:
    token, _ = create_token(people.owner, "mine", actor=None)
    browser = signed_in(people.owner)
    for period, limit in (("day", "0.01"), ("month", "5")):
        Budget.objects.create(token=token, period=period, limit=Decimal(limit))
    page = browser.get("/tokens/").content.decode()
    assert "daily budget of $0.01" in page and "monthly budget of $5.00" in page and "used up" not in page
    assert LedgerAccount.objects.filter(token=token, kind="budget", period="day").update(used=10_000_000) == 1
    page = browser.get("/tokens/").content.decode()
    assert page.count("used up") == 1 and page.index("daily budget") < page.index("used up") < page.index("monthly")


def test_lists_show_ones_own_alone(
    clients: tuple[Client, Client, Client], owned: tuple[Token, str], people: People
) -> None:
    token, _ = owned
    UsageRecord.objects.create(
        request_id="req_of_alice",
        started_at=clock.now(),
        user=people.owner,
        token=token,
        model="model-of-alice",
        endpoint="chat.completions",
        streamed=False,
        status=200,
        end_reason="completed",
        usage_source="reported",
        latency_ms=5,
        input_tokens=1234,
        output_tokens=7,
    )
    owner, other, staff = clients
    assert "laptop" in owner.get("/tokens/").content.decode()
    page = owner.get("/usage/").content.decode()
    assert "req_of_alice" in page and "1,234" in page and "model-of-alice" in page
    for client in (other, staff):
        assert "laptop" not in client.get("/tokens/").content.decode()
        assert "laptop" not in client.get("/").content.decode()
        assert "alice" not in client.get("/usage/").content.decode()


def test_revoked_tokens_are_not_revealed(owned: tuple[Token, str]) -> None:
    token, _ = owned
    revoke_token(token, actor=None)
    token.refresh_from_db()
    assert token.reveal() is None


def test_a_token_whose_quota_is_used_up_says_so(people: People, staff: Client) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    own, path = signed_in(people.owner), f"/tokens/{token.pk}/"
    movements.set_quota(token, 5)
    for page in (own.get("/tokens/"), own.get(path), staff.get("/admin/relay/token/")):
        assert "quota used up" not in page.content.decode()
    account = LedgerAccount.objects.filter(token=token, kind="quota")
    account.update(used=5)
    for page in (own.get("/tokens/"), own.get(path), staff.get("/admin/relay/token/")):
        assert "quota used up" in page.content.decode()
    assert "Raise it below." in own.get(path).content.decode()
    Token.objects.filter(pk=token.pk).update(limits_fixed=True)
    assert "Ask an administrator." in own.get(path).content.decode()
    assert signed_in(people.other).get(path).status_code == 404
    movements.set_quota(token, None)
    assert "quota used up" not in own.get(path).content.decode(), "no quota is none that is used up"
    movements.set_quota(token, 0)
    account.update(used=0)
    assert "quota used up" in own.get(path).content.decode(), "one of nothing pays for nothing"
