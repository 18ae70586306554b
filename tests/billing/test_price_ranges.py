"""Several price lists of one model together, as they are shown: never less than what a list charges, never more."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from relay.billing.price_ranges import Amounts, Tier, price_ranges, with_general
from relay.models.price import CLASSES

AMOUNTS = st.dictionaries(st.sampled_from(CLASSES), st.decimals(0, 9, places=2), min_size=1)
TIERS = st.dictionaries(st.integers(1, 50), AMOUNTS, max_size=3)
LISTS = st.lists(st.builds(lambda base, more: [(0, base), *more.items()], AMOUNTS, TIERS), min_size=1, max_size=4)
PART_OF = {
    "cache_write_1h": ("cache_write", "input"),
    "reasoning": ("output",),
    "audio_output": ("output",),
    "cached_audio_input": ("cached_input", "audio_input", "input"),
}


def charged(tiers: list[Tier], prompt: int, name: str) -> Decimal:
    amounts: Amounts = max((tier for tier in tiers if tier[0] < prompt or tier[0] == 0), key=lambda tier: tier[0])[1]
    if name in amounts:
        return amounts[name]
    alone = name.startswith("per_") or name in {"input", "output"}
    parts = () if alone else PART_OF.get(name, ("input",))
    return next((amounts[part] for part in parts if part in amounts), Decimal(0))


@given(LISTS, st.integers(1, 60))
def test_what_is_charged_is_inside_what_is_shown(lists: list[list[Tier]], prompt: int) -> None:
    ranges = price_ranges(lists)
    assert ranges[0].above_tokens == 0
    shown = [one for one in ranges if one.above_tokens < prompt or one.above_tokens == 0][-1]
    for name in shown.highest:
        amounts = [charged(tiers, prompt, name) for tiers in lists]
        assert (shown.lowest[name], shown.highest[name]) == (min(amounts), max(amounts)), name


def test_one_list_is_shown_as_it_is_and_none_as_nothing() -> None:
    base, long = {"input": Decimal(1)}, {"input": Decimal(2)}
    (first, second) = price_ranges([[(100, long), (0, base)]])
    assert (first.lowest, second.above_tokens, second.highest) == (base, 100, long)
    assert not first.differs and price_ranges([]) == price_ranges([[]]) == price_ranges([[(100, long)]]) == ()


def test_a_channel_without_a_price_for_short_prompts_has_the_general_one() -> None:
    general: list[Tier] = [(0, {"input": Decimal(1)}), (50, {"input": Decimal(2)}), (200, {"input": Decimal(3)})]
    own: list[Tier] = [(100, {"input": Decimal(9)})]
    assert with_general(own, general) == [*general[:2], *own]
    assert with_general([], general) == general
