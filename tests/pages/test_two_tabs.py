"""Two tabs on a user's own form: neither undoes what the other saved, and who would is told."""

from __future__ import annotations

import html
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse

from accounts.models import AuditEvent
from portal.lib import clock
from relay.models import Budget, LedgerAccount, NoticeSettings, Token
from relay.tokens.lifecycle import create_token
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared
NOTICES = "/balance/notices/"


def test_limits_of_a_token(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    client, page, path = signed_in(people.owner), f"/tokens/{token.pk}/", f"/tokens/{token.pk}/limits/"
    older = client.get(page).content.decode()
    assert client.post(path, filled(older, quota="5", day="1", form_key=None)).status_code == 302
    assert client.post(path, filled(older, month="9", form_key=None)).status_code == 302
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 5_000_000_000
    assert set(Budget.objects.filter(token=token).values_list("period", flat=True)) == {"day", "month"}
    events = AuditEvent.objects.filter(action="token.limits").order_by("pk").values_list("detail", flat=True)
    assert list(events) == [{"quota": "5", "day": "1"}, {"month": "9"}]
    told = client.post(path, filled(older, quota="7", form_key=None))
    text = html.unescape(told.content.decode())
    assert told.status_code == 422 and "changed this to “5” since" in text and "you changed it to “7”" in text
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 5_000_000_000
    assert client.post(path, filled(text, form_key=None)).status_code == 302
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 7_000_000_000


def test_staff_and_owner_at_one_token(people: People) -> None:
    until = clock.now().replace(second=31, microsecond=5) + timedelta(days=3)
    token = create_token(people.owner, "laptop", actor=None, expires_at=until)[0]
    client, path = signed_in(people.owner), f"/tokens/{token.pk}/limits/"
    older = client.get(f"/tokens/{token.pk}/").content.decode()
    assert client.post(path, filled(older, quota="5", form_key=None)).status_code == 302
    token.refresh_from_db()
    assert token.expires_at == until, "a field that shows minutes does not cut what nobody changed"
    Token.objects.filter(pk=token.pk).update(expires_at=until - timedelta(days=1), notes="theirs")
    assert client.post(path, filled(older, day="2", quota="5", form_key=None)).status_code == 302
    token.refresh_from_db()
    assert (token.expires_at, token.notes) == (until - timedelta(days=1), "theirs")
    later = (until + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M")
    told = client.post(path, filled(older, expires_at=later, quota="5", day="2", form_key=None))
    assert told.status_code == 422 and "Save again to keep yours" in told.content.decode()


def test_button_does_what_it_said(people: People) -> None:
    """In both tabs it said Disable."""
    token = create_token(people.owner, "laptop", actor=None)[0]
    client, path = signed_in(people.owner), f"/tokens/{token.pk}/enabled/"
    assert 'name="enabled"' in (page := client.get(f"/tokens/{token.pk}/").content.decode())
    assert 'value="0"' in page.split('name="enabled"', 1)[1].split(">", 1)[0]
    for _tab in range(2):
        assert client.post(path, {"enabled": "0"}).status_code == 302
        token.refresh_from_db()
        assert not token.enabled
    assert AuditEvent.objects.filter(action="token.disable").count() == 1
    assert client.post(path, {}).status_code == 400


def test_notices(people: People) -> None:
    client = signed_in(people.owner)
    first = client.get(NOTICES).content.decode()
    assert client.post(NOTICES, filled(first, low_balance="5", webhook_url="https://example.com/h?key=k")).status_code
    row = NoticeSettings.objects.get(user=people.owner)
    assert row.webhook_url == "https://example.com/h?key=k"
    assert client.post(NOTICES, filled(first, by_email=None)).status_code == 302, "opened before there was a row"
    row.refresh_from_db()
    assert row.low_balance == 5 and not row.by_email and row.webhook_url == "https://example.com/h?key=k"
    older = client.get(NOTICES).content.decode()
    NoticeSettings.objects.filter(pk=row.pk).update(webhook_url="https://example.com/new?key=n")
    assert client.post(NOTICES, filled(older, low_balance="6")).status_code == 302
    row.refresh_from_db()
    assert row.low_balance == 6 and row.webhook_url == "https://example.com/new?key=n"
    told = client.post(NOTICES, filled(older, low_balance="6", webhook_url="https://example.com/mine"))
    text = html.unescape(told.content.decode())
    assert told.status_code == 422 and "https://example.com/new?" in text and "key=n" not in text
    assert client.post(NOTICES, filled(text)).status_code == 302
    row.refresh_from_db()
    assert row.webhook_url == "https://example.com/mine"


def test_language_and_time_zone(people: People) -> None:
    client, path = signed_in(people.owner), reverse("account")
    older = client.get(path).content.decode()
    people.owner.time_zone, people.owner.first_name = "Asia/Shanghai", "Ann"
    people.owner.save()
    assert client.post(path, filled(older, language="en")).status_code == 302
    people.owner.refresh_from_db()
    assert (people.owner.language, people.owner.time_zone) == ("en", "Asia/Shanghai")
    told = client.post(path, filled(older, language="en", time_zone="Europe/Berlin"))
    assert told.status_code == 422 and "Asia/Shanghai" in told.content.decode()


def test_owner_changes_validity(people: People) -> None:
    token = create_token(people.owner, "laptop", actor=None)[0]
    people.owner.time_zone = "Asia/Shanghai"
    people.owner.save()
    path = f"/tokens/{token.pk}/limits/"
    for other in (people.other, people.staff):
        assert signed_in(other).post(path, {"expires_at": "2031-01-02T08:30"}).status_code == 404
    client = signed_in(people.owner)
    assert client.post(path, {"expires_at": "2031-01-02T08:30"}).status_code == 302
    token.refresh_from_db()
    assert token.expires_at == datetime(2031, 1, 2, 0, 30, tzinfo=UTC)
    assert 'value="2031-01-02T08:30"' in client.get(f"/tokens/{token.pk}/").content.decode()
    for wrong, said in (
        ("2020-01-01T00:00", "This time is past"),
        ("9999-12-31T23:59", "between the years"),
        ("0001-01-01T00:00", "between the years"),
        ("soon", "valid date"),
    ):
        answer = client.post(path, {"expires_at": wrong})
        assert answer.status_code == 422 and said in answer.content.decode(), wrong
    assert client.post(path, {"expires_at": ""}).status_code == 302
    token.refresh_from_db()
    assert token.expires_at is None
    past = clock.now() - timedelta(days=1)
    Token.objects.filter(pk=token.pk).update(expires_at=past)
    expired = client.get(f"/tokens/{token.pk}/").content.decode()
    assert client.post(path, filled(expired, quota="5", form_key=None)).status_code == 302, "of what has expired, too"


def test_limits_that_staff_have_fixed_are_not_changed_by_the_owner(people: People) -> None:
    staff, client = signed_in(people.staff), signed_in(people.owner)
    page = staff.get("/admin/relay/token/add/").content.decode()
    fixed = filled(
        page, user=people.owner.pk, name="sold", quota="5", expires_at_0="2031-01-02", expires_at_1="08:30:00"
    )
    assert staff.post("/admin/relay/token/add/", fixed).status_code == 200
    token = Token.objects.get(name="sold")
    assert token.limits_fixed, "unless they say not"
    shown = client.get(f"/tokens/{token.pk}/").content.decode()
    assert "limits are fixed" in shown and "Change validity" not in shown
    answer = client.post(f"/tokens/{token.pk}/limits/", {"expires_at": "", "quota": "500"}, follow=True)
    assert "The limits of this token are fixed" in answer.content.decode()
    before = token.expires_at
    token.refresh_from_db()
    assert token.expires_at == before and LedgerAccount.objects.get(token=token, kind="quota").granted == 5_000_000_000
    change = f"/admin/relay/token/{token.pk}/change/"
    loose = filled(staff.get(change).content.decode(), limits_fixed=None)
    assert staff.post(change, loose).status_code == 302
    assert client.post(f"/tokens/{token.pk}/limits/", {"quota": "4"}).status_code == 302
    token.refresh_from_db()
    assert token.expires_at is None


def test_validity_and_quota_in_one_step(people: People) -> None:
    client = signed_in(people.owner)
    form = {"name": "phone", "until": "2031-01-02T08:30", "quota": "2.5"}
    assert client.post("/tokens/new/", form).status_code == 200
    token = Token.objects.get(name="phone")
    assert token.expires_at is not None and token.expires_at.year == 2031
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 2_500_000_000
    both = client.post("/tokens/new/", {**form, "name": "both", "validity": "7"})
    assert both.status_code == 422 and "a period or a time" in both.content.decode()
    past = client.post("/tokens/new/", {**form, "name": "past", "until": "2020-01-02T08:30"})
    assert past.status_code == 422 and Token.objects.count() == 1
