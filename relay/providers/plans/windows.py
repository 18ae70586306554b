"""The usage windows of a plan: how much of them is used, and when they begin again. Pure.

They come in headers (`x-codex-primary-used-percent`) and in an event of a stream (`codex.rate_limits`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from portal.lib.json import Json, object_of, text_of

HEADERS: Final = "x-codex-"
EVENT: Final = "codex.rate_limits"
_WINDOW: Final = re.compile(r"x-codex-(primary|secondary)-(used-percent|window-minutes|reset-at|reset-after-seconds)")
_MOST_NAME: Final = 60
_MOST_VALUE: Final = 200
_MOST: Final = 40  # headers that are passed on
_LABELS: Final = {300: "5h", 10_080: "weekly"}


def headers_to_pass(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those headers of an answer that tell of its windows, for the client of the person whose plan it is."""
    found = [
        (name, value)
        for name, value in headers
        if name.startswith(HEADERS) and len(name) <= _MOST_NAME and len(value) <= _MOST_VALUE and value.isprintable()
    ]
    return found[:_MOST]


def windows_of_headers(headers: Mapping[str, str], now: float) -> Json:
    """What headers say. Empty: nothing. `now`: seconds since 1970."""
    read: dict[str, dict[str, float]] = {}
    for name, value in headers.items():
        match = _WINDOW.fullmatch(name.lower())
        number = _number(value)
        if match is not None and number is not None:
            read.setdefault(match[1], {})[match[2]] = number
    found = {
        name: window
        for name, values in read.items()
        if (
            window := _window(
                values.get("used-percent"),
                values.get("window-minutes"),
                values.get("reset-at"),
                values.get("reset-after-seconds"),
                now,
            )
        )
    }
    return _told(found, headers.get("x-codex-plan-type", ""), now)


def windows_of_event(event: Json, now: float) -> Json:
    """What an event of a stream says. Empty: nothing. `now`: seconds since 1970."""
    limits = object_of(event, "rate_limits")
    found: dict[str, Json] = {}
    for name in ("primary", "secondary"):
        one = object_of(limits, name) or object_of(limits, f"{name}_window")
        minutes = _number(one.get("window_minutes"))
        if minutes is None and (seconds := _number(one.get("limit_window_seconds"))) is not None:
            minutes = seconds / 60
        used, after = _number(one.get("used_percent")), _number(one.get("reset_after_seconds"))
        if window := _window(used, minutes, _number(one.get("reset_at")), after, now):
            found[name] = window
    return _told(found, text_of(event, "plan_type"), now)


def _told(windows: Mapping[str, Json], plan: str, now: float) -> Json:
    if not windows:
        return {}
    found: Json = {**windows, "at": int(now)}
    if plan and len(plan) <= _MOST_NAME and plan.isascii() and plan.isprintable():
        found["plan"] = plan
    return found


def _window(
    used: float | None, minutes: float | None, reset_at: float | None, after: float | None, now: float
) -> Json | None:
    if used is None:
        return None
    found: Json = {"used_percent": round(min(max(used, 0.0), 100.0), 1)}
    if minutes is not None and 0 < minutes < 1_000_000:
        found["minutes"] = int(minutes)
        found["label"] = _LABELS.get(int(minutes), f"{int(minutes)} min")
    moment = reset_at if reset_at else (now + after if after is not None else None)
    if moment is not None and 0 < moment < 1e11:
        found["resets_at"] = int(moment)
    return found


def _number(value: object) -> float | None:
    """A finite number, also as a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
