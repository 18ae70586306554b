"""Secrets are taken out of what is logged and shown."""

from __future__ import annotations

import json

import pytest

from portal.lib.redaction import verbatim
from portal.lib.redaction.redact import clean_upstream_message, redact
from portal.lib.redaction.sent import Sent
from portal.lib.redaction.verbatim import kept_words


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer sk-abcdefghijk1234567890", (
            "{'authorization': 'Bearer "
            "sk-abcdefghijk1234567890'}"
        ), "(b'authorization', b'Bearer sk-abcdefghijk1234567890')",
        "key sk-abcdefghijk1234567890 is wrong", (
            "x-api-key: "
            "sk-abcdefghijk1234567890"
        ), "https://h/p?key=sk-abcdefghijk1234567890&a=b",
        "password='sk-abcdefghijk1234567890'", "http://u:sk-abcdefghijk1234567890@host/",
    ],
)  # fmt: skip
def test_secrets_are_redacted_whatever_their_dress(text: str) -> None:
    assert "abcdefghijk" not in redact(text)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-Wm4Tq9ZxR2Lc8Vn1",
        "sk-ant-api03-Wm4Tq9ZxR2Lc8Vn1",
        "AIzaSyWm4Tq9ZxR2Lc8Vn1Bk7Hd3Jf6Gs5Pa0Qe",
        "AKIAWM4TQ9ZXR2LC8VN1",
        "gsk_Wm4Tq9ZxR2Lc8Vn1",
        "xai-Wm4Tq9ZxR2Lc8Vn1",
        "hf_Wm4Tq9ZxR2Lc8Vn1",
        "r8_Wm4Tq9ZxR2Lc8Vn1",
        "rk_Wm4Tq9ZxR2Lc8Vn1",
        "pk-Wm4Tq9ZxR2Lc8Vn1",
        "key-Wm4Tq9ZxR2Lc8Vn1",
        "tok_Wm4Tq9ZxR2Lc8Vn1",
        "v1:gAAAAWm4Tq9ZxR2Lc8Vn1",
        "Bearer Wm4Tq9ZxR2Lc8Vn1",
        "Basic Wm4Tq9ZxR2Lc8Vn1",
        "https://vendor.example/v1?access_token=Wm4Tq9ZxR2Lc8Vn1",
        "postgresql://portal:Wm4Tq9ZxR2Lc8Vn1@db/portal",
        '{"passwd": "Wm4Tq9ZxR2Lc8Vn1"}',
        "Authorization: Bearer Wm4Tq9ZxR2Lc8Vn1",
        "authorization: bearer Wm4Tq9ZxR2Lc8Vn1",
        "Authorization: Basic Wm4Tq9ZxR2Lc8Vn1",
        "Authorization=Token Wm4Tq9ZxR2Lc8Vn1",
        "proxy-authorization: Basic Wm4Tq9ZxR2Lc8Vn1",
        "cookie: Wm4Tq9ZxR2Lc8Vn1",
        "cookie: lang=en; sessionid=Wm4Tq9ZxR2Lc8Vn1;csrftoken=Wm4Tq9ZxR2Lc8Vn1",
        "x-goog-api-key: Wm4Tq9ZxR2Lc8Vn1",
        "mj-api-secret=Wm4Tq9ZxR2Lc8Vn1",
    ],
)
def test_every_shape_of_a_secret_is_known_by_itself(secret: str) -> None:
    """In a sentence that says nothing of what it is."""
    said = redact(f"the upstream said {secret} and nothing else")
    assert "tq9zxr2lc8" not in said.lower() and "redacted" in said and said.endswith("and nothing else")


@pytest.mark.parametrize("secret", ["bob", "short1", "mysecretvalue"])
@pytest.mark.parametrize(
    "text", ["Authorization: Bearer {}", "Authorization: Basic {}", "x-api-key: {}", "password={}"]
)
def test_what_stands_after_the_name_of_a_header_or_password_is_redacted_however_it_looks(
    text: str, secret: str
) -> None:
    assert redact(text.format(secret)) in {"Authorization: [redacted]", "x-api-key: [redacted]", "password=[redacted]"}


def test_a_placeholder_of_a_secret_stays() -> None:
    command = """printf 'header = "Authorization: Bearer %s"' "$ANTHROPIC_AUTH_TOKEN" | curl"""
    assert redact(command) == command


def test_upstream_messages_lose_hosts_accounts_and_length() -> None:
    cleaned = clean_upstream_message(
        "Model x at https://api.vendor.com/v1 (10.0.0.7:8000, node3.vendor.internal) for org-AbCdEf123\n" + "y" * 5000
    )
    assert (
        "vendor" not in cleaned
        and "10.0.0.7" not in cleaned
        and "AbCdEf" not in cleaned
        and "\n" not in cleaned
        and len(cleaned) <= 900
    )
    assert clean_upstream_message("a\x00b\x1b[31mc\u202e") == "a b [31mc"


@pytest.mark.parametrize("name", ["key_findings", "key_value_store_get", "tok_per_second_limit", "hf-inference"])
def test_names_that_begin_as_keys_do_are_none(name: str) -> None:
    assert redact(f"Missing '{name}'.") == f"Missing '{name}'."


@pytest.mark.parametrize(
    "secret", ["key_AbcdefGhijkl", "hf_abcdefghijklmnopqrstuvwxyz", "pk-live.abcd1234", "tok_****wxyz", "key_ab.cdefgh"]
)
def test_keys_without_digits_are_redacted(secret: str) -> None:
    assert secret not in redact(f"The key {secret} is wrong.")


def test_an_error_that_is_passed_on_keeps_its_words_but_for_secrets() -> None:
    text = (
        '{"type": "error","error":{"type":"x","message":"prompt is too long: 210000 tokens > 200000 maximum. '
        'See https://docs.claude.com/en/api/errors#long.","details":{"token":"<|end|>","at":[1,2.50]}}}'
    )
    assert kept_words(text.encode(), ("sk-own",)) == text.encode()
    dirty = (
        '{"error":{"message":"http://10.1.2.3:8000/internal and http://backend:80/x failed with '
        'sk-own-key-0123456789 for org-AbCdEf123456 at 192.168.7.9"}}'
    )
    told = kept_words(dirty.encode(), ("sk-own-key-0123456789",)).decode()
    for secret in ("10.1.2.3", "backend", "sk-own", "org-Ab", "192.168"):
        assert secret not in told
    account = b'{"error":{"message":"limit of 0f2a4c1e-1111-4222-8333-0123456789ab"}}'
    assert kept_words(account) == account and b"0f2a4c1e" not in kept_words(account, accounts=True)
    assert kept_words(b"<html>") == kept_words(b"\xff{") == b""


@pytest.mark.parametrize(
    "account",
    [
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude",
        "projects/acme-prod-481516/locations/us-central1/publishers/google/models/m",
        "projects/512345678901",
        "project_number:512345678901",
        "relay@acme-prod-481516.iam.gserviceaccount.com",
        "subscriptions/0f2a4c1e-1111-4222-8333-0123456789ab/resourceGroups/acme",
    ],
)
def test_an_error_that_is_passed_on_names_no_account_at_a_cloud(account: str) -> None:
    text = f"Quota exceeded for consumer '{account}'. See https://cloud.google.com/vertex-ai/docs/quotas."
    error = {"code": 429, "message": text, "details": [{"metadata": {"consumer": account, "limit": "5"}}]}
    told = kept_words(json.dumps({"error": error}).encode()).decode()
    for part in ("123456789012", "acme", "512345678901", "0f2a4c1e"):
        assert part not in told
    assert "Quota exceeded for consumer" in told and "cloud.google.com/vertex-ai/docs/quotas" in told


@pytest.mark.parametrize(
    "error",
    [
        r'{"error":{"message":"the key Zq8w\/Lm2xVb7nRt4 is wrong"}}',  # as PHP writes it
        r'{"error":{"message":"the key \u005aq8w/Lm2xVb7nRt4 is wrong"}}',
        '{"error":{"message":"x","details":[{"metadata":{"consumer":"Zq8w/Lm2xVb7nRt4"}}]}}',
        '{"error":{"message":"x","api_key":"anything-at-all"}}',
        '{"error":{"message":"x","Zq8w/Lm2xVb7nRt4":true}}',
    ],
)
def test_a_key_in_an_error_that_is_passed_on_is_found_wherever_and_however_it_is_written(error: str) -> None:
    told = kept_words(error.encode(), ("Zq8w/Lm2xVb7nRt4",))
    found = json.dumps(json.loads(told))
    assert "Lm2xVb7nRt4" not in found and "anything" not in found and "[re" in found


def test_a_host_is_told_in_an_error_only_where_it_is_the_vendor_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Sent()
    known.remember_address("eu.cheap-relay-7.example")
    monkeypatch.setattr(verbatim, "sent", known)
    error = b'{"error":{"message":"top up at https://www.cheap-relay-7.example/pay"}}'
    assert b"cheap-relay" not in kept_words(error) and kept_words(error, official=True) == error


def test_hosts_that_anybody_knows_stay_unless_they_are_a_customers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Sent()
    for host in ("api.vendor.example", "acme-7.api.vendor.example", "relay.mine.example"):
        known.remember_address(host)
    monkeypatch.setattr(verbatim, "sent", known)
    public = frozenset(("api.vendor.example", "vendor.example"))
    error = b'{"error":{"message":"see docs.vendor.example, API.vendor.example"}}'
    assert kept_words(error, public=public) == error and b"docs" not in kept_words(error)
    own = b'{"error":{"message":"acme-7.api.vendor.example, relay.mine.example:8443 and mine.example failed"}}'
    told = kept_words(own, public=public)
    assert b"acme" not in told and b"mine" not in told
