"""Budgets are set by whoever may set them, whether or not that person may change users and tokens."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib.money import NANO
from relay.models import Budget, LedgerAccount
from relay.tokens.lifecycle import create_token
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared
ADD = "/admin/relay/budget/add/"


@pytest.fixture
def accountant(people: People) -> Client:
    person = User.objects.create_user("dora", is_staff=True)
    person.groups.add(Group.objects.get(name="Accountant"))
    return signed_in(person)


def budget_form(browser: Client, path: str = ADD, **changes: object) -> dict[str, object]:
    return filled(browser.get(path).content.decode(), **changes)


def test_an_accountant_sets_changes_and_lifts_budgets(accountant: Client, people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    for whose in ({"user": people.owner.pk}, {"token": token.pk}):
        form = budget_form(accountant, ADD, period="week", limit="3", **whose)
        assert accountant.post(ADD, form).status_code == 302
        budget = Budget.objects.get(**whose)
        account = LedgerAccount.objects.get(kind="budget", token=budget.token, user=people.owner)
        assert account.granted == 3 * NANO and account.limited
        LedgerAccount.objects.filter(pk=account.pk).update(used=NANO)
        path = f"/admin/relay/budget/{budget.pk}/change/"
        assert accountant.post(path, budget_form(accountant, path, limit="5", period="day")).status_code == 302
        account.refresh_from_db()
        assert account.granted == 5 * NANO and Budget.objects.get(pk=budget.pk).period == "week"
        listed = accountant.get("/admin/relay/budget/").content.decode()
        assert "$5.00" in listed and "$1.00" in listed and "$4.00" in listed
        gone = accountant.post(f"/admin/relay/budget/{budget.pk}/delete/", {"post": "yes"})
        assert gone.status_code == 302 and not Budget.objects.exists()
        account.refresh_from_db()
        assert not account.limited
    assert AuditEvent.objects.filter(action__startswith="budget.", actor__username="dora").count() == 6


def test_a_budget_is_of_one_user_or_of_one_token_once(accountant: Client, people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    Budget.objects.create(user=people.owner, period="day", limit=1)
    wrong = {
        "one of the two": ({}, {"user": people.other.pk, "token": token.pk}),
        "already": ({"user": people.owner.pk},),
    }
    for said, owners in wrong.items():
        for whose in owners:
            answer = accountant.post(ADD, budget_form(accountant, ADD, period="day", limit="2", **whose))
            assert answer.status_code == 200 and said in answer.content.decode(), whose
    for amount in ("-1", "NaN", "9999999999", ""):
        form = budget_form(accountant, ADD, period="week", limit=amount, user=people.owner.pk)
        assert accountant.post(ADD, form).status_code == 200, amount
    assert Budget.objects.count() == 1


def test_the_pages_of_users_and_tokens_lead_to_their_budgets(accountant: Client, people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    Budget.objects.create(user=people.owner, period="day", limit=1)
    Budget.objects.create(user=people.other, period="day", limit=7)
    for page in (f"/admin/accounts/user/{people.owner.pk}/", f"/admin/relay/token/{token.pk}/"):
        assert f'"{page}budgets/"' in accountant.get(f"{page}change/").content.decode()
        led = accountant.get(f"{page}budgets/", follow=True)
        assert led.status_code == 200 and "$7.00" not in led.content.decode()
    filters = f"_changelist_filters=user__id__exact%3D{people.owner.pk}"
    assert f'value="{people.owner.pk}" selected' in accountant.get(f"{ADD}?{filters}").content.decode()


def test_others_set_no_budgets(people: People) -> None:
    reader = clerk("view_budget", "view_user")
    budget = Budget.objects.create(user=people.owner, period="day", limit=1)
    form = {"period": "day", "limit": "9", "user": people.owner.pk}
    assert reader.get("/admin/relay/budget/").status_code == 200
    for browser in (reader, signed_in(people.owner)):
        for path in (ADD, f"/admin/relay/budget/{budget.pk}/change/", f"/admin/relay/budget/{budget.pk}/delete/"):
            assert browser.post(path, form).status_code in {302, 403}
    budget.refresh_from_db()
    assert budget.limit == 1 and Budget.objects.count() == 1
    assert signed_in(people.owner).get("/admin/relay/budget/").status_code in {302, 403}
