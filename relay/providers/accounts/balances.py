"""What is left on an account at a vendor: where to ask, and how to read the answer. Pure.

Each vendor's own is in its file in `relay.providers.vendors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left, in the vendor's currency."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class BalanceSource:
    """Where a vendor says what is left, and in which form."""

    # What to GET, relative to the base URL, or, with a leading //, to its host.
    paths: tuple[str, ...]
    # From their JSON answers, in order, to the balance. It may raise whatever a missing or odd member makes it raise.
    read: Callable[[Sequence[Any]], Balance]


def read_balance(source: BalanceSource, answers: Sequence[Any]) -> Balance | None:
    """None when the answers are not what the vendor's reference says."""
    try:
        found = source.read(answers)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration):
        return None
    if not found.amount.is_finite() or abs(found.amount) >= Decimal(10) ** 12 or not found.currency.isprintable():
        return None
    return Balance(found.amount.quantize(Decimal("0.000001")), found.currency[:8])
