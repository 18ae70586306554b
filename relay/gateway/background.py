"""Requests without a client connection: batches and background responses, through the same pipeline as all others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from django.http.response import HttpResponseBase

from portal import limits
from relay.errors import InternalError, RelayError, RequestTooLarge
from relay.gateway.exchange.exchange import Exchange, Message
from relay.gateway.exchange.interrupts import Interrupt, ended_error
from relay.gateway.limits.memory import HeldBytes
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller

logger: Final = logging.getLogger(__name__)
BackgroundWork = Callable[[Exchange], Awaitable[HttpResponseBase]]


class BackgroundRequest(Exchange):
    """An exchange with a given body and without a client connection."""

    __slots__ = ("_body",)

    def __init__(self, caller: Caller, body: bytes) -> None:
        super().__init__({"headers": []}, _never_receive, _discard, "")
        self.caller = caller
        self._body = body
        self.body_read = True

    @property
    def keeps_answer(self) -> bool:
        return self.ended_by is not Interrupt.CANCELLED

    async def read_body(self, limit: int) -> bytes:
        """The body. Raises RequestTooLarge, and RelayUnavailable when memory is short."""
        if len(self._body) > limit:
            raise RequestTooLarge.over(limit)
        self.hold_body()
        return self._body

    def hold_body(self, before: Exchange | None = None) -> None:
        """Count the body as long as the request runs. Raises RelayUnavailable when memory is short.

        Small bodies count as more than they have: no connection bounds the number of these requests.
        `before`: the request that brought the body, and has counted it until now.
        """
        if before is not None and before.held.give_back in before.at_end:
            self.held, before.held = before.held, HeldBytes()
            before.at_end.remove(self.held.give_back)
            self.at_end.append(self.held.give_back)
        missing = max(len(self._body), limits.UNCOUNTED_BYTES) - self.held.size
        if missing > 0:
            self.hold(missing)

    def listen(self, on_leave: Callable[[Exchange], None]) -> None:
        """Does nothing: there is no client that could disconnect."""


def _ended(background: BackgroundRequest) -> tuple[int, bytes, RelayError] | None:
    """The answer of a request that was ended as if its client had left."""
    error = ended_error(background.ended_by) if background.ended_by is not None else None
    return (error.http_status, _body(background, error), error) if error is not None else None


def _body(background: BackgroundRequest, error: RelayError) -> bytes:
    return background.error_shape.body(error, background.request_id)


async def _never_receive() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def _discard(_: Message) -> None:
    return


async def run_in_background(
    run: Runtime, background: BackgroundRequest, work: BackgroundWork
) -> tuple[int, bytes, RelayError | None]:
    """Run a request; returns the status and body of its answer, and the error, if any.

    A refusal is recorded by the caller, with `run.refusals`, unless it makes the request again.

    Raises CancelledError when the process stops.
    """
    background.task = asyncio.current_task()
    run.watchdog.add(background)
    try:
        response = await work(background)
        if (ended := _ended(background)) is not None:
            return ended
        body: bytes = response.body if isinstance(response, Answer) else getattr(response, "content", b"")
        return response.status_code, body, None
    except RelayError as error:
        return error.http_status, _body(background, error), error
    except asyncio.CancelledError:
        if (ended := _ended(background)) is None:
            raise
        if background.task is not None and background.interrupted is not None:
            background.task.uncancel()
        return ended
    except Exception:
        logger.exception("a background request failed", extra={"request_id": background.request_id})
        fault = InternalError()
        return fault.http_status, _body(background, fault), fault
    finally:
        run.watchdog.remove(background)
