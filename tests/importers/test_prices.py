"""Prices from ratios and expressions: calls cost what the old programs wrote into their logs."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from portal.lib import money
from relay.billing.prices import Price, cost
from relay.importers.description import SourcePrice
from relay.importers.one_api.expressions import NoTiers, read_tiers
from relay.importers.one_api.ratios import new_api_ratio, one_api_ratio, priced_as
from relay.importers.one_api.settings import compiled
from relay.importers.one_api.source import OneApiSource, open_source
from relay.protocols.usage import Usage
from tests.support.importers.old import Old

FIELDS = {"per_call": "call", "per_image": "image"}


def prices_of(source: OneApiSource) -> dict[tuple[str, str], SourcePrice]:
    return {(price.name, price.channel): price for price in source.prices() if not price.left_out}


def price_of(found: SourcePrice) -> Price:
    (_above, classes), *_ = found.tiers
    return Price(**{FIELDS.get(name, name): money.nano(usd) for name, usd in classes.items()})


def test_every_call_of_the_logs_costs_the_same(old: Old) -> None:
    """The programs round each call to a whole unit of quota, 2,000 nano-USD; here it is rounded to a nano-USD."""
    with_source = open_source(old.program, str(old.path))
    prices = prices_of(with_source)
    ratios = {group.name: int(group.multiplier * 1_000_000) for group in with_source.groups()}
    groups = dict(old.run("SELECT id, `group` FROM users"))
    mappings = {row[0]: json.loads(row[1] or "{}") for row in old.run("SELECT id, model_mapping FROM channels")}
    columns = ("user_id", "model_name", "channel_id", "prompt_tokens", "completion_tokens", "quota")
    more = ", `group`, other" if old.program == "new-api" else ", '', ''"
    checked = 0
    for row in old.run(f"SELECT {', '.join(columns)}{more} FROM logs WHERE type = 2"):
        user, model, channel, into, out, quota, group, other = row
        said: dict[str, Any] = json.loads(other) if other else {}
        if old.program == "one-api":  # which logs the name that the mapping gives
            model = {value: name for name, value in mappings[channel].items()}.get(model, model)
        price = prices.get((model, str(channel))) or prices[model, ""]
        cached, written = said.get("cache_tokens", 0), said.get("cache_creation_tokens", 0)
        into += cached + written if said.get("claude") else 0  # whose tokens of the cache are no part of the prompt
        usage = Usage(input=into, output=out, cached_input=cached, cache_write=written)
        exact = cost(price_of(price), usage, ratios[group or groups[user]]) / 2000
        rounded = math.ceil(exact) if old.program == "one-api" else max(math.floor(exact + 0.5), 1 if exact else 0)
        assert abs(rounded - quota) <= (1 if exact == int(exact) else 0), (model, exact, quota)
        checked += 1
    assert checked > 100
    with_source.close()


def test_prices_of_missing_options_are_those_that_are_compiled_in(old: Old) -> None:
    old.run("DELETE FROM options WHERE `key` LIKE '%Ratio' OR `key` = 'ModelPrice'")
    source = open_source(old.program, str(old.path))
    prices = prices_of(source)
    ratio = compiled(old.program, "ModelRatio")["gpt-4o"]
    assert prices["gpt-4o", ""].tiers[0][1]["input"] == ratio * 2
    assert {group.multiplier for group in source.groups()} == {Decimal(1)}
    source.close()


def test_another_unit_of_quota_is_another_price_and_balance(old: Old) -> None:
    first = open_source(old.program, str(old.path))
    before = prices_of(first)["gpt-4o", ""].tiers[0][1]
    old.run("INSERT OR REPLACE INTO options (`key`, value) VALUES ('QuotaPerUnit', '1000000')")
    source = open_source(old.program, str(old.path))
    assert prices_of(source)["gpt-4o", ""].tiers[0][1]["output"] == before["output"] / 2
    assert {user.name: user.balance for user in source.users()}["erin"] == next(
        one["quota"] for one in old.facts["users"] if one["username"] == "erin"
    ) * 1000
    first.close()
    source.close()


@pytest.mark.parametrize(
    ("expression", "tiers"),
    [
        ("p * 3 + c * 15", [(0, {"input": 3, "output": 15})]),
        ('v1:tier("a", p * 2.5 + c * 15 + cr * 0.2)', [(0, {"input": "2.5", "output": 15, "cached_input": "0.2"})]),
        (
            'len <= 200000 ? tier("a", p * 3 + c * 15) : tier("b", p * 6 + c * 22.5)',
            [(0, {"input": 3, "output": 15}), (200000, {"input": 6, "output": "22.5"})],
        ),
        (
            "len < 32000 ? p * 1 + c * 2 : (len <= 128000 ? p * 2 + c * 4 : p * 3 + c * 6)",
            [
                (0, {"input": 1, "output": 2}),
                (31999, {"input": 2, "output": 4}),
                (128000, {"input": 3, "output": 6}),
            ],
        ),
        ('len > 100 ? tier("b", p * 6 + c * 6) : tier("a", p * 3 + c * 3)', [
            (0, {"input": 3, "output": 3}), (100, {"input": 6, "output": 6})]),
        ('tier("request", fixed(0.01))', [(0, {"per_call": "0.01"})]),
        ('tier("a", p * 1 + c * 2 + cc * 1.25 + cc1h * 2 + img * 3 + ai * 4 + ao * 5)', [(0, {
            "input": 1, "output": 2, "cache_write": "1.25", "cache_write_1h": 2, "image_input": 3, "audio_input": 4,
            "audio_output": 5})]),
    ],
)  # fmt: skip
def test_expressions_of_tiers_are_read(expression: str, tiers: list[Any]) -> None:
    wanted = [(above, {name: Decimal(usd) for name, usd in classes.items()}) for above, classes in tiers]
    assert [(above, dict(classes)) for above, classes in read_tiers(expression)] == wanted


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "p * 3 + c * 15 + img_o * 4",
        'tier("a", p * 3) * (param("service_tier") == "flex" ? 0.5 : 1)',
        'tier("a", p * 1)|||when(header("x") has "y") * 6',
        "p * p",
        "p * 3 + p * 4",
        'len <= 0.5 ? tier("a", p * 1) : tier("b", p * 2)',
        'hour("UTC") < 8 ? tier("a", p * 1) : tier("b", p * 2)',
        "(" * 100 + "p * 1" + ")" * 100,
    ],
)
def test_other_expressions_are_told(expression: str) -> None:
    with pytest.raises(NoTiers):
        read_tiers(expression)


def test_what_output_costs_without_an_option() -> None:
    assert one_api_ratio("gpt-3.5-turbo") == 3 and one_api_ratio("claude-3-opus") == 5 and one_api_ratio("x") == 1
    assert one_api_ratio("gpt-4o") == 4 and one_api_ratio("gpt-4-turbo") == 3 and one_api_ratio("gpt-4") == 2
    ratios = {"gpt-3.5-turbo": (2, False), "o3-mini": (4, True), "gpt-5": (8, True), "gpt-5.5": (6, False)}
    ratios |= {"claude-opus-4-1": (5, True), "gemini-2.5-pro": (8, False), "gpt-4-gizmo-*": (2, False)}
    for name, (ratio, fixed) in (ratios | {"qwen-max": (1, False)}).items():
        assert new_api_ratio(name) == (Decimal(ratio), fixed), name
    assert priced_as("gpt-4-gizmo-g-1") == "gpt-4-gizmo-*"
    assert priced_as("gemini-2.5-flash-thinking-128") == "gemini-2.5-flash-thinking-*"
