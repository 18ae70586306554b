"""Importing databases that one-api and new-api wrote: what is here then, again, after changes on both sides, undone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.test import Client

from accounts.models import AuditEvent, GroupSettings, User
from relay.billing.ledger import movements
from relay.billing.ledger.verify import verify
from relay.billing.redemption import find_code
from relay.importers.description import Level
from relay.importers.mapping import ImportRefused
from relay.importers.report import KINDS, Report
from relay.importers.undo import take_back
from relay.importers.writing import tokens as tokens_part
from relay.models import (
    AllowedUpstream,
    Channel,
    ImportedRow,
    Installation,
    Lease,
    LedgerAccount,
    Model,
    ModelPrice,
    MonthSum,
    RedemptionCode,
    Token,
    UsageRecord,
    UserDay,
)
from relay.models.token import digest_of
from relay.usage import rollup
from tests.support.importers.old import Old

pytestmark = [pytest.mark.django_db, pytest.mark.shared]
NANO = 2000  # nano-USD of a unit of quota


def user_of(old: Old, source_id: int) -> User:
    row = ImportedRow.objects.get(kind="user", source_id=str(source_id))
    found: User = User.objects.get(pk=row.object_id)
    return found


def counts(report: Report) -> dict[str, tuple[int, int]]:
    return {kind: (found.new, found.left_out) for kind, found in report.counts.items()}


def balance(user: User) -> int:
    return LedgerAccount.objects.get(user=user, kind="wallet").balance


def test_balances_quotas_and_passwords_are_those_of_the_source(old: Old) -> None:
    old.imported()
    for person in old.facts["users"]:
        if person["deleted"]:
            assert not ImportedRow.objects.filter(kind="user", source_id=str(person["id"])).exists()
            continue
        user = user_of(old, person["id"])
        assert balance(user) == person["quota"] * NANO and user.is_active == (person["status"] == 1)
        assert not user.is_staff and not user.is_superuser
        assert user.password.startswith("bcrypt$") and person["group"] in user.groups.values_list("name", flat=True)
    for token in old.facts["tokens"]:
        row = Token.objects.filter(digest=digest_of(token["key"])).first()
        account = LedgerAccount.objects.filter(token=row).first() if row is not None else None
        if account is not None:
            assert account.limited != token["unlimited"]
            assert token["unlimited"] or account.balance == max(0, token["remain_quota"]) * NANO
    report = verify()
    assert report.clean and report.entries


@pytest.mark.parametrize("name", ["frank", "王芳"])
def test_a_password_signs_in_and_is_hashed_again(old: Old, name: str) -> None:
    old.imported()
    password = next(one["password_plain"] for one in old.facts["users"] if one["username"] == name)
    for bad in (password + "x", "x" * 100):
        assert Client().post("/accounts/login/", {"login": name, "password": bad}).status_code == 200
    answer = Client().post("/accounts/login/", {"login": name, "password": password})
    assert answer.status_code == 302
    assert User.objects.get(username=name).password.startswith("argon2")


def test_a_dry_run_writes_nothing_and_says_what_an_import_does(old: Old) -> None:
    before = (User.objects.count(), Token.objects.count(), Channel.objects.count(), AuditEvent.objects.count())
    planned = old.imported(apply=False, usage=True)
    after = (User.objects.count(), Token.objects.count(), Channel.objects.count(), AuditEvent.objects.count())
    assert before == after and not Installation.objects.exists() and not AllowedUpstream.objects.exists()
    done = old.imported(usage=True)
    assert counts(planned) == counts(done)
    assert (planned.balances, planned.quotas) == (done.balances, done.quotas)
    assert {(line.kind, line.id, line.text) for line in planned.lines} == {
        (line.kind, line.id, line.text) for line in done.lines
    }


def test_models_that_are_here_keep_their_price_and_a_dry_run_says_so(old: Old) -> None:
    model = Model.objects.create(name="gpt-4o")
    price = ModelPrice.objects.create(model=model, input=1, output=2)
    planned, done = old.imported(apply=False), old.imported()
    assert counts(planned) == counts(done) and done.counts["price"].unchanged >= 1
    assert list(model.prices.filter(channel=None)) == [price] and not Model.objects.get(name="gpt-4o").is_open
    take_back(old.program, apply=True)
    assert Model.objects.filter(name="gpt-4o").exists() and list(model.prices.all()) == [price]


def test_a_second_run_changes_nothing(old: Old) -> None:
    old.imported(usage=True)
    entries, days = verify().entries, list(UserDay.objects.order_by("pk").values())
    again = old.imported(usage=True)
    assert again.changes == 0 and (again.balances, again.quotas) == (0, 0)
    assert verify().entries == entries and list(UserDay.objects.order_by("pk").values()) == days


def test_an_import_that_was_killed_goes_on(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(tokens_part, "_create", die)
        with pytest.raises(KeyboardInterrupt):
            old.imported()
    old.imported()
    assert old.imported().changes == 0 and verify().clean
    assert Token.objects.filter(digest=digest_of(old.facts["tokens"][0]["key"])).exists()


def test_what_the_old_program_did_since_is_brought_and_what_was_done_here_stays(old: Old) -> None:
    old.imported()
    bob, alice = User.objects.get(username="bob"), User.objects.get(username="alice")
    movements.top_up(bob, 5 * 10**9, actor=None, reason="paid here")
    alice.first_name, alice.is_active = "Changed here", False
    alice.save()
    channel = ImportedRow.objects.get(kind="channel", source_id="1")
    Channel.objects.filter(pk=channel.object_id).update(priority=77)
    token = old.facts["tokens"][-3]
    was = balance(bob)
    old.run("UPDATE users SET quota = quota + 500 WHERE username = 'bob'")
    old.run("UPDATE users SET status = 2, display_name = 'Changed there' WHERE username = 'alice'")
    old.run("UPDATE users SET status = 2 WHERE username = 'frank'")
    old.run("UPDATE channels SET priority = 3, models = models || ',brand-new' WHERE id = 1")
    old.run("UPDATE tokens SET status = 2 WHERE id = ?", token["id"])
    columns = "id, username, password, quota, `group`, status, role"
    old.run(f"INSERT INTO users ({columns}) VALUES (99, 'new', '', 7, 'vip', 1, 1)")
    report = old.imported()
    assert balance(bob) == was + 500 * NANO and balance(User.objects.get(username="new")) == 7 * NANO
    alice.refresh_from_db()
    assert (alice.first_name, alice.is_active) == ("Changed here", False)
    assert not User.objects.get(username="frank").is_active
    row = Channel.objects.get(pk=channel.object_id)
    assert row.priority == 77 and row.models.filter(name="brand-new").exists()
    assert any("changed there and here" in line.text for line in report.lines if line.kind == "channel")
    assert old.imported().changes == 0 and verify().clean


def test_money_that_was_spent_there_is_taken_as_far_as_it_is_left(old: Old) -> None:
    old.imported()
    bob = User.objects.get(username="bob")
    movements.deduct(bob, balance(bob) - 10 * NANO, actor=None, reason="spent here")
    old.run("UPDATE users SET quota = quota - 100 WHERE username = 'bob'")
    report = old.imported()
    assert balance(bob) == 0 and any("more than is left here" in line.text for line in report.lines)
    movements.top_up(bob, 1000 * NANO, actor=None, reason="paid")
    old.imported()
    assert balance(bob) == 910 * NANO and verify().clean


def test_a_name_that_is_taken_is_nobody_elses(old: Old) -> None:
    here = User.objects.create_user("Alice", "alice@example.com", "a long password", is_staff=True)
    report = old.imported()
    alice = next(one for one in old.facts["users"] if one["username"] == "alice")
    there = user_of(old, alice["id"])
    assert there.pk != here.pk and there.username == f"alice-{old.program}" and not there.is_staff
    assert not EmailAddress.objects.filter(user=there).exists() and not here.groups.exists()
    assert any("signs in as" in line.text for line in report.lines if line.name == "alice")
    tokens = Token.objects.filter(user=there)
    assert tokens.exists() and not Token.objects.filter(user=here).exists()


def test_the_same_person_is_named_by_an_option(old: Old) -> None:
    here = User.objects.create_user("alice", "", "a long password")
    movements.set_unlimited(here, False)
    was = balance(here)
    old.imported(merge=frozenset({"alice"}))
    alice = next(one for one in old.facts["users"] if one["username"] == "alice")
    assert user_of(old, alice["id"]) == here and here.check_password("a long password")
    assert balance(here) == was + alice["quota"] * NANO
    with pytest.raises(ImportRefused):
        old.imported(merge=frozenset({"nobody"}))


def test_groups_that_are_here_are_not_joined(old: Old) -> None:
    from django.contrib.auth.models import Group

    vip = Group.objects.create(name="VIP")
    old.imported()
    assert not vip.user_set.exists() and Group.objects.filter(name=f"vip-{old.program}").exists()
    assert GroupSettings.objects.get(group__name="svip").price_multiplier == pytest.approx(0.5)


def test_administrators_become_staff_by_an_option_alone(old: Old) -> None:
    old.imported(staff=True)
    root, ops = User.objects.get(username="root"), User.objects.get(username="ops")
    assert root.is_superuser and root.is_staff and ops.is_staff and not ops.is_superuser


def test_private_addresses_are_refused_unless_an_option_allows_them(old: Old) -> None:
    report = old.imported(allow=())
    refused = {line.name for line in report.lines if line.kind == "channel" and line.level == Level.LEFT_OUT}
    assert "机房 Ollama" in refused and not Channel.objects.filter(base_url__contains="192.168").exists()
    assert any("--allow 192.168.1.50:11434" in line.text for line in report.lines)
    old.imported()
    assert Channel.objects.filter(base_url="http://192.168.1.50:11434/v1").exists()


def test_codes_can_be_redeemed_once_on_one_side(old: Old) -> None:
    old.imported()
    keys = dict(old.run("SELECT id, `key` FROM redemptions"))
    user = User.objects.get(username="bob")
    open_one, disabled, used = find_code(keys[2]), find_code(keys[4]), find_code(keys[1])
    assert open_one is not None and disabled is not None and used is not None
    was = balance(user)
    movements.redeem(open_one, user)
    assert balance(user) == was + 25_000_000 * NANO
    for code in (disabled, used):
        with pytest.raises(movements.NotRedeemable):
            movements.redeem(code, user)
    old.run("UPDATE redemptions SET status = 3 WHERE id IN (2, 3)")
    report = old.imported()
    row = find_code(keys[3])
    assert row is not None and row.state() == "disabled"
    assert any("redeemed there and here" in line.text for line in report.lines)


def test_an_undo_leaves_nothing_that_works_and_the_next_import_brings_it_back(old: Old) -> None:
    old.imported(usage=True)
    planned = take_back(old.program, apply=False)
    assert any("stay allowed" in line.text for line in planned.lines)
    assert Token.objects.filter(revoked_at=None).exists()
    done = take_back(old.program, apply=True)
    assert {kind: found.removed for kind, found in planned.counts.items()} == {
        kind: found.removed for kind, found in done.counts.items()
    }
    mine = ImportedRow.objects.filter(kind="user").values("object_id")
    assert not Channel.objects.exclude(provider="demo").exists() and not RedemptionCode.objects.exists()
    assert not Token.objects.filter(revoked_at=None, built_in=None, user__in=mine).exists()
    assert not User.objects.filter(pk__in=mine, is_active=True).exists() and verify().clean
    assert not any(balance(user) for user in User.objects.filter(pk__in=mine))
    assert not UserDay.objects.exists() and not MonthSum.objects.exists()
    old.imported(usage=True)
    for person in old.facts["users"]:
        if not person["deleted"]:
            assert balance(user_of(old, person["id"])) == person["quota"] * NANO
    token = Token.objects.get(digest=digest_of(old.facts["tokens"][2]["key"]))
    assert token.revoked_at is None and token.enabled and verify().clean
    assert old.imported().changes == 0


def test_an_undo_leaves_what_was_used_since(old: Old) -> None:
    old.imported()
    bob = User.objects.get(username="bob")
    bob.last_login = bob.date_joined
    bob.save()
    report = take_back(old.program, apply=True)
    bob.refresh_from_db()
    assert bob.is_active and balance(bob) and bob.groups.exists()
    assert any(line.name == "bob" and line.level == Level.LEFT_OUT for line in report.lines)
    with pytest.raises(ImportRefused):
        take_back("another", apply=True)


def test_the_log_becomes_sums_by_day_that_can_be_rebuilt(old: Old) -> None:
    old.imported(usage=True)
    charged = dict(old.run("SELECT user_id, SUM(quota) FROM logs WHERE type = 2 GROUP BY user_id"))
    for person in old.facts["users"]:
        if not person["deleted"]:
            sums = UserDay.objects.filter(user=user_of(old, person["id"])).values_list("charged", flat=True)
            assert sum(sums) == charged.get(person["id"], 0) * NANO
    assert rollup.differences() == [] and not UsageRecord.objects.exists()
    before = sorted(UserDay.objects.values_list("user", "day", "token", "model", "requests", "charged", "input"))
    rollup.rebuild()
    after = sorted(UserDay.objects.values_list("user", "day", "token", "model", "requests", "charged", "input"))
    assert before == after and before


def test_a_report_and_the_audit_log_have_no_secrets(old: Old) -> None:
    report = json.dumps(old.imported().as_json(), ensure_ascii=False)
    audit = json.dumps(list(AuditEvent.objects.values("action", "target_name", "detail")), ensure_ascii=False)
    rows = json.dumps(list(ImportedRow.objects.values_list("seen", flat=True)), ensure_ascii=False)
    secrets = [token["key"] for token in old.facts["tokens"]]
    secrets += [one["password_plain"] for one in old.facts["users"]]
    secrets += [
        row[0]
        for table in ("users", "channels", "redemptions")
        for row in old.run(f"SELECT {'password' if table == 'users' else '`key`'} FROM {table}")
    ]
    for secret in secrets:
        for line in secret.splitlines():
            if len(line) > 8:
                assert line not in report and line not in audit and line not in rows
    assert set(json.loads(report)["counts"]) <= set(KINDS)
    assert AuditEvent.objects.filter(action="import.create", target_type="token").count() > 10


def test_another_installation_does_not_take_the_place_of_the_first(old: Old) -> None:
    old.imported()
    old.run("UPDATE users SET username = 'x' || username")
    with pytest.raises(ImportRefused):
        old.imported()
    report = old.imported(name="second")
    assert report.counts["user"].new and report.counts["token"].left_out  # the same keys


def test_two_imports_do_not_run_at_once(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "hold", lambda *_: False)
    with pytest.raises(ImportRefused):
        old.imported()
