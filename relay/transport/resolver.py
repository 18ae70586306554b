"""Name resolution with the SSRF guard in it: only permitted addresses come out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult

from portal.lib import net
from portal.lib.net import Allowance

if TYPE_CHECKING:
    pass


class NotPermitted(OSError):
    """Raised inside the resolver, which may raise OSError only."""


class ConnectRefused(httpx.ConnectError):
    """The SSRF guard refused the address that a host name stands for."""


class GuardedResolver(AbstractResolver):
    """Resolves names and lets only permitted addresses through, so that a name cannot be pointed elsewhere after it was saved."""

    def __init__(self, allowed: Callable[[], Sequence[Allowance]]) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._allowed = allowed

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = self._allowed()
        permitted = []
        for entry in found:
            address = net.parse_address(entry["host"])
            try:
                if address is not None:
                    net.permit(host, address, port, allowed)
                    permitted.append(entry)
            except net.Refused:
                continue
        if not permitted:
            raise NotPermitted(f"{host} stands for an address that channels may not use")
        return permitted

    async def close(self) -> None:
        await self._inner.close()
