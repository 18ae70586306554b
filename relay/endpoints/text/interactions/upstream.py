"""Asks an upstream about an interaction that it keeps: how far it has come, or to end it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

import httpx

from portal import limits
from relay.gateway.attempt import Attempt
from relay.providers.credentials.contract import SIGNER
from relay.transport.resolver import ConnectRefused

logger: Final = logging.getLogger(__name__)
API: Final = "interactions"
REVISION: Final = b"api-revision"
_REVISION: Final = re.compile(rb"[\w.:-]{1,64}", re.ASCII)
_SECONDS: Final = 30.0  # that one question may take
_CANCEL_SECONDS: Final = 10.0


def api_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The headers of the API in a client's request, which are sent on: they say how interactions are written."""
    value = headers.get(REVISION, b"")
    return {REVISION.decode(): value.decode()} if _REVISION.fullmatch(value) else {}


async def ask_upstream(
    attempt: Attempt, upstream_id: str, client: Mapping[str, str], cancel: bool = False
) -> tuple[int, bytes]:
    """Fetch an interaction from the channel of an attempt, with its key; or cancel it.

    `client`: its headers of the API. Returns the status and the body of the answer; 0 when there was none.
    """
    channel, key = attempt.channel, attempt.candidate.key
    headers = {**key.headers, **client}
    if channel.overrides is not None and channel.overrides.change_headers:
        name = attempt.candidate.route.upstream_name
        headers = channel.overrides.headers(headers, API, attempt.record.model, name)
    method: Literal["GET", "POST"] = "POST" if cancel else "GET"
    base = channel.urls[API]
    path = f"{base.raw_path.decode().rstrip('/')}/{quote(upstream_id, safe='')}{'/cancel' if cancel else ''}"
    extensions = {"timeout": {"connect": channel.timeouts.connect}, "headers": headers, SIGNER: key.signer}
    request = httpx.Request(method, base.copy_with(raw_path=path.encode()), extensions=extensions)
    try:
        async with asyncio.timeout(_CANCEL_SECONDS if cancel else _SECONDS):
            transport = attempt.run.transport(channel.provider, channel.proxy)
            answer = await transport.handle_async_request(request)
            try:
                return answer.status_code, await _body(answer)
            finally:
                await answer.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, ConnectRefused, TimeoutError, OSError, ValueError) as error:
        logger.warning("the upstream of an interaction did not answer: %s", type(error).__name__)
        return 0, b""


async def _body(answer: httpx.Response) -> bytes:
    pieces, size = [], 0
    async for piece in answer.stream:  # type: ignore[union-attr]  # asynchronous: of this transport
        pieces.append(piece)
        size += len(piece)
        if size > limits.ANSWER_BYTES:
            raise ValueError("the interaction is larger than any answer may be")
    return b"".join(pieces)


async def cancel_upstream(attempt: Attempt, upstream_id: str, client: Mapping[str, str]) -> None:
    """Cancel an interaction at its upstream. If that fails, it runs there to its end."""
    await ask_upstream(attempt, upstream_id, client, cancel=True)
