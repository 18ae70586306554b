"""Name resolution with the SSRF guard: only permitted addresses are returned."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult

from portal.lib import net
from portal.lib.net import Allowance


class NotPermitted(OSError):
    """No address of a host is permitted. An OSError, because aiohttp expects nothing else of a resolver."""


class ConnectRefused(httpx.ConnectError):
    """The SSRF guard refused the address of a host name."""


def permit_literal(host: str, port: int, allowed: Sequence[Allowance]) -> None:
    """Raise NotPermitted unless an address that a URL spells out may be connected to."""
    address = net.parse_address(host)
    try:
        if address is not None:
            net.permit(host, address, port, allowed)
            return
    except net.AddressRefused:
        pass
    raise NotPermitted(f"{host} is an address that channels may not use")


class GuardedResolver(AbstractResolver):
    """Resolves names to permitted addresses only, so that a saved name cannot be pointed at a forbidden one later."""

    def __init__(self, allowed: Callable[[], Sequence[Allowance]]) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = self._allowed()
        permitted = []
        for entry in found:
            address = net.parse_address(entry["host"])
            try:
                if address is not None:
                    net.permit(host, address, port, allowed)
                    permitted.append(entry)
            except net.AddressRefused:
                continue
        if not permitted:
            raise NotPermitted(f"{host} stands for an address that channels may not use")
        return permitted

    async def close(self) -> None:
        await self._inner.close()
