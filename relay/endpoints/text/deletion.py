"""Deletes responses of /v1/responses, and what is stored in their way: here, at upstreams, and while it still runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import httpx

from portal.lib.json import Json
from relay.errors import ObjectNotFound
from relay.gateway.exchange.unstored import may_run
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Keys, Routes
from relay.storage import responses as stored_responses
from relay.usage.running import live_workers

logger: Final = logging.getLogger(__name__)
_DELETE_SECONDS: Final = 10.0
Delete = Callable[[int, str], stored_responses.StoredTurn | None]  # by a user's id, and its own
_ANSWER_SECONDS: Final = 1.0  # that other workers may take to say that one runs a response, beside looks at the feed
_WRITE_SECONDS: Final = 0.05  # between looks whether one that has just ended is stored
_WRITES: Final = 40


def response_not_found(response_id: str) -> ObjectNotFound:
    return ObjectNotFound(
        f"There is no response “{response_id[:80]}” of your account, or it is no longer kept.", param="response_id"
    )


async def delete_response(run: Runtime, caller: Caller, response_id: str) -> Json:
    """Delete a response, here and at an upstream that stores it. One that is streamed is not stored when it ends.

    Raises ObjectNotFound, RelayUnavailable.
    """
    if not await delete_stored(run, caller.user_id, response_id, stored_responses.delete_response):
        raise response_not_found(response_id)
    return {"id": response_id, "object": "response", "deleted": True}


async def delete_stored(run: Runtime, user: int, response_id: str, deleted: Delete, api: str = "responses") -> bool:
    """Delete what `deleted` deletes, here and at its upstream, or keep it from being stored while it is streamed.

    Returns whether there was such a thing. `api`: of its upstream. Raises RelayUnavailable.
    """
    forgotten = await snapshot_cache.in_thread(deleted, user, response_id)
    if forgotten is None and not await _delete_running(run, user, response_id):
        for _ in range(_WRITES):  # it may have ended meanwhile
            forgotten = await snapshot_cache.in_thread(deleted, user, response_id)
            if forgotten is not None or not run.unstored.runs(user, response_id):
                break
            await asyncio.sleep(_WRITE_SECONDS)
        if forgotten is None:
            return False
    if forgotten is not None and forgotten.upstream_id:
        run.watchdog.work(delete_upstream(run, forgotten, api))
    return True


async def _delete_running(run: Runtime, user: int, response_id: str) -> bool:
    """Whether a response runs, on any worker, and will not be stored. Raises RelayUnavailable."""
    if run.unstored.delete(user, response_id):
        return True
    if run.unstored.runs(user, response_id) or not may_run(response_id, run.config.total_timeout):
        return False
    if not await snapshot_cache.in_thread(_others_work):
        return False
    seconds = _ANSWER_SECONDS + 2 * run.config.feed_poll_seconds
    return await run.unstored.delete_elsewhere(user, response_id, seconds)


def _others_work() -> bool:
    return len(live_workers()) > 1


async def delete_upstream(run: Runtime, forgotten: stored_responses.StoredTurn, api: str = "responses") -> None:
    """Delete what an upstream stores, in this API. If that fails, it expires there on its own."""
    for model in snapshot_cache.snapshot.models.values():
        route = Routes.of(model.routes).through(forgotten.channel_id or 0)
        if route is None or api not in route.channel.urls or route.channel.refusal:
            continue
        channel, number = route.channel, Keys.number_of(route.channel, forgotten.key_id or 0)
        if number is None or not (key := channel.keys[number]).usable:
            continue
        url = httpx.URL(f"{channel.urls[api]}/{quote(forgotten.upstream_id, safe='')}")
        request = httpx.Request(
            "DELETE", url, extensions={"timeout": {"connect": channel.timeouts.connect}, "headers": key.headers}
        )
        try:
            async with asyncio.timeout(_DELETE_SECONDS):
                answer = await run.transport(channel.provider, channel.proxy).handle_async_request(request)
                await answer.aclose()
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            logger.warning("the upstream could not be asked to delete a response: %s", type(error).__name__)
        return
