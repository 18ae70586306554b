"""Name resolution with the SSRF guard: only permitted addresses are returned."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
from aiohttp.abc import AbstractResolver, ResolveResult

from portal import limits
from portal.lib import net
from portal.lib.net import Allowance

# Of their own, since a name server that hangs would use up those that others wait for, such as for files.
_threads: Final = ThreadPoolExecutor(16, "airelays-names")
_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


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
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(limits.NAME_SECONDS):
                found = await asyncio.get_running_loop().run_in_executor(_threads, look_up, host, port, family)
        except TimeoutError as error:
            # `socket.gaierror` would be an error of the name; a name server may answer others, or later.
            raise OSError(f"{host} was not resolved within {limits.NAME_SECONDS} seconds") from error
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
        """Does nothing: the threads belong to the process."""


def look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """The addresses of a host, as aiohttp wants them. Raises OSError."""
    found = []
    for kind, _, proto, _, address in socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    ):
        numeric, _ = socket.getnameinfo(address, _NUMERIC)  # with the scope of a link-local address
        flags = socket.AddressInfo(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
        found.append(ResolveResult(hostname=host, host=numeric, port=port, family=kind, proto=proto, flags=flags))
    return found
