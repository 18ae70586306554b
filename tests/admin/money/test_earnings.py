"""What upstreams charge is seen by nobody without the right to see what is earned, whatever else they may do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import Channel, LedgerAccount, Model, ModelPrice
from relay.tokens.lifecycle import create_token
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared

COST, PRICE = Decimal("0.777"), Decimal("3.333")  # amounts that stand nowhere else
MULTIPLIER = Decimal("0.654")
ROLES = ["Owner", "Accountant", "Operator", "Support", "plain staff", "user"]


def person(role: str, people: People) -> Client:
    if role == "user":
        return signed_in(people.owner)
    user = User.objects.create_user(f"a-{role}", is_staff=True)
    user.groups.set(Group.objects.filter(name=role))
    return signed_in(user)


@pytest.fixture
def priced(people: People) -> dict[str, Any]:
    channel = Channel.objects.create(name="Mine", provider="openai", cost_multiplier=MULTIPLIER)
    model = Model.objects.create(name="priced")
    sold = ModelPrice.objects.create(model=model, input=PRICE, output=PRICE)
    cost = ModelPrice.objects.create(model=model, channel=channel, purpose="cost", input=COST, output=COST)
    boss = signed_in(people.staff)
    form = {"model": model.pk, "purpose": "cost", "channel": channel.pk, "valid_from_0": "2099-01-01"}
    amounts = {"valid_from_1": "00:00", "above_tokens": 0, "input": "0.555", "output": "0.555", "source": ""}
    assert boss.post("/admin/relay/modelprice/add/", {**form, **amounts}).status_code == 302
    AuditEvent.write("channel.change", people.staff, channel, changes={"cost_multiplier": ["1", str(MULTIPLIER)]})
    return {"channel": channel, "model": model, "sold": sold, "cost": cost}


@pytest.mark.parametrize("role", ROLES)
def test_costs_stand_on_no_page_of_those_who_may_not_see_earnings(
    people: People, priced: dict[str, Any], role: str
) -> None:
    """Prices, the channel's form, the audit log: lists and single entries. The log says that something changed."""
    may = role in {"Owner", "Accountant"}
    browser = person(role, people)
    channel, cost, sold = priced["channel"], priced["cost"], priced["sold"]
    paths = [
        "/admin/relay/modelprice/",
        f"/admin/relay/modelprice/{cost.pk}/change/",
        f"/admin/relay/modelprice/{cost.pk}/history/",
        f"/admin/relay/modelprice/{cost.pk}/new-version/",
        f"/admin/relay/channel/{channel.pk}/change/",
        f"/admin/relay/channel/{channel.pk}/history/",
        "/admin/relay/channel/add/",
        "/admin/accounts/auditevent/",
        *(f"/admin/accounts/auditevent/{event.pk}/change/" for event in AuditEvent.objects.all()),
    ]
    pages = {path: browser.get(path, follow=True).content.decode() for path in paths}
    seen = [path for path, page in pages.items() for amount in ("0.777", "0.555", "0.654") if amount in page]
    assert bool(seen) == may, seen
    assert [path for path, page in pages.items() if "cost_multiplier" in page] == (
        [f"/admin/relay/channel/{channel.pk}/change/", "/admin/relay/channel/add/"] if role == "Owner" else []
    )
    if role in {"Operator", "Accountant", "Owner"}:
        assert "3.333" in pages["/admin/relay/modelprice/"], "what users pay is no secret"
        assert "Price: " in pages["/admin/accounts/auditevent/"]
    assert sold.pk


@pytest.mark.parametrize("role", ["Owner", "Operator", "Support"])
def test_a_list_cannot_be_filtered_by_a_cost_that_is_hidden(people: People, priced: dict[str, Any], role: str) -> None:
    """Otherwise its rows would tell, in a few questions, what it is."""
    browser = person(role, people)
    found = browser.get("/admin/relay/channel/?cost_multiplier__lt=0.7")
    if role == "Owner":
        assert found.status_code == 200 and "Mine" in found.content.decode()
    else:
        assert found.status_code in {302, 400}, found.status_code
    for path in ("channel/?prices__input__lt=1", "apikey/?channel__cost_multiplier__lt=0.7"):
        assert browser.get(f"/admin/relay/{path}").status_code in {302, 400, 403}, path
    page = browser.get("/admin/relay/modelprice/?purpose__exact=cost").content.decode()
    assert ("0.777" in page) == (role == "Owner")


def test_an_operator_saves_a_channel_without_touching_its_multiplier(people: People, priced: dict[str, Any]) -> None:
    channel = priced["channel"]
    browser = person("Operator", people)
    page = browser.get(f"/admin/relay/channel/{channel.pk}/change/")
    form = {
        name: value
        for name, value in page.context["adminform"].form.initial.items()
        if value is not None and not isinstance(value, (bool, list))
    }
    parts = {f"{part}-{name}_FORMS": 0 for part in ("keys", "served") for name in ("TOTAL", "INITIAL")}
    form |= {"name": "Renamed", "base_url": "https://api.openai.com/v1", "parameters": "{}", "cost_multiplier": "9"}
    form |= {"enabled": "on", **parts}
    answer = browser.post(f"/admin/relay/channel/{channel.pk}/change/", form)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    channel.refresh_from_db()
    assert (channel.name, channel.cost_multiplier) == ("Renamed", MULTIPLIER)


def test_who_sets_prices_without_seeing_earnings_sets_those_of_users(people: People, priced: dict[str, Any]) -> None:
    clerk = User.objects.create_user("clerk", is_staff=True)
    rights = [f"{what}_modelprice" for what in ("view", "add", "change", "delete")]
    clerk.user_permissions.set(Permission.objects.filter(codename__in=rights))
    browser = signed_in(clerk)
    form = {"model": priced["model"].pk, "channel": priced["channel"].pk, "valid_from_0": "2099-02-01"}
    amounts = {"valid_from_1": "00:00", "above_tokens": 0, "input": 1, "output": 1, "source": ""}
    refused = browser.post("/admin/relay/modelprice/add/", {**form, **amounts, "purpose": "cost"})
    assert refused.status_code == 200 and ModelPrice.objects.filter(purpose="cost").count() == 2
    assert browser.post("/admin/relay/modelprice/add/", {**form, **amounts, "purpose": "sale"}).status_code == 302
    later = ModelPrice.objects.filter(purpose="cost").latest("valid_from")
    browser.post(f"/admin/relay/modelprice/{later.pk}/delete/", {"post": "yes"})
    assert ModelPrice.objects.filter(pk=later.pk).exists()


def test_the_log_shows_list_prices_that_were_taken(people: People, priced: dict[str, Any]) -> None:
    lines = ["input: — → $2.50"]
    event = AuditEvent.write("price.import", people.staff, priced["model"], changes=lines)
    for role in ("Owner", "Operator"):
        browser = person(role, people)
        assert lines[0] in browser.get("/admin/accounts/auditevent/").content.decode()
        assert lines[0] in browser.get(f"/admin/accounts/auditevent/{event.pk}/change/").content.decode()


@pytest.mark.parametrize("role", ["Owner", "Accountant", "Support", "Operator"])
def test_balances_stand_in_lists_for_those_alone_who_may_see_them(people: People, role: str) -> None:
    """Operators maintain channels without seeing what users pay and have, wherever it would stand."""
    may = role != "Operator"
    movements.top_up(people.owner, 777 * NANO, actor=None, reason="test")
    token, _secret = create_token(people.owner, "mine", actor=None)
    movements.set_quota(token, 55 * NANO)
    LedgerAccount.objects.filter(user=people.owner, kind="wallet").update(used=777 * NANO)
    LedgerAccount.objects.filter(token=token).update(used=44 * NANO)
    browser = person(role, people)
    users = browser.get("/admin/accounts/user/").content.decode()
    assert ("777.00" in users, "?balance=empty" in users) == (may, may)
    assert ("44.00" in browser.get("/admin/relay/token/").content.decode()) == may
    narrowed = browser.get("/admin/accounts/user/?balance=empty")
    assert (narrowed.status_code == 200) == may and narrowed.status_code < 500
    front = browser.get("/admin/").content.decode()
    assert ("used their balance up" in front) == (role in {"Owner", "Support", "Accountant"})
