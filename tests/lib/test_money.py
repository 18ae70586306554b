"""Amounts of money as people type and read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from portal.lib import money
from relay.billing.prices import Price, cost
from relay.protocols.usage import Usage

M = 1_000_000_000  # nano-USD in a USD: a price of 1 USD per 1M tokens


def test_units() -> None:
    price = Price(call=5, image=40_000_000, second=100_000, character=15_000)
    assert cost(price, Usage(images=2)) == 5 + 80_000_000
    assert cost(price, Usage(milliseconds=2500)) == 5 + 250_000
    assert cost(price, Usage(characters=100)) == 5 + 1_500_000


@pytest.mark.parametrize(
    ("amount", "shown", "plain"),
    [
        (0, "$0.00", "0"),
        (M, "$1.00", "1"),
        (1_234_567 * M, "$1,234,567.00", "1234567"),
        (1, "$0.000000001", "0.000000001"),
        (87_500, "$0.0000875", "0.0000875"),
        (-M // 2, "-$0.50", "-0.5"),
        (10_000_000, "$0.01", "0.01"),
    ],
)
def test_money_as_text(amount: int, shown: str, plain: str) -> None:
    assert (money.show(amount), money.plain(amount)) == (shown, plain)


def test_amounts_typed_by_people() -> None:
    assert money.nano(Decimal("2.50")) == 2_500_000_000
    assert money.nano(Decimal("0.0000000019")) == 1
    for nonsense in ("NaN", "Infinity", "1e30"):
        with pytest.raises(ValueError, match="amount"):
            money.nano(Decimal(nonsense))


@pytest.mark.parametrize(
    ("amount", "exact", "left"),
    [
        (12_500_000_000, "$12.50", "$12.50"),
        (12_486_330_000, "$12.48633", "$12.48"),
        (13_670_000, "$0.01367", "$0.0137"),
        (0, "$0.00", "$0.00"),
        (-1_005_000_000, "-$1.005", "-$1.01"),
        (1_234_567_000_000_001, "$1,234,567.000000001", "$1,234,567.00"),
    ],
)
def test_what_is_left_is_never_shown_as_more(amount: int, exact: str, left: str) -> None:
    assert money.exact(amount) == exact and money.show_left(amount) == left
