"""Base URLs as people paste them from other products' documentation."""

from __future__ import annotations

import pytest

from relay.channels.base_urls import complete_base_url, other_base_urls
from relay.providers.vendors import VENDORS

RELAY = VENDORS["relay"]


@pytest.mark.parametrize(
    "typed",
    [
        "https://relay.example",
        "https://relay.example/",
        "https://relay.example/v1",
        "https://relay.example/v1/",
        "https://relay.example//v1//",
        "https://relay.example/v1/v1",
        "https://relay.example/v1/chat/completions",
        "https://relay.example/v1/chat/completions/",
        "https://relay.example/v1/chat/completions/chat/completions",
        "https://relay.example/v1/models",
        "https://relay.example/v1/responses",
        "https://relay.example/v1/images/generations",
        "relay.example",
        "relay.example/v1/chat/completions",
        "//relay.example/v1",
        "wss://relay.example/v1/realtime",
        "  https://relay.example  ",
    ],
)
def test_every_form_of_an_address_means_the_same(typed: str) -> None:
    assert complete_base_url(typed, RELAY) == "https://relay.example/v1"


@pytest.mark.parametrize(
    ("vendor", "typed", "meant"),
    [
        ("relay", "localhost:3000", "http://localhost:3000/v1"),
        ("relay", "192.168.1.5:3000/v1/", "http://192.168.1.5:3000/v1"),
        ("relay", "one-api:3000", "http://one-api:3000/v1"),
        ("relay", "[::1]:8000", "http://[::1]:8000/v1"),
        ("relay", "https://relay.example/gateway/v3", "https://relay.example/gateway/v3"),
        ("zhipu", "https://open.bigmodel.cn", "https://open.bigmodel.cn/api/paas/v4"),
        ("azure", "https://mine.openai.azure.com", "https://mine.openai.azure.com/openai/v1"),
        ("ollama", "127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("snowflake", "me.snowflakecomputing.com", "https://me.snowflakecomputing.com/api/v2/cortex/v1"),
        (
            "bedrock_claude",
            "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
            "https://bedrock-runtime.us-east-1.amazonaws.com",
        ),
        ("bedrock_claude", "https://proxy.example/bedrock", "https://proxy.example/bedrock"),
        ("ollama_native", "http://127.0.0.1:11434/v1", "http://127.0.0.1:11434"),
        ("perplexity", "https://api.perplexity.ai", "https://api.perplexity.ai"),
        ("perplexity", "api.perplexity.ai/chat/completions", "https://api.perplexity.ai"),
        ("perplexity", "https://proxy.example", "https://proxy.example/v1"),
        ("relay", "https://relay.example?key=1", "https://relay.example?key=1"),
        ("relay", "http://[::1", "http://[::1"),
        ("relay", "ftp://relay.example", "ftp://relay.example/v1"),
        ("relay", "", ""),
    ],
)
def test_what_is_missing_comes_from_the_vendor_and_the_host(vendor: str, typed: str, meant: str) -> None:
    assert complete_base_url(typed, VENDORS[vendor]) == meant


def test_other_addresses_stay_on_the_same_host() -> None:
    assert list(other_base_urls("https://relay.example/v1", RELAY)) == ["https://relay.example"]
    assert "https://relay.example/v1" in list(other_base_urls("https://relay.example/v1/chat/completions", RELAY))
    assert list(other_base_urls("https://relay.example", RELAY)) == ["https://relay.example/v1"]
    moved = list(other_base_urls("http://relay.example/v1", RELAY, "https://relay.example/v1/chat/completions"))
    assert moved[0] == "https://relay.example/v1"
    for elsewhere in ("https://evil.example/v1", "https://relay.example:99/v1", "//[", "javascript:1"):
        found = list(other_base_urls("http://relay.example/v1", RELAY, elsewhere))
        assert all(url.startswith("http://relay.example") for url in found), elsewhere
