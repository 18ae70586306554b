"""When does another try make sense? Reads every form in which upstreams say it.

Pure: the moment is given, in seconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from zoneinfo import ZoneInfo

SHORTEST: Final = 0.05
LONGEST: Final = 32 * 86_400.0
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|h|m|s|d)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_UNIT: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_AGAIN: Final = re.compile(
    r"(?:try again|retry|resets?|available again|wait)\s+(?:in|after|for)\s+"
    r"(?:(\d+(?:\.\d+)?)\s*(milliseconds?|seconds?|secs?|minutes?|mins?|hours?|days?)\b|((?:\d+(?:\.\d+)?(?:ms|h|m|s|d))+))"
    r"|(\d+(?:\.\d+)?)\s*(毫秒|秒|分钟|小时|天)\s*(?:后|之后|以后)",
    re.I,
)
_WORDS: Final = {
    "mil": 0.001,
    "sec": 1.0,
    "min": 60.0,
    "hou": 3600.0,
    "day": 86_400.0,
    "毫秒": 0.001,
    "秒": 1.0,
    "分钟": 60.0,
    "小时": 3600.0,
    "天": 86_400.0,
}
# “You will regain access on 2026-12-01 at 00:00 UTC”, “will reset at 2026-11-23 08:00:00”,
# “将在 2026-11-28 12:34:56 重置”
_ON: Final = re.compile(
    r"(?:regain access on|resets? (?:at|on)|available (?:at|on)|until|将(?:在|于))\s*(\d{4}-\d\d-\d\d)"
    r"(?:(?:\s+at\s+|[T ])(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s*(UTC|GMT|Z\b|[+-]\d\d:?\d\d)?)?",
    re.I,
)


def parse_wait(text: str, now: float) -> float | None:
    """Seconds from now: a number of seconds, a moment as epoch seconds or milliseconds, `6m0s`, `34s`, `120ms`, an HTTP
    date or RFC 3339. None: none of these.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number > 1e11:
            return number / 1000 - now
        return number - now if number > 1e9 else number
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNIT[unit] for number, unit in _PART.findall(text))
    moment = _moment(text)
    return moment.timestamp() - now if moment is not None else None


def _moment(text: str) -> datetime | None:
    if not text[:1].isalnum() or len(text) > 64:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            found = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def clamp(seconds: float) -> float:
    """Never so short that it hammers, never longer than a month's quota lasts."""
    return min(max(seconds, SHORTEST), LONGEST)


def from_headers(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds, from Retry-After and its relatives, then from the reset of whatever limit is used up."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if name.endswith("ms"):
            if _NUMBER.fullmatch(value.strip()):
                return clamp(float(value) * factor)
            continue
        found = parse_wait(value, now)
        if found is not None:
            return clamp(found)
    waits = []
    for name, value in headers.items():
        lower = name.lower()
        if "ratelimit" not in lower or "reset" not in lower:
            continue
        remaining = headers.get(lower.replace("reset", "remaining"))
        if remaining is not None and remaining.strip() not in {"0", "0.0"}:
            continue
        found = parse_wait(value, now)
        if found is not None:
            waits.append((remaining is not None, found))
    if not waits:
        return None
    known = [wait for exhausted, wait in waits if exhausted]
    return clamp(max(known or [wait for _, wait in waits]))


def from_text(message: str, now: float, zone: str = "UTC") -> float | None:
    """Seconds, from “try again in 1m2.5s”, “retry after 20 seconds”, “regain access on 2026-12-01 at 00:00 UTC”.

    `zone`: of moments that name none. None also for a moment that has passed.
    """
    match = _AGAIN.search(message)
    if match:
        number, unit, duration, count, chinese = match.groups()
        if duration:
            return clamp(sum(float(part) * _UNIT[name] for part, name in _PART.findall(duration.lower())))
        return clamp(float(number) * _WORDS[unit[:3].lower()] if number else float(count) * _WORDS[chinese])
    match = _ON.search(message)
    if match:
        day, at, named = match.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{at or '00:00'}{(named if named and named[0] in '+-' else '')}")
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC if named else ZoneInfo(zone))
        seconds = moment.timestamp() - now
        return clamp(seconds) if seconds > 0 else None
    return None


def from_rule(resets: str, now: float) -> float | None:
    """Seconds until a quota comes back: `midnight:<zone>` or `month` (its first day, UTC)."""
    if resets == "month":
        today = datetime.fromtimestamp(now, UTC)
        first = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
        return clamp(first.timestamp() - now)
    if resets.startswith("midnight:"):
        zone = ZoneInfo(resets.partition(":")[2])
        tomorrow = datetime.fromtimestamp(now, zone).date() + timedelta(days=1)
        return clamp(datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone).timestamp() - now)
    return None
