"""Secrets are taken out of what is logged and shown."""

from __future__ import annotations

import pytest

from portal.lib.redact import clean_upstream_message, redact


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
