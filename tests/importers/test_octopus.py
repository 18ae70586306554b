"""Moving in from Octopus, from version 0.9 to 0.11."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from accounts.models import User
from relay.importers.description import SourceUnreadable
from relay.importers.pipeline import carry_over
from relay.importers.report import Report
from relay.importers.run import Options
from relay.importers.sources import open_source
from relay.models import Channel, LedgerAccount, Model, ModelPrice, Token
from relay.models.token import digest_of
from tests.importers.files import run_script, write_tables
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import hello

KEYS = {
    name: "sk-octopus-" + letter * 48
    for name, letter in zip(("laptop", "capped", "spent", "old", "off"), "abcde", strict=True)
}
# Of the package bcrypt, as Go's writes it too: cost 10.
HASH = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"


def carry(path: Path, name: str = "old", **options: Any) -> Report:
    source = open_source("octopus", str(path))
    try:
        return carry_over(source, Options(apply=True, name=name, **options), "test")
    finally:
        source.close()


def said(report: Report, name: str) -> str:
    return " ".join(line.text for line in report.lines if line.name == name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    user = ("INSERT INTO users VALUES (1, 'admin', ?)", [HASH])
    return run_script(tmp_path / "octopus.db", "octopus_09.sql", [user])


@pytest.mark.django_db
class TestVersion09:
    def test_channels_with_several_keys_and_addresses(self, path: Path) -> None:
        report = carry(path)
        found = {row.name: row for row in Channel.objects.all()}
        official, mirror = found["official"], found["mirror"]
        assert (official.base_url, official.text_api) == ("", "")
        assert (mirror.base_url, mirror.text_api) == ("https://quick.example.com/v1", "chat")
        assert [key.enabled for key in official.keys.order_by("pk")] == [True, False]
        assert official.overrides == [
            {"do": "set", "path": "temperature", "value": 0.1},
            {"do": "set_header", "header": "X-Title", "value": "Acme"},
        ]
        assert official.priority > mirror.priority and (official.weight, mirror.weight) == (3, 1)
        assert (found["claude"].provider, found["ark"].provider) == ("anthropic", "volcengine")
        assert found["ark"].text_api == "responses" and not found["gemini"].enabled
        assert "type “9”" in said(report, "strange") and "2 addresses" in said(report, "mirror")

    def test_groups_become_models_with_prices_of_what_answers(self, path: Path) -> None:
        report = carry(path)
        served = set(Channel.objects.get(name="official").served.values_list("model__name", "upstream_name"))
        assert served == {("gpt", "GPT-5-mini"), ("balanced", "gpt-5-mini")}
        assert set(Channel.objects.get(name="claude").served.values_list("model__name", "upstream_name")) == {
            ("haiku", "claude-haiku")
        }
        price = ModelPrice.objects.get(model__name="gpt")
        assert (price.channel, price.input, price.output, price.cached_input) == (
            None, Decimal("0.25"), 2, Decimal("0.025"),
        )  # fmt: skip
        assert price.cache_write is None, "0 counts as none"
        by_channel = {
            row.channel.name: row.input for row in ModelPrice.objects.filter(model__name="balanced") if row.channel
        }
        assert by_channel == {"official": Decimal("0.25"), "mirror": Decimal("1.25")}
        assert "pattern" in said(report, "balanced") and Model.objects.filter(name="empty").exists()

    def test_keys_with_what_they_may_still_spend(self, path: Path) -> None:
        carry(path)
        rows = {name: Token.objects.get(digest=digest_of(key)) for name, key in KEYS.items()}
        left = {
            name: account.balance
            for name, row in rows.items()
            if (account := LedgerAccount.objects.filter(token=row, kind="quota", limited=True).first()) is not None
        }
        assert left == {"capped": 9_999_999_999, "spent": 0}
        assert set(rows["capped"].models_allowed.values_list("name", flat=True)) == {"gpt", "haiku"}
        assert not rows["laptop"].models_limited
        assert rows["old"].state() == "expired" and rows["off"].state() == "disabled"
        owner = User.objects.get(username="admin")
        assert {row.user for row in rows.values()} == {owner} and not owner.is_superuser
        assert not LedgerAccount.objects.get(user=owner, kind="wallet").limited

    def test_the_log_the_report_and_a_second_run(self, path: Path) -> None:
        report = carry(path, usage=True)
        assert report.counts["usage"].new == 3
        text = json.dumps(report.as_json())
        assert not [one for one in (*KEYS.values(), "sk-octopus-upstream", HASH) if one in text]
        assert carry(path, usage=True).changes == 0


@pytest.mark.django_db
def test_version_011_has_one_address_and_key_a_channel(tmp_path: Path) -> None:
    report = carry(run_script(tmp_path / "octopus.db", "octopus_011.sql"), usage=True)
    official, whole = Channel.objects.get(name="official"), Channel.objects.get(name="whole")
    assert (official.base_url, whole.base_url) == ("", "https://x.example.com/api/v9")
    assert whole.text_api == "responses" and whole.keys.get().secret_for(whole) == "sk-octopus-new-b"
    assert set(official.served.values_list("model__name", flat=True)) == {"safe"}
    assert set(whole.served.values_list("model__name", flat=True)) == {"gpt", "safe"}, "the chosen member alone"
    assert official.priority > whole.priority
    assert ModelPrice.objects.get(model__name="safe").cached_input is None
    assert report.counts["usage"].new == 1


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "x.sqlite3", {"channels": {"columns": ["id"], "rows": []}})
    with pytest.raises(SourceUnreadable, match="no database of Octopus"):
        open_source("octopus", str(path))


@pytest.mark.shared
def test_active_keys_call(live: Portal, server: Server, tmp_path: Path, clean_addresses: Any) -> None:
    model, address = live.name("octopus"), live.upstream.base_url
    path = run_script(
        tmp_path / "x.db",
        "octopus_09.sql",
        [
            ("UPDATE groups SET name = ? WHERE id = 1", [model]),
            ("UPDATE groups SET name = name || ? WHERE id > 1", [model]),
            ("UPDATE api_keys SET supported_models = ? WHERE id = 2", [model]),
            ("UPDATE channels SET name = name || ?", [model]),
            ("UPDATE channels SET base_urls = ? WHERE id = 1", [json.dumps([{"url": address, "delay": 0}])]),
        ],
    )
    live.upstream.script("GPT-5-mini", hello)
    carry(path, live.name("old"), allow=(address.partition("//")[2].partition("/")[0],))
    server.catch_up()
    answers = {name: server.post(key, ask(model)).status_code for name, key in KEYS.items()}
    assert answers["laptop"] == answers["capped"] == 200
    assert answers["spent"] in (402, 429) and answers["old"] == answers["off"] == 401
