"""Settings: names, files, precedence, and what is refused."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import DisallowedHost
from django.test import RequestFactory

from portal import config
from portal.installation.sources import ConfigError
from portal.lib import crypto
from portal.serving import banner
from tests.support.portal import People
from tests.support.sessions import signed_in


def test_prefixes_win_in_order_and_empty_means_unset(tmp_path: Path) -> None:
    base = {"HOME": str(tmp_path), "AIRELAYS_CONFIG": ""}
    assert config.load({}, {**base, "OPENAI_ENDPOINT_PORT": "7001"}).port == 7001
    assert config.load({}, {**base, "OPENAI_ENDPOINT_PORT": "7001", "AIRELAY_PORT": "7002"}).port == 7002
    assert config.load({}, {**base, "AIRELAY_PORT": "7002", "AIRELAYS_PORT": "7003"}).port == 7003
    assert config.load({}, {**base, "AIRELAY_PORT": "7002", "AIRELAYS_PORT": " "}).port == 7002
    assert config.load({"port": 7004}, {**base, "AIRELAYS_PORT": "7003"}).port == 7004


def test_toml_file_sections_and_precedence(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'log_level = "ERROR"\n[server]\nport = 7005\nhost = "0.0.0.0"\n[providers.openai]\nenabled = '
        'true\n[security]\nrate_limit_burst = 4\ntrusted_proxies = ["10.0.0.0/8"]\n'
    )
    found = config.load({}, {"AIRELAYS_CONFIG": str(path), "AIRELAYS_HOST": "127.0.0.2"})
    assert (found.port, found.host, found.log_level, found.trusted_proxies) == (
        7005,
        "127.0.0.2",
        "ERROR",
        ["10.0.0.0/8"],
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"AIRELAYS_PORT": "eighty"}, "AIRELAYS_PORT"),
        ({"AIRELAYS_PORT": "0"}, "AIRELAYS_PORT"),
        ({"AIRELAYS_DEBUG": "maybe"}, "AIRELAYS_DEBUG"),
        ({"AIRELAYS_TRUSTED_PROXIES": "10.0.0.0/99"}, "AIRELAYS_TRUSTED_PROXIES"),
        ({"AIRELAYS_UPSTREAM_ALLOW": "not a host"}, "AIRELAYS_UPSTREAM_ALLOW"),
        ({"AIRELAYS_CONFIG": "/nonexistent.toml"}, "/nonexistent.toml"),
        ({"AIRELAYS_PUBLIC_URL": "ai.example.org"}, "https://ai.example.org"),
        ({"AIRELAYS_PUBLIC_URL": "https://"}, "https://ai.example.org"),
        ({"AIRELAYS_PUBLIC_URL": "ftp://ai.example.org"}, "https://"),
        ({"AIRELAYS_PUBLIC_URL": "https://ai.example.org:99999"}, "https://ai.example.org"),
        ({"AIRELAYS_PUBLIC_URL": "https://me:pw@ai.example.org"}, "https://ai.example.org"),
        ({"AIRELAYS_PUBLIC_URL": "https://ai example.org"}, "https://ai.example.org"),
        ({"AIRELAYS_PUBLIC_URL": "https://example.org/ai"}, "below a path"),
        ({"AIRELAYS_PUBLIC_URL": "https://example.org/?a=b"}, "below a path"),
        ({"AIRELAYS_ALLOWED_HOSTS": "https://ai.example.org"}, "leave out the scheme"),
        ({"AIRELAYS_ALLOWED_HOSTS": "localhost,ai.example.org:8443"}, "leave out the scheme, the port"),
        ({"AIRELAYS_REDIS_URL": "redis://cache:abc"}, "redis://host:6379/0"),
        ({"AIRELAYS_REDIS_URL": "redis://"}, "redis://host:6379/0"),
        ({"AIRELAYS_REDIS_URL": "redis://cache:6379/zero"}, "redis://host:6379/0"),
        ({"AIRELAYS_EMAIL_HOST": "smtp.example.org:99999"}, "leave out the scheme, the port"),
        ({"AIRELAYS_EMAIL_HOST": "smtp://smtp.example.org"}, "leave out the scheme"),
        ({"AIRELAYS_CORS_ORIGINS": "app.example.org"}, "https://app.example.org"),
        ({"AIRELAYS_CORS_ORIGINS": "https://app.example.org/path"}, "https://app.example.org"),
        ({"AIRELAYS_SIGNUP_DOMAINS": "somebody@example.org"}, "example.org"),
        ({"AIRELAYS_EMAIL_FROM": "airelays"}, "AIRELAYS_EMAIL_FROM"),
        ({"AIRELAYS_UPSTREAM_CA_FILE": "/nonexistent.pem"}, "AIRELAYS_UPSTREAM_CA_FILE"),
        ({"AIRELAYS_NEW_USER_BALANCE": "99999999999"}, "999,999,999"),
        ({"AIRELAYS_NEW_USER_BALANCE": "1e999999"}, "999,999,999"),
        ({"AIRELAYS_UNPRICED": "5/1000000001"}, "999,999,999"),
        ({"AIRELAYS_REFRESH_HOURS": "inf"}, "AIRELAYS_REFRESH_HOURS"),
        ({"AIRELAYS_PORT": "9" * 5000}, "AIRELAYS_PORT"),
        ({"AIRELAYS_SECRET_KEY": "x"}, "AIRELAYS_SECRET_KEY: write a random key of at least 32 characters"),
        ({"AIRELAYS_SECRET_KEY": "x" * 64}, "openssl rand -hex 32"),
        ({"AIRELAYS_TOKEN_KEY": "short"}, "AIRELAYS_TOKEN_KEY: write a random key"),
        ({"AIRELAYS_ENCRYPTION_KEYS": "not-a-key"}, "AIRELAYS_ENCRYPTION_KEYS: write a random key"),
        ({"AIRELAYS_ENCRYPTION_KEYS": f"old,{'0123456789abcdef' * 2}"}, "AIRELAYS_ENCRYPTION_KEYS: write a random key"),
        ({"AIRELAYS_METRICS_TOKEN": "hunter2"}, "AIRELAYS_METRICS_TOKEN: write a random key of at least 32 characters"),
        ({"AIRELAYS_TRUSTED_PROXIES": "0.0.0.0/0"}, "name the networks"),
        ({"AIRELAYS_TRUSTED_PROXIES": "0.0.0.0/1,128.0.0.0/1"}, "name the networks"),
        ({"AIRELAYS_TRUSTED_PROXIES": "127.0.0.1,::/0"}, "name the networks"),
        ({"AIRELAYS_TRUSTED_PROXIES": "::ffff:0:0/96"}, "0.0.0.0/0"),
        ({"AIRELAYS_TRUSTED_PROXIES": "*"}, "neither an IP address nor a network"),
        ({"AIRELAYS_WEBHOOK_ALLOW": "*"}, "name each host"),
        ({"AIRELAYS_WEBHOOK_ALLOW": "*.lan:8080"}, "name each host"),
        ({"AIRELAYS_WEBHOOK_ALLOW": "0.0.0.0/0"}, "name the networks"),
        ({"AIRELAYS_UPSTREAM_ALLOW": "10.0.0.1,*"}, "name each host"),
        ({"AIRELAYS_UPSTREAM_ALLOW": "[::/0]:443"}, "name the networks"),
        ({"AIRELAYS_DATA_DIR": "~nobody-of-this-name/data"}, "the whole path"),
    ],
)
def test_bad_value_is_one_line_that_names_the_setting(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({}, settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("setting", "made"), [("TOKEN_KEY", True), ("METRICS_TOKEN", False)])
def test_only_keys_that_are_made_where_there_is_none_may_be_left_out(setting: str, made: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({}, {f"AIRELAYS_{setting}": "short"})
    assert ("leave it out to have one made" in str(caught.value)) is made


@pytest.mark.parametrize(
    "make", [crypto.random_key, partial(secrets.token_urlsafe, 32), partial(secrets.token_hex, 16)]
)
def test_random_keys_and_networks_that_are_somebodys_are_taken(make: Callable[[], str]) -> None:
    """Those that the first run has ever made, and 128 bits in hex."""
    made = make()
    found = config.load(
        {},
        {
            "AIRELAYS_CONFIG": "",
            "AIRELAYS_SECRET_KEY": made,
            "AIRELAYS_TOKEN_KEY": made,
            "AIRELAYS_ENCRYPTION_KEYS": f"{made},weak",
            "AIRELAYS_TRUSTED_PROXIES": "10.0.0.0/8,fc00::/7,fd00::/8,104.16.0.0/12,2400:cb00::/29",
            "AIRELAYS_WEBHOOK_ALLOW": "10.0.0.0/8,ollama_1.lan:8080,[::1]:9000",
        },
    )
    assert found.encryption_keys == [made, "weak"], "a weak key can be replaced: it only reads"


def test_an_empty_key_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "token_key").write_text("\n")
    with pytest.raises(ValueError, match="token_key is empty"):
        crypto.load_or_create(tmp_path / "token_key")


def test_unknown_setting_in_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("prot = 80\n")
    with pytest.raises(ConfigError, match="prot"):
        config.load({}, {"AIRELAYS_CONFIG": str(path)})


def test_the_portals_address_is_the_configured_one_or_the_requests(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["relay.example.org"]
    request = RequestFactory().get("/", headers={"host": "relay.example.org:8080"})
    stranger = RequestFactory().get("/", headers={"host": "elsewhere.example.org"})
    unset = {"AIRELAYS_CONFIG": ""}
    assert config.load({}, unset).origin(request) == "http://relay.example.org:8080"
    with pytest.raises(DisallowedHost):
        config.load({}, unset).origin(stranger)
    configured = config.load({}, {**unset, "AIRELAYS_PUBLIC_URL": "https://ai.example.org:8443/"})
    assert configured.public_url == "https://ai.example.org:8443"
    for one in (request, stranger):
        assert configured.origin(one) == "https://ai.example.org:8443", "whatever a request says"


@pytest.mark.parametrize("typed", ["", "https://ai.example.org/"])
def test_everyone_is_given_the_same_base_url(people: People, settings: Any, typed: str) -> None:
    changed = {**settings.CONFIG.model_dump(), "public_url": typed}
    settings.CONFIG = config.Config(**changed)
    address = "https://ai.example.org" if typed else "http://testserver"
    assert f"{address}/v1" in signed_in(people.owner).get("/connect/").content.decode()
    assert (
        f"{address}<"
        in signed_in(people.staff).post(f"/admin/accounts/user/{people.owner.pk}/geekai/").content.decode()
    )
    assert banner.address("127.0.0.1", 80) == (address if typed else "http://127.0.0.1:80")


def test_what_is_nearly_right_is_put_right() -> None:
    found = config.load(
        {},
        {
            "AIRELAYS_CONFIG": "",
            "AIRELAYS_PUBLIC_URL": "https://AI.example.org:8443/",
            "AIRELAYS_CORS_ORIGINS": "https://app.example.org/,*",
            "AIRELAYS_SIGNUP_DOMAINS": "@Example.org",
            "AIRELAYS_ALLOWED_HOSTS": "*,.example.org,[::1],10.0.0.1,a_b",
        },
    )
    assert found.public_url == "https://ai.example.org:8443"
    assert found.cors_origins == ["https://app.example.org", "*"] and found.signup_domains == ["example.org"]


def test_a_misspelt_setting_in_the_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\ntrusted_proxy = []\n")
    with pytest.raises(ConfigError, match="did you mean trusted_proxies"):
        config.load({}, {"AIRELAYS_CONFIG": str(tmp_path / "config.toml")})


def test_without_a_home_folder_the_data_folder_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose user has neither HOME nor an entry in the list of users."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert config.load({}, {"AIRELAYS_DATA_DIR": str(tmp_path)}).data_dir == tmp_path
    with pytest.raises(ConfigError, match="AIRELAYS_DATA_DIR"):
        config.load({}, {})


@pytest.mark.parametrize(
    ("scheme", "driver", "package"),
    [("mysql", "pymysql", "PyMySQL"), ("mariadb", "pymysql", "PyMySQL"), ("postgresql", "psycopg_pool", "psycopg")],
)
def test_a_database_without_its_driver_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, scheme: str, driver: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigError, match=f"AIRELAYS_DATABASE_URL: its driver is missing: .* '{package}") as it:
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_DATABASE_URL": f"{scheme}://root:secret@127.0.0.1/airelays"})
    assert "\n" not in str(it.value) and "secret" not in str(it.value)
