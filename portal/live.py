"""Live pages over websockets: requests as they finish, one's own for users, everyone's for staff who may see usage."""

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

_POLL: Final = 1.0  # seconds; one indexed query, works over any number of workers without a broker
_CHANNELS_EVERY: Final = 2.0
_LOOK_EVERY: Final = 8  # rounds; workers write their lists down for 15 seconds after each look


class UsageConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"rows": [...]}` with the newest usage records after the connection was made."""

    task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not user.is_active:
            await self.close(code=4401)  # type: ignore[no-untyped-call]
            return
        last = await database_sync_to_async(newest_id)()
        await self.accept()  # type: ignore[no-untyped-call]
        everyone = self.scope["url_route"]["kwargs"]["whose"] == "all" and user.is_staff and await user.ahas_perm("relay.view_usagerecord")
        self.task = asyncio.ensure_future(self._follow(last, user.pk, everyone))

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _follow(self, last: int, user_id: int, everyone: bool) -> None:
        reader = reader_of(self.scope)
        while True:
            await asyncio.sleep(_POLL)
            rows = await database_sync_to_async(reader.render)(rows_after, last, user_id, everyone)
            if rows is None:
                await self.close(code=4401)  # type: ignore[no-untyped-call]
                return
            if rows:
                last = rows[-1]["id"]
                await self.send_json({"rows": rows})  # type: ignore[no-untyped-call]


class RunningConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"workers": [...], "rows": [...]}` once a second, to those who may end requests."""

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
            found = await database_sync_to_async(reader.render)(running_now, user_id, rounds % _LOOK_EVERY == 0)
            if found is None:
                await self.close(code=4403)  # type: ignore[no-untyped-call]
                return
            await self.send_json({"workers": found.workers, "rows": found.rows})  # type: ignore[no-untyped-call]
            rounds += 1
            await asyncio.sleep(_POLL)


class ChannelsConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{"channels": [...]}` when the state of one has changed, to those who may see channels."""

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
            await asyncio.sleep(_CHANNELS_EVERY)


live_router = URLRouter(
    [
        path("live/usage/<slug:whose>", UsageConsumer.as_asgi()),  # type: ignore[no-untyped-call]
        path("live/running", RunningConsumer.as_asgi()),  # type: ignore[no-untyped-call]
        path("live/channels", ChannelsConsumer.as_asgi()),  # type: ignore[no-untyped-call]
    ]
)
