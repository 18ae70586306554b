"""Requests without a client: batches and responses in the background go through the same pipeline as everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from django.http.response import HttpResponseBase

from relay.errors import InternalError, RelayError
from relay.gateway.exchange import Exchange, Message
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller

logger: Final = logging.getLogger(__name__)
Work = Callable[[Exchange], Awaitable[HttpResponseBase]]


class BackgroundRequest(Exchange):
    """An exchange whose body is given, and whose answer nobody waits for on a connection."""

    __slots__ = ("_body",)

    def __init__(self, caller: Caller, body: bytes) -> None:
        super().__init__({"headers": []}, _nobody, _nowhere, "")
        self.caller = caller
        self._body = body
        self.body_read = True

    async def read_body(self, limit: int) -> bytes:
        return self._body

    def listen(self) -> None:
        """There is no client that could leave."""


async def _nobody() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def _nowhere(_: Message) -> None:
    return


async def carry_out(run: Runtime, background: BackgroundRequest, work: Work) -> tuple[int, bytes, RelayError | None]:
    """Status and body of the answer, and the error, if it is one. Raises CancelledError when it is ended with the process."""
    background.task = asyncio.current_task()
    run.watchdog.add(background)
    try:
        response = await work(background)
        body: bytes = response.body if isinstance(response, Answer) else getattr(response, "content", b"")
        return response.status_code, body, None
    except RelayError as error:
        return error.wire_status, error.body(), error
    except asyncio.CancelledError:
        raise
    except Exception:
        logger.exception("an errand failed", extra={"request_id": background.request_id})
        fault = InternalError()
        return fault.wire_status, fault.body(), fault
    finally:
        run.watchdog.remove(background)
