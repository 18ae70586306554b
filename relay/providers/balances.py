"""Vendors that say what is left on an account: where to ask, and how to read the answer. Pure data. Source: the vendors' API references, November 2026."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left, in the vendor's currency."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class BalanceSource:
    """`paths`: what to GET, relative to the base URL, or, with a leading //, to its host. `read`: from their JSON answers, in order, to the balance."""

    paths: tuple[str, ...]
    read: Callable[[Sequence[Any]], Balance]


def _deepseek(answers: Sequence[Any]) -> Balance:
    infos = answers[0]["balance_infos"]
    chosen = next((info for info in infos if info.get("currency") == "USD" and Decimal(info["total_balance"])), infos[0])
    return Balance(Decimal(chosen["total_balance"]), str(chosen["currency"]))


def _moonshot(answers: Sequence[Any]) -> Balance:
    return Balance(Decimal(str(answers[0]["data"]["available_balance"])), "")


def _openrouter(answers: Sequence[Any]) -> Balance:
    data = answers[0]["data"]
    return Balance(Decimal(str(data["total_credits"])) - Decimal(str(data["total_usage"])), "USD")


def _siliconflow(answers: Sequence[Any]) -> Balance:
    return Balance(Decimal(str(answers[0]["data"]["totalBalance"])), "")


def _relay(answers: Sequence[Any]) -> Balance:
    """one-api's form: a limit in USD, and what is used in hundredths of a USD."""
    return Balance(Decimal(str(answers[0]["hard_limit_usd"])) - Decimal(str(answers[1]["total_usage"])) / 100, "USD")


SOURCES: Final[Mapping[str, BalanceSource]] = {
    "deepseek": BalanceSource(("//user/balance",), _deepseek),
    "moonshot": BalanceSource(("/users/me/balance",), _moonshot),
    "openrouter": BalanceSource(("/credits",), _openrouter),
    "siliconflow": BalanceSource(("/user/info",), _siliconflow),
    "relay": BalanceSource(("/dashboard/billing/subscription", "/dashboard/billing/usage"), _relay),
}


def read_balance(source: BalanceSource, answers: Sequence[Any]) -> Balance | None:
    """None when the answers are not what the vendor's reference says."""
    try:
        found = source.read(answers)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, InvalidOperation, StopIteration):
        return None
    if not found.amount.is_finite() or abs(found.amount) >= Decimal(10) ** 12:
        return None
    return Balance(found.amount.quantize(Decimal("0.000001")), found.currency[:8])
