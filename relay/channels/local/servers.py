"""Servers of models on this machine: Ollama, LM Studio, llama.cpp and vLLM, at the ports that they have by themselves.

Only loopback is asked, only at these ports, and with nothing but GET. What a server is, its own answers say: its list
of models, and one more address that no other of them has in this form.

Source: the API references of the four, and answers of llama.cpp's server, read in November 2026.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from asgiref.sync import async_to_sync

from portal.lib.json import decode_object
from portal.services.outside import NotAnswering, waiting_for

PORTS: Final = (11434, 1234, 8080, 8081, 8000)
_HOST: Final = "127.0.0.1"
_SECONDS: Final = 0.5  # for one answer: a server on this machine that is well has no reason to take longer
_ALL_SECONDS: Final = 2.0
_KEPT_SECONDS: Final = 30.0  # for which a page believes what was found
_MOST_BYTES: Final = 2 << 20  # of an answer
_MOST_MODELS: Final = 500
_LONGEST_NAME: Final = 120


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that answers at a port of this machine."""

    provider: str  # the key of its vendor
    port: int
    models: tuple[tuple[str, str], ...]  # names to offer, and those that it knows them by

    @property
    def base_url(self) -> str:
        return f"http://{_HOST}:{self.port}/v1"

    @property
    def allowance(self) -> str:
        """Its entry in the list of addresses that channels may use."""
        return f"{_HOST}:{self.port}"


_lock: Final = threading.Lock()
_found: tuple[float, frozenset[int], tuple[LocalServer, ...]] = (0.0, frozenset(), ())


def local_servers(own_ports: Collection[int], fresh: bool = False) -> tuple[LocalServer, ...]:
    """The servers with at least one model. `own_ports`: of this portal, which are not asked. Synchronous.

    Pages may call it at each load: what was found is believed for half a minute, unless `fresh` is wanted.
    """
    global _found
    own = frozenset(own_ports)
    at, asked, servers = _found
    if not fresh and asked == own and time.monotonic() - at < _KEPT_SECONDS and at:
        return servers
    with _lock:
        try:
            with waiting_for("servers on this machine", _ALL_SECONDS):
                servers = async_to_sync(_look)([port for port in PORTS if port not in own])
        except NotAnswering:
            servers = ()  # believed as long: else each page waits for it
        _found = (time.monotonic(), own, servers)
    return servers


async def _look(ports: Collection[int]) -> tuple[LocalServer, ...]:
    found = await asyncio.gather(*(_look_at(port) for port in ports))
    return tuple(server for server in found if server is not None)


async def _look_at(port: int) -> LocalServer | None:
    try:
        async with (
            asyncio.timeout(_ALL_SECONDS),
            httpx.AsyncClient(
                base_url=f"http://{_HOST}:{port}",
                timeout=_SECONDS,
                trust_env=False,
                follow_redirects=False,
                headers={"accept-encoding": "identity"},
            ) as client,
        ):
            return await _identify(client, port)
    except TimeoutError:
        return None


async def _identify(client: httpx.AsyncClient, port: int) -> LocalServer | None:
    listed = _entries(await _get(client, "/v1/models"), "data")
    if listed is None:
        return None
    for provider, owner, verify in _KINDS:
        if owner is None or (listed and all(entry.get("owned_by") == owner for entry in listed)):
            names = await verify(client, listed)
            if names is not None:
                pairs = _pairs(names)
                return LocalServer(provider, port, pairs) if pairs else None
    return None


Entries = list[Mapping[str, Any]]


async def _llamacpp(client: httpx.AsyncClient, listed: Entries) -> list[str] | None:
    """Its /props tell how it generates; several models at once have a router instead, which says so."""
    props = await _get(client, "/props") or {}
    known = isinstance(props.get("default_generation_settings"), dict) and "build_info" in props
    return _names(listed, "id") if known or props.get("role") == "router" else None


async def _vllm(client: httpx.AsyncClient, listed: Entries) -> list[str] | None:
    version = await _get(client, "/version") or {}
    return _names(listed, "id") if isinstance(version.get("version"), str) else None


async def _ollama(client: httpx.AsyncClient, listed: Entries) -> list[str] | None:
    version = await _get(client, "/api/version") or {}
    tags = _entries(await _get(client, "/api/tags"), "models")
    if not isinstance(version.get("version"), str) or tags is None:
        return None
    return _names(tags, "name") if all("digest" in entry for entry in tags) else None


async def _lmstudio(client: httpx.AsyncClient, listed: Entries) -> list[str] | None:
    """Its own API lists models with their state, or, since 0.4, with the instances that are loaded."""
    entries = _entries(await _get(client, "/api/v0/models"), "data")
    if entries and all("state" in entry and "type" in entry for entry in entries):
        return _names(entries, "id")
    entries = _entries(await _get(client, "/api/v1/models"), "models")
    if entries and all("loaded_instances" in entry and "key" in entry for entry in entries):
        return _names(entries, "key")
    return None


Verify = Callable[[httpx.AsyncClient, Entries], Awaitable[list[str] | None]]
# Vendors, whom their servers name as owner of all models (None: any), and how they are verified.
_KINDS: Final[tuple[tuple[str, str | None, Verify], ...]] = (
    ("llamacpp", "llamacpp", _llamacpp),
    ("vllm", "vllm", _vllm),
    ("ollama", None, _ollama),
    ("lmstudio", None, _lmstudio),
)


async def _get(client: httpx.AsyncClient, path: str) -> dict[str, Any] | None:
    """The JSON object at a path; None for everything else."""
    try:
        async with client.stream("GET", path) as answer:
            if answer.status_code != 200 or answer.headers.get("content-encoding", "identity") != "identity":
                return None
            body = b""
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > _MOST_BYTES:
                    return None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return decode_object(body)


def _entries(answer: Mapping[str, Any] | None, member: str) -> Entries | None:
    """The objects of a list in an answer; None when it has no such list."""
    found = (answer or {}).get(member)
    if not isinstance(found, list):
        return None
    entries: Entries = [entry for entry in found if isinstance(entry, dict)]
    return entries[:_MOST_MODELS]


def _names(entries: Entries, member: str) -> list[str]:
    return [name for entry in entries if isinstance(name := entry.get(member), str)]


def _pairs(names: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The names to offer: without the folder and the ending of a file, which llama.cpp has for a name."""
    found: dict[str, str] = {}
    for name in names:
        public = name
        if name.endswith(".gguf"):
            public = name.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf")
        if public and len(name) <= _LONGEST_NAME and name.isprintable() and not any(map(str.isspace, public)):
            found.setdefault(public, name)
    return tuple((public, "" if public == name else name) for public, name in found.items())
