"""Waiting for what goes on when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from functools import partial


def follower(future: asyncio.Future[None]) -> asyncio.Future[None]:
    """A future that is done when another one is, and can be cancelled without it. It has no result and no error.

    As `asyncio.shield`, which takes five times as long.
    """
    found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if future.done():
        found.set_result(None)
    else:
        future.add_done_callback(partial(_end, found))
    return found


def _end(follower: asyncio.Future[None], _: asyncio.Future[None]) -> None:
    if not follower.done():
        follower.set_result(None)
