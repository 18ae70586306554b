"""The usage record of one request, collected while it runs and passed to `relay.billing.ledger.writer` at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final

from msgspec.structs import replace

from portal.lib.json import encode
from portal.lib.redaction.redact import redact
from relay.billing.estimate import estimate_text
from relay.billing.ledger.pending import UsageRow
from relay.billing.ledger.rows import RowWrite
from relay.billing.prices import Price
from relay.billing.unreported import may_lack, with_unreported
from relay.errors import RelayUnavailable
from relay.gateway.charging.believed import Expected, believed
from relay.gateway.charging.charge import RequestCharge
from relay.gateway.charging.reservations import Reservations
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import CLIENT_GONE, COMPLETED, INTERNAL, SHUTDOWN, Outcome, says_something, told
from relay.gateway.routing.conversation_turn import ConversationTurn
from relay.gateway.snapshot.routes import Candidate
from relay.protocols.usage import NO_USAGE, Delivered, Report, Usage
from relay.providers.classify import Failure

_RESENT: Final = "sent twice, since the kept connection broke before an answer"
_WAITS: Final = 3  # for a record that is being committed
_UNCONFIRMED: Final = (
    "The portal's database has not confirmed this request. If it was recorded, it is charged: look at your usage "
    "before you send it again."
)
MAX_NAMES: Final = 2048  # characters of a list of parameters


def bounded_names(names: list[str]) -> list[str]:
    """Return the names of parameters, which may be a client's, each once and printable, as many as a record keeps."""
    found: list[str] = []
    room = MAX_NAMES
    for name in dict.fromkeys("".join(filter(str.isprintable, name)) for name in names):
        room -= len(name) + 1
        if room < 0:
            return [*found, "..."]
        found.append(name)
    return found


class Record:
    """The usage record of one request. `submit` may be called more than once; only the first call counts."""

    __slots__ = (
        "_reservations",
        "_used",
        "attempts",
        "candidate",
        "charge",
        "delivered",
        "dropped",
        "endpoint",
        "exchange",
        "first_token_ms",
        "model",
        "prompt_tokens",
        "request",
        "resent",
        "sent",
        "streamed",
        "submitted",
        "turn",
        "units",
        "unseen",
        "upstream_model",
    )

    def __init__(
        self, exchange: Exchange, reservations: Reservations, request: GatewayRequest, model: str, charge: RequestCharge
    ) -> None:
        """`model`: the public name of the model that serves the request."""
        self.exchange, self._reservations, self.charge = exchange, reservations, charge
        self.endpoint, self.model, self.streamed, self.prompt_tokens = (
            request.endpoint,
            model,
            request.stream,
            request.prompt_tokens,
        )
        self.request = request
        self.units = request.units  # used if the upstream reports none
        self.candidate: Candidate | None = None
        self.upstream_model = ""
        self.attempts: list[dict[str, object]] = []
        self.first_token_ms: int | None = None
        self.sent = False  # the upstream may bill what it was sent
        self.resent = False  # it was sent twice in one attempt, since a kept connection broke
        self.submitted = False
        self._used = NO_USAGE, "none"  # and its source, once it is submitted
        self.turn: ConversationTurn | None = None  # of the conversation that it belongs to
        self.delivered: Callable[[], float] | None = None  # estimated tokens that a running stream has delivered
        # Estimated tokens that the model has spent and not shown; None: no upstream was asked.
        self.unseen: Callable[[], float] | None = None
        self.dropped: list[str] = []  # parameters that were not sent

    def progress(self) -> dict[str, object]:
        """The current state of the request, for the admin's page of running requests.

        JSON values; seconds since 1970.
        """
        exchange, candidate, caller = self.exchange, self.candidate, self.exchange.caller
        return {
            "id": exchange.request_id,
            "since": exchange.wall,
            "user": caller.user_id if caller else None,
            "token": caller.token_id if caller else None,
            "model": self.model,
            "channel": candidate.route.channel.name if candidate else "",
            "key": candidate.key.name if candidate else "",
            "streamed": self.streamed,
            "attempts": len(self.attempts),
            "input": self.prompt_tokens,
            "output": round(self.delivered()) if self.delivered is not None else 0,
            "first_token_ms": self.first_token_ms,
            "phase": exchange.waiting.name.lower() if exchange.waiting else "sending",
        }

    def begin_attempt(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.upstream_model = candidate.route.upstream_name
        self.sent, self.resent, self.unseen = False, False, None
        self.dropped = []
        if self.exchange.trace is not None:
            self.exchange.trace.begin_attempt(candidate)
        if self.request.added:  # by overrides of some channel, perhaps not of this one
            self.prompt_tokens = self.request.prompt_tokens - self.request.added

    def end_attempt(self, candidate: Candidate, began: float, failure: Failure | None = None) -> None:
        entry: dict[str, object] = {
            "channel": candidate.route.channel.id,
            "key": candidate.key.id,
            "ms": round((time.monotonic() - began) * 1000),
            "outcome": failure.kind.word if failure else "ok",
        }
        if failure:
            entry["status"], entry["detail"] = failure.status, failure.detail
            if self.exchange.trace is not None:
                self.exchange.trace.fail_attempt(failure.kind.word, failure.status)
            if failure.wait is not None:
                entry["wait"] = round(failure.wait, 1)
        if self.resent:
            entry["detail"] = self._with_resent(failure.detail if failure else "")
        if self.turn is not None and self.turn.elsewhere is not None:
            pair, word, before = self.turn.elsewhere
            entry["instead_of"], entry["because"] = pair, word
            if before:
                entry["cooling"] = True
        self.attempts.append(entry)

    def set_apart(self, exchange: Exchange, charge: RequestCharge, request: GatewayRequest) -> Record:
        """What was asked so far, as the record of a request of its own; this one goes on with another charge."""
        first = copy(self)
        first.exchange, first.attempts = exchange, [*self.attempts]
        self.charge, self.request = charge, request
        self.sent, self.first_token_ms, self.unseen = False, None, None
        return first

    def _with_resent(self, detail: str) -> str:
        return "; ".join(filter(None, (_RESENT if self.resent else "", detail)))

    def mark_first_token(self) -> None:
        self.first_token_ms = round((time.monotonic() - self.exchange.started) * 1000)

    def submit(self, outcome: Outcome, rows: Sequence[RowWrite] = (), wait: bool = True) -> asyncio.Future[None] | None:
        """Pass the record to the writer. Where no usage is reported, it is estimated from what reached the client.

        `rows` are written in the same commit. The future completes when everything is on disk; None if `wait` is False.
        """
        if self.submitted:
            return None
        self.submitted = self.exchange.recorded = True
        if self.exchange.left and outcome.reason == COMPLETED:
            # It is charged, and found again: by its id, or in its conversation.
            rows = rows if self.exchange.keeps_answer else ()
            status = outcome.status if self.streamed else 499
            outcome = replace(outcome, reason=CLIENT_GONE, status=status, answered=True)
        if outcome.detail and self.attempts:
            self.attempts[-1]["detail"] = self._with_resent(outcome.detail)
        if self.dropped and self.attempts:
            self.attempts[-1]["ignored"] = bounded_names(self.dropped)
        usage, source = self._used = self._usage(outcome)
        exchange, charge = self.exchange, self.charge
        exchange.tokens_used = usage.input + usage.output
        if self.turn is not None and self.candidate is not None and outcome.reason in {COMPLETED, CLIENT_GONE}:
            self.turn.answered(self.candidate.pair, usage, exchange.wall)
        unfinished = outcome.reason != COMPLETED and not outcome.answered
        if outcome.reason == SHUTDOWN and self.candidate is not None:  # no fault of the user's: what was made at most
            unfinished = self.candidate.route.channel.disconnect_policy != "reserved"
        charge.finish(self.candidate, usage, source, unfinished, outcome.reason == INTERNAL)
        if outcome.reason == CLIENT_GONE and exchange.ended_by is not None:
            outcome = told(outcome, exchange.ended_by, self.streamed)
        row = self._row(outcome, usage, source)
        if exchange.trace is not None:
            exchange.trace.record(row)
        return self._reservations.submit(row, charge.grant, charge.cost, exchange, wait, rows)

    async def commit(self, outcome: Outcome, rows: Sequence[RowWrite] = ()) -> None:
        """Submit the record of an answer that is given once it is on disk, and wait for that.

        Raises RelayUnavailable when that takes too long. Then nothing is charged or stored: the client is told to try
        again. While the database is committing it, so that it may be on disk, it is waited for some more, and in the
        end the client is told what is known. A line of a batch is recorded later all the same.
        """
        future = self.submit(outcome, rows)
        for _ in range(_WAITS):
            try:
                await self.exchange.committed(future)
                return
            except RelayUnavailable as unavailable:
                if not self.exchange.withdraws_record or (future is not None and future.done()):
                    raise
                if self._withdraw(unavailable):
                    raise
        unconfirmed = RelayUnavailable(_UNCONFIRMED)
        unconfirmed.retry = False
        raise unconfirmed

    def _withdraw(self, unavailable: RelayUnavailable) -> bool:
        """Have it recorded that the answer was not given, at the portal's expense; returns False if it is too late."""
        cost, billing = self.charge.cost, self.charge.billing
        self.charge.cost, self.charge.billing = 0, "free" if cost else billing
        outcome = Outcome(INTERNAL, unavailable.http_status, error=unavailable)
        if self._reservations.withdraw(self._row(outcome, *self._used)):
            return True
        self.charge.cost, self.charge.billing = cost, billing
        return False

    def _usage(self, outcome: Outcome) -> tuple[Usage, str]:
        """The usage of the request and its source: reported, estimated or none."""
        delivered = outcome.delivered
        if outcome.usage is not None:
            price = self.charge.sold_at(self.candidate, outcome.usage.input or self.prompt_tokens)
            usage, true = believed(outcome.usage, delivered, self._expected(price))
            if not true or usage.report.beside:
                self._keep_report(usage.report, true)
            if self.units.milliseconds or may_lack(price, usage):
                usage, complete = with_unreported(price, usage, self._measured(delivered, price))
                true = true and complete
            return usage, "reported" if true else "estimated"
        if self.sent and (outcome.error is None or outcome.at_work or says_something(delivered)):
            return self._measured(delivered, self.charge.sold_at(self.candidate, self.prompt_tokens)), "estimated"
        return NO_USAGE, "none"

    def _measured(self, delivered: Delivered | None, price: Price) -> Usage:
        """What went through, by the portal's own count.

        An answer of which nothing was seen was asked for all the same: the upstream makes all of it.
        """
        units, request, prompt = self.units, self.request, self.prompt_tokens
        parts = request.input_parts() if request.input_parts is not None and price.prices_parts else units
        media = delivered.media() if delivered is not None else NO_USAGE
        if media.input:  # of audio that could not be measured before
            prompt, parts = media.input, media
        output, audio = media.output, media.audio_output
        if not (media.output or media.images):
            output = estimate_text(self._with_unseen(delivered.units() if delivered is not None else 0.0))
            audio = min(output, estimate_text(delivered.audio())) if delivered is not None else 0
        if request.exact and not output and (delivered is None or not delivered.finished):
            output = units.output or (request.output_limit or 0) * request.choices
            audio = min(output, units.audio_output)
        return Usage(
            prompt,
            audio_input=min(prompt, parts.audio_input),
            image_input=min(prompt, parts.image_input),
            output=output,
            audio_output=audio,
            images=media.images or units.images,
            milliseconds=media.milliseconds or units.milliseconds,
            characters=units.characters,
            searches=media.searches,
        )

    def _with_unseen(self, tokens: float) -> float:
        """The estimated output, with what was not shown, as far as the answer may have been so long."""
        unseen = self.unseen() if self.unseen is not None else 0.0
        if not unseen:
            return tokens
        limits = [limit for limit in self._limits() if limit is not None]
        return max(tokens, min(tokens + unseen, *limits)) if limits else tokens + unseen

    def _expected(self, price: Price) -> Expected:
        """What is known of the usage without the upstream, of an answer at this price."""
        request, model = self.request, self.charge.model
        limit, longest = self._limits()
        return Expected(
            prompt=self.prompt_tokens,
            output_limit=limit,
            longest=longest,
            window=model.context_window,
            reasoning=self.candidate.route.channel.reasoning if self.candidate is not None else "inside",
            most_input=request.most_input,
            least_input=request.least_input,
            output=request.output_limit * request.choices
            if request.exact and request.output_limit is not None
            else None,
            milliseconds=self.units.milliseconds,
            audio_between=request.audio_between,
            input_priced=price.dearest_input > 0,
            output_priced=price.dearest_output > 0,
            by_units=price.has_units,
        )

    def _limits(self) -> tuple[int | None, int | None]:
        """The tokens of all answers together: that the upstream was told, and that the model cannot exceed."""
        request, clamp = self.request, self.charge.clamp
        limit = None if request.exact else request.output_limit  # of others it is an estimate, and not sent
        if clamp is not None:
            limit = clamp if limit is None else min(limit, clamp)
        longest = self.charge.model.max_output_tokens
        return (
            limit * request.choices if limit is not None else None,
            longest * request.choices if longest is not None else None,
        )

    def _keep_report(self, report: Report, true: bool) -> None:
        """Keep a usage object that was not taken at its word with the attempt that it came from, for staff."""
        if not self.attempts:
            return
        last = dict(self.attempts[-1])
        if not true:
            last["believed"] = False
        if report.raw:
            text = "".join(filter(str.isprintable, report.raw.decode(errors="replace")))
            last["usage"] = redact(text)
        self.attempts[-1] = last

    def _row(self, outcome: Outcome, usage: Usage, source: str) -> UsageRow:
        error = outcome.error
        exchange, candidate, caller = self.exchange, self.candidate, self.exchange.caller
        return (
            exchange.request_id,
            exchange.client.request_id,
            exchange.wall,
            caller.user_id if caller else None,
            caller.token_id if caller else None,
            candidate.route.channel.id if candidate else None,
            (candidate.key.id or None) if candidate else None,
            self.model[:120],
            self.upstream_model[:160],
            self.endpoint,
            self.streamed,
            outcome.status,
            outcome.reason,
            (error.public_code or "")[:64] if error else "",
            error.message[:300] if error else "",
            usage.input,
            usage.cached_input,
            usage.cache_write,
            usage.output,
            usage.reasoning,
            usage.audio_input,
            usage.audio_output,
            usage.image_input,
            usage.images,
            usage.milliseconds,
            usage.characters,
            source,
            round((time.monotonic() - exchange.started) * 1000),
            self.first_token_ms,
            len(self.attempts),
            encode(self.attempts).decode(),
            exchange.ip[:45],
            self.charge.price_id,
            self.charge.multiplier,
            self.charge.cost,
            0,
            self.charge.upstream_cost,
            self.charge.reserved,
            self.charge.payer,
            self.charge.billing,
            usage.cached_audio_input,
            usage.cache_write_1h,
            *exchange.client.session,
            exchange.client.app or None,
            self.turn.digest if self.turn is not None else None,
            usage.searches,
        )
