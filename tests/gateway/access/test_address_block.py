"""Addresses that send bad tokens: counted, blocked, let in again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from relay.gateway.access.address_block import AddressBlock
from tests.support.asserts import check
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_repeated_bad_tokens_block_the_address_but_not_a_valid_token(
    server: Server, live: Portal, clean_addresses: Any
) -> None:
    from relay.models import BlockedAddress

    for _ in range(8):
        check(server.get("sk-wrong", "/v1/models"), 401, "authentication_error", "invalid_api_key")
    blocked = server.get("sk-wrong", "/v1/models")
    check(blocked, 429, "rate_limit_error", "ip_temporarily_blocked")
    assert 800 < int(blocked.headers["retry-after"]) <= 900
    for path in ("/healthz", "/readyz", "/accounts/login/"):
        assert server.get("sk-wrong", path).status_code == 200, "only /v1 is blocked"
    assert server.get(live.token(), "/v1/models").status_code == 200, "a valid token works from a blocked address"
    row = BlockedAddress.objects.get(address="127.0.0.1")
    assert row.failures == 8
    row.delete()  # what the admin's unblock does
    check(server.get("sk-wrong", "/v1/models"), 401, "authentication_error", "invalid_api_key")


def test_a_valid_token_clears_the_count(server: Server, live: Portal, clean_addresses: Any) -> None:
    token = live.token()
    for _ in range(3):
        for _ in range(7):
            assert server.get("sk-wrong", "/v1/models").status_code == 401
        assert server.get(token, "/v1/models").status_code == 200
    statuses = [httpx.get(f"{server.v1}/models", trust_env=False, timeout=60).status_code for _ in range(9)]
    assert statuses == [401] * 8 + [429], "no token counts as a wrong one"


def test_preflights_and_unknown_urls_do_not_count_as_bad_tokens(server: Server, clean_addresses: Any) -> None:
    for _ in range(12):
        assert httpx.options(f"{server.v1}/models", trust_env=False).status_code == 204
        assert httpx.get(f"{server.v1}/nothing-here", trust_env=False, timeout=60).status_code == 404
    assert server.get("sk-wrong", "/v1/models").status_code == 401


def test_a_success_clears_the_count(server: Server, live: Portal, clean_addresses: Any) -> None:
    token = live.token()
    for _ in range(3):
        for _ in range(6):
            assert server.get("sk-wrong", "/v1/models").status_code == 401
        assert server.get(token, "/v1/models").status_code == 200


def test_guard_of_addresses_counts_in_a_window_and_forgets() -> None:
    address_block = AddressBlock(3, 60, 100)
    assert [address_block.failed("1.2.3.4", at).new_block for at in (0, 10, 80)] == [False, False, False], (
        "old failures do not count"
    )
    assert address_block.failed("1.2.3.4", 81).new_block is False
    assert address_block.failed("1.2.3.4", 82).new_block is True
    assert address_block.failed("1.2.3.4", 83).blocked_for == 99
    assert address_block.failed("5.6.7.8", 83).blocked_for == 0
    assert address_block.failed("1.2.3.4", 200).blocked_for == 0
    address_block.failed("2001:db8::1", 0), address_block.failed("2001:db8::2", 0)
    assert address_block.failed("2001:db8::3", 0).new_block, "one /64 is one address"
