"""The files and variables of AIRelays 0.x: what `airelays init` of 0.2.5 and 0.22.0 wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accounts.models import User
from portal import config
from portal.installation.sources import ConfigError
from portal.serving.first_run import first_run
from relay.gateway.snapshot import load
from relay.models import Token
from relay.models.token import digest_of
from tests.portal.airelays import VERSIONS, home_of, token_of


def loaded(folder: Path, **env: str) -> config.Config:
    return config.load({}, {"AIRELAYS_CONFIG": str(folder / ".config" / "airelays" / "config.toml"), **env})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_old_file_is_read_and_what_has_no_effect_is_one_line(version: str, tmp_path: Path) -> None:
    home = home_of(version, tmp_path, port="9001", failed_auth_max_attempts="5", request_timeout_seconds="77.5")
    found = loaded(home)
    assert (found.host, found.port, found.data_dir) == ("127.0.0.1", 9001, tmp_path / ".airelays")
    assert (found.failed_auth_max_attempts, found.max_upload_bytes, found.max_total_upload_bytes) == (
        5,
        1 << 25,
        1 << 28,
    )
    assert (found.rate_limit_per_minute, found.rate_limit_burst) == (120, 40)
    assert found.concurrent_requests_per_ip == (8 if version == "0.2.5" else 50)
    assert found.network_scope == ("any" if version == "0.2.5" else "private")
    assert (found.first_byte_timeout, found.idle_timeout, found.total_timeout) == (77.5, 77.5, 3600)
    assert found.logs_dir == tmp_path / ".airelays" / "logs" and found.log_retention_days == 7
    *providers, said = (str(notice) for notice in found.notices)
    assert len(providers) == (version != "0.2.5")
    assert all("[providers.openai], [providers.claude] has no effect" in one for one in providers)
    for name in ("auth_storage", "browser_open", "upstream_base_url", "issuer_base_url", "client_version"):
        assert name in said
    for name in ("require_bearer_auth", "network_scope", "rate_limit", "timeout_seconds=", "retention", "\n"):
        assert name not in said


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        (
            {"AIRELAYS_LOGS_DIR": "/a", "AIRELAY_LOGS_DIR": "/b", "OPENAI_ENDPOINT_LOGS_DIR": "/c"},
            "logs_dir",
            Path("/a"),
        ),
        ({"AIRELAY_LOGS_DIR": "/b", "OPENAI_ENDPOINT_LOGS_DIR": "/c"}, "logs_dir", Path("/b")),
        ({"OPENAI_ENDPOINT_LOGS_DIR": "/c"}, "logs_dir", Path("/c")),
        ({"OPENAI_ENDPOINT_REQUEST_TIMEOUT_SECONDS": "9"}, "idle_timeout", 9),
        ({"AIRELAY_REQUEST_TIMEOUT_SECONDS": "9", "AIRELAYS_IDLE_TIMEOUT": "8"}, "idle_timeout", 8),
        ({"AIRELAY_REQUEST_TIMEOUT_SECONDS": "9", "AIRELAYS_IDLE_TIMEOUT": "8"}, "first_byte_timeout", 9),
        ({"AIRELAY_NETWORK_SCOPE": "loopback"}, "network_scope", "loopback"),
        ({"AIRELAY_RATE_LIMIT_PER_MINUTE": "30"}, "rate_limit_per_minute", 30),
        ({"OPENAI_ENDPOINT_RATE_LIMIT_PER_MINUTE": "30"}, "rate_limit_per_minute", 0),
        ({"AIRELAY_TRUST_X_FORWARDED_FOR": "ON"}, "trusted_proxies", ["127.0.0.0/8", "::1"]),
    ],
)
def test_old_variables_count(variables: dict[str, str], name: str, value: object) -> None:
    assert getattr(config.load({}, {"AIRELAYS_CONFIG": "", **variables}), name) == value


@pytest.mark.parametrize(
    "name",
    ["require_bearer_auth", "trust_x_forwarded_for", "auto_generate_bearer_token", "browser_open", "enable_openai",
     "access_log", "debug"],
)  # fmt: skip
@pytest.mark.parametrize("word", ["maybe", "ture", "2", "enabled"])
def test_an_unknown_word_for_yes_is_an_error(name: str, word: str) -> None:
    with pytest.raises(ConfigError, match=name.upper() if name in config.Config.model_fields else name) as caught:
        config.load({}, {"AIRELAYS_CONFIG": "", f"AIRELAYS_{name.upper()}": word})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["0", "-1", "never", "nan", "inf", "1e9"])
def test_an_old_timeout_that_makes_no_sense_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match="request_timeout_seconds"):
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_REQUEST_TIMEOUT_SECONDS": value})


@pytest.mark.parametrize("version", VERSIONS)
def test_an_open_relay_stays_one(version: str, tmp_path: Path) -> None:
    for found in (
        loaded(home_of(version, tmp_path, require_bearer_auth="false")),
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_REQUIRE_BEARER_AUTH": "false"}),
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAY_REQUIRE_BEARER_AUTH": "0"}),
    ):
        assert not found.require_bearer_auth
        assert not any("bearer" in str(notice) for notice in found.notices)
    with pytest.raises(ConfigError, match="AIRELAYS_REQUIRE_BEARER_AUTH"):
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_REQUIRE_BEARER_AUTH": "maybe"})


def test_x_forwarded_for_is_believed_of_this_machine(tmp_path: Path) -> None:
    folder = home_of("0.2.5", tmp_path, trust_x_forwarded_for="true")
    found = loaded(folder)
    assert found.trusted_proxies == ["127.0.0.0/8", "::1"]
    assert any("AIRELAYS_TRUSTED_PROXIES" in str(notice) for notice in found.notices)
    assert loaded(folder, AIRELAYS_TRUSTED_PROXIES="10.0.0.1").trusted_proxies == ["10.0.0.1"]
    assert loaded(home_of("0.2.5", tmp_path / "b")).trusted_proxies == []


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("AIRELAYS_SIGNUP_DOMAIN", "AIRELAYS_SIGNUP_DOMAINS"),
        ("AIRELAYS_TRUSTED_PROXY", "AIRELAYS_TRUSTED_PROXIES"),
        ("AIRELAY_PUBLICURL", "AIRELAYS_PUBLIC_URL"),
        ("AIRELAYS_XYZZY", "docs/configure.md"),
        ("AIRELAYS_CLAUDE_BALANCE", "claude_balance"),
    ],
)
def test_a_variable_that_nothing_reads_is_told(variable: str, words: str) -> None:
    (said,) = config.load({}, {"AIRELAYS_CONFIG": "", variable: "x"}).notices
    assert words in str(said)
    assert config.load({}, {"AIRELAYS_CONFIG": "", variable: ""}).notices == []


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_no_setting() -> None:
    env = {
        "AIRELAYS_CONFIG": "",
        "AIRELAYS_PORT": "tcp://10.0.0.7:8080",
        "AIRELAYS_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "AIRELAYS_PORT_8080_TCP_ADDR": "10.0.0.7",
        "AIRELAYS_SERVICE_HOST": "10.0.0.7",
        "AIRELAYS_SERVICE_PORT_HTTP": "8080",
        "AIRELAYS_API_KEY": "sk-of-a-client-on-this-machine",
    }
    found = config.load({}, env)
    assert found.port == 8080 and found.notices == []


@pytest.mark.parametrize(
    ("env", "token"),
    [
        ({}, token_of("0.22.0")),
        ({"AIRELAYS_BEARER_TOKEN": token_of("0.2.5")}, token_of("0.2.5")),
        ({"AIRELAYS_BEARER_TOKEN": "too-short"}, ""),
        ({"AIRELAYS_BEARER_TOKEN_FILE": "/nonexistent"}, ""),
    ],
)
def test_clients_keep_their_token(db: None, settings: Any, tmp_path: Path, env: dict[str, str], token: str) -> None:
    User.objects.all().delete()
    settings.CONFIG = loaded(home_of("0.22.0", tmp_path), **env)
    first = first_run()
    assert first is not None
    assert first.token == token or (not token and first.token.startswith("sk-"))
    caller = load.load_caller(digest_of(first.token))
    assert caller is not None and Token.objects.get(pk=caller.token_id).reveal() == first.token


@pytest.mark.parametrize(
    ("folders", "data", "file"),
    [
        ((), ".airelays", ""),
        ((".airelay", ".config/airelay"), ".airelay", ".config/airelay"),
        ((".airelay", ".airelays", ".config/airelay"), ".airelays", ".config/airelay"),
        ((".airelay", ".config/airelay", ".config/airelays"), ".airelay", ".config/airelays"),
    ],
)
def test_each_folder_is_chosen_by_itself(
    folders: tuple[str, ...], data: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
        if name.startswith(".config"):
            (tmp_path / name / "config.toml").write_text("[server]\nport = 9001\n")
    found = config.load({}, {})
    assert found.data_dir == tmp_path / data
    assert found.files == ([tmp_path / file / "config.toml"] if file else [])
    assert found.port == (9001 if file else 8080)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[providers]\nenabled = 'perhaps'\n", "[providers] has"),
        ("[providers.anthropic]\napi_key = 'sk-secret'\nport = 7\n", "[providers.anthropic] has"),
        ("[providers.openai]\nnew = 1\n[providers.claude.deep]\nx = 1\n", "[providers.openai], [providers.claude] has"),
        ("providers = ['openai']\n", "[providers] has"),
        ('[providers."a\\u001b[2J"]\nx = 1\n', "[…] has"),
        ("".join(f"[providers.p{number}]\n" for number in range(1000)), "[providers.p7], … has"),
    ],
    ids=["values", "unknown", "inner", "list", "escape", "many"],
)
def test_upstreams_in_the_file_are_told_in_one_sentence_and_stop_nothing(text: str, named: str, tmp_path: Path) -> None:
    """Also those of versions that are not known, whatever is in them; they are settings of nothing here."""
    (tmp_path / "config.toml").write_text(text)
    env = {"AIRELAYS_CONFIG": str(tmp_path / "config.toml"), "AIRELAYS_DATA_DIR": str(tmp_path)}
    found = config.load({}, env, None)
    (said,) = (str(notice) for notice in found.notices)
    assert named in said and "add a channel for each" in said and "sk-secret" not in said and found.port == 8080
