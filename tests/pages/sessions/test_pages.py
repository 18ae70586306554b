"""The pages of sessions, of users and of staff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from portal.lib import clock
from portal.templatetags.times import took
from relay.models import Channel, SessionSum, UsageRecord
from relay.tokens.lifecycle import create_token
from relay.usage import rollup
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in
from tests.usage.records import record

pytestmark = pytest.mark.shared
S = 5


@pytest.fixture
def talk(people: People) -> str:
    """A session of the owner's, with a sub-agent and a failure; the other user has one of the same number."""
    UsageRecord.objects.all().delete()
    rollup.rebuild()
    at = clock.now() - timedelta(days=40)
    token = create_token(people.owner, "the-laptop", actor=people.owner)[0]
    channel = Channel.objects.create(name="the-channel", provider="demo")
    mores: list[dict[str, Any]] = [{}, {"agent": 9}, {"status": 502, "end_reason": "upstream_error", "cost": 0}]
    for number, more in enumerate(mores):
        record(number, people.owner, session=S, app="claude-code", token=token, channel=channel,
               model="the-model", started_at=at + timedelta(seconds=61 * number), **more)  # fmt: skip
    record(9, people.other, session=S, app="others-app", model="others-model", started_at=at)
    rollup.catch_up()
    return SessionSum.objects.get(user=people.owner).code


def test_owner_other_user_and_staff_see_their_own(people: People, talk: str) -> None:
    page = signed_in(people.owner).get("/usage/sessions/").content.decode()
    assert all(word in page for word in ("claude-code", "the-model", "the-laptop", f"/usage/sessions/{talk}/"))
    assert "others" not in page and "the-channel" not in page
    one = signed_in(people.owner).get(f"/usage/sessions/{talk}/").content.decode()
    assert all(word in one for word in ("the-model", "Main agent", "Sub-agent 1", "upstream failed (502)", "2 min 2 s"))
    assert "others" not in one and "the-channel" not in one, "channels are for staff"
    assert "Sub-agent the-model" not in one and one.count("Sub-agent") == 1
    assert "others-app" in signed_in(people.other).get(f"/usage/sessions/{talk}/").content.decode(), "the same number"
    other = signed_in(people.other).get("/usage/sessions/").content.decode()
    assert "others-model" in other and "the-model" not in other
    staff = signed_in(people.staff)
    assert staff.get(f"/usage/sessions/{talk}/").status_code == 404
    assert "the-model" not in staff.get("/usage/sessions/").content.decode()


def test_what_took_less_than_a_second_is_said_in_milliseconds() -> None:
    times = [timedelta(0), timedelta(milliseconds=61), timedelta(milliseconds=999.7), timedelta(seconds=61)]
    assert [took(time) for time in times] == ["0 s", "61 ms", "1 s", "1 min 1 s"]


@pytest.mark.parametrize("code", ["0" * 16, "x", "5", "-" * 16, "A" * 16])
def test_what_is_no_session_is_not_found(people: People, talk: str, code: str) -> None:
    assert signed_in(people.owner).get(f"/usage/sessions/{code}/").status_code == 404
    assert signed_in(people.staff).get(f"/admin/sessions/{people.owner.pk}/{code}/").status_code == 404


def test_staff_see_all_sessions_and_channels(people: People, talk: str) -> None:
    staff = signed_in(people.staff)
    page = staff.get("/admin/sessions/").content.decode()
    assert all(word in page for word in ("alice", "bob", "the-model", "others-model"))
    only = staff.get(f"/admin/sessions/?user={people.owner.pk}").content.decode()
    assert "the-model" in only and "others-model" not in only
    named = staff.get("/admin/sessions/?user_name=bob").content.decode()
    assert "others-model" in named and "the-model" not in named
    assert "There is no user “nobody”" in staff.get("/admin/sessions/?user_name=nobody").content.decode()
    one = staff.get(f"/admin/sessions/{people.owner.pk}/{talk}/").content.decode()
    assert all(word in one for word in ("the-channel", "the-model", "Sub-agent 1", "$0.000002", "claude-code"))
    assert staff.get(f"/admin/sessions/{people.staff.pk}/{talk}/").status_code == 404


def test_staff_without_the_right_see_none(people: People, talk: str) -> None:
    assert clerk("view_channel").get("/admin/sessions/").status_code == 403


def test_operators_see_sessions_without_amounts(people: People, talk: str) -> None:
    operator = clerk("view_usagerecord")
    for path in ("/admin/sessions/", f"/admin/sessions/{people.owner.pk}/{talk}/"):
        page = operator.get(path).content.decode()
        assert "the-model" in page and "$0.0" not in page and "Charged" not in page and "Margin" not in page, path
    User.objects.get(username="clerk").user_permissions.add(Permission.objects.get(codename="view_ledgeraccount"))
    page = operator.get("/admin/sessions/").content.decode()
    assert "$0.0" in page and "Charged" in page and "Margin" not in page


def test_receipts_and_lists_lead_to_sessions_and_back(people: People, talk: str) -> None:
    owner, found = signed_in(people.owner), UsageRecord.objects.filter(user=people.owner).order_by("pk")[0]
    receipt = owner.get(f"/usage/{found.request_id}/").content.decode()
    assert f'href="/usage/sessions/{talk}/"' in receipt and "claude-code" in receipt
    one = owner.get(f"/usage/sessions/{talk}/").content.decode()
    day = found.started_at.date().isoformat()
    assert f"/usage/?session={talk}&amp;since={day}&amp;until={day}" in one
    listed = owner.get(f"/usage/?session={talk}&days=90").content.decode()
    assert f'href="/usage/sessions/{talk}/"' in listed and found.request_id in listed
    staff = signed_in(people.staff)
    assert (
        f"/admin/sessions/{people.owner.pk}/{talk}/"
        in staff.get(f"/admin/relay/usagerecord/{found.pk}/change/").content.decode()
    )
    filtered = staff.get(f"/admin/relay/usagerecord/?session={talk}&user={people.owner.pk}").content.decode()
    assert found.request_id in filtered and "others-model" not in filtered.partition("ar-table")[2]


def test_pages_without_sessions_say_what_to_do(people: People, clients: tuple[Client, Client, Client]) -> None:
    UsageRecord.objects.all().delete()
    rollup.rebuild()
    assert "Connect an app" in clients[0].get("/usage/sessions/").content.decode()
    assert "x-session-id" in clients[2].get("/admin/sessions/").content.decode()


def test_long_lists_are_paged(people: People, talk: str) -> None:
    at = clock.now()
    SessionSum.objects.bulk_create(
        SessionSum(user=people.owner, session=100 + number, first_at=at, last_at=at, app=f"app{number:02}-x")
        for number in range(40)
    )
    owner = signed_in(people.owner)
    first = owner.get("/usage/sessions/").content.decode()
    assert first.count("-x") - first.count("x-session") >= 30 and "claude-code" not in first
    older = first.partition("?before=")[2].partition('"')[0]
    assert "claude-code" in owner.get(f"/usage/sessions/?before={older}").content.decode()
    assert owner.get("/usage/sessions/?before=99999999999999999-999999999999999999").status_code == 200
