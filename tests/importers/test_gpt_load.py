"""Moving in from GPT-Load 1 and 2."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from accounts.models import User
from relay.importers.description import SourceUnreadable
from relay.importers.pipeline import carry_over
from relay.importers.report import Report
from relay.importers.run import Options
from relay.importers.sources import open_source
from relay.models import Channel, Model, ModelPrice, Token
from relay.models.token import digest_of
from tests.importers.files import run_script, write_tables
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import hello

PASSPHRASE: Final = "a passphrase of the old system"
SECRETS: Final = (
    "sk-everywhere-0123456789",
    "sk-openai-only-0123456789",
    "sk-mirror-only-0123456789",
    "sk-aggregate-0123456789",
)


def sealed(text: str, version: int) -> str:
    """As the Go program writes it: PBKDF2, in version 2 a key for the purpose, and AES-GCM behind its nonce."""
    key = hashlib.pbkdf2_hmac("sha256", PASSPHRASE.encode(), b"gpt-load-encryption-v1", 100_000, 32)
    if version == 2:
        key = hmac.digest(key, b"gpt-load/encryption/aes-256-gcm/v1", "sha256")
    nonce = b"nonce-of-12b"
    return (nonce + AESGCM(key).encrypt(nonce, text.encode(), None)).hex()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENCRYPTION_KEY", raising=False)


def carry(path: Path, name: str = "old", **options: Any) -> Report:
    source = open_source("gpt-load", str(path))
    try:
        return carry_over(source, Options(apply=True, name=name, **options), "test")
    finally:
        source.close()


def said(report: Report, name: str) -> str:
    return " ".join(line.text for line in report.lines if line.name == name)


def may(secret: str) -> set[str]:
    groups = Token.objects.get(digest=digest_of(secret)).user.groups.values("pk")
    return set(Model.objects.filter(permissions__group__in=groups).values_list("name", flat=True))


@pytest.mark.django_db
class TestVersion1:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return run_script(tmp_path / "gpt-load.db", "gpt_load_1.sql")

    def test_each_upstream_of_a_group_is_a_channel(self, path: Path) -> None:
        report = carry(path)
        found = {row.name: row for row in Channel.objects.all()}
        assert set(found) == {
            "gpt-load openai",
            "gpt-load mirror",
            "gpt-load mirror 2",
            "gpt-load claude",
            "gpt-load gemini",
        }
        official, one, two = found["gpt-load openai"], found["gpt-load mirror"], found["gpt-load mirror 2"]
        assert (official.base_url, official.weight) == ("", 10)
        assert (one.base_url, two.base_url) == ("https://one.example.com/v4", "https://two.example.com/v4")
        assert (one.weight, two.weight) == (60, 20), "shares of the aggregate group, times weights of the upstreams"
        assert found["gpt-load claude"].provider == "anthropic" and found["gpt-load gemini"].provider == "gemini"
        assert [key.secret_for(one) for key in one.keys.all()] == [key.secret_for(two) for key in two.keys.all()]
        main, dead = official.keys.order_by("pk")
        assert (main.label, main.auto_disabled, dead.auto_disabled) == ("main", "", "key_dead")
        assert official.overrides == [
            {"do": "set", "path": "temperature", "value": 0.2},
            {"do": "set", "path": "/user.name", "value": "x"},
            {"do": "set_header", "header": "X-Title", "value": "Acme"},
            {"do": "remove_header", "header": "X-Gone"},
        ]
        assert "X-Client" in said(report, "gpt-load openai") and "cohere" in said(report, "gpt-load unknown")

    def test_models_that_are_tested_renamed_or_in_the_log(self, path: Path) -> None:
        carry(path)
        routes = set(Channel.objects.get(name="gpt-load openai").served.values_list("model__name", "upstream_name"))
        assert routes == {("gpt-5-mini", ""), ("gpt-5", ""), ("fast", "gpt-5-nano")}
        strict = Channel.objects.get(name="gpt-load mirror").served.values_list("model__name", "upstream_name")
        assert set(strict) == {("glm", "glm-5")}

    def test_proxy_keys_open_the_groups_that_they_opened(self, path: Path) -> None:
        report = carry(path)
        openai, mirror, claude = {"gpt-5-mini", "gpt-5", "fast"}, {"glm"}, {"claude-haiku"}
        everywhere, both, only, aggregate = (may(secret) for secret in SECRETS)
        assert everywhere == openai | mirror | claude | {"gemini-2.5-flash"}
        assert both == openai | mirror and only == mirror
        assert aggregate == openai | mirror, "a share of 0 is none"
        assert report.counts["token"].left_out == 1 and "guessed" in said(report, "All groups 2")
        assert {user.has_usable_password() for user in User.objects.filter(username__startswith="gpt-load")} == {False}
        channel = Channel.objects.get(name="gpt-load mirror")
        assert list(channel.groups.values_list("name", flat=True)) == ["gpt-load mirror"]

    def test_no_secret_is_in_the_report_and_a_second_run_changes_nothing(self, path: Path) -> None:
        text = json.dumps(carry(path, usage=True).as_json())
        assert not [one for one in (*SECRETS, "sk-upstream-a", "sk-mirror-a") if one in text]
        assert carry(path, usage=True).changes == 0

    def test_encrypted_keys_need_the_passphrase(self, tmp_path: Path, monkeypatch: Any) -> None:
        path = run_script(
            tmp_path / "x.db",
            "gpt_load_1.sql",
            [("UPDATE api_keys SET key_value = ? WHERE id = 1", [sealed("sk-found-0123456789", 1)])],
        )
        report = carry(path)
        channel = Channel.objects.get(name="gpt-load openai")
        assert channel.keys.count() == 1 and "ENCRYPTION_KEY" in said(report, "gpt-load openai")
        monkeypatch.setenv("ENCRYPTION_KEY", PASSPHRASE)
        carry(path)
        assert "sk-found-0123456789" in [key.secret_for(channel) for key in channel.keys.all()]

    def test_the_first_versions_had_fewer_columns(self, path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for column in ("group_type", "model_redirect_rules", "model_redirect_strict", "header_rules"):
                connection.execute(f"ALTER TABLE groups DROP COLUMN {column}")
            connection.execute("DROP TABLE group_sub_groups")
        connection.close()
        carry(path)
        assert Channel.objects.filter(name="gpt-load openai").exists()


@pytest.mark.django_db
class TestVersion2:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "encryption.key").write_text(PASSPHRASE + "\n")
        keys: list[tuple[str, Sequence[Any]]] = [
            (
                "INSERT INTO upstream_keys (group_id, key_value, key_hash, status, weight_manual) "
                "VALUES (?, ?, '', ?, ?)",
                (1, sealed("sk-upstream-2-0123456789", 2), "active", 7),
            ),
            (
                "INSERT INTO access_keys (id, name, key_value, key_hash, filters, rpm_limit, daily_cost_limit, "
                "monthly_cost_limit) VALUES (1, 'free', ?, '', '{}', 0, 0, 0)",
                [sealed("sk-gl-0123456789abcdef", 2)],
            ),
            (
                "INSERT INTO access_keys (id, name, key_value, key_hash, filters, rpm_limit, daily_cost_limit, "
                "monthly_cost_limit, status) VALUES (2, 'narrow', ?, '', ?, 30, 1.5, 20, 'active')",
                [sealed("sk-gl-fedcba9876543210", 2), '{"groups":[1],"protocols":["openai"],"models":["fast"]}'],
            ),
        ]
        return run_script(tmp_path / "gpt-load.db", "gpt_load_2.sql", keys)

    def test_groups_keys_and_prices(self, path: Path) -> None:
        report = carry(path, usage=True)
        channel = Channel.objects.get(name="gpt-load openai")
        assert (channel.base_url, channel.weight, channel.enabled) == ("", 5, True)
        key = channel.keys.get()
        assert (key.secret_for(channel), key.weight) == ("sk-upstream-2-0123456789", 7)
        assert [rule["do"] for rule in channel.overrides or ()] == ["set_header", "remove_header"]
        anthropic = Channel.objects.get(name="gpt-load both anthropic")
        assert (anthropic.provider, anthropic.base_url) == ("anthropic", "https://relay.example.com/v1")
        assert not anthropic.enabled
        exact, broad = ModelPrice.objects.get(model__name="fast"), ModelPrice.objects.get(model__name="gpt-5")
        assert (exact.input, exact.cached_input) == (Decimal("0.25"), None)
        assert (broad.input, broad.cached_input) == (Decimal("1.25"), Decimal("0.125"))
        assert report.counts["usage"].new == 2

    def test_access_keys(self, path: Path) -> None:
        report = carry(path)
        free, narrow = Token.objects.get(name="free"), Token.objects.get(name="narrow")
        assert may("sk-gl-0123456789abcdef") == {"fast", "gpt-5", "claude-haiku"} and not free.models_limited
        assert set(narrow.models_allowed.values_list("name", flat=True)) == {"fast"} and narrow.max_rpm == 30
        assert {(one.period, one.limit) for one in narrow.budgets.all()} == {("day", Decimal("1.5")), ("month", 20)}
        assert "protocols" in said(report, "narrow")

    def test_without_its_key_file_nothing_is_opened(self, path: Path) -> None:
        path.with_name("encryption.key").unlink()
        report = carry(path)
        assert not Token.objects.exists() and report.counts["token"].left_out == 2
        assert "ENCRYPTION_KEY" in said(report, "free")


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "x.sqlite3", {"groups": {"columns": ["id"], "rows": []}})
    with pytest.raises(SourceUnreadable, match="no database of GPT-Load"):
        open_source("gpt-load", str(path))


@pytest.mark.shared
def test_a_proxy_key_calls_what_it_called(live: Portal, server: Server, tmp_path: Path, clean_addresses: Any) -> None:
    address = live.upstream.base_url.removesuffix("/v1")
    model = live.name("gpt-load-model")
    path = run_script(
        tmp_path / "x.db",
        "gpt_load_1.sql",
        [
            (
                "UPDATE groups SET upstreams = ?, test_model = ?, param_overrides = NULL WHERE id = 1",
                [json.dumps([{"url": address, "weight": 1}]), model],
            ),
            ("DELETE FROM groups WHERE id IN (3, 4, 6)", ()),
        ],
    )
    live.upstream.script(model, hello)
    carry(path, live.name("old"), allow=(address.partition("//")[2],))
    from relay.models import ModelPrice

    ModelPrice.objects.create(model=Model.objects.get(name=model), input=0, output=0)
    server.catch_up()
    for secret in (SECRETS[0], SECRETS[1], SECRETS[3]):
        assert server.post(secret, ask(model)).status_code == 200, secret
    assert server.post(SECRETS[2], ask(model)).status_code in (403, 404)
    check(server.get("short", "/v1/models"), 401, "authentication_error", "invalid_api_key")
