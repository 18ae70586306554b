"""What limits an account, in the headers of answers from which Codex takes it for `/status` and its warnings. Pure.

Source: openai/codex, `codex-rs/codex-api/src/rate_limits.rs` and `codex-rs/tui/src/status/rate_limits.rs`,
November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from portal.lib.money import plain

# By the length of a window Codex names it: "24h", "weekly", "monthly". One of 31 days would be "annual" there.
_MINUTES: Final = {"day": 1440, "week": 10_080, "month": 43_200}
_PLACES: Final = ("primary", "secondary")


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """A budget of a calendar day, week or month. Amounts in nano-USD."""

    period: str  # day, week or month
    limit: int
    used: int
    ends_at: int  # seconds since 1970

    @property
    def used_percent(self) -> float:
        """From 0 to 100; 100 also where the limit is nothing."""
        return min(100.0, max(0, self.used) * 100 / self.limit) if self.limit > 0 else 100.0


def is_codex(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request's headers are those of Codex, on the command line or in an editor."""
    agent = headers.get(b"user-agent", b"")
    if agent[:5].lower() == b"codex":
        return True
    return b"originator" in headers and headers[b"originator"][:5].lower() == b"codex"


def limit_headers(windows: Iterable[BudgetWindow], left: int | None) -> list[tuple[bytes, bytes]]:
    """The headers: of the two fullest windows, the shorter first, and of the money that is left beside them.

    `left`: nano-USD, None where nothing but the windows limits. Codex calls it credits; one is a USD.
    """
    fullest = sorted(windows, key=lambda window: window.used_percent, reverse=True)[: len(_PLACES)]
    found: list[tuple[bytes, bytes]] = []
    for place, window in zip(_PLACES, sorted(fullest, key=lambda window: _MINUTES[window.period]), strict=False):
        for name, value in (
            ("used-percent", f"{window.used_percent:.1f}"),
            ("window-minutes", str(_MINUTES[window.period])),
            ("reset-at", str(window.ends_at)),
        ):
            found.append((f"x-codex-{place}-{name}".encode(), value.encode()))
    if left is not None:
        found += [
            (b"x-codex-credits-has-credits", b"true" if left > 0 else b"false"),
            (b"x-codex-credits-unlimited", b"false"),
            (b"x-codex-credits-balance", plain(max(0, left)).encode()),
        ]
    return found
