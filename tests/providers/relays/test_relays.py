"""Balances and prices of other relays, in each form that they say them in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from relay.providers.accounts.balances import read_balance
from relay.providers.relays.balances import BILLING, OTHERS
from relay.providers.relays.prices import SOURCES, read_prices

OURS, NEW_API, LITELLM = SOURCES
USAGE, TOKEN, ACCOUNT, KEY = OTHERS


def limit(left: str | None) -> dict[str, Any]:
    return {"kind": "wallet", "left_usd": left}


@pytest.mark.parametrize(
    ("source", "answers", "amount"),
    [
        (BILLING, [{"hard_limit_usd": 20.5}, {"total_usage": 1050}], "10"),
        (USAGE, [{"object": "usage", "limits": [limit("7.5"), limit(None), limit("3.25")]}], "3.25"),
        (USAGE, [{"object": "usage", "limits": [limit(None)]}], None),
        (USAGE, [{"isValid": True, "mode": "unrestricted", "remaining": 12.5, "unit": "USD"}], "12.5"),
        (USAGE, [{"remaining": 12.5, "unit": "U\0"}], None),
        (USAGE, [{"isValid": False}], None),
        (TOKEN, [{"code": True, "data": {"total_available": 250_000, "unlimited_quota": False}}], "0.5"),
        (TOKEN, [{"code": True, "data": {"total_available": 0, "unlimited_quota": True}}], None),
        (ACCOUNT, [{"success": True, "data": {"quota": 1_500_000, "used_quota": 1}}], "3"),
        (ACCOUNT, [{"success": False, "message": "no"}], None),
        (KEY, [{"key": "x", "info": {"spend": 1.5, "max_budget": 10.0}}], "8.5"),
        (KEY, [{"key": "x", "info": {"spend": 1.5, "max_budget": None}}], None),
        (BILLING, [{"hard_limit_usd": "9e999999"}, {"total_usage": "-9e999999"}], None),
        (BILLING, [{"hard_limit_usd": "NaN"}, {"total_usage": 0}], None),
        (TOKEN, [{"data": {"total_available": "sNaN"}}], None),
        (ACCOUNT, ["<html>"], None),
        (USAGE, [{"limits": [limit("Infinity"), limit("nan")]}], None),
    ],
)
def test_balances(source: Any, answers: list[Any], amount: str | None) -> None:
    found = read_balance(source, answers)
    assert (found.amount if found is not None else None) == (Decimal(amount) if amount is not None else None)
    assert found is None or found.currency == "USD"


def test_prices_of_this_product() -> None:
    answer = {
        "object": "list",
        "data": [
            {
                "id": "m",
                "pricing": {
                    "currency": "USD",
                    "tokens_per": "1000000",
                    "input": "1.25",
                    "output": "10",
                    "cached_input": "0.125",
                    "lowest": {"input": "1"},
                    "tiers": [{"above_tokens": 200_000, "input": "2.5", "output": "15"}],
                },
            },
            {"id": "calls", "pricing": {"currency": "USD", "tokens_per": "1000000", "per_call": "0.04"}},
            {"id": "free of a price"},
        ],
    }
    assert read_prices(OURS, answer) == {
        "m": {
            0: {"input": Decimal("1.25"), "output": Decimal(10), "cached_input": Decimal("0.125")},
            200_000: {"input": Decimal("2.5"), "output": Decimal(15)},
        },
        "calls": {0: {"input": Decimal(0), "output": Decimal(0), "per_call": Decimal("0.04")}},
    }


@pytest.mark.parametrize("above", [-1, 2**31, 10**30, 1.5, 1e300, "x", None, True])
def test_a_length_of_prompts_that_is_none_has_no_price(above: Any) -> None:
    pricing = {"currency": "USD", "tokens_per": "1000000", "input": "1", "output": "2"}
    tiers = [{"above_tokens": above, "input": "3", "output": "4"}]
    found = read_prices(OURS, {"data": [{"id": "m", "pricing": {**pricing, "tiers": tiers}}]})
    assert found == {"m": {0: {"input": Decimal(1), "output": Decimal(2)}}}


@pytest.mark.parametrize("ratio", ["9e999999", 1e308, "NaN", [], {}])
def test_ratios_that_are_none_are_no_prices(ratio: Any) -> None:
    answer = {"group_ratio": {"default": "9e999999"}, "data": [entry(model_name="m", model_ratio=ratio)]}
    assert not read_prices(NEW_API, answer)


def entry(**values: Any) -> dict[str, Any]:
    plain = {"quota_type": 0, "model_ratio": 0, "model_price": 0, "completion_ratio": 0, "enable_groups": ["default"]}
    return {**plain, **values}


def test_prices_of_new_api() -> None:
    """Ratio 1 is 2 USD for a million tokens, times the ratio of the group."""
    answer = {
        "success": True,
        "group_ratio": {"default": 0.5, "vip": 0.25, "dear": 2},
        "data": [
            entry(model_name="a", model_ratio=1.25, completion_ratio=8, cache_ratio=0.1, create_cache_ratio=1.25),
            entry(model_name="b", quota_type=1, model_price=0.1),
            entry(model_name="c", model_ratio=1, completion_ratio=1, enable_groups=["vip", "dear"]),
            entry(model_name="d", model_ratio=1, completion_ratio=1, audio_ratio=10, audio_completion_ratio=2),
        ],
    }
    found = read_prices(NEW_API, answer)
    assert found["a"] == {
        0: {
            "input": Decimal("1.25"),
            "output": Decimal(10),
            "cached_input": Decimal("0.125"),
            "cache_write": Decimal("1.5625"),
            "cache_write_1h": Decimal("2.5"),
        }
    }
    assert found["b"] == {0: {"input": Decimal(0), "output": Decimal(0), "per_call": Decimal("0.05")}}
    assert found["c"][0] == {"input": Decimal(4), "output": Decimal(4)}, "the dearest of those that may use it"
    assert (found["d"][0]["audio_input"], found["d"][0]["audio_output"]) == (Decimal(10), Decimal(20))


def test_prices_of_litellm() -> None:
    def model(name: str, **info: Any) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": "x"}, "model_info": {"id": "1", **info}}

    answer = {
        "data": [
            model(
                "a", input_cost_per_token=1.25e-06, output_cost_per_token=1e-05, cache_read_input_token_cost=1.25e-07
            ),
            model("a", input_cost_per_token=9e-06, output_cost_per_token=9e-05),
            model("unknown", input_cost_per_token=None),
            model("picture", output_cost_per_image=0.04),
        ]
    }
    assert read_prices(LITELLM, answer) == {
        "a": {0: {"input": Decimal("1.25"), "output": Decimal(10), "cached_input": Decimal("0.125")}},
        "picture": {0: {"input": Decimal(0), "output": Decimal(0), "per_image": Decimal("0.04")}},
    }


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"data": None},
        {"data": [1]},
        {"data": [{"model_name": "a", "model_ratio": -1, "enable_groups": []}]},
        {"data": [{"model_name": "a", "model_ratio": "x", "model_info": "x", "id": "a", "pricing": []}]},
        {"data": [{"id": "a", "pricing": {"currency": "USD", "tokens_per": "1000000", "input": "NaN"}}]},
    ],
)
def test_other_answers_are_no_prices(source: Any, answer: Any) -> None:
    assert read_prices(source, answer) == {}
