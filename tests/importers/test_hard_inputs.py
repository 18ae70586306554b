"""Importing what programs may hold beside the usual: absurd numbers, tokens that do not work, rows that are gone."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum

from accounts.models import User
from portal.lib import clock
from relay.billing.redemption import find_code
from relay.gateway.snapshot.load import load_caller
from relay.importers.description import Rates, SourceBudget, SourceToken, SourceUnreadable
from relay.importers.mapping import ImportRefused, Rows
from relay.importers.one_api.expressions import NoTiers, read_tiers
from relay.importers.reading.row import Row, moment_of, number_of, text_of, whole_of
from relay.importers.report import Report
from relay.importers.sources import open_source
from relay.importers.writing.naming import limits_of, rates
from relay.models import Channel, ImportedRow, LedgerAccount, ModelPrice, MonthSum, RollupMark, Token, UserDay
from relay.models.token import digest_of, sha256_of
from relay.tokens.lifecycle import revoke_token, rotate_token
from relay.usage import rollup
from tests.support.importers.old import Old

pytestmark = [pytest.mark.django_db, pytest.mark.shared]
HUGE = 2**63 - 1


def here(kind: str, source_id: int) -> int:
    return ImportedRow.objects.get(kind=kind, source_id=str(source_id)).object_id


def told(report: Report, kind: str, source_id: int) -> str:
    return " ".join(line.text for line in report.lines if (line.kind, line.id) == (kind, str(source_id)))


@pytest.mark.parametrize("text", ["1e999999999", "-1e400", "1e-999999999", "0e999999999", "Infinity", "9" * 5000])
def test_an_exponent_means_no_gigabytes(text: str) -> None:
    assert number_of(text) is None and whole_of(text, 7) == 7
    with pytest.raises(NoTiers):
        read_tiers(f"len <= {text} ? tier('a', p * 1) : tier('b', p * 2)")


def test_numbers_that_are_some_stay() -> None:
    assert number_of("1e-30") == Decimal("1e-30") and number_of(1e22) == Decimal(10**22) and number_of("0") == 0


def test_a_nul_is_no_part_of_a_text() -> None:
    assert text_of(" a\0b ") == "a\N{REPLACEMENT CHARACTER}b" and "\0" not in Row(name=b"x\0").text("name")


def test_tokens_that_did_not_work_there_do_not_work_here(unpacked: Any) -> None:
    old = unpacked("one-api")
    now = int(clock.now().timestamp())
    state = "UPDATE tokens SET status = ?, expired_time = ?, remain_quota = ?, unlimited_quota = ? WHERE id = ?"
    for token, (status, ends, quota, unlimited) in {
        3: (1, 0, 100, 0),  # the end of a token without one is -1: this one has always been over
        4: (1, 1, 100, 0),
        10: (1, -2, 100, 0),
        11: (3, now + 9000, 100, 0),  # given time, and not enabled again
        12: (4, -1, 100, 0),  # given money, and not enabled again
        13: (4, -1, 0, 1),
        14: (0, -1, 100, 0),
        15: (1, now * 1000, 100, 0),  # milliseconds that were taken for seconds: never
    }.items():
        old.run(state, status, ends, quota, unlimited, token)
    report = old.imported()
    states = {token: Token.objects.get(pk=here("token", token)).state() for token in (3, 4, 10, 11, 12, 13, 14, 15)}
    assert [states[token] for token in (3, 4, 10)] == ["expired"] * 3
    assert [states[token] for token in (11, 12, 13, 14)] == ["disabled"] * 4 and states[15] == "active"
    assert "enabled again" in told(report, "token", 12) and old.imported().changes == 0
    old.run("UPDATE tokens SET status = 1 WHERE id = 12")
    assert old.imported().changes == 1 and Token.objects.get(pk=here("token", 12)).enabled


def test_a_code_that_ended_long_ago_is_over(unpacked: Any) -> None:
    old = unpacked("new-api")
    code, key = old.run("SELECT id, key FROM redemptions WHERE status = 1 AND deleted_at IS NULL LIMIT 1")[0]
    old.run("UPDATE redemptions SET expired_time = 1 WHERE id = ?", code)
    old.imported()
    found = find_code(key)
    assert found is not None and found.state() == "expired"


def test_a_balance_becomes_unlimited_and_limited_again(unpacked: Any) -> None:
    old = unpacked("one-api")
    old.imported()

    def wallet() -> tuple[bool, int]:
        account = LedgerAccount.objects.get(user=here("user", 4), kind="wallet")
        return account.limited, account.balance

    before = wallet()
    old.run("UPDATE users SET quota = ? WHERE id = 4", HUGE)
    assert "unlimited" in told(old.imported(), "user", 4) and wallet() == (False, before[1])
    assert old.imported().changes == 0
    old.run("UPDATE users SET quota = 500 WHERE id = 4")
    old.imported()
    assert wallet() == (True, 1_000_000) and old.imported().changes == 0


def test_rights_stay_and_a_changed_role_is_told(unpacked: Any) -> None:
    old = unpacked("one-api")
    old.imported(staff=True)
    old.run("UPDATE users SET role = 1 WHERE id = 3")
    assert "check them" in told(old.imported(staff=True), "user", 3)
    assert User.objects.get(pk=here("user", 3)).is_staff


def test_what_another_import_has_moved_is_not_moved_again(unpacked: Any) -> None:
    old = unpacked("one-api")
    old.imported()
    row = ImportedRow.objects.get(kind="user", source_id="4")
    rows = Rows(row.installation)
    known = rows.find("user", "4")
    assert known is not None
    ImportedRow.objects.filter(pk=row.pk).update(amount=row.amount + 5)
    with pytest.raises(ImportRefused):
        rows.update(known, known.seen, known.amount + 5)


def test_a_code_that_was_deleted_there_cannot_be_redeemed_here(old: Old) -> None:
    old.imported()
    first, second = old.run("SELECT id, key FROM redemptions WHERE status = 1 ORDER BY id LIMIT 2")
    old.run("DELETE FROM redemptions WHERE id = ?", first[0])
    if old.program == "new-api":
        old.run("UPDATE redemptions SET deleted_at = '2026-11-23 00:00:00' WHERE id = ?", second[0])
    else:
        old.run("DELETE FROM redemptions WHERE id = ?", second[0])
    assert old.imported().counts["code"].changed == 2
    states = [found.state() for _id, key in (first, second) if (found := find_code(key)) is not None]
    assert states == ["disabled", "disabled"] and old.imported().changes == 0


def test_a_token_that_is_gone_there_is_told(old: Old) -> None:
    old.imported()
    token = int(ImportedRow.objects.filter(kind="token").order_by("pk").values_list("source_id", flat=True)[0])
    Token.objects.filter(pk=here("token", token)).update(enabled=True)
    old.run("DELETE FROM tokens WHERE id = ?", token)
    assert "revoke it" in told(old.imported(), "token", token)


def test_a_price_that_cannot_be_one_is_none(unpacked: Any) -> None:
    old = unpacked("one-api")
    model = "gpt-4o-mini"
    old.run("UPDATE channels SET models = models || ?", f",{model},{model.upper()}")
    old.run("DELETE FROM options WHERE key = 'ModelRatio'")
    ratios = {model: -1, model.upper(): "3"}
    old.run("INSERT INTO options (key, value) VALUES ('ModelRatio', ?)", json.dumps(ratios))
    report = old.imported()
    assert any(line.kind == "price" and "no price that is possible" in line.text for line in report.lines)
    assert all(price.input > 0 for price in ModelPrice.objects.filter(model__name__iexact=model))


def test_names_that_differ_in_letter_cases_are_two_models(unpacked: Any) -> None:
    """Clients send both, and both were answered there."""
    old = unpacked("one-api")
    old.run("UPDATE channels SET models = models || ',case-model,CASE-MODEL'")
    old.run("DELETE FROM options WHERE key = 'ModelRatio'")
    ratios = json.dumps({"case-model": 1, "CASE-MODEL": 9})
    old.run("INSERT INTO options (key, value) VALUES ('ModelRatio', ?)", ratios)
    old.run("UPDATE tokens SET models = 'case-model,CASE-MODEL' WHERE id = 4")
    old.imported()
    prices = ModelPrice.objects.filter(model__name__iexact="case-model", channel=None).order_by("input")
    assert [(price.model.name, price.input) for price in prices] == [("case-model", 2), ("CASE-MODEL", 18)]
    token = Token.objects.get(pk=here("token", 4))
    assert set(token.models_allowed.values_list("name", flat=True)) == {"case-model", "CASE-MODEL"}
    assert old.imported().changes == 0


def test_a_log_of_odd_figures_is_added_up(old: Old) -> None:
    old.run("UPDATE logs SET created_at = created_at * 1000 WHERE id % 5 = 0")
    old.run("UPDATE logs SET created_at = 'x', quota = 'y', prompt_tokens = 1.5 WHERE id % 5 = 1")
    old.run("UPDATE logs SET quota = ?, prompt_tokens = ?, model_name = 'a' || char(0) WHERE id % 5 = 2", HUGE, HUGE)
    assert old.imported(usage=True).counts["usage"].new and rollup.differences() == []
    days = UserDay.objects.values_list("day", "model")
    assert all("\0" not in model and 2000 <= date.fromordinal(day).year < 3000 for day, model in days)


def test_imported_sums_of_days_whose_records_are_deleted_are_not_doubled(old: Old) -> None:
    old.imported(usage=True)
    day = UserDay.objects.order_by("-day").values_list("day", flat=True)[0]
    RollupMark.objects.update_or_create(pk=1, defaults={"kept_from": day + 1})

    def sums() -> list[Any]:
        tables = (UserDay.objects.all(), MonthSum.objects.filter(kind="user"))
        return [table.aggregate(requests=Sum("requests"), charged=Sum("charged")) for table in tables]

    before = sums()
    assert rollup.differences() == []
    rollup.rebuild()
    assert sums() == before and rollup.differences() == []


def test_a_key_of_a_revoked_token_opens_no_second_one(unpacked: Any) -> None:
    """The same key came by its digest with another import: its first use is refused, as of every revoked key."""
    old = unpacked("one-api")
    old.imported()
    row = Token.objects.exclude(sealed="").order_by("pk")[0]
    secret = row.reveal() or ""
    revoke_token(row, actor=None)
    other = Token(user=row.user, name="by its SHA-256")
    other.set_sha256(sha256_of(secret), "…")
    other.save()
    assert load_caller(digest_of(secret), secret) is None


@pytest.mark.parametrize("end", [revoke_token, rotate_token])
def test_a_token_that_was_used_first_meanwhile_is_ended_by_its_own_digest(unpacked: Any, end: Any) -> None:
    old = unpacked("one-api")
    old.imported()
    secret = "sk-" + "k" * 48
    token = Token(user=User.objects.get(pk=here("user", 4)), name="by its SHA-256")
    token.set_sha256(sha256_of(secret), "…")
    token.save()
    stale = Token.objects.get(pk=token.pk)
    assert load_caller(digest_of(secret), secret) is not None  # stored by its digest now
    end(stale, actor=None)
    row = Token.objects.get(pk=token.pk)
    assert (row.digest == digest_of(secret)) is (end is revoke_token)
    assert load_caller(digest_of(secret), secret) is None


def test_an_address_that_is_not_well_formed_shows_no_password() -> None:
    with pytest.raises(SourceUnreadable) as error:
        open_source("one-api", "root:SECRET@10.0.0.1:3306/oneapi")
    assert "SECRET" not in str(error.value) and "mysql://" in str(error.value)


def test_changed_limits_are_told() -> None:
    fast, slow = (SourceToken(id="1", name="a", user="1", rates=Rates(rpm=rpm)) for rpm in (10, 1))
    budget = SourceToken(id="1", name="a", user="1", rates=Rates(rpm=10), budgets=(SourceBudget("day", 5),))
    assert len({limits_of(fast), limits_of(slow), limits_of(budget)}) == 3 and limits_of(fast) == limits_of(fast)


def test_an_address_that_is_too_long_is_told(unpacked: Any) -> None:
    old = unpacked("new-api")
    long = "https://relay.example.org/" + "a" * 290
    with_proxy, with_address = (row[0] for row in old.run("SELECT id FROM channels WHERE type = 1 ORDER BY id")[:2])
    old.run("UPDATE channels SET base_url = ? WHERE id = ?", long, with_address)
    proxy = json.dumps({"proxy": long.replace("https", "http")})
    old.run("UPDATE channels SET setting = ? WHERE id = ?", proxy, with_proxy)
    report = old.imported()
    assert "longer than 300 characters" in told(report, "channel", with_address)
    assert "Its proxy cannot be used here" in told(report, "channel", with_proxy)
    assert not Channel.objects.get(pk=here("channel", with_proxy)).proxy_url


def test_limits_and_dates_beyond_what_columns_hold() -> None:
    """LiteLLM has 64 bits for a limit by minute, and Go's time that is none is of the year 1."""
    assert rates(Rates(rpm=2**40, tpm=7, rpd=0)) == {
        "max_rpm": 2**31 - 1, "max_tpm": 7, "max_rpd": None, "max_concurrency": None,
    }  # fmt: skip
    first, last = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
    assert moment_of("0001-01-01T00:00:00Z") == moment_of(datetime(1, 1, 1)) == first
    assert moment_of("9999-12-31 23:59:59+00:00") == moment_of(datetime(9999, 12, 31, tzinfo=UTC)) == last
    assert moment_of("2026-11-30 10:00:00") == datetime(2026, 11, 30, 10, tzinfo=UTC)
