"""Money in templates: `{{ nano|usd }}`, `{{ decimal|price }}`."""

from __future__ import annotations

from decimal import Decimal

from django import template

from portal.lib import money

register = template.Library()


@register.filter
def usd(amount: int | None) -> str:
    """Nano-USD for people; a dash for None."""
    return "—" if amount is None else money.show(int(amount))


@register.filter
def price(amount: Decimal | None) -> str:
    """USD that may be far below a cent."""
    return "—" if amount is None else money.show(money.nano(amount))


@register.filter
def share(used: int, limit: int | None) -> int:
    """Percent of a limit, at most 100."""
    return min(100, round(100 * used / limit)) if limit else 0
