"""What limits the spending of a user and of one token: the wallet, the quota, and budgets, with what is left of them;
and the keys of `GET /v1/usage` that menu-bar apps and other relays read, which are those of sub2api.

Source of these keys: answers of sub2api 0.2.9 as their readers test them (CodaPace, agent-stats, forks of sub2api that
ask another one for its balance), November 2026. Amounts are USD as numbers in them, since their readers take no texts.

Synchronous; called in threads from /v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from django.conf import settings
from django.db.models import F, Q

from portal.lib import money
from portal.lib.days import PERIODS, Days
from relay.models import Budget, LedgerAccount
from relay.usage.rollup import SUMS

SHOWN_DAYS: Final = 30
_NAMES: Final = {"day": "daily", "week": "weekly", "month": "monthly"}
_REQUESTS, _INPUT, _CACHED, _OUTPUT, _CHARGED = map(SUMS.index, ("requests", "input", "cached", "output", "charged"))


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """A wallet, quota or budget, and what is left of it. Amounts in nano-USD."""

    kind: str  # a value of relay.models.ledger.AccountKind
    period: str  # of a budget, else empty
    scope: str  # "user" or "token"
    limit: int | None  # None: unlimited
    used: int
    reserved: int  # for running requests
    left: int | None  # None: unlimited
    ends_at: datetime | None  # when the period of a budget ends, None: never

    @property
    def unspent(self) -> int:
        """What is left with that which is reserved for running requests; 0 where there is no limit."""
        return max(0, (self.limit or 0) - self.used)


def spending_limits(user_id: int, token_id: int | None, now: float) -> list[SpendingLimit]:
    """Return the wallet, quota and current budgets of a user and of one token, or of the user alone with None."""
    days = Days(settings.TIME_ZONE)
    day = days.of(now)
    mine = Q(token=None) | Q(token=token_id) if token_id is not None else Q(token=None)
    rows = LedgerAccount.objects.filter(mine, user=user_id, first_day__lte=day, last_day__gte=day).order_by(
        "kind", "first_day", "token"
    )
    found = [_account_limit(row, days, now) for row in rows if row.kind != "budget" or row.limited]
    known = {(line.scope, line.period) for line in found if line.kind == "budget"}
    # A budget has no account for this period before something is spent.
    for budget in Budget.objects.filter(
        Q(user=user_id) | Q(token=token_id) if token_id is not None else Q(user=user_id)
    ):
        scope = "token" if budget.token_id is not None else "user"
        if (scope, budget.period) not in known:
            limit = money.nano(budget.limit)
            found.append(
                SpendingLimit(
                    "budget",
                    budget.period,
                    scope,
                    limit,
                    0,
                    0,
                    limit,
                    datetime.fromtimestamp(days.end_of(budget.period, now), UTC),
                )
            )
    return found


def used_up_budgets(token_ids: Iterable[int], now: float) -> set[tuple[int, str]]:
    """The budgets of tokens of which nothing is left now, by token and period. One query."""
    day = Days(settings.TIME_ZONE).of(now)
    rows = LedgerAccount.objects.filter(
        token__in=list(token_ids), kind="budget", limited=True, first_day__lte=day, last_day__gte=day
    )
    return set(rows.filter(granted__lte=F("used") + F("reserved")).values_list("token_id", "period"))


def _account_limit(row: LedgerAccount, days: Days, now: float) -> SpendingLimit:
    ends = datetime.fromtimestamp(days.end_of(row.period, now), UTC) if row.period else None
    limit = row.granted if row.limited else None
    return SpendingLimit(
        row.kind,
        row.period,
        "token" if row.token_id is not None else "user",
        limit,
        row.used,
        row.reserved,
        row.free if row.limited else None,
        ends,
    )


@dataclass(frozen=True, slots=True)
class TokenUse:
    """What a token used. Sums are in the order of `SUMS`, days are ordinals."""

    name: str
    expires_at: datetime | None
    today: int
    days: Mapping[int, Sequence[int]]
    models: Mapping[str, Sequence[int]]  # of the last SHOWN_DAYS days
    spent: Mapping[str, int]  # nano-USD in the current day, week and month


def shared_keys(use: TokenUse, limits: Sequence[SpendingLimit]) -> dict[str, Any]:
    """Return the keys. `limits`: those of the token and of its user."""
    quota = next((line for line in limits if line.kind == "quota" and line.limit is not None), None)
    wallet = next((line for line in limits if line.kind == "wallet" and line.limit is not None), None)
    budgets = tightest_budgets(limits)
    found: dict[str, Any] = {
        "isValid": True,
        "status": "quota_exhausted" if quota is not None and not _left(quota) else "active",
        "mode": "unrestricted" if quota is None else "quota_limited",
        "planName": use.name,
        "unit": "USD",
        "expires_at": use.expires_at.isoformat() if use.expires_at else None,
        "usage": {
            "today": _counters(use.days.get(use.today, (0,) * len(SUMS))),
            "total": _counters([sum(column) for column in zip(*use.days.values(), strict=True)] or (0,) * len(SUMS)),
        },
        "daily_usage": [
            {"date": date.fromordinal(day).isoformat(), **_counters(sums)}
            for day, sums in sorted(use.days.items())
            if day > use.today - SHOWN_DAYS
        ],
        "model_stats": [{"model": model, **_counters(sums)} for model, sums in sorted(use.models.items())],
    }
    counted = [line for line in limits if line.limit is not None]
    if counted:
        found["remaining"] = min(_left(line) for line in counted)
    if wallet is not None:
        found["balance"] = _left(wallet)
    if quota is not None:
        found["quota"] = {
            "limit": _usd(quota.limit),
            "used": _usd(quota.used),
            "remaining": _left(quota),
            "unit": "USD",
        }
    if budgets:
        found["subscription"] = _subscription(budgets, use)
    return found


def tightest_budgets(limits: Sequence[SpendingLimit]) -> dict[str, SpendingLimit]:
    """Return the budgets by their periods, the shortest first; of two for one period that of which less is left."""
    found: dict[str, SpendingLimit] = {}
    for period in PERIODS:
        lines = [line for line in limits if line.kind == "budget" and line.period == period and line.limit is not None]
        if lines:
            found[period] = min(lines, key=lambda line: line.unspent)
    return found


def in_one_line(limits: Sequence[SpendingLimit], now: float) -> str:
    """Return what limits a token and its user as a line for status lines, the budgets first.

    Such as `week 42% of $25.00, new in 2 d · balance $3.12`. A limit of nothing is used up.
    """
    parts = []
    for period, line in tightest_budgets(limits).items():
        limit = line.limit or 0
        share = min(100, max(0, line.used) * 100 // limit) if limit else 100
        again = f", new in {_duration(line.ends_at.timestamp() - now)}" if line.ends_at is not None else ""
        parts.append(f"{period} {share}% of {money.show(limit)}{again}")
    for kind, label in (("quota", "quota"), ("wallet", "balance")):
        left = [line.unspent for line in limits if line.kind == kind and line.limit is not None]
        if left:
            parts.append(f"{label} {money.show_left(min(left))}")
    return " · ".join(parts) or "no limit"


def _duration(seconds: float) -> str:
    """A duration in whole units of the largest that fits, at least a minute."""
    for unit, name in ((86_400, "d"), (3_600, "h")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{max(1, int(seconds // 60))} min"


def _subscription(budgets: Mapping[str, SpendingLimit], use: TokenUse) -> dict[str, Any]:
    """The budgets as a subscription, which has all periods: where there is no budget it is what the token spent."""
    found: dict[str, Any] = {"expires_at": use.expires_at.isoformat() if use.expires_at else None}
    for period, name in _NAMES.items():
        line = budgets.get(period)
        found[f"{name}_limit_usd"] = _usd(line.limit) if line is not None else None
        found[f"{name}_usage_usd"] = _usd(line.used if line is not None else use.spent[period])
        if line is not None and line.ends_at is not None:
            found[f"{name}_reset_at"] = line.ends_at.isoformat()
    return found


def _counters(sums: Sequence[int]) -> dict[str, Any]:
    return {
        "requests": sums[_REQUESTS],
        "input_tokens": sums[_INPUT] - sums[_CACHED],  # those of the cache are told apart
        "cache_read_tokens": sums[_CACHED],
        "output_tokens": sums[_OUTPUT],
        "total_tokens": sums[_INPUT] + sums[_OUTPUT],
        "actual_cost": _usd(sums[_CHARGED]),
    }


def _left(line: SpendingLimit) -> float:
    return _usd(line.unspent)


def _usd(amount: int | None) -> float:
    return float(money.in_usd(amount or 0))
