"""What a vendor says that it billed, by day: where to ask, with which key, and how to read the answers. Pure.

Each vendor's own is in its file in `relay.providers.vendors`. The keys for it are not those of requests: vendors have
keys of administrators for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

MOST_BILLED: Final = Decimal(10) ** 9  # of a day, in any currency; a nano of it fits the columns
_CURRENCY: Final = re.compile(r"[A-Z]{3,8}")
MOST_ROWS: Final = 100_000  # of one report
MOST_PAGES: Final = 40  # of one report


@dataclass(frozen=True, slots=True)
class BilledDay:
    """A part of what was billed on a day of UTC; parts of the same day add up."""

    day: date
    amount: Decimal
    currency: str  # in capitals


@dataclass(frozen=True, slots=True)
class BillPage:
    """One answer of a report, and what asks for the next one, empty at the end."""

    parts: tuple[BilledDay, ...]
    next_page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillSource:
    """Where a vendor says what it billed."""

    # What to GET, relative to the base URL.
    path: str
    # From the first and the last day, what the report is limited to (empty: nothing) and the page to its parameters.
    query: Callable[[date, date, str, str], list[tuple[str, str]]]
    # From a JSON answer and what the report is limited to. It may raise whatever a missing or odd member makes it
    # raise.
    read: Callable[[Any, str], BillPage]
    # From the key to the headers that carry it.
    headers: Callable[[str], Mapping[str, str]]
    # How such keys begin, and what the report can be limited to, in the vendor's words: for forms.
    key_form: str
    scope_word: str
    # How many days back it goes.
    days: int = 30


def bearer(secret: str) -> Mapping[str, str]:
    """The key in the header of most vendors."""
    return {"authorization": f"Bearer {secret}"}


def read_page(source: BillSource, answer: Any, scope: str) -> BillPage | None:
    """None when the answer is not what the vendor's reference says."""
    try:
        found = source.read(answer, scope)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    if len(found.parts) > MOST_ROWS or len(found.next_page) > 1000:
        return None
    for part in found.parts:
        if not part.amount.is_finite() or abs(part.amount) > MOST_BILLED or not _CURRENCY.fullmatch(part.currency):
            return None
    return found


def amount_of(value: Any) -> Decimal:
    """A number, or a text that is one. Raises TypeError, ArithmeticError."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return Decimal(str(value))


def next_page(answer: Any) -> str:
    """What asks for the next page, where an answer says that there is more. Raises ValueError when it is missing."""
    if not answer.get("has_more"):
        return ""
    if not (found := answer["next_page"]) or not isinstance(found, str):
        raise ValueError
    return found
