"""Tells a caller what limits their own spending, in the headers of answers to clients that show it.

What is told was read at most a few seconds before. It is read beside a request, which never waits for it: what comes
after the head of its answer is told with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from relay.errors import RelayUnavailable
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.protocols.codex.limits import BudgetWindow, is_codex, limit_headers
from relay.usage.limits import SpendingLimit, spending_limits, tightest_budgets

_FRESH_SECONDS: Final = 5.0
_MOST_KNOWN: Final = 10_000  # tokens whose limits are kept
Headers = list[tuple[bytes, bytes]]


class OwnLimits:
    """What is known of the limits of tokens. Used on the event loop only."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._spawn = spawn
        self._known: dict[int, tuple[float, Headers]] = {}  # by token: when it was read, `time.monotonic()`
        self._waiting: dict[int, list[Exchange]] = {}  # by token, while its limits are read

    def tell(self, exchange: Exchange, caller: Caller) -> None:
        """Add the caller's limits to the answer's headers, now or when they have been read."""
        if not caller.limited or not is_codex(exchange.headers):
            return
        known = self._known.get(caller.token_id)
        if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS:
            exchange.reply_headers += known[1]
        elif caller.token_id in self._waiting:
            self._waiting[caller.token_id].append(exchange)
        else:
            self._waiting[caller.token_id] = [exchange]
            self._spawn(self._read(caller))

    async def _read(self, caller: Caller) -> None:
        try:
            at = time.monotonic()
            found = await snapshot_cache.in_thread(spending_limits, caller.user_id, caller.token_id, time.time())
            headers = headers_of(found)
            while len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[caller.token_id] = (at, headers)
            for exchange in self._waiting[caller.token_id]:
                exchange.reply_headers += headers
        except RelayUnavailable:
            pass  # logged; nothing is told
        finally:
            del self._waiting[caller.token_id]


def headers_of(limits: list[SpendingLimit]) -> Headers:
    """The headers for a caller with these limits."""
    windows = [
        BudgetWindow(period, line.limit or 0, line.used, int(line.ends_at.timestamp()))
        for period, line in tightest_budgets(limits).items()
        if line.ends_at is not None
    ]
    others = [line.unspent for line in limits if line.kind != "budget" and line.limit is not None]
    return limit_headers(windows, min(others, default=None))
