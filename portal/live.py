"""Websockets of pages that update live: finished requests, running requests, states of channels."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from django.urls import path

from accounts.preferences import reader_of
from portal.admin.now import channels_now, may_end, running_now
from portal.pages.usage import newest_id, rows_after

_POLL_SECONDS: Final = 1.0  # costs one indexed query, and works with any number of workers without a broker
_CHANNELS_POLL_SECONDS: Final = 2.0
_REQUEST_STATUS_EVERY: Final = 8  # rounds; workers publish their running requests for 15 seconds after a request


class UsageConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"rows": [...]}` with usage records as they are written, from the time of connecting on.

    Users receive their own records; staff with the permission to view usage receive all on `/live/usage/all`.
    """

    task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not user.is_active:
            await self.close(code=4401)  # type: ignore[no-untyped-call]
            return
        last = await database_sync_to_async(newest_id)()
        await self.accept()  # type: ignore[no-untyped-call]
        everyone = (
            self.scope["url_route"]["kwargs"]["whose"] == "all"
            and user.is_staff
            and await user.ahas_perm("relay.view_usagerecord")
        )
        self.task = asyncio.ensure_future(self._follow(last, user.pk, everyone))

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _follow(self, last: int, user_id: int, everyone: bool) -> None:
        reader = reader_of(self.scope)
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            rows = await database_sync_to_async(reader.render)(rows_after, last, user_id, everyone)
            if rows is None:
                await self.close(code=4401)  # type: ignore[no-untyped-call]
                return
            if rows:
                last = rows[-1]["id"]
                await self.send_json({"rows": rows})  # type: ignore[no-untyped-call]


class RunningConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"workers": [...], "rows": [...]}`, the running requests, once a second to staff who may end requests."""

    task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        user = self.scope.get("user")
        await self.accept()  # type: ignore[no-untyped-call]
        if user is None or not user.is_authenticated or not await database_sync_to_async(may_end)(user.pk):
            await self.close(code=4403)  # type: ignore[no-untyped-call]
            return
        self.task = asyncio.ensure_future(self._follow(user.pk))

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _follow(self, user_id: int) -> None:
        rounds = 0
        reader = reader_of(self.scope)
        while True:
            found = await database_sync_to_async(reader.render)(
                running_now, user_id, rounds % _REQUEST_STATUS_EVERY == 0
            )
            if found is None:
                await self.close(code=4403)  # type: ignore[no-untyped-call]
                return
            await self.send_json({"workers": found.workers, "rows": found.rows})  # type: ignore[no-untyped-call]
            rounds += 1
            await asyncio.sleep(_POLL_SECONDS)


class ChannelsConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"channels": [...]}` to staff who may view channels, at first and whenever a state has changed."""

    task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        user = self.scope.get("user")
        await self.accept()  # type: ignore[no-untyped-call]
        if user is None or not user.is_authenticated or await database_sync_to_async(channels_now)(user.pk) is None:
            await self.close(code=4403)  # type: ignore[no-untyped-call]
            return
        self.task = asyncio.ensure_future(self._follow(user.pk))

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _follow(self, user_id: int) -> None:
        before: list[dict[str, Any]] | None = None
        reader = reader_of(self.scope)
        while True:
            found = await database_sync_to_async(reader.render)(channels_now, user_id)
            if found is None:
                await self.close(code=4403)  # type: ignore[no-untyped-call]
                return
            if found != before:
                before = found
                await self.send_json({"channels": found})  # type: ignore[no-untyped-call]
            await asyncio.sleep(_CHANNELS_POLL_SECONDS)


live_router = URLRouter(
    [
        path("live/usage/<slug:whose>", UsageConsumer.as_asgi()),  # type: ignore[no-untyped-call]
        path("live/running", RunningConsumer.as_asgi()),  # type: ignore[no-untyped-call]
        path("live/channels", ChannelsConsumer.as_asgi()),  # type: ignore[no-untyped-call]
    ]
)
