"""Moving in from LiteLLM."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from django.contrib.auth import authenticate

from accounts.models import User
from portal.lib.money import NANO
from relay.importers.description import Source, SourceUnreadable
from relay.importers.pipeline import carry_over
from relay.importers.report import Report
from relay.importers.run import Options
from relay.importers.sources import open_source
from relay.importers.undo import take_back
from relay.models import Budget, Channel, ChannelModel, LedgerAccount, Model, ModelPrice, Token
from tests.importers.files import read_json, write_tables
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import hello

FACTS: Final = read_json("litellm.json")
KEYS: Final[dict[str, str]] = FACTS["keys"]


@pytest.fixture
def salt_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_SALT_KEY", FACTS["salt_key"])
    monkeypatch.delenv("LOCAL_LLAMA_KEY", raising=False)


@pytest.fixture
def tables() -> dict[str, Any]:
    """The tables, to be changed by a test."""
    found: dict[str, Any] = json.loads(json.dumps(FACTS["tables"]))
    return found


@pytest.fixture
def opened(tmp_path: Path, salt_key: None) -> Iterator[Callable[[dict[str, Any]], Source]]:
    sources = []

    def begin(tables: dict[str, Any]) -> Source:
        source = open_source("litellm", str(write_tables(tmp_path / "litellm.sqlite3", tables)))
        sources.append(source)
        return source

    yield begin
    for source in sources:
        source.close()


def carry(source: Source, name: str, **options: Any) -> Report:
    return carry_over(source, Options(apply=True, name=name, **options), "test")


def token(alias: str) -> Token:
    return Token.objects.get(name=alias)


def quota(alias: str) -> int | None:
    found = LedgerAccount.objects.filter(token=token(alias), kind="quota", limited=True).first()
    return None if found is None else found.balance


def said(report: Report, kind: str, name: str) -> str:
    return " ".join(line.text for line in report.lines if line.kind == kind and line.name == name)


@pytest.mark.django_db
class TestWhatIsCarriedOver:
    def test_users_with_balances_budgets_and_limits(self, opened: Any, tables: Any) -> None:
        report = carry(opened(tables), "a")
        ada, bob = User.objects.get(username="ada@example.org"), User.objects.get(username="bob@example.org")
        assert LedgerAccount.objects.get(user=ada, kind="wallet").balance == 6_876_543_210
        assert (ada.max_rpm, ada.max_tpm, ada.max_concurrency) == (100, 50_000, 4)
        assert not LedgerAccount.objects.get(user=bob, kind="wallet").limited
        assert [(one.period, one.limit) for one in bob.budgets.all()] == [("day", Decimal(2))]
        assert not ada.is_staff and not User.objects.get(username="default_user_id").is_superuser
        assert LedgerAccount.objects.get(user__username="dee@example.org", kind="wallet").balance == 0
        assert report.balances == 6_876_543_210 + 5 * NANO

    def test_passwords(self, opened: Any, tables: Any, settings: Any) -> None:
        carry(opened(tables), "a")
        for name, password in FACTS["passwords"].items():
            assert authenticate(username=name, password=password) == User.objects.get(username=name), name
            assert authenticate(username=name, password=password + "x") is None
            assert User.objects.get(username=name).password.startswith("argon2"), "hashed anew"

    def test_keys_with_quotas_budgets_models_and_states(self, opened: Any, tables: Any) -> None:
        report = carry(opened(tables), "a")
        assert quota("lifetime-budget") == 3_999_999_999
        assert (quota("spent"), quota("zero"), quota("plain")) == (0, 0, None)
        assert quota("odd-period") == 1_500_000_000 and "10d" in said(report, "token", "odd-period")
        budgets = {
            (one.token.name, one.period): one.limit
            for one in Budget.objects.exclude(token=None).select_related("token")
            if one.token is not None
        }
        assert budgets == {
            ("daily", "day"): Decimal("0.5"),
            ("weekly", "week"): 4,
            ("monthly", "month"): 9,
            ("by-budget", "month"): 25,
        }
        limited = token("group-models")
        assert (limited.max_rpm, limited.max_tpm, limited.max_concurrency) == (10, 1000, 2)
        assert set(limited.models_allowed.values_list("name", flat=True)) == {"gpt-5-mini", "embed"}
        assert token("by-budget").max_rpm == 60
        assert not token("everything").models_limited and not token("plain").models_limited
        unknown = token("unknown-model")
        assert unknown.models_limited and not unknown.models_allowed.exists(), "nothing, not everything"
        assert not token("blocked").enabled and token("expired").state() == "expired"
        assert not Token.objects.filter(name__in=("routes", "ui-session")).exists()
        assert "management" in said(report, "token", "routes")
        assert said(report, "token", "model-budget").count("by model") == 2

    def test_a_key_for_the_models_of_a_team_that_it_has_not_may_use_none(self, opened: Any, tables: Any) -> None:
        for row in tables["LiteLLM_VerificationToken"]["rows"]:
            if row.get("key_alias") == "plain":
                row["models"] = ["all-team-models"]
        carry(opened(tables), "a")
        assert token("plain").models_limited and not token("plain").models_allowed.exists()

    def test_keys_of_teams_with_limits_belong_to_the_account_of_the_team(self, opened: Any, tables: Any) -> None:
        carry(opened(tables), "a")
        red, grey = User.objects.get(username="team-Red"), User.objects.get(username="team-Grey")
        assert {token("red-ada").user, token("red-service").user} == {red}
        assert (red.max_rpm, red.max_tpm) == (300, 200_000)
        assert [(one.period, one.limit) for one in red.budgets.all()] == [("month", Decimal(40))]
        assert not red.has_usable_password() and not grey.is_active and not token("grey").enabled
        assert token("blue-cy").user.username == "cy@example.org", "its team limits nothing"
        assert token("nobody").user.username == "litellm-keys"
        assert set(token("red-service").models_allowed.values_list("name", flat=True)) == {"claude"}

    def test_who_may_use_which_models(self, opened: Any, tables: Any) -> None:
        carry(opened(tables), "a")

        def may(name: str) -> set[str]:
            groups = User.objects.get(username=name).groups.values("pk")
            return set(Model.objects.filter(permissions__group__in=groups).values_list("name", flat=True))

        every = set(Model.objects.values_list("name", flat=True))
        assert may("ada@example.org") == {"gpt-5-mini", "embed"}
        assert may("team-Red") == {"gpt-5-mini", "claude"} and may("team-Grey") == {"claude"}
        assert may("cy@example.org") == may("litellm-keys") == every
        assert not Model.objects.filter(is_open=True).exists()
        assert User.objects.get(username__istartswith="ada@example.org-").groups.count() == 0, "no-default-models"

    def test_channels_with_keys_addresses_and_prices(self, opened: Any, tables: Any) -> None:
        report = carry(opened(tables), "a")
        found = {row.name: row for row in Channel.objects.all()}
        first, second = found["openai"], found["openai 2"]
        assert (first.base_url, first.keys.get().secret_for(first)) == ("", "sk-upstream-openai-1")
        assert (second.weight, second.max_rpm, second.keys.get().secret_for(second)) == (3, 500, "sk-upstream-openai-2")
        assert set(first.served.values_list("model__name", "upstream_name")) == {
            ("gpt-5-mini", "gpt-5-mini"),
            ("embed", "text-embedding-3-small"),
        }
        azure, bedrock, google = found["azure"], found["bedrock"], found["google-1"]
        assert (azure.provider, azure.base_url) == ("azure", "https://unit.openai.azure.com/openai/v1")
        assert azure.served.get().upstream_name == "my-deployment"
        assert (google.provider, google.keys.get().secret_for(google)) == ("gemini", "AIza-unit")
        assert bedrock.provider == "bedrock_claude" and "us-east-1" in bedrock.base_url
        assert "watsonx" in said(report, "channel", "exotic")
        price = ModelPrice.objects.get(model__name="gpt-5-mini", channel=first)
        assert (price.input, price.output, price.cached_input) == (Decimal("0.25"), 2, Decimal("0.025"))
        assert ModelPrice.objects.get(model__name="embed").input == Decimal("0.02")
        assert Model.objects.get(name="gpt-5-mini").aliases.get().name == "gpt-mini"

    def test_no_secret_is_in_the_report(self, opened: Any, tables: Any) -> None:
        text = json.dumps(carry(opened(tables), "a").as_json())
        secrets = [
            "sk-upstream-openai-1",
            "sk-ant-upstream-1",
            "azure-key-1",
            "aws-secret-unit",
            "AIza-unit",
            *KEYS.values(),
        ]
        assert not [one for one in (*secrets, *FACTS["passwords"].values()) if one in text]
        digests = [row["token"] for row in FACTS["tables"]["LiteLLM_VerificationToken"]["rows"]]
        assert not [one for one in digests if one in text]


@pytest.mark.django_db
class TestAgain:
    def test_a_second_run_changes_nothing_and_undo_leaves_nothing(self, opened: Any, tables: Any) -> None:
        before = User.objects.count(), Token.objects.count(), Channel.objects.count(), Model.objects.count()
        first = carry(opened(tables), "a")
        made = User.objects.count(), Token.objects.count(), Channel.objects.count(), ModelPrice.objects.count()
        second = carry(opened(tables), "a")
        assert first.changes > 40 and second.changes == 0 and second.balances == second.quotas == 0
        assert made == (
            User.objects.count(),
            Token.objects.count(),
            Channel.objects.count(),
            ModelPrice.objects.count(),
        )
        take_back("a", apply=True)
        assert not ChannelModel.objects.exists()
        assert Channel.objects.count() == before[2] and Token.objects.filter(enabled=True).count() == before[1]

    def test_what_is_new_there_is_carried_over(self, opened: Any, tables: Any) -> None:
        carry(opened(tables), "a")
        keys = tables["LiteLLM_VerificationToken"]["rows"]
        keys.append({"token": "ab" * 32, "key_alias": "later", "user_id": "u-cy", "key_name": "sk-...9999"})
        next(row for row in keys if row.get("key_alias") == "weekly")["blocked"] = True
        report = carry(opened(tables), "a")
        assert (report.counts["token"].new, report.counts["token"].changed) == (1, 1)
        assert token("later").hint == "sk-…9999" and not token("weekly").enabled

    def test_a_dry_run_writes_nothing(self, opened: Any, tables: Any) -> None:
        report = carry_over(opened(tables), Options(), "test")
        assert report.counts["token"].new == 24 and not Token.objects.exists() and not Channel.objects.exists()


@pytest.mark.django_db
class TestOtherDatabases:
    def test_without_the_salt_key_models_are_told(self, tmp_path: Path, tables: Any, monkeypatch: Any) -> None:
        monkeypatch.delenv("LITELLM_SALT_KEY", raising=False)
        monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
        source = open_source("litellm", str(write_tables(tmp_path / "x.sqlite3", tables)))
        report = carry(source, "a")
        assert not Channel.objects.exists() and report.counts["channel"].left_out == 10
        assert "LITELLM_SALT_KEY" in said(report, "channel", "claude")
        assert report.counts["token"].new == 24, "keys need none"
        source.close()

    def test_the_key_may_be_typed_and_models_may_be_in_a_file_as_well(
        self, tmp_path: Path, tables: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("LITELLM_SALT_KEY", "sk-of-another-system")
        path, config = write_tables(tmp_path / "x.sqlite3", tables), tmp_path / "config.yaml"
        config.write_text(
            "model_list: [{model_name: fast, litellm_params: {model: xai/grok-4, api_key: xai-unit-0123456789}}]\n"
        )
        source = open_source("litellm", str(path), str(config), FACTS["salt_key"])
        report = carry(source, "a")
        assert set(Channel.objects.values_list("provider", flat=True)) > {"xai", "anthropic", "azure"}
        assert report.counts["token"].new == 24
        source.close()

    def test_the_newer_form_of_encryption(self, opened: Any, tables: Any) -> None:
        import base64
        import hashlib

        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key, nonce = hashlib.sha256(FACTS["salt_key"].encode()).digest(), b"n" * 12
        for row in tables["LiteLLM_ProxyModelTable"]["rows"]:
            if row["model_id"] == "m-3":
                sealed = nonce + AESGCM(key).encrypt(nonce, b"sk-ant-newer", None)
                row["litellm_params"]["api_key"] = "v2:gcm:" + base64.urlsafe_b64encode(sealed).decode()
        carry(opened(tables), "a")
        channel = Channel.objects.get(name="anthropic")
        assert channel.keys.get().secret_for(channel) == "sk-ant-newer"

    def test_a_key_in_the_environment(self, opened: Any, tables: Any, monkeypatch: Any) -> None:
        report = carry(opened(tables), "a", allow=("127.0.0.1:8000",))
        row = Channel.objects.get(name="openai 3")
        assert not row.enabled and not row.keys.exists()
        assert "LOCAL_LLAMA_KEY" in said(report, "channel", "openai 3")

    def test_older_schemas_and_columns_that_nobody_knows(self, opened: Any, tables: Any) -> None:
        for name in (
            "LiteLLM_TeamMembership",
            "LiteLLM_OrganizationTable",
            "LiteLLM_AccessGroupTable",
            "LiteLLM_Config",
        ):
            del tables[name]
        for name in ("budget_limits", "access_group_ids", "key_type", "allowed_routes"):
            tables["LiteLLM_VerificationToken"]["columns"].remove(name)
            for row in tables["LiteLLM_VerificationToken"]["rows"]:
                row.pop(name, None)
        tables["LiteLLM_UserTable"]["columns"].append("of_the_future")
        report = carry(opened(tables), "a")
        assert report.counts["token"].new >= 24

    def test_another_database_is_refused(self, tmp_path: Path) -> None:
        path = write_tables(tmp_path / "x.sqlite3", {"users": {"columns": ["id"], "rows": []}})
        with pytest.raises(SourceUnreadable, match="no database of LiteLLM"):
            open_source("litellm", str(path))

    def test_a_configuration_file_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(
            "model_list:\n"
            "  - model_name: fast\n"
            "    litellm_params: {model: groq/llama-3.3-70b, api_key: gsk-unit-0123456, input_cost_per_token: 1e-7}\n"
            "  - model_name: fast\n"
            "    litellm_params: {model: openrouter/meta/llama-3.3-70b, api_key: sk-or-unit-0123456789}\n"
            "router_settings: {model_group_alias: {quick: fast}, fallbacks: [{fast: [other]}]}\n"
        )
        report = carry(open_source("litellm", str(path)), "a")
        assert set(Channel.objects.values_list("provider", flat=True)) == {"groq", "openrouter"}
        assert {row.upstream_name for row in ChannelModel.objects.all()} == {"llama-3.3-70b", "meta/llama-3.3-70b"}
        assert Model.objects.get().aliases.get().name == "quick"
        assert any("fallbacks" in line.text for line in report.lines)

    def test_a_model_twice_on_one_channel_has_the_price_of_the_first(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        given = "model: groq/llama, api_key: gsk-unit-0123456, input_cost_per_token:"
        path.write_text(
            "model_list:\n"
            + "".join(f"  - model_name: fast\n    litellm_params: {{{given} {usd}e-7}}\n" for usd in (1, 2, 3))
        )
        for _run in range(2):
            report = carry(open_source("litellm", str(path)), "a")
            assert report.counts["price"].left_out == 2
        assert [price.input for price in ModelPrice.objects.filter(model__name="fast")] == [Decimal("0.1")]

    def test_a_further_name_stands_for_one_model(self, tmp_path: Path) -> None:
        path, deployment = tmp_path / "config.yaml", "litellm_params: {model: groq/llama, api_key: gsk-unit-0123456}"
        Model.objects.create(name="here")
        for number, installation in enumerate(("a", "b")):
            path.write_text(
                f"model_list:\n  - model_name: model-{number}\n    {deployment}\n"
                f"router_settings: {{model_group_alias: {{quick: model-{number}, QUICK: model-{number}, "
                f"here: model-{number}, 'two words': model-{number}, own-{number}: model-{number}}}}}\n"
            )
            report = carry(open_source("litellm", str(path)), installation)
            assert any("“here” is left out" in line.text for line in report.lines)
        first, second = (Model.objects.get(name=f"model-{number}") for number in range(2))
        assert {row.name for row in first.aliases.all()} == {"quick", "own-0"}
        assert {row.name for row in second.aliases.all()} == {"own-1"}


@pytest.mark.shared
class TestCalls:
    def test_every_active_key_calls_with_the_models_that_it_may_use(
        self, live: Portal, server: Server, opened: Any, tables: Any, clean_addresses: Any
    ) -> None:
        """The deployments of one model are asked at the test's own upstream."""
        public = live.name("litellm")
        for row in tables["LiteLLM_ProxyModelTable"]["rows"]:
            if row["model_name"] == "gpt-5-mini":
                row["model_name"] = public
                row["litellm_params"] |= {"api_base": live.upstream.base_url, "api_key": "sk-mock-upstream-0123456789"}
        for table in ("LiteLLM_VerificationToken", "LiteLLM_TeamTable", "LiteLLM_UserTable"):
            for row in tables[table]["rows"]:
                row["models"] = [public if one == "gpt-5-mini" else one for one in row.get("models", [])]
        live.upstream.script("gpt-5-mini", hello)
        carry(
            opened(tables), live.name("litellm"), allow=(live.upstream.base_url.partition("//")[2].partition("/")[0],)
        )
        server.catch_up()
        refused = {
            "blocked": (401, "authentication_error", "token_disabled"),
            "grey": (401, "authentication_error", "token_disabled"),
            "expired": (401, "authentication_error", "token_expired"),
            "routes": (401, "authentication_error", "invalid_api_key"),
            "ui-session": (401, "authentication_error", "invalid_api_key"),
        }
        no_money, no_model = {"spent", "zero"}, {"red-service", "unknown-model", "no-models"}
        for alias, key in KEYS.items():
            answer = server.post(key, ask(public))
            if alias in refused:
                check(answer, *refused[alias])
            elif alias in no_money:
                assert answer.status_code in (402, 429), (alias, answer.text)
            elif alias in no_model:
                assert answer.status_code in (403, 404), (alias, answer.text)
            else:
                assert answer.status_code == 200, (alias, answer.text)
