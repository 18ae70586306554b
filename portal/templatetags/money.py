"""Template filters for money: `{{ nano|usd }}`, `{{ decimal|price }}`."""

from __future__ import annotations

from decimal import Decimal

from django import template

from portal.lib import money

register = template.Library()


@register.filter
def usd(amount: int | None) -> str:
    """Format nano-USD; a dash for None."""
    return "—" if amount is None else money.show(int(amount))


@register.filter
def usd_exact(amount: int | None) -> str:
    """Format nano-USD with all digits; a dash for None."""
    return "—" if amount is None else money.exact(int(amount))


@register.filter
def usd_left(amount: int | None) -> str:
    """Format nano-USD that are left, rounded down; a dash for None."""
    return "—" if amount is None else money.show_left(int(amount))


@register.filter
def price(amount: Decimal | None) -> str:
    """Format USD, also amounts far below a cent; a dash for None."""
    return "—" if amount is None else money.show(money.nano(amount))


@register.filter
def share(used: int, limit: int | None) -> int:
    """Percentage of a limit that is used, at most 100; 0 without a limit."""
    return min(100, round(100 * used / limit)) if limit else 0
