"""Values of a row, as the drivers of different databases give them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from portal.lib.json import NOTHING, decode

_UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"
_FIRST: Final = 946_684_800  # the year 2000, in seconds since 1970
_END: Final = 32_503_680_000  # the year 3000
_EARLIEST, _LATEST = datetime.fromtimestamp(_FIRST, UTC), datetime.fromtimestamp(_END, UTC)
_DIGITS: Final = 60  # of a number before and behind the point: exponents may mean any number of them


class Row(dict[str, Any]):
    """One row by column. What is missing, NULL or of another kind is empty, 0 or None."""

    __slots__ = ()

    def text(self, name: str, otherwise: str = "") -> str:
        """A text without the spaces around it: PostgreSQL fills columns of a fixed length with them."""
        return text_of(self.get(name), otherwise)

    def whole(self, name: str, otherwise: int = 0) -> int:
        return whole_of(self.get(name), otherwise)

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if isinstance(value, str):
            return value.strip().lower() in {"1", "t", "true", "yes"}
        return value not in (None, 0, b"\0", b"")

    def number(self, name: str) -> Decimal | None:
        return number_of(self.get(name))

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object; empty: none, or no JSON."""
        return object_of(self.get(name))

    def moment(self, name: str) -> datetime | None:
        return moment_of(self.get(name))


def text_of(value: object, otherwise: str = "") -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.strip().replace("\0", _UNKNOWN)  # PostgreSQL stores no NUL
    return otherwise if value is None else str(value)


def whole_of(value: object, otherwise: int = 0) -> int:
    """A whole number, also where it was stored as a float or a text."""
    if isinstance(value, int):
        return int(value)
    found = number_of(value)
    return otherwise if found is None else int(found)


def number_of(value: object) -> Decimal | None:
    """A finite number, of a float the one that it is written as. None: it is none, or absurdly large or small."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, float):
        value = repr(value)
    try:
        found = Decimal(text_of(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and -_DIGITS < found.adjusted() < _DIGITS else None


def json_of(value: object) -> Any:
    """What a column of JSON, or a text that has JSON in it, holds; None: nothing, or no JSON."""
    if isinstance(value, (dict, list)):
        return value
    text = text_of(value)
    if not text:
        return None
    found = decode(text)
    return None if found is NOTHING else found


def object_of(value: object) -> dict[str, Any]:
    found = json_of(value)
    return found if isinstance(found, dict) else {}


def moment_of(value: object) -> datetime | None:
    """A time of a date column, or of seconds or milliseconds since 1970; None: no time, or one that means none.

    Dates before the year 2000 and behind the year 3000 are its beginning: no time zone has to reckon with the year 1.
    """
    if isinstance(value, datetime):
        found = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return min(max(found, _EARLIEST), _LATEST)
    if isinstance(value, str) and not value.strip().lstrip("-").isdigit():
        try:
            found = datetime.fromisoformat(value.strip().replace(" +0000 UTC", "+00:00"))
        except ValueError:
            return None
        return moment_of(found)
    seconds: float = whole_of(value)
    if seconds >= _END:
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC) if _FIRST <= seconds < _END else None


def texts_of(value: object, separators: str = ",") -> list[str]:
    """The parts of a text between separators, without spaces around them, each once."""
    text = text_of(value)
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    return list(dict.fromkeys(part.strip() for part in text.split(separators[0]) if part.strip()))


def nano_of(value: object, per_usd: Decimal) -> tuple[int, bool]:
    """Nano-USD of an amount in units of which so many are one USD, rounded down, and whether that was exact."""
    exact = (number_of(value) or Decimal(0)) * 1_000_000_000 / per_usd
    whole = int(exact.to_integral_value(rounding="ROUND_FLOOR"))
    return whole, whole == exact


def mapping_of(value: object) -> Mapping[str, Decimal]:
    """The numbers of a JSON object, by name."""
    numbers = ((text_of(name), number_of(found)) for name, found in object_of(value).items())
    return {name: number for name, number in numbers if number is not None}
