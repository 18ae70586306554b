"""Amounts of money as integers of nano-USD (10^-9 USD); decimals only in what people read or type."""

from __future__ import annotations

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Final

NANO: Final = 1_000_000_000
# USD; what may be typed at once. A wallet of `LARGEST` holds four of them.
MOST_USD: Final = 999_999_999
LARGEST: Final = 2**62  # nano-USD; a BIGINT holds it, with room for an addition


def nano(amount: Decimal | int) -> int:
    """Nano-USD of an amount in USD, rounded down. Raises ValueError if it is not finite or above LARGEST."""
    usd = Decimal(amount)
    if not usd.is_finite():
        raise ValueError("an amount of money must be a number")
    whole = int((usd * NANO).to_integral_value(ROUND_FLOOR))
    if abs(whole) > LARGEST:
        raise ValueError("the amount is larger than a wallet can hold")
    return whole


def in_usd(amount: int) -> Decimal:
    """The exact amount in USD."""
    return Decimal(amount).scaleb(-9)


def plain(amount: int) -> str:
    """USD for machines: all significant digits and no exponent, such as `0.00012`."""
    whole, rest = divmod(abs(amount), NANO)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole)
    return text if amount >= 0 else f"-{text}"


def exact(amount: int) -> str:
    """USD for people with all digits: `$12.50`, `$0.01367`. For amounts that readers add up."""
    whole, _point, rest = plain(abs(amount)).partition(".")
    return f"{'-' if amount < 0 else ''}${int(whole):,}.{rest.ljust(2, '0')}"


def show_left(amount: int) -> str:
    """What is left of an amount, for people: never shown as more than it is."""
    step = NANO // 100 if amount >= NANO else 1
    return show(amount // step * step)


def show(amount: int) -> str:
    """USD for people: `$12.30`; amounts below a cent with their significant digits, `$0.000123`."""
    value = in_usd(amount)
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size == 0 or size >= 1:
        return f"{sign}${size.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
    places = max(2, -size.adjusted() + 2)
    text = f"{size.quantize(Decimal(1).scaleb(-min(places, 9)), ROUND_HALF_UP):f}"
    while text.endswith("0") and len(text.partition(".")[2]) > 2:
        text = text[:-1]
    return f"{sign}${text}"
