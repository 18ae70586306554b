"""Forms that create something or move money do so once, whoever sends them again."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.models import FormKey, Invitation
from portal.lib import clock
from relay.billing import redemption
from relay.models import Channel, LedgerEntry, RedemptionBatch, Token
from tests.support.pages.filled import filled
from tests.support.portal import People, Portal
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def opened(client: Client, path: str, **values: Any) -> dict[str, Any]:
    """The form of a page, filled in."""
    form = filled(client.get(path).content.decode(), **values)
    assert re.fullmatch(r"[\w-]{22}", form["form_key"][0]), path
    return form


def test_top_up_and_deduction_move_money_once(people: People, staff: Client) -> None:
    for action, kind in (("top-up", "top_up"), ("deduct", "deduct")):
        path = f"/admin/accounts/user/{people.owner.pk}/{action}/"
        form = opened(staff, path, amount="7", reason="Invoice 43")
        assert [staff.post(path, form).status_code for _ in range(3)] == [302, 409, 409]
        assert LedgerEntry.objects.filter(user=people.owner, kind=kind).count() == 1
        form = opened(staff, path, amount="3", reason="Invoice 44")
        assert staff.post(path, {**form, "amount": "x"}).status_code == 422, "a wrong form is shown with a new key"
    assert "was sent already" in staff.post(path, {**form, "amount": "x"}).content.decode()


@pytest.mark.parametrize(
    ("path", "values", "count"),
    [
        (
            "/admin/relay/redemptionbatch/add/",
            {"name": "Spring", "usd": "5", "count": "3"},
            lambda: RedemptionBatch.objects.count(),
        ),
        ("/admin/accounts/invitation/add/", {"note": "for Ada"}, lambda: Invitation.objects.count()),
        ("/admin/relay/channel/add/", {"name": "twice", "provider": "openai"}, lambda: Channel.objects.count()),
        ("/admin/setup/token/", {"name": "twice"}, lambda: Token.objects.count()),
        ("/tokens/new/", {"name": "twice"}, lambda: Token.objects.count()),
    ],
)
def test_forms_that_create_something_create_it_once(staff: Client, path: str, values: Any, count: Any) -> None:
    if "invitation" in path:
        values = {
            **values,
            "expires_at_0": (clock.now() + timedelta(days=3)).date().isoformat(),
            "expires_at_1": "10:00",
        }
    form, before = opened(staff, path, **values), count()
    first = staff.post(path, form)
    assert count() == before + 1, first.content.decode()
    assert staff.post(path, form).status_code == 409 and count() == before + 1


def test_bundle_and_code_do_their_work_once(people: People, staff: Client) -> None:
    path = f"/admin/accounts/user/{people.owner.pk}/geekai/"
    form = opened(staff, path)
    assert [staff.post(path, form).status_code for _ in range(2)] == [200, 409] and Token.objects.count() == 3
    _batch, codes = redemption.create_codes("x", 1_000_000_000, 1, actor=people.staff)
    client = signed_in(people.owner)
    form = opened(client, "/balance/", code=codes[0])
    assert client.post("/balance/", form).status_code == 302
    assert client.post("/balance/", form).status_code == 409
    assert LedgerEntry.objects.filter(kind="redeem").count() == 1


def test_what_failed_may_be_sent_again(people: People, staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    from relay.billing.ledger import movements

    path = f"/admin/accounts/user/{people.owner.pk}/top-up/"
    form = opened(staff, path, amount="7", reason="Invoice 43")
    with monkeypatch.context() as patch:

        def busy(*_: Any, **__: Any) -> None:
            raise OperationalError("database is locked")

        patch.setattr(movements, "_grant", busy)
        assert staff.post(path, form).status_code == 503
    assert staff.post(path, form).status_code == 302
    assert LedgerEntry.objects.filter(user=people.owner, kind="top_up").count() == 1


def test_two_clicks_at_once_are_one(live: Portal) -> None:
    staff, user = live.user(is_staff=True, is_superuser=True), live.user(balance=0)
    path = f"/admin/accounts/user/{user.pk}/top-up/"
    form = opened(signed_in(staff), path, amount="10", reason="Invoice 43")
    clients = [signed_in(staff) for _ in range(4)]

    def send(client: Client) -> int:
        try:
            return client.post(path, form).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(send, clients)) == [302, 409, 409, 409]
    assert LedgerEntry.objects.filter(user=user, kind="top_up").count() == 1


def test_keys_are_of_those_who_are_signed_in_and_are_forgotten(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.forms_once._PRUNE_EVERY", 1)
    form = opened(staff, "/tokens/new/", name="x")
    Client().post("/tokens/new/", form)
    assert not FormKey.objects.exists()
    old = FormKey.objects.create(key="o" * 22)
    FormKey.objects.update(used_at=clock.now() - timedelta(days=8))
    FormKey.objects.create(key="n" * 22)
    staff.post("/tokens/new/", form)
    assert not FormKey.objects.filter(pk=old.pk).exists() and FormKey.objects.count() == 2
