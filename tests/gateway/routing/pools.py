"""Pools of many channels and keys, as the snapshot has them."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import Any, Self

from relay.gateway.snapshot.routes import Keys, Routes
from relay.gateway.snapshot.views import KeyView
from tests.gateway.routing.routes import channel


class Calls:
    """Counts the functions that are called, in Python and in C: the price of work that nobody's load changes."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_raised: object) -> None:
        sys.setprofile(None)

    def _note(self, _frame: object, event: str, _arg: object) -> None:
        self.count += event in {"call", "c_call"}


@cache
def pool(channels: int, keys: int = 1, weights: tuple[int, ...] = (1,), **more: Any) -> Routes:
    """Channels from 1 on, whose weights take turns; the keys of channel n are n * 20,000 and on, theirs as well."""
    found = []
    for number in range(1, channels + 1):
        route = channel(number, weight=weights[number % len(weights)], **more)
        own = [KeyView(number * 20_000 + index, weights[index % len(weights)], {}) for index in range(keys)]
        found.append(replace(route, channel=replace(route.channel, keys=Keys.made(own))))
    routes = Routes(found)
    routes.prepare()
    return routes
