"""The trace of a request: what the gateway tells it. `portal.tracing` makes them, where they are on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from relay.billing.ledger.pending import UsageRow
from relay.errors import RelayError
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate


class Trace(Protocol):
    """The span of a request, with one below it for each attempt at a channel. No method raises or waits."""

    status: int  # of the answer, 0: there is none
    trace_id: str

    @property
    def headers(self) -> Mapping[str, str]:
        """For the request to an upstream, so that its spans come below that of the attempt; empty: it is not told."""

    def begin_attempt(self, candidate: Candidate) -> None:
        """A channel is about to be asked. The attempt lasts until the next one, or the end of the request."""

    def fail_attempt(self, kind: str, status: int) -> None:
        """`kind`: the word of a failure class; `status`: of the upstream's answer, 0: there was none."""

    def record(self, row: UsageRow) -> None:
        """The request has this usage record."""

    def end(self, request_id: str, caller: Caller | None, refusal: RelayError | None) -> None:
        """The request has ended, in any way."""


class _Tracing:
    """How traces begin in this process."""

    begin: Callable[[Mapping[bytes, bytes], str, str], Trace] | None = None  # by headers, method, path; None: off


tracing = _Tracing()
