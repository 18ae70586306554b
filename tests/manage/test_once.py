"""Requests that are sent again: once, with the same answer, also after a crash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.db import transaction

from accounts.models import AuditEvent, KeptAnswer, User
from portal.lib import clock
from portal.lib.money import NANO
from relay.manage.requests import once
from relay.models import LedgerAccount, Token
from tests.manage.scripts import Script, give, make_key, world
from tests.support.portal import People, Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared


@pytest.fixture
def ids(people: People) -> dict[str, int]:
    return world(people.staff)


def balance(user: int) -> int:
    return LedgerAccount.objects.get(user=user, kind="wallet").balance


def test_the_same_request_with_the_same_key_is_done_once(people: People, ids: dict[str, int]) -> None:
    script, where, body = Script(make_key(people.staff)), f"/users/{ids['users']}/top-up", {"usd": 2, "reason": "r"}
    first = script("POST", where, body, Idempotency_Key="a")
    again = script("POST", where, body, Idempotency_Key="a")
    assert first.content == again.content and first.status_code == again.status_code == 200
    assert "Idempotent-Replayed" not in first and again["Idempotent-Replayed"] == "true"
    assert balance(ids["users"]) == 7 * NANO
    assert AuditEvent.objects.filter(action="wallet.top-up").count() == 1
    script.ok("POST", where, body, Idempotency_Key="b")
    script.ok("POST", where, body)
    assert balance(ids["users"]) == 11 * NANO


def test_a_key_is_for_one_request_of_one_staff_key(people: People, ids: dict[str, int]) -> None:
    script, where, body = Script(make_key(people.staff)), f"/users/{ids['users']}/top-up", {"usd": 2, "reason": "r"}
    script.ok("POST", where, body, Idempotency_Key="a")
    for path, sent in ((where, {**body, "usd": 3}), (f"/users/{people.other.pk}/top-up", body)):
        answer = script("POST", path, sent, Idempotency_Key="a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
    other = Script(make_key(people.staff))
    other.ok("POST", where, body, Idempotency_Key="a")
    assert balance(ids["users"]) == 9 * NANO
    assert script("POST", where, body, Idempotency_Key="x" * 201).status_code == 400


def test_what_failed_leaves_nothing_and_may_be_corrected(people: People, ids: dict[str, int]) -> None:
    script, where = Script(make_key(people.staff)), f"/users/{ids['users']}/deduct"
    assert script("POST", where, {"usd": 50, "reason": "r"}, Idempotency_Key="a").status_code == 422
    assert not KeptAnswer.objects.exists()
    script.ok("POST", where, {"usd": 1, "reason": "r"}, Idempotency_Key="a")
    assert balance(ids["users"]) == 4 * NANO


def test_an_answer_that_was_not_kept_means_that_nothing_was_done(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the money and the answer."""
    script, where, body = Script(make_key(people.staff)), f"/users/{ids['users']}/top-up", {"usd": 2, "reason": "r"}
    with monkeypatch.context() as patch, transaction.atomic():

        def die(*_: Any, **__: Any) -> None:
            raise SystemExit

        patch.setattr(KeptAnswer, "save", lambda self, **more: die() if "update_fields" in more else real(self, **more))
        with pytest.raises(SystemExit):
            script("POST", where, body, Idempotency_Key="a")
    assert balance(ids["users"]) == 5 * NANO and not KeptAnswer.objects.exists()
    script.ok("POST", where, body, Idempotency_Key="a")
    assert balance(ids["users"]) == 7 * NANO


real = KeptAnswer.save


def test_an_answer_is_kept_encrypted_and_for_a_day(people: People, ids: dict[str, int]) -> None:
    script, body = Script(make_key(people.staff)), {"user": ids["users"], "name": "t"}
    made = script.ok("POST", "/tokens", body, Idempotency_Key="a")
    assert script.ok("POST", "/tokens", body, Idempotency_Key="a")["key"] == made["key"]
    kept = KeptAnswer.objects.get()
    assert made["key"] not in f"{kept.sealed}{kept.key}{kept.request}"
    KeptAnswer.objects.update(created_at=clock.now() - timedelta(days=1, minutes=1))
    script.ok("POST", "/tokens", {**body, "name": "other"}, Idempotency_Key="b")
    assert KeptAnswer.objects.count() == 1
    script.ok("POST", "/tokens", body, Idempotency_Key="a")
    assert Token.objects.filter(user=ids["users"], name="t").count() == 2


def test_an_old_answer_is_not_given_however_many_wait_to_be_deleted(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_PRUNED", 0)
    script, body = Script(make_key(people.staff)), {"user": ids["users"], "name": "t"}
    script.ok("POST", "/tokens", body, Idempotency_Key="a")
    KeptAnswer.objects.update(created_at=clock.now() - timedelta(days=1, minutes=1))
    script.ok("POST", "/tokens", body, Idempotency_Key="a")
    assert Token.objects.filter(user=ids["users"], name="t").count() == 2


def test_a_replay_asks_for_scope_and_staff_again(people: People, ids: dict[str, int]) -> None:
    script, body = Script(make_key(people.staff)), {"user": ids["users"], "name": "t"}
    script.ok("POST", "/tokens", body, Idempotency_Key="a")
    User.objects.filter(pk=people.staff.pk).update(is_staff=False)
    assert script("POST", "/tokens", body, Idempotency_Key="a").status_code == 401


def test_top_ups_of_one_apis_form_are_done_once_as_well(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff), "/api")
    for _ in range(2):
        assert script.ok("POST", "/topup", {"user_id": ids["users"], "quota": 500_000}, Idempotency_Key="a")["success"]
    assert balance(ids["users"]) == 6 * NANO


def test_requests_at_the_same_time_are_done_once(server: Server, live: Portal) -> None:
    boss, user = live.user(is_staff=True, is_superuser=True), live.user(balance=NANO)
    headers = {"authorization": make_key(boss), "idempotency-key": "same"}
    url, body = f"{server.url}/api/v1/users/{user.pk}/top-up", {"usd": "3", "reason": "r"}
    with httpx.Client(trust_env=False, timeout=30) as client, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: client.post(url, json=body, headers=headers), range(6)))
    assert {one.status_code for one in found} <= {200, 409} and 200 in {one.status_code for one in found}
    assert {one.json()["error"]["code"] for one in found if one.status_code == 409} <= {"idempotency_in_progress"}
    assert balance(user.pk) == 4 * NANO


def test_an_answer_is_not_given_again_to_one_who_may_do_less(people: People, ids: dict[str, int]) -> None:
    clerk = give(
        User.objects.create_user("clerk", is_staff=True), "relay.view_token relay.add_token accounts.view_user"
    )
    script, body = Script(make_key(clerk)), {"user": clerk.pk, "name": "t"}
    made = script.ok("POST", "/tokens", body, Idempotency_Key="a")
    assert script.ok("POST", "/tokens", body, Idempotency_Key="a")["key"] == made["key"]
    give(clerk, "relay.view_token accounts.view_user")
    answer = script("POST", "/tokens", body, Idempotency_Key="a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "rights_changed")
    assert made["key"] not in answer.content.decode() and Token.objects.filter(user=clerk).count() == 1


def test_two_that_add_the_same_at_a_time_are_told_so(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both forms have found nothing; the second row is refused by the database."""
    script = Script(make_key(people.staff))
    monkeypatch.setattr("django.db.models.Model.validate_unique", lambda *_, **__: None)
    monkeypatch.setattr("django.db.models.Model.validate_constraints", lambda *_, **__: None)
    answer = script("POST", "/groups", {"name": "Guild"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
