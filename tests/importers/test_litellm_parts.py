"""What parts of LiteLLM's rows mean here: addresses, budgets, lists of models, prices, passwords, what is encrypted."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest
from django.contrib.auth.hashers import check_password, identify_hasher

from accounts.passwords import litellm as passwords
from relay.importers.description import Rates
from relay.importers.litellm.access import Names, both, either, texts
from relay.importers.litellm.budgets import allowance, period_of
from relay.importers.litellm.deployments import Stored, read
from relay.importers.litellm.prices import tiers_of
from relay.importers.litellm.providers import Unsupported, place
from relay.importers.litellm.secretbox import Locked, SecretBox
from relay.importers.reading.row import Row

NOW: Final = datetime(2026, 11, 30, tzinfo=UTC)
# Made by PyNaCl 1.6 with the SHA-256 of “sk-salt”: of one character, and of more than a block of Salsa20 has.
SEALED: Final = {
    "ß": "RN0l3q7mexsyR89Zf3uIGyr6G3H0AdyVljyn_6IbEqku22BmRCURu3ef",
    "x" * 100 + "ß": "acwK1-1Zf0gaSZiU8r1sbo0GvJAxw0JX9J9aRD9SLg06ZRjvuEn67Jjq6_Do1CMksjgnRX8NFT_xynF5KWoCC1_PtrMGrtjt"
    "TJpkfIesLMmAAUAOnp4VcY7b1n_61SSteSHBc9UWWCrlkKp-otNdtwnCTmePPDmP1Ko5i1KTEoY6Yc2wy9jQ_GJbXQc9Pw==",
}


@pytest.mark.parametrize("text", sorted(SEALED))
def test_what_is_encrypted_opens_with_its_key_alone(text: str) -> None:
    assert SecretBox("sk-salt").open(SEALED[text]) == text
    for key in ("sk-other", ""):
        with pytest.raises(Locked):
            SecretBox(key).open(SEALED[text])
    changed = SEALED[text][:-4] + ("AAA=" if SEALED[text].endswith("=") else "AAAA")
    with pytest.raises(Locked):
        SecretBox("sk-salt").open(changed)


@pytest.mark.parametrize("text", ["", "openai/gpt-5", "https://api.openai.com/v1", "sk-short", "os.environ/KEY", "*"])
def test_what_is_not_encrypted_is_what_it_is(text: str) -> None:
    assert SecretBox("").open(text) == SecretBox("sk-salt").open(text) == text


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"model": "gpt-5"}, ("openai", "", "gpt-5", "")),
        ({"model": "openai/gpt-5", "api_base": "https://api.openai.com/v1/"}, ("openai", "", "gpt-5", "")),
        ({"model": "openai/x", "api_base": "http://10.0.0.7/v1"}, ("openai", "http://10.0.0.7/v1", "x", "chat")),
        ({"model": "openai/responses/gpt-5"}, ("openai", "", "gpt-5", "responses")),
        ({"model": "claude-x", "api_base": "https://a.example"}, ("anthropic", "https://a.example/v1", "claude-x", "")),
        ({"model": "anthropic/claude", "api_base": "https://api.anthropic.com"}, ("anthropic", "", "claude", "")),
        ({"model": "groq/llama"}, ("groq", "", "llama", "")),
        ({"model": "openrouter/a/b"}, ("openrouter", "", "a/b", "")),
        ({"model": "together_ai/a/b"}, ("together", "", "a/b", "")),
        ({"model": "hosted_vllm/m", "api_base": "http://h:8000/v1"}, ("vllm", "http://h:8000/v1", "m", "")),
        ({"model": "ollama/m", "api_base": "http://h:11434"}, ("ollama", "http://h:11434/v1", "m", "")),
        ({"model": "azure/d", "api_base": "https://r.azure.com/"}, ("azure", "https://r.azure.com/openai/v1", "d", "")),
        ({"model": "zai/glm-5"}, ("zhipu", "https://api.z.ai/api/paas/v4", "glm-5", "")),
        ({"model": "m", "custom_llm_provider": "deepseek"}, ("deepseek", "", "m", "")),
        (
            {"model": "bedrock/converse/eu-west-1/amazon.nova", "aws_access_key_id": "A", "aws_secret_access_key": "S"},
            ("bedrock_claude", "https://bedrock-runtime.eu-west-1.amazonaws.com", "amazon.nova", ""),
        ),
        (
            {"model": "vertex_ai/gemini-2.5", "vertex_project": "p", "vertex_location": "global"},
            ("vertex", "https://aiplatform.googleapis.com/v1/projects/p/locations/global", "gemini-2.5", ""),
        ),
        (
            {"model": "vertex_ai/claude-haiku", "vertex_credentials": {"project_id": "q"}},
            (
                "vertex_claude",
                "https://us-central1-aiplatform.googleapis.com/v1/projects/q/locations/us-central1",
                "claude-haiku",
                "",
            ),
        ),
    ],
)  # fmt: skip
def test_where_a_deployment_is(params: dict[str, Any], found: tuple[str, str, str, str]) -> None:
    at = place(params)
    assert (at.vendor, at.base_url, at.upstream, at.text_api) == found


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"model": "watsonx/granite"}, "watsonx"),
        ({"model": "my-own"}, "does not say"),
        ({}, "does not say"),
        ({"model": "azure/d"}, "no address"),
        ({"model": "azure/d", "api_base": "https://r", "azure_ad_token": "t"}, "Entra"),
        ({"model": "bedrock/m", "aws_role_name": "r", "aws_region_name": "x"}, "role"),
        ({"model": "bedrock/m"}, "region"),
        ({"model": "vertex_ai/gemini", "vertex_credentials": "/etc/key.json"}, "file"),
        ({"model": "vertex_ai/gemini"}, "project"),
    ],
)
def test_what_has_no_counterpart_is_said(params: dict[str, Any], why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        place(params)


@pytest.mark.parametrize(
    ("duration", "period"),
    [
        ("1d", "day"), ("24h", "day"), ("86400s", "day"), ("86400", "day"), ("daily", "day"), ("7d", "week"),
        ("1w", "week"), ("30d", "month"), ("1mo", "month"), (" Monthly ", "month"), ("10d", None), ("1h", None),
        ("31d", None), ("2mo", None), ("0d", None), ("soon", None),
    ],
)  # fmt: skip
def test_periods(duration: str, period: str | None) -> None:
    assert period_of(duration) == period


@pytest.mark.parametrize(
    ("row", "left", "budgets"),
    [
        ({}, None, {}),
        ({"max_budget": 5.0, "spend": 1.000000001}, 3_999_999_999, {}),
        ({"max_budget": 1, "spend": 3}, 0, {}),
        ({"max_budget": 0.0}, 0, {}),
        ({"max_budget": -1}, 0, {}),
        ({"max_budget": 2, "budget_duration": "1d", "spend": 1}, None, {"day": 2_000_000_000}),
        ({"max_budget": 2, "budget_duration": "10d", "spend": 0.5}, 1_500_000_000, {}),
        ({"max_budget": 2, "budget_duration": "10d", "spend": 2, "budget_reset_at": "2026-11-01"}, 2_000_000_000, {}),
        ({"max_budget": 1e12}, None, {}),
        (
            {"budget_limits": '[{"max_budget": 3, "budget_duration": "7d"}, {"max_budget": 1}]'},
            1_000_000_000,
            {"week": 3_000_000_000},
        ),
        ({"budget_limits": "nonsense", "max_budget": "none"}, None, {}),
    ],
)  # fmt: skip
def test_what_may_be_spent(row: dict[str, Any], left: int | None, budgets: dict[str, int]) -> None:
    found = allowance(Row(row), None, NOW)
    assert (found.left, found.budgets) == (left, budgets)


def test_limits_by_minute_and_what_a_shared_budget_adds() -> None:
    shared = Row({"rpm_limit": 9, "tpm_limit": 90, "max_budget": 7, "budget_duration": "1mo", "soft_budget": 5})
    found = allowance(Row({"rpm_limit": 3}), shared, NOW)
    assert found.rates == Rates(rpm=3, tpm=90) and found.budgets == {"month": 7_000_000_000}
    assert not found.closed and any("soft" in one.text for one in found.remarks)
    assert allowance(Row({"rpm_limit": 0}), None, NOW).closed, "0 means nothing, not everything"


NAMES: Final = Names(
    {"gpt-5": "openai", "claude": "anthropic", "ft:x": "openai"},
    {"cheap": frozenset(("gpt-5",))},
    {"g1": frozenset(("claude",))},
)


@pytest.mark.parametrize(
    ("entries", "groups", "allowed"),
    [
        ([], [], None),
        (["all-proxy-models", "x"], [], None),
        (["*"], [], None),
        (["gpt-5"], [], {"gpt-5"}),
        (["cheap"], [], {"gpt-5"}),
        (["openai/*"], [], {"gpt-5", "ft:x"}),
        (["gpt-*", "claude"], [], {"gpt-5", "claude"}),
        (["gpt-5"], ["g1", "gone"], {"gpt-5", "claude"}),
        (["gone"], [], set()),
        (["no-default-models"], [], set()),
        (["a.b", "(", "gpt.5"], [], set()),
    ],
)
def test_what_a_list_of_models_allows(entries: list[str], groups: list[str], allowed: set[str] | None) -> None:
    assert NAMES.allowed(entries, groups) == allowed


def test_lists_together_and_how_they_are_stored() -> None:
    some, other = frozenset("ab"), frozenset("bc")
    assert both(None, some) == both(some, None) == some and both(some, other) == frozenset("b")
    assert either(None, some) is None and either(some, other) == frozenset("abc")
    assert texts(["a", "", 1]) == ["a", "1"] and texts('["a"]') == ["a"] and texts('{a,"b c"}') == ["a", "b c"]
    assert texts(None) == texts("") == texts("{}") == texts("nonsense") == []


def test_prices_of_a_token_become_prices_of_a_million() -> None:
    tiers, told = tiers_of({
        "input_cost_per_token": 1.25e-06, "output_cost_per_token": "0.00001", "cache_read_input_token_cost": 1.25e-07,
        "cache_creation_input_token_cost_above_1hr": 2e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_image": 0.04, "output_cost_per_second": 0, "search_context_cost_per_query": {"low": 1},
        "input_cost_per_token_batches": 1e-06, "max_tokens": 5, "model": "x",
    })  # fmt: skip
    base = {"input": Decimal("1.25"), "output": 10, "cached_input": Decimal("0.125"), "cache_write_1h": 2}
    base["per_image"] = Decimal("0.04")
    assert tiers == ((0, base), (200_000, {**base, "input": Decimal("2.5")}))
    assert [one.text for one in told] == ["It has prices that have no counterpart: input_cost_per_token_batches."]
    assert tiers_of({"max_tokens": 5, "input_cost_per_token": -1}) == ((), ())
    assert tiers_of({"input_cost_per_token": 0})[0] == ((0, {"input": Decimal(0)}),), "a price of 0 is one"


@pytest.mark.parametrize("kind", ["scrypt", "pbkdf2", "sha256"])
def test_passwords_as_they_are_stored(kind: str) -> None:
    salt, secret = b"0123456789abcdef", "a pass phrase ß"
    if kind == "scrypt":
        key = hashlib.scrypt(secret.encode(), salt=salt, n=16384, r=8, p=1, dklen=32)
        stored = "scrypt:" + base64.b64encode(salt + key).decode()
    elif kind == "pbkdf2":
        key = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 600_000, 32)
        stored = "pbkdf2:" + base64.b64encode(salt + key).decode()
    else:
        stored = hashlib.sha256(secret.encode()).hexdigest()
    encoded = passwords.encoded(stored)
    if passwords.is_plain(encoded):
        encoded = passwords.wrapped(encoded)
        assert stored not in encoded
    assert check_password(secret, encoded) and not check_password(secret + "x", encoded)
    assert len(encoded) <= 128, "what the column holds"
    hasher = identify_hasher(encoded)
    assert hasher.must_update(encoded) and not [
        shown for shown in hasher.safe_summary(encoded).values() if str(shown) in encoded and shown != hasher.algorithm
    ]


@pytest.mark.parametrize("stored", ["", "plain text", "scrypt:short", "A" * 64, "md5$x$y", "scrypt:" + "=" * 64])
def test_what_is_no_password_of_it_is_none(stored: str) -> None:
    assert passwords.encoded(stored) == ""


@pytest.mark.parametrize("variable", ["AIRELAYS_SECRET_KEY", "airelays_database_url", "LITELLM_SALT_KEY", "PGPASSWORD"])
def test_no_secret_of_the_portal_becomes_the_key_of_a_channel(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write a model there says to which address its key is sent."""
    monkeypatch.setenv(variable, "of-the-portal")
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-upstream")
    params = {"model": "openai/gpt-5", "api_base": "https://evil.example.org/v1"}
    for name, secret in ((variable, ""), ("OPENAI_API_KEY", "of-the-upstream")):
        row = Stored("1", "gpt-5", {**params, "api_key": f"os.environ/{name}"}, {})
        (found,) = read([row], SecretBox(""), {})
        assert found.place is not None and found.place.secret == secret
        assert "of-the-portal" not in repr(found) and bool(found.keyless) is (not secret)
