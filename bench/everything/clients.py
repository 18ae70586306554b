"""The clients of the run: requests of every kind at a steady rate, of many users, some of whom leave early.

Each request has a tag of its own, which its text and `X-Client-Request-Id` carry. Nothing is tried twice.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

HANG_SECONDS: Final = 60.0  # after which a request counts as hanging: longer than all of the portal's time limits here
DRAIN_SECONDS: Final = 320.0  # until every client has ended, by its own time limits
_LEAVES: Final = 0.08  # share of the clients


@dataclass
class Seen:
    """What a client saw of one request."""

    tag: str
    kind: str
    token: int  # the number of the user
    at: float  # seconds since 1970
    seconds: float = 0.0
    first: float | None = None  # seconds until the first part of the answer
    how: str = ""  # whole, error event, status, broken (the connection), left, hung, wrong, failed, cancelled
    status: int = 0
    code: str = ""  # of an error
    message: str = ""
    retry_after: str = ""
    request_id: str = ""
    got: int = 0  # characters of text, or bytes of sound
    turns: list[float] = field(default_factory=list)  # seconds of each response of a realtime session
    done: int = 0  # responses of a realtime session of which `response.done` arrived
    phase: str = ""
    lines: list[str] = field(default_factory=list)  # tags of a batch's lines

    @property
    def ended(self) -> float:
        return self.at + self.seconds


def error_of(body: bytes) -> tuple[str, str]:
    """The code and the message of an error object, or what there is in its place."""
    try:
        error = json.loads(body)["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "no error object", body[:200].decode(errors="replace")


@dataclass(frozen=True)
class Kind:
    """A kind of request: how one is made, requests a second, and how many may run at once."""

    name: str
    one: Callable[[Clients, str], Awaitable[None]]
    rate: float
    most: int


class Clients:
    """All clients, with what they have seen."""

    def __init__(self, base_url: str, tokens: list[str], http: aiohttp.ClientSession) -> None:
        self.base_url, self.tokens, self.http = base_url, tokens, http
        self.seen: list[Seen] = []
        self.skipped: Counter[str] = Counter()  # requests that were not sent, since too many were running
        self.phase = ""
        self.random = random.Random(11)  # noqa: S311  # not for secrets

    def new(self, kind: str) -> Seen:
        number = self.random.randrange(len(self.tokens))
        return Seen(f"{kind}-{secrets.token_hex(6)}", kind, number, time.time(), phase=self.phase)

    def headers(self, seen: Seen) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[seen.token]}", "x-client-request-id": seen.tag}

    def text(self, seen: Seen) -> str:
        return f"Request #{seen.tag}: tell me something. " + "Please. " * self.random.randrange(40)

    def end(self, seen: Seen, how: str) -> None:
        if not seen.how:
            seen.how = how
        seen.seconds = time.time() - seen.at
        self.seen.append(seen)

    async def drive(self, kind: Kind, seconds: float, load: float) -> None:
        """Send requests of a kind at `load` times its rate for so long, and wait for their ends."""
        running: set[asyncio.Task[None]] = set()
        until, pause = time.monotonic() + seconds, 1 / (kind.rate * load)
        due = time.monotonic() + self.random.random() * pause
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += self.random.uniform(0.5, 1.5) * pause
            if len(running) >= kind.most:
                self.skipped[kind.name] += 1
                continue
            task = asyncio.ensure_future(kind.one(self, kind.name))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            _, hung = await asyncio.wait(running, timeout=DRAIN_SECONDS)
            for task in hung:
                task.cancel()
                self.seen.append(Seen("", kind.name, 0, time.time(), how="hung", message="its client never ended"))

    async def post(
        self, seen: Seen, path: str, read: Callable[[aiohttp.ClientResponse, Seen], Awaitable[None]], **body: Any
    ) -> None:
        """Send one request. `read` takes what a 200 says."""
        leaves = self.random.uniform(0.02, 0.7) if self.random.random() < _LEAVES else 0.0
        try:
            async with asyncio.timeout(leaves or HANG_SECONDS):
                url = f"{self.base_url}/v1/{path}"
                async with self.http.post(url, headers=self.headers(seen), **body) as answer:
                    seen.status, seen.request_id = answer.status, answer.headers.get("x-request-id", "")
                    if answer.status == 200:
                        await read(answer, seen)
                    else:
                        seen.code, seen.message = error_of(await answer.read())
                        seen.retry_after = answer.headers.get("retry-after", "")
                        seen.how = "status"
        except TimeoutError:
            seen.how = "left" if leaves else "hung"
        except (aiohttp.ClientError, ConnectionError) as error:
            seen.how, seen.message = "broken", f"{type(error).__name__}: {error}"[:200]
        self.end(seen, "whole")


def text_of_response(response: Mapping[str, Any]) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


async def get_json(clients: Clients, token: int, path: str) -> dict[str, Any]:
    """What a path says; empty while the portal cannot say. Not counted: it is asked again."""
    headers = {"authorization": f"Bearer {clients.tokens[token]}"}
    try:
        async with (
            asyncio.timeout(HANG_SECONDS),
            clients.http.get(f"{clients.base_url}/v1/{path}", headers=headers) as answer,
        ):
            found: dict[str, Any] = json.loads(await answer.read()) if answer.status == 200 else {}
            return found
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        return {}
