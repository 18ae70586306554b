"""Stands between a coding agent and the portal, and writes down what both say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import ClientSession, ClientTimeout, web

_OWN: Final = {"host", "content-length", "transfer-encoding", "connection"}  # of each connection


@dataclass
class Exchange:
    method: str
    path: str  # with its query
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: str = ""

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body) if self.body else {}
        return found


class Proxy:
    """Listens on a port of its own; `exchanges` has what went through."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.exchanges: list[Exchange] = []
        self.port = 0

    async def start(self) -> None:
        self._client = ClientSession(timeout=ClientTimeout(total=600), auto_decompress=False)
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, handler_cancellation=True)  # who leaves is gone for the portal, too
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        body = await request.read()
        one = Exchange(request.method, request.path_qs, headers, body)
        self.exchanges.append(one)
        skipped = ("user-agent", "accept", "accept-encoding")
        async with self._client.request(
            request.method,
            self.target + request.path_qs,
            data=body,
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=skipped,
        ) as answer:
            one.status, one.answer_headers = answer.status, dict(answer.headers)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _OWN}
            out = web.StreamResponse(status=answer.status, headers=kept)
            await out.prepare(request)
            found = b""
            try:
                async for piece in answer.content.iter_any():
                    found += piece
                    await out.write(piece)
            finally:
                one.answer = found.decode("utf-8", "replace")
            await out.write_eof()
        return out
