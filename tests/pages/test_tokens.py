"""The pages of users: three actors, and nobody sees what is another's."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent
from portal.lib import clock
from relay.models import Model, ModelPermission, Token, UsageRecord
from relay.models.token import digest_of
from relay.tokens.lifecycle import create_token, revoke_token
from tests.conftest import People


@pytest.fixture
def clients(people: People) -> tuple[Client, Client, Client]:
    """Owner, other user, staff, signed in."""
    found = []
    for user in (people.owner, people.other, people.staff):
        client = Client()
        client.force_login(user)
        found.append(client)
    return found[0], found[1], found[2]


@pytest.fixture
def owned(people: People) -> tuple[Token, str]:
    return create_token(people.owner, "laptop", actor=people.owner)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tokens/",
        "/tokens/new/",
        "/usage/",
        "/connect/",
        "/catalog/",
        "/playground/",
        "/errors/",
        "/status/",
        "/storage/",
        "/balance/",
        "/accounts/",
        "/accounts/password/change/",
    ],
)
def test_pages_need_a_sign_in(db: None, path: str) -> None:
    response = Client().get(path)
    assert response.status_code == 302 and response["location"].startswith("/accounts/login/")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tokens/",
        "/tokens/new/",
        "/usage/",
        "/connect/",
        "/catalog/",
        "/playground/",
        "/errors/",
        "/status/",
        "/storage/",
        "/balance/",
        "/accounts/",
        "/accounts/password/change/",
    ],
)
def test_pages_work_for_a_new_user_and_say_what_to_do(clients: tuple[Client, Client, Client], path: str) -> None:
    response = clients[0].get(path)
    assert response.status_code == 200
    assert "default-src 'self'" in response["content-security-policy"]
    if path in {"/", "/tokens/"}:
        assert "Create a token" in response.content.decode()


def test_sign_in_and_out(people: People) -> None:
    client = Client()
    wrong = client.post("/accounts/login/", {"login": "alice", "password": "wrong"})
    assert wrong.status_code == 200 and "is not right" in wrong.content.decode()
    response = client.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert response.status_code == 302 and response["location"] == "/"
    assert AuditEvent.objects.filter(action="sign-in", actor=people.owner).exists()
    client.post("/accounts/logout/")
    assert client.get("/").status_code == 302


def test_sign_in_does_not_redirect_elsewhere(people: People) -> None:
    response = Client().post("/accounts/login/?next=https://evil.example.com/", {"login": "alice", "password": "a long password", "next": "https://evil.example.com/"})
    assert response["location"] == "/"


def test_guessing_of_passwords_is_slowed_down(people: People) -> None:
    from django.core.cache import cache

    cache.clear()
    statuses = [Client().post("/accounts/login/", {"login": "alice", "password": f"x{number}"}).status_code for number in range(12)]
    assert statuses[:8] == [200] * 8 and statuses[-1] == 429
    right = Client().post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert right.status_code == 429, "the right password does not help while the limit holds"
    other_name = Client().post("/accounts/login/", {"login": "bob", "password": "a long password"})
    assert other_name.status_code == 302, "other people can still sign in from there"
    cache.clear()


def test_admin_is_entered_through_the_same_counted_door(people: People, clients: tuple[Client, Client, Client]) -> None:
    stranger = Client()
    page = stranger.get("/admin/relay/token/", follow=True)
    assert page.redirect_chain[-1][0] == "/accounts/login/?next=%2Fadmin%2Frelay%2Ftoken%2F"
    assert stranger.post("/admin/login/", {"login": "carol", "password": "a long password"}).status_code == 302
    assert stranger.get("/admin/").status_code == 302, "the admin's own form is not served"
    response = stranger.post("/accounts/login/", {"login": "carol", "password": "a long password", "next": "/admin/relay/token/"})
    assert response["location"] == "/admin/relay/token/" and stranger.get("/admin/login/")["location"] == "/admin/"
    refused = clients[0].get("/admin/", follow=True)
    assert refused.status_code == 403 and "Not allowed" in refused.content.decode()


def test_create_shows_the_token_once_and_stores_no_clear_text(clients: tuple[Client, Client, Client], people: People) -> None:
    response = clients[0].post("/tokens/new/", {"name": "phone", "validity": "30", "allowed_ips": "203.0.113.7\n10.0.0.0/8"})
    token = Token.objects.get(user=people.owner, name="phone")
    page = response.content.decode()
    secret = page.split('id="secret">', 1)[1].split("<", 1)[0]
    assert secret.startswith("sk-") and len(secret) == 51
    assert token.digest == digest_of(secret)
    assert "no-store" in response["cache-control"]
    assert all(secret not in str(value) for value in Token.objects.filter(pk=token.pk).values()[0].values())
    assert token.expires_at is not None and 29 < (token.expires_at - clock.now()).days + 1 <= 31
    assert token.allowed_ips == ["203.0.113.7/32", "10.0.0.0/8"]
    assert f"Bearer {secret}" in page and "http://testserver/v1" in page
    assert secret not in clients[0].get(f"/tokens/{token.pk}/").content.decode()


@pytest.mark.parametrize(
    ("form", "words"), [({"name": ""}, "required"), ({"name": "x", "allowed_ips": "nonsense"}, "neither an IP address"), ({"name": "x", "validity": "7777"}, "valid choice")]
)
def test_wrong_forms_say_what_is_wrong(clients: tuple[Client, Client, Client], form: dict[str, str], words: str) -> None:
    response = clients[0].post("/tokens/new/", form)
    assert response.status_code == 422 and words in response.content.decode()


def test_token_may_be_limited_only_to_models_of_its_owner(clients: tuple[Client, Client, Client], people: People) -> None:
    mine, closed = Model.objects.create(name="mine"), Model.objects.create(name="closed")
    ModelPermission.objects.create(model=mine, user=people.owner)
    page = clients[0].get("/tokens/new/").content.decode()
    assert "mine" in page and "closed" not in page
    assert clients[0].post("/tokens/new/", {"name": "a", "models_allowed": [closed.pk]}).status_code == 422
    assert clients[0].post("/tokens/new/", {"name": "a", "models_allowed": [mine.pk]}).status_code == 200
    assert list(Token.objects.get(name="a").models_allowed.all()) == [mine]


def test_reveal_is_for_the_owner_alone_and_leaves_a_trace(clients: tuple[Client, Client, Client], owned: tuple[Token, str], people: People) -> None:
    token, secret = owned
    owner, other, staff = clients
    assert secret in owner.post(f"/tokens/{token.pk}/reveal/").content.decode()
    assert other.post(f"/tokens/{token.pk}/reveal/").status_code == 404
    assert staff.post(f"/tokens/{token.pk}/reveal/").status_code == 404
    assert owner.get(f"/tokens/{token.pk}/reveal/").status_code == 405
    event = AuditEvent.objects.get(action="token.reveal")
    assert (event.actor, event.target_name, event.ip) == (people.owner, "laptop", "127.0.0.1")
    assert secret not in str(event.detail)


def test_revealing_can_be_turned_off(clients: tuple[Client, Client, Client], owned: tuple[Token, str], settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"tokens_revealable": False})
    token, secret = owned
    assert "Show the token" not in clients[0].get(f"/tokens/{token.pk}/").content.decode()
    assert secret not in clients[0].post(f"/tokens/{token.pk}/reveal/", follow=True).content.decode()
    fresh, _ = create_token(token.user, "new", actor=None)
    assert fresh.sealed == "", "no copy is kept"


def test_reveals_are_limited(clients: tuple[Client, Client, Client], owned: tuple[Token, str]) -> None:
    from django.core.cache import cache

    cache.clear()
    statuses = [clients[0].post(f"/tokens/{owned[0].pk}/reveal/").status_code for _ in range(31)]
    assert statuses[29] == 200 and statuses[30] == 429
    cache.clear()


@pytest.mark.parametrize("action", ["rotate", "revoke", "enabled"])
def test_others_cannot_touch_a_token(clients: tuple[Client, Client, Client], owned: tuple[Token, str], action: str) -> None:
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
    clients[0].post(f"/tokens/{token.pk}/enabled/")
    token.refresh_from_db()
    assert token.state() == "disabled"
    clients[0].post(f"/tokens/{token.pk}/revoke/")
    token.refresh_from_db()
    assert token.state() == "revoked" and token.sealed == ""
    assert clients[0].get(f"/tokens/{token.pk}/").status_code == 404
    assert [event.action for event in AuditEvent.objects.filter(target_id=str(token.pk)).order_by("pk")] == ["token.create", "token.rotate", "token.disable", "token.revoke"]


def test_lists_show_ones_own_alone(clients: tuple[Client, Client, Client], owned: tuple[Token, str], people: People) -> None:
    token, _ = owned
    UsageRecord.objects.create(
        request_id="req_of_alice", started_at=clock.now(), user=people.owner, token=token, model="model-of-alice", endpoint="chat.completions",
        streamed=False, status=200, end_reason="completed", usage_source="reported", latency_ms=5, input_tokens=1234, output_tokens=7,
    )  # fmt: skip
    owner, other, staff = clients
    assert "laptop" in owner.get("/tokens/").content.decode()
    page = owner.get("/usage/").content.decode()
    assert "req_of_alice" in page and "1,234" in page and "model-of-alice" in page
    for client in (other, staff):
        assert "laptop" not in client.get("/tokens/").content.decode()
        assert "laptop" not in client.get("/").content.decode()
        assert "alice" not in client.get("/usage/").content.decode()


def test_usage_is_paged_by_id(clients: tuple[Client, Client, Client], people: People) -> None:
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"req_{number:03}", started_at=clock.now(), user=people.owner, model="m", endpoint="chat.completions", streamed=False,
            status=200, end_reason="completed", usage_source="reported", latency_ms=5,
        )
        for number in range(60)
    )  # fmt: skip
    first = clients[0].get("/usage/").content.decode()
    assert "req_059" in first and "req_009" not in first
    link = first.split('href="?before=', 1)[1].split('"', 1)[0]
    second = clients[0].get(f"/usage/?before={link}").content.decode()
    assert "req_009" in second and "req_059" not in second


def test_revoked_tokens_are_not_revealed(owned: tuple[Token, str]) -> None:
    token, _ = owned
    revoke_token(token, actor=None)
    token.refresh_from_db()
    assert token.reveal() is None


def test_unknown_page_is_a_page_of_ours(clients: tuple[Client, Client, Client]) -> None:
    response = clients[0].get("/nothing-here/")
    assert response.status_code == 404 and "Nothing here" in response.content.decode()


def test_health(db: None) -> None:
    assert Client().get("/healthz").json()["ok"] is True
    assert Client().get("/readyz").json()["ready"] is True


def test_no_page_lies_where_the_relay_answers() -> None:
    """Clients may leave /v1 out of the base URL, so the first words of its paths belong to the relay."""
    from django.urls import get_resolver

    from relay.api.paths import relay_path

    for pattern in get_resolver("portal.urls").url_patterns:
        shown = "/" + str(pattern.pattern).replace("<slug:", "x").split("<")[0]
        assert relay_path(shown) is None, shown
