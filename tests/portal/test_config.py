"""Settings: names, files, precedence, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import DisallowedHost
from django.test import RequestFactory

from portal import config
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
    ],
)
def test_bad_value_is_one_line_that_names_the_setting(settings: dict[str, str], words: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load({}, settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_setting_in_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("prot = 80\n")
    with pytest.raises(config.ConfigError, match="prot"):
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
