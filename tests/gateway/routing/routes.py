"""Routes, choices and failures for the tests of routing, in the fewest words."""

from __future__ import annotations

from typing import Any

import httpx

from relay.errors import UpstreamFailed
from relay.gateway.routing.live import Live
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.snapshot.views import ChannelView, KeyView, Route, Timeouts
from relay.protocols.errors import UpstreamError
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass as C

PREFERENCE = RoutePreference(7, user=1)


NOW = 1_800_000_000.0


def channel(number: int, priority: int = 0, weight: int = 1, keys: int = 1, refusal: str = "", **more: Any) -> Route:
    views = tuple(KeyView(number * 10 + index, 1, {}) for index in range(keys))
    urls, times = {"chat.completions": httpx.URL("https://x.example.com")}, Timeouts(1, 1, 1, 1)
    return Route(
        ChannelView(
            number,
            str(number),
            "openai",
            urls,
            views,
            priority,
            weight,
            None,
            "",
            True,
            True,
            times,
            refusal,
            **more,
        ),
        "m",
    )


def choose(
    routes: list[Route],
    live: Live | None = None,
    preference: RoutePreference = PREFERENCE,
    number: float = 0.0,
    now: float = NOW,
) -> int | None:
    found = pick(routes, set(), live or Live(), preference, now, lambda: number)
    return found.route.channel.id if found else None


_STATUS = {C.RATE: 429, C.QUOTA_WINDOW: 429, C.OVERLOAD: 503, C.KEY_DEAD: 401, C.BILLING: 402, C.CONFIG: 404}


def failure(kind: C, wait: float | None = None, reserved: bool = False, status: int = 0, **more: Any) -> Failure:
    """`reserved`: by a code of the vendor's."""
    found = Failure(kind, UpstreamFailed("x"), status or _STATUS.get(kind, 500), "because", wait, **more)
    found.reserved, found.said = reserved, UpstreamError("x", "", None, None)
    return found
