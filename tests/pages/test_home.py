"""Every page of users: it needs a sign-in, and works for a new user."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from portal.lib import clock
from relay.models import Budget, Incident, LedgerAccount
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


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


def test_unknown_page_is_a_page_of_ours(clients: tuple[Client, Client, Client]) -> None:
    response = clients[0].get("/nothing-here/")
    assert response.status_code == 404 and "Nothing here" in response.content.decode()


def test_no_page_lies_where_the_relay_answers() -> None:
    """Clients may leave /v1 out of the base URL, so the first words of its paths belong to the relay."""
    from django.urls import get_resolver

    from relay.api.paths import relay_path

    for pattern in get_resolver("portal.urls").url_patterns:
        shown = "/" + str(pattern.pattern).replace("<slug:", "x").split("<")[0]
        assert relay_path(shown) is None, shown


def test_the_overview_says_what_is_wrong_now(people: People, settings: Any) -> None:
    browser = signed_in(people.owner)
    Incident.objects.create(title="Slow answers")
    Incident.objects.create(title="Not yours", models_limited=True)
    Incident.objects.create(title="Long over", resolved_at=clock.now())
    Budget.objects.create(user=people.owner, period="day", limit=1)
    account = LedgerAccount.objects.filter(user=people.owner, kind="budget")
    account.update(used=999_999_999)
    page = browser.get("/").content.decode()
    assert "Slow answers" in page and "Not yours" not in page and "Long over" not in page
    assert "is used up" not in page
    account.update(used=1_370_000_000)
    assert "A budget of $1.00 is used up" in browser.get("/").content.decode()
    assert "A budget of" not in signed_in(people.other).get("/").content.decode()
    with_config(settings, status_page="off")
    assert "Slow answers" not in browser.get("/").content.decode()


def test_saved_preferences_say_what_holds_in_the_language_that_was_chosen(people: People) -> None:
    client = signed_in(people.owner)
    page = client.post("/accounts/", {"language": "en", "time_zone": "Asia/Shanghai"}, follow=True).content.decode()
    assert "Language of your pages: English. Times are shown in: Asia/Shanghai." in page
    page = client.post("/accounts/", {"language": "", "time_zone": ""}, follow=True).content.decode()
    assert "Language of your pages: As the browser asks." in page
