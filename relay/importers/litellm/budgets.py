"""Budgets of LiteLLM: a limit for ever, or one that begins anew after a while. Pure.

Periods of a day, of seven days and of thirty days or a month begin there at midnight, on Mondays and on the first of a
month, as the periods of budgets here do. Other periods have no counterpart: what is left of one is a quota here, so
that nothing may be spent without a limit.

Source: LiteLLM 1.108's duration_parser and its schema, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from portal.lib import money
from relay.importers.description import NO_RATES, Level, Rates, Remark, SourceBudget
from relay.importers.reading.row import Row, json_of, number_of, whole_of

_PERIODS: Final[Mapping[str, frozenset[str]]] = {
    "day": frozenset(("daily", "1d", "24h", "1440m", "86400s")),
    "week": frozenset(("weekly", "7d", "1w", "168h")),
    "month": frozenset(("monthly", "30d", "1mo")),
}
_DURATION: Final = re.compile(r"\s*(\d{1,9})\s*([a-z]*)\s*")
_MOST: Final = Decimal(money.MOST_USD)
COLUMNS: Final = ("max_budget", "soft_budget", "budget_duration", "budget_reset_at", "spend", "budget_limits")
RATES: Final = ("rpm_limit", "tpm_limit", "tpd_limit", "max_parallel_requests")


@dataclass(slots=True)
class Allowance:
    """What somebody may spend and how fast, in our terms."""

    left: int | None = None  # nano-USD for ever; None: no limit
    budgets: dict[str, int] = field(default_factory=dict)  # nano-USD by period
    rates: Rates = NO_RATES
    closed: bool = False  # a limit of 0 requests: nothing may be asked
    remarks: list[Remark] = field(default_factory=list)

    @property
    def limited(self) -> bool:
        return self.left is not None or bool(self.budgets) or self.closed or self.rates != NO_RATES

    @property
    def source_budgets(self) -> tuple[SourceBudget, ...]:
        return tuple(SourceBudget(period, limit) for period, limit in self.budgets.items())

    def cap(self, left: int) -> None:
        self.left = left if self.left is None else min(self.left, left)


def allowance(row: Row, shared: Row | None, now: datetime) -> Allowance:
    """The allowance of a key, a user or a team. `shared`: the row of budgets that it refers to, for what it lacks."""
    found = Allowance()
    usd = row.number("max_budget")
    period, reset_at = row.text("budget_duration"), row.moment("budget_reset_at")
    spent = max(row.number("spend") or Decimal(0), Decimal(0))
    if usd is None and shared is not None:
        usd = shared.number("max_budget")
        period = shared.text("budget_duration")
        reset_at = shared.moment("budget_reset_at") or reset_at
    if usd is not None:
        _apply(found, usd, period, Decimal(0) if period and reset_at and reset_at <= now else spent)
    windows = json_of(row.get("budget_limits"))
    for window in windows if isinstance(windows, list) else ():
        if isinstance(window, dict) and (limit := number_of(window.get("max_budget"))) is not None:
            _apply(found, limit, str(window.get("budget_duration") or ""), Decimal(0))
    _apply_rates(found, row, shared)
    if any((one.number("soft_budget") if one is not None else None) is not None for one in (row, shared)):
        found.remarks.append(Remark("Its soft budget, at which mail is sent, has no counterpart.", Level.LEFT_OUT))
    return found


def _apply(found: Allowance, usd: Decimal, duration: str, spent: Decimal) -> None:
    if usd > _MOST:
        found.remarks.append(Remark(f"Its budget is above ${money.MOST_USD:,} and becomes none."))
        return
    limit = money.nano(max(usd, Decimal(0)))
    left = money.nano(max(usd - spent, Decimal(0)))
    if not duration:
        found.cap(left)
        return
    period = period_of(duration)
    if period is None:
        found.cap(left)
        said = f"{duration[:20]} is no period of budgets here: the ${money.plain(left)} that are left become a quota."
        found.remarks.append(Remark(said))
        return
    found.budgets[period] = min(limit, found.budgets.get(period, limit))
    if spent:
        said = f"Of its budget a {period}, ${money.plain(money.nano(spent))} were spent. It begins anew here."
        found.remarks.append(Remark(said))


def period_of(duration: str) -> str | None:
    """The period of a budget that a duration means: day, week or month; None: there is none like it."""
    text = duration.strip().lower()
    matched = _DURATION.fullmatch(text)
    if matched is not None:
        text = f"{int(matched[1])}{matched[2] or 's'}"
    return next((period for period, names in _PERIODS.items() if text in names), None)


def _apply_rates(found: Allowance, row: Row, shared: Row | None) -> None:
    values: dict[str, int | None] = {}
    for name in RATES:
        value = row.get(name)
        if value is None and shared is not None:
            value = shared.get(name)
        values[name] = None if value is None else whole_of(value)
    if any(value is not None and value <= 0 for value in values.values()):
        found.closed = True
        found.remarks.append(Remark("One of its limits is 0: nothing could be asked with it. It is disabled."))
    if values["tpd_limit"]:
        found.remarks.append(Remark("Its limit of tokens a day has no counterpart.", Level.LEFT_OUT))
    found.rates = Rates(
        rpm=values["rpm_limit"] or None,
        tpm=values["tpm_limit"] or None,
        concurrency=values["max_parallel_requests"] or None,
    )


def per_model(row: Row, words: Iterable[tuple[str, str]]) -> list[Remark]:
    """What is limited by model, which has no counterpart. `words`: columns, or members of `metadata`, and what they
    are called.
    """
    metadata: Mapping[str, Any] = row.object("metadata")
    return [
        Remark(f"Its {word} by model have no counterpart.", Level.LEFT_OUT)
        for name, word in words
        if row.object(name) or (isinstance(metadata.get(name), dict) and metadata[name])
    ]
