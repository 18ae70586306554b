"""The usage record of one request, while it grows. Becomes a row of `relay.billing.writer` once."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from relay.billing.count import estimate_prompt, estimate_text
from relay.billing.writer import Row, writer
from relay.errors import NoAvailableChannel, RelayError, RequestEnded, UpstreamRefused, UpstreamTimeout, UpstreamTruncated
from relay.gateway.exchange import Exchange
from relay.gateway.failure import Failure
from relay.gateway.pick import Candidate
from relay.wire.usage import Usage

_encode: Final = msgspec.json.Encoder().encode
_KEEP_PROMPT: Final = 64 * 1024

# Values of relay.models.usage.EndReason, as plain strings: an enum member would be converted again for every row.
COMPLETED, CLIENT_GONE, ENDED, SHUTDOWN, INTERNAL = "completed", "client_gone", "ended", "shutdown", "internal_error"


def end_reason(error: RelayError) -> str:
    """How a request ended that was answered with this error."""
    if isinstance(error, UpstreamRefused):
        return "client_error"
    if isinstance(error, NoAvailableChannel):
        return "no_channel"
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, RequestEnded):
        return ENDED
    return "truncated" if isinstance(error, UpstreamTruncated) else "upstream_error"


class Record:
    """What will be written. `submit` may be called more than once; only the first time counts."""

    __slots__ = (
        "_prompt", "_prompt_tokens", "attempts", "candidate", "endpoint", "exchange", "first_token_ms", "model", "sent", "streamed",
        "submitted", "upstream_model",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, endpoint: str, model: str, streamed: bool, prompt: bytes) -> None:
        self.exchange, self.endpoint, self.model, self.streamed = exchange, endpoint, model, streamed
        self.candidate: Candidate | None = None
        self.upstream_model = ""
        self.attempts: list[dict[str, object]] = []
        self.first_token_ms: int | None = None
        self.sent = False
        self.submitted = False
        # A prompt of megabytes is counted now rather than held for as long as its stream lasts.
        small = len(prompt) <= _KEEP_PROMPT
        self._prompt = prompt if small else b""
        self._prompt_tokens = 0 if small else estimate_prompt(prompt)

    def begin_attempt(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.upstream_model = candidate.route.upstream_name
        self.sent = False

    def end_attempt(self, candidate: Candidate, began: float, failure: Failure | None = None) -> None:
        entry: dict[str, object] = {
            "channel": candidate.route.channel.id,
            "key": candidate.key.id,
            "ms": round((time.monotonic() - began) * 1000),
            "outcome": failure.kind.word if failure else "ok",
        }
        if failure:
            entry["status"], entry["detail"] = failure.status, failure.detail
        self.attempts.append(entry)

    def mark_first_token(self) -> None:
        self.first_token_ms = round((time.monotonic() - self.exchange.started) * 1000)

    def submit(
        self,
        reason: str,
        status: int,
        usage: Usage | None = None,
        error: RelayError | None = None,
        detail: str = "",
        text_units: float = 0.0,
        wait: bool = True,
    ) -> asyncio.Future[None] | None:
        """Hand the record to the writer. Without `usage`, what reached the client is counted here and marked as estimated.

        The error's public message goes into the record, which its user sees; `detail`, which may name an upstream, into the list of
        attempts, which only staff see.
        """
        if self.submitted:
            return None
        self.submitted = True
        if detail and self.attempts:
            self.attempts[-1]["detail"] = detail
        source = "reported"
        if usage is None:
            if self.sent and (error is None or text_units):
                tokens_in = self._prompt_tokens or estimate_prompt(self._prompt)
                usage, source = Usage(input=tokens_in, output=estimate_text(text_units)), "estimated"
            else:
                usage, source = Usage(), "none"
        return writer.submit(self._row(reason, status, usage, source, error), wait)

    def _row(self, reason: str, status: int, usage: Usage, source: str, error: RelayError | None) -> Row:
        exchange, candidate, caller = self.exchange, self.candidate, self.exchange.caller
        return (
            exchange.request_id,
            exchange.client_id,
            exchange.wall,
            caller.user_id if caller else None,
            caller.token_id if caller else None,
            candidate.route.channel.id if candidate else None,
            (candidate.key.id or None) if candidate else None,
            self.model[:120],
            self.upstream_model[:160],
            self.endpoint,
            self.streamed,
            status,
            reason,
            (error.wire_code or "")[:64] if error else "",
            error.message[:300] if error else "",
            usage.input,
            usage.cached_input,
            usage.cache_write,
            usage.output,
            usage.reasoning,
            usage.audio_input,
            usage.audio_output,
            source,
            round((time.monotonic() - exchange.started) * 1000),
            self.first_token_ms,
            len(self.attempts),
            _encode(self.attempts).decode(),
            exchange.ip[:45],
        )
