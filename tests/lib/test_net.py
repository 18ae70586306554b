"""The parts that need neither Django nor a network."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from portal import config
from portal.lib import crypto, net
from portal.lib.redact import clean_upstream_message, redact
from relay.api.paths import relay_path
from relay.billing.estimate import estimate_prompt
from relay.gateway.access.address_block import AddressBlock
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.usage import Usage

# -- addresses and URLs ------------------------------------------------------------------------------------------------

LOOPBACK = (net.Allowance.parse("127.0.0.1"),)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/v1", "http://127.1/v1", "http://0x7f.1/v1", "http://2130706433/v1", "http://017700000001/v1", "http://[::1]/v1",
        "http://[::ffff:127.0.0.1]/v1", "http://10.1.2.3/v1", "http://172.16.0.1/v1", "http://192.168.1.1/v1", "http://169.254.169.254/v1",
        "http://100.64.0.1/v1", "http://0.0.0.0/v1", "http://224.0.0.1/v1", "http://[fe80::1]/v1", "http://[fc00::1]/v1", "http://[2002:7f00:1::]/v1",
        "http://[64:ff9b::7f00:1]/v1", "http://[fec0::1]/v1", "http://localhost/v1", "http://router/v1", "http://x.internal/v1", "ftp://example.com/",
        "file:///etc/passwd", "https://user:pw@example.com/v1", "https://example.com/v1?a=b", "https://example.com/v1#x", "https://exa mple.com/",
        "https://ex%61mple.com/", "https://example.com:99999/", "https:///v1", "gopher://example.com", "https://example.com\\@127.0.0.1/", "",
    ],
)  # fmt: skip
def test_guard_refuses(url: str) -> None:
    with pytest.raises(net.Refused):
        net.check_url(url, ())


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://example.com:8443/a/b", "http://93.184.216.34/v1", "https://[2606:4700::1111]/v1"])
def test_guard_permits_the_public_internet(url: str) -> None:
    assert net.check_url(url + "/", ()) == url


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1", True),
        ("127.0.0.1:11434", "http://127.0.0.1:11434/v1", True),
        ("127.0.0.1:11434", "http://127.0.0.1:22/v1", False),
        ("10.0.0.0/8", "http://10.9.9.9/v1", True),
        ("10.0.0.0/8", "http://192.168.0.1/v1", False),
        ("ollama.lan:11434", "http://ollama.lan:11434/v1", True),
        ("ollama.lan:11434", "http://other.lan:11434/v1", False),
        ("[::1]:8000", "http://[::1]:8000/v1", True),
        ("[::1]:8000", "http://[::1]:8001/v1", False),
    ],
)
def test_allow_list_opens_what_it_names_and_no_more(entry: str, url: str, allowed: bool) -> None:
    if allowed:
        net.check_url(url, (net.Allowance.parse(entry),))
    else:
        with pytest.raises(net.Refused):
            net.check_url(url, (net.Allowance.parse(entry),))


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.0/99", "host:0", "host:99999", "http://x/"])
def test_allow_list_refuses_nonsense(text: str) -> None:
    with pytest.raises(ValueError):
        net.Allowance.parse(text)


@pytest.mark.parametrize(
    ("peer", "header", "expected"),
    [
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_forwarded_for_is_believed_from_trusted_proxies_only(peer: str, header: str, expected: str) -> None:
    assert net.client_ip(peer, header, net.parse_networks(["10.0.0.0/8"])) == expected
    assert net.client_ip(peer, header, ()) == peer


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_box_opens_with_old_keys_and_not_with_others_or_other_purposes() -> None:
    old, new = crypto.random_key(), crypto.random_key()
    sealed = crypto.Box([old], "a").seal("sk-secret")
    assert "secret" not in sealed
    both = crypto.Box([new, old], "a")
    assert both.open(sealed) == "sk-secret"
    assert crypto.Box([new], "a").open(both.seal("sk-secret")) == "sk-secret", "the first key encrypts"
    for wrong in (crypto.Box([new], "a"), crypto.Box([old], "b")):
        with pytest.raises(crypto.Undecryptable):
            wrong.open(sealed)
    with pytest.raises(crypto.Undecryptable):
        both.open("nonsense")


def test_key_file_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(crypto.load_or_create(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found[0]) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["k"]


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer sk-abcdefghijk1234567890", "{'authorization': 'Bearer sk-abcdefghijk1234567890'}", "(b'authorization', b'Bearer sk-abcdefghijk1234567890')",
        "key sk-abcdefghijk1234567890 is wrong", "x-api-key: sk-abcdefghijk1234567890", "https://h/p?key=sk-abcdefghijk1234567890&a=b",
        "password='sk-abcdefghijk1234567890'", "http://u:sk-abcdefghijk1234567890@host/",
    ],
)  # fmt: skip
def test_secrets_are_redacted_whatever_their_dress(text: str) -> None:
    assert "abcdefghijk" not in redact(text)


def test_upstream_messages_lose_hosts_accounts_and_length() -> None:
    cleaned = clean_upstream_message("Model x at https://api.vendor.com/v1 (10.0.0.7:8000, node3.vendor.internal) for org-AbCdEf123\n" + "y" * 5000)
    assert "vendor" not in cleaned and "10.0.0.7" not in cleaned and "AbCdEf" not in cleaned and "\n" not in cleaned and len(cleaned) <= 900
    assert clean_upstream_message("a\x00b\x1b[31mc\u202e") == "a b [31mc"


def test_guard_of_addresses_counts_in_a_window_and_forgets() -> None:
    address_block = AddressBlock(3, 60, 100)
    assert [address_block.failed("1.2.3.4", at).new_block for at in (0, 10, 80)] == [False, False, False], "old failures do not count"
    assert address_block.failed("1.2.3.4", 81).new_block is False
    assert address_block.failed("1.2.3.4", 82).new_block is True
    assert address_block.failed("1.2.3.4", 83).blocked_for == 99
    assert address_block.failed("5.6.7.8", 83).blocked_for == 0
    assert address_block.failed("1.2.3.4", 200).blocked_for == 0
    address_block.failed("2001:db8::1", 0), address_block.failed("2001:db8::2", 0)
    assert address_block.failed("2001:db8::3", 0).new_block, "one /64 is one address"


# -- configuration -----------------------------------------------------------------------------------------------------


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
        'log_level = "ERROR"\n[server]\nport = 7005\nhost = "0.0.0.0"\n[providers.openai]\nenabled = true\n[security]\nrate_limit_burst = 4\ntrusted_proxies = ["10.0.0.0/8"]\n'
    )
    found = config.load({}, {"AIRELAYS_CONFIG": str(path), "AIRELAYS_HOST": "127.0.0.2"})
    assert (found.port, found.host, found.log_level, found.trusted_proxies) == (7005, "127.0.0.2", "ERROR", ["10.0.0.0/8"])


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


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/v1/models", "/v1/models"), ("/v1/models/", "/v1/models"), ("/v1//models", "/v1/models"), ("/v1/v1/models", "/v1/models"), ("/models", "/v1/models"),
        ("/models/openai/gpt-4", "/v1/models/openai/gpt-4"), ("/v1/chat/completions/models", "/v1/models"), ("/v1/models/chat/completions", "/v1/models/chat/completions"),
        ("/v1", "/v1"), ("/v1beta/models", "/v1beta/models"),
        ("/mj-fast/mj/submit/imagine", "/mj-fast/mj/submit/imagine"), ("/dashboard/billing/usage", "/v1/dashboard/billing/usage"),
        ("/", None), ("/admin/", None), ("/tokens/", None), ("/usage/", None), ("/accounts/login/", None), ("/static/portal/portal.css", None), ("/mjx", None),
    ],
)  # fmt: skip
def test_canonical_paths(typed: str, meant: str | None) -> None:
    assert relay_path(typed) == meant


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (b'{"prompt_tokens":10,"completion_tokens":5}', Usage(input=10, output=5)),
        (b'{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":4}', Usage(input=10, cached_input=4, output=5)),
        (b'{"prompt_tokens":10,"completion_tokens":5,"cached_tokens":99}', Usage(input=10, cached_input=10, output=5)),
        (b'{"prompt_tokens":-5,"completion_tokens":1e300}', Usage()),
        (b'{"prompt_tokens":"7","completion_tokens":true}', Usage()),
        (b'{"prompt_tokens":7,"prompt_tokens_details":null,"completion_tokens":1,"extra":{}}', Usage(input=7, output=1)),
        (b'{"total_tokens":7}', None),
        (b"null", None),
        (b"[]", None),
        (b'{"prompt_tokens":', None),
    ],
)
def test_usage_of_vendors_and_nonsense(raw: bytes, usage: Usage | None) -> None:
    assert parse_chat_usage(raw) == usage


def test_prompt_estimate_is_of_the_right_size() -> None:
    english = '[{"role":"user","content":"' + "The quick brown fox jumps over the lazy dog. " * 100 + '"}]'
    assert 700 < estimate_prompt(english.encode()) < 1400  # a tokenizer counts about 1000
    chinese = '[{"role":"user","content":"' + "今天天气很好我们去公园" * 100 + '"}]'
    assert 600 < estimate_prompt(chinese.encode()) < 1400
    image = '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,' + "A" * 3_000_000 + '"}}]}]'
    assert estimate_prompt(image.encode()) < 2000
