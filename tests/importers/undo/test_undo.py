"""Undoing an import after retention has deleted records, and of people who were here before; disabled people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from accounts.models import User
from portal.lib import clock, money
from relay.billing.ledger import movements
from relay.billing.ledger.verify import verify
from relay.importers.mapping import NewRow, Rows
from relay.importers.undo import take_back
from relay.models import (
    Channel,
    ChannelModel,
    ImportedRow,
    Installation,
    LedgerAccount,
    Model,
    ModelPrice,
    Token,
    UsageRecord,
)
from relay.models.token import digest_of
from relay.usage import rollup
from relay.usage.retention import records
from tests.support.importers.old import Old
from tests.support.sessions import with_config
from tests.usage.records import record

pytestmark = [pytest.mark.django_db, pytest.mark.shared]


def here(kind: str, source_id: int) -> int:
    return ImportedRow.objects.get(kind=kind, source_id=str(source_id)).object_id


def wallet(user: User) -> LedgerAccount:
    return LedgerAccount.objects.get(user=user, kind="wallet")


def test_what_was_used_in_days_without_records_stays(unpacked: Any, settings: Any) -> None:
    old: Old = unpacked("one-api")
    old.imported(usage=True)
    token = Token.objects.get(digest=digest_of(old.facts["tokens"][2]["key"]))
    served = ChannelModel.objects.filter(channel__in=ImportedRow.objects.filter(kind="channel").values("object_id"))
    route = served.filter(model__prices__isnull=False).order_by("pk")[0]
    at = clock.now() - timedelta(days=40)
    record(1, token.user, token=token, channel=route.channel, model=route.model.name, cost=0, started_at=at)
    rollup.catch_up()
    with_config(settings, usage_keep_days=30)
    assert records.delete_expired() == 1 and not UsageRecord.objects.exists()
    planned = take_back("one-api", apply=False)
    done = take_back("one-api", apply=True)
    for report in (planned, done):
        left = {(line.kind, line.name) for line in report.lines if line.level == "left_out"}
        assert {kind for kind, _name in left} >= {"user", "token", "channel", "model", "price"}
    token.refresh_from_db()
    assert token.revoked_at is None and token.enabled
    assert User.objects.get(pk=token.user_id).is_active and Channel.objects.filter(pk=route.channel_id).exists()
    assert Model.objects.filter(pk=route.model_id).exists() and ModelPrice.objects.filter(model=route.model).exists()
    assert Token.objects.filter(pk__in=ImportedRow.objects.filter(kind="token").values("object_id"), enabled=True) \
        .count() == 1  # fmt: skip


def test_money_that_was_spent_does_not_come_twice_to_somebody_who_was_here(old: Old) -> None:
    alice = User.objects.create_user("alice", "", "a long password")
    movements.set_unlimited(alice, False)
    was = wallet(alice).balance
    old.imported(merge=frozenset({"alice"}))
    brought = wallet(alice).balance - was
    movements.deduct(alice, was + brought // 2, actor=None, reason="spent")
    take_back(old.program, apply=True)
    assert wallet(alice).balance == 0 and not alice.groups.exists() and verify().clean
    report = old.imported()
    assert any(line.name == "alice" and "--merge" in line.text for line in report.lines)
    assert wallet(alice).balance == 0 and not Token.objects.filter(user=alice, revoked_at=None, built_in=None).exists()
    old.imported(merge=frozenset({"alice"}))
    assert wallet(alice).balance == brought - brought // 2 and alice.groups.exists()
    assert Token.objects.filter(user=alice, revoked_at=None, built_in=None).exists()
    assert old.imported(merge=frozenset({"alice"})).changes == 0


def test_more_than_a_wallet_can_hold_is_told_and_not_added(old: Old) -> None:
    alice = User.objects.create_user("alice", "", "a long password")
    movements.set_unlimited(alice, False)
    movements.top_up(alice, money.LARGEST - wallet(alice).granted, actor=None, reason="all")
    for _run in range(2):
        report = old.imported(merge=frozenset({"alice"}))
        assert any(line.name == "alice" and "more than it can" in line.text for line in report.lines)
    movements.deduct(alice, money.LARGEST // 2, actor=None, reason="room")
    before = wallet(alice).granted
    old.imported()
    there = next(one["quota"] for one in old.facts["users"] if one["username"] == "alice")
    assert wallet(alice).granted == before + there * 2000 and verify().clean


@pytest.mark.parametrize(
    "password",
    ["pbkdf2_sha256$2000000000$salt$hash", "argon2$argon2id$v=19$m=9999999,t=9,p=1$c2FsdHNhbHQ$aGFzaA",
     "litellm_scrypt$?", "$2b$31$" + "a" * 53],
)  # fmt: skip
def test_no_password_takes_long_to_be_checked_or_fails_a_sign_in(unpacked: Any, password: str) -> None:
    old: Old = unpacked("one-api")
    old.run("UPDATE users SET password = ? WHERE username = 'bob'", password)
    report = old.imported()
    assert not User.objects.get(username="bob").has_usable_password()
    assert any(line.name == "bob" and "no password that can be used" in line.text for line in report.lines)


def test_tokens_of_somebody_who_is_disabled_there_do_not_work_for_the_same_person_here(old: Old) -> None:
    alice = User.objects.create_user("alice", "", "a long password")
    there = next(one["id"] for one in old.facts["users"] if one["username"] == "alice")
    old.run("UPDATE users SET status = 2 WHERE id = ?", there)
    enabled = {str(one) for (one,) in old.run("SELECT id FROM tokens WHERE user_id = ? AND status = 1", there)}

    def working() -> set[str]:
        mine = Token.objects.filter(user=alice, built_in=None, enabled=True).values_list("pk", flat=True)
        return set(
            ImportedRow.objects.filter(kind="token", object_id__in=list(mine)).values_list("source_id", flat=True)
        )

    report = old.imported(merge=frozenset({"alice"}))
    assert Token.objects.filter(user=alice, built_in=None).exists() and not working()
    assert any(line.name == "alice" and "its tokens come disabled" in line.text for line in report.lines)
    assert old.imported().changes == 0 and not working()
    old.run("UPDATE users SET status = 1 WHERE id = ?", there)
    old.imported()
    assert working() >= enabled != set()
    old.run("UPDATE users SET status = 2 WHERE id = ?", there)
    old.imported()
    assert not working()


def test_ids_of_any_length_are_known_again() -> None:
    installation = Installation.objects.create(name="a", program="litellm")
    ids = [end * 400 for end in "ab"] + ["a" * 399]
    rows = Rows(installation)
    rows.add("user", [NewRow(one, number) for number, one in enumerate(ids, 1)])
    again = Rows(installation)
    assert [again.here("user", one) for one in ids] == [1, 2, 3] and again.here("user", "a" * 398) is None
    assert all(len(one) <= 190 for one in ImportedRow.objects.values_list("source_id", flat=True))
