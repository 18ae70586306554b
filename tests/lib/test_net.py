"""Addresses and URLs: the guard, allow-lists, proxies."""

from __future__ import annotations

import socket
import threading

import pytest

from portal.lib import net


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/v1",
        "http://127.1/v1",
        "http://0x7f.1/v1",
        "http://2130706433/v1",
        "http://017700000001/v1",
        "http://[::1]/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://10.1.2.3/v1",
        "http://172.16.0.1/v1",
        "http://192.168.1.1/v1",
        "http://169.254.169.254/v1",
        "http://100.64.0.1/v1",
        "http://0.0.0.0/v1",
        "http://224.0.0.1/v1",
        "http://[fe80::1]/v1",
        "http://[fc00::1]/v1",
        "http://[2002:7f00:1::]/v1",
        "http://[64:ff9b::7f00:1]/v1",
        "http://[fec0::1]/v1",
        "http://192.0.0.192/v1",
        "http://168.63.129.16/v1",
        "http://192.0.0.8/v1",
        "http://192.88.99.1/v1",
        "http://[2001:0:1::1]/v1",
        "http://[2001:20::1]/v1",
        "http://[3fff::1]/v1",
        "http://[5f00::1]/v1",
        "http://[100::1]/v1",
        "http://localhost/v1",
        "http://router/v1",
        "http://x.internal/v1",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:pw@example.com/v1",
        "https://example.com/v1?a=b",
        "https://example.com/v1#x",
        "https://exa mple.com/",
        "https://ex%61mple.com/",
        "https://example.com:99999/",
        "https:///v1",
        "gopher://example.com",
        "https://example.com\\@127.0.0.1/",
        "",
    ],
)
def test_guard_refuses(url: str) -> None:
    with pytest.raises(net.AddressRefused):
        net.check_url(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://example.com:8443/a/b",
        "http://93.184.216.34/v1",
        "https://[2606:4700::1111]/v1",
    ],
)
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
        ("::ffff:127.0.0.1", "http://127.0.0.1/v1", True),
        ("[::ffff:127.0.0.1]:8000", "http://[::ffff:7f00:1]:8000/v1", True),
        ("::ffff:10.0.0.0/104", "http://10.9.9.9/v1", True),
        ("::ffff:10.0.0.0/104", "http://192.168.0.1/v1", False),
    ],
)
def test_allow_list_opens_what_it_names_and_no_more(entry: str, url: str, allowed: bool) -> None:
    if allowed:
        net.check_url(url, (net.Allowance.parse(entry),))
    else:
        with pytest.raises(net.AddressRefused):
            net.check_url(url, (net.Allowance.parse(entry),))


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.0/99", "host:0", "host:99999", "host:²", "http://x/"])
def test_allow_list_refuses_nonsense(text: str) -> None:
    with pytest.raises(net.BadAddress, match="is not a"):
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
        # Azure's gateways, IIS and others write ports.
        ("10.0.0.1", "198.51.100.1:51234", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:51234, 10.0.0.2:443", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::9]:51234", "2001:db8::9"),
        ("10.0.0.1", '"[2001:db8::9]"', "2001:db8::9"),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.1", "[::ffff:198.51.100.1]:80", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:²", "198.51.100.1"),
    ],
)
def test_forwarded_for_is_believed_from_trusted_proxies_only(peer: str, header: str, expected: str) -> None:
    assert net.client_ip(peer, header, net.parse_networks(["10.0.0.0/8"])) == expected
    assert net.client_ip(peer, header, ()) == peer


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1/32"),
        ("::FFFF:7f00:1", "127.0.0.1/32"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("fe80::1%eth0", "fe80::1/128"),
        ("2001:db8::1/64", "2001:db8::/64"),
    ],
)
def test_networks_are_read_as_addresses_are(typed: str, read: str) -> None:
    (network,) = net.parse_networks([typed])
    assert str(network) == read
    address = net.parse_address(typed.partition("/")[0])
    assert address is not None and net.inside(address, (network,))


def test_the_query_of_a_webhook_is_kept_and_never_shown() -> None:
    url = "https://example.com/robot/send?access_token=abc&b&sig=x=/"
    assert net.check_url(url, (), query=True) == url
    assert net.mask_query(url) == "https://example.com/robot/send?access_token=…&b=…&sig=…"
    assert net.mask_query("https://example.com/") == "https://example.com/"
    with pytest.raises(net.AddressRefused):
        net.check_url("https://example.com/#x", (), query=True)


def test_a_name_server_that_hangs_does_not_keep_the_portal_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(net, "_OWN_NAME_SECONDS", 0.05)
    monkeypatch.setattr("socket.getfqdn", lambda: go.wait() and "")
    try:
        assert socket.gethostname() in net.own_names()
    finally:
        go.set()
