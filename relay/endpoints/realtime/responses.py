"""The responses of one realtime session: what each may spend, and its usage record.

Money is held for each before the upstream is asked, and for one more that it may begin by itself when it hears the end
of a turn. What arrives is metered, so that no response uses much more than is held for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final

from portal.lib.json import Json
from relay.endpoints.realtime.connection import ENDPOINT, check_realtime_channel
from relay.endpoints.realtime.models import SessionModels
from relay.endpoints.realtime.response import RealtimeResponse
from relay.endpoints.realtime.transcriptions import Transcriptions, Turn, database_timeout
from relay.errors import InvalidRequest, RateLimited, RelayError, UpstreamFailed
from relay.gateway.attempt import Attempt
from relay.gateway.charging.charge import RequestCharge, short_error, spent_error
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import COMPLETED, end_reason
from relay.gateway.record import Record
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.protocols.realtime.conversation import LEAST_OUTPUT, Conversation, Delta
from relay.protocols.realtime.events import RealtimeUsage
from relay.protocols.realtime.speech import is_commit
from relay.protocols.usage import ADDED_TO_CHAT

logger: Final = logging.getLogger(__name__)
_MOST_AT_ONCE: Final = 32  # responses of one session
_MOST_DONE: Final = 256  # of one session that are remembered: a repeated end is one of the last
_UNFINISHED: Final = frozenset(("failed", "cancelled"))  # of a response whose model may not even have read its input


class RealtimeResponses:
    """All responses of one session, by the ids of the upstream."""

    def __init__(
        self, exchange: Exchange, caller: Caller, run: Runtime, attempt: Attempt, models: SessionModels
    ) -> None:
        self._exchange, self._caller, self._run, self._attempt = exchange, caller, run, attempt
        self._model, self._upstream_model = attempt.record.model, attempt.record.upstream_model
        self._candidate = attempt.record.candidate
        self.conversation = Conversation()
        self.transcriptions = Transcriptions(exchange, caller, run, models, self._lend, attempt.record.attempts)
        self.conversation.listen(self.transcriptions.speech.buffer)
        attempt.record.request.most_input = self._most_input
        # Held for a response that has not been asked for: the first one's money was held with the connection.
        self._next: RealtimeResponse | None = RealtimeResponse(attempt.record, exchange)
        self._holding = asyncio.Lock()  # so that who asks waits for it, in place of another one
        self._asked: deque[RealtimeResponse] = deque()  # that the upstream was asked for, and has not begun
        self._running: dict[str, RealtimeResponse] = {}
        self.limits = exchange.reply_headers  # of the newest response, with what is left of the limits
        self.ended: RelayError | None = None  # why the session ends, while what was being made is read on
        self._done: deque[str] = deque(maxlen=_MOST_DONE)  # ids of responses that have been charged
        self._tells_begin = False  # the upstream does
        self.over = False  # the connection has ended: nothing is held for it any more

    @property
    def busy(self) -> bool:
        """Whether the upstream owes the usage of a response or a transcription."""
        return self.responding or self.transcriptions.busy

    @property
    def responding(self) -> bool:
        """Whether the upstream owes a response."""
        return bool(self._running or self._asked)

    def running(self) -> tuple[tuple[str, str], ...]:
        """The running responses: the upstream's ids, and those of their records."""
        return tuple((name, response.exchange.request_id) for name, response in self._running.items())

    @property
    def units(self) -> float:
        """The estimated tokens that the running responses have delivered."""
        return sum(response.units() for response in self._running.values())

    @property
    def running_input(self) -> int:
        """The tokens that the running responses probably read, each."""
        found = (response.probable_input or response.record.prompt_tokens for response in self._running.values())
        return max(found, default=0)

    async def resume(self, ids: Sequence[str], input_tokens: int, units: float) -> None:
        """Take over responses that a worker had begun which is gone. `units`: estimated tokens of all of them."""
        for response_id in ids:
            response = await self._begin(response_id)
            response.resume(input_tokens, units / len(ids))

    def running_ids(self) -> list[str]:
        return [*self._running, *([""] if self._asked else [])]

    # -- what happens ------------------------------------------------------------------------------------------------

    async def ask(self) -> bool:
        """The client asks for a response: hold its money. Raises RelayError.

        Returns False when the connection has ended meanwhile.
        """
        if len(self._asked) + len(self._running) >= _MOST_AT_ONCE:
            raise RateLimited(f"A session may have {_MOST_AT_ONCE} responses at once. Wait for one to end.")
        async with self._holding:
            response = await self._take()
            try:
                if not await response.hold_input(self._input_tokens(), self.conversation.input_parts):
                    raise short_error()
            except BaseException:
                self._drop(response)
                raise
            if self.over:
                self._drop(response)
                return False
            self._asked.append(response)
        return True

    def refused(self) -> None:
        """The upstream refused an event, which may have been the newest that asked for a response."""
        if self._asked:
            response = self._asked.pop()
            if self._next is None:
                self._next = response
            else:
                self._drop(response)

    async def begin(self, response_id: str, told: bool = True) -> RealtimeResponse:
        """The upstream begins a response, asked or not. Raises InsufficientQuota when its input cannot be paid.

        `told`: it says so; otherwise a part of it has arrived.
        """
        self._tells_begin = self._tells_begin or told
        response = await self._begin(response_id)
        if response.refusal is not None:
            raise response.refusal
        if not await response.hold_input(self._input_tokens(), self.conversation.input_parts):
            raise spent_error()
        return response

    async def _begin(self, response_id: str) -> RealtimeResponse:
        if response_id in self._running:  # it is told twice
            return self._running[response_id]
        if self._asked:
            response = self._asked.popleft()
        else:
            self.conversation.buffer.answers()
            try:
                async with self._holding:
                    response = await self._take()
            except RelayError as error:  # it is charged all the same, as far as there is money
                logger.info("a realtime response began that nothing is held for: %s", error)
                response = await self._make(held=False)
                response.refusal = error
        response.heard = self.conversation.unreported
        if not self.conversation.unbounded:
            response.probable_input = self._within_window(self.conversation.probable_input)
        response.record.sent = True
        self.limits = response.exchange.reply_headers
        self._running[response_id] = response
        self._exchange.progress = partial(self._progress, response.record)
        return response

    async def count(self, delta: Delta, size: int) -> None:
        """Count a part of a response before it is sent. Raises InsufficientQuota when it is not paid for."""
        if self.ended is not None:
            return  # it is sent to nobody; the upstream has been told to stop, and is read on for its report
        response = self._running.get(delta.response_id or "") or next(reversed(self._running.values()), None)
        if response is None:
            response = await self.begin(delta.response_id or "", told=False)
        units, audio = self.conversation.delta_units(delta)
        await response.count(units, audio, size)

    async def end(self, used: RealtimeUsage, error: RelayError | None = None) -> None:
        """Record the usage of a response, and wait until it is on disk. Raises RelayUnavailable.

        `error`: why it failed.
        """
        usage = used.usage
        name = used.response_id
        if name not in self._running:
            if self._told_again(name):
                return  # it has been charged
            if not name and self._running:
                name = next(iter(self._running))
            elif name and "" in self._running:  # it began without its id
                name = ""
            else:
                await self._begin(name)
        response = self._running.pop(name)
        self._done += {name, used.response_id}
        if used.status == "failed" and error is None:
            error = UpstreamFailed("The upstream failed on this response. Ask for it again.")
        if used.status != "failed":
            error = None
        if usage is None and used.status in _UNFINISHED and not response.units():
            response.record.sent = False  # nothing was made
        answered = error is None and self.ended is not None
        error = error or self.ended
        future = response.submit(COMPLETED if error is None else end_reason(error), usage, error, answered=answered)
        if usage is not None:  # as far as it was believed
            audio = usage.audio_input + usage.audio_output
            self.conversation.answered(response.exchange.tokens_used or 0, response.heard, audio)
        await self._exchange.committed(future)

    def _told_again(self, response_id: str) -> bool:
        """Whether an end is one that has been charged: by its id; without one, when nothing has begun since."""
        if response_id:
            return response_id in self._done
        return bool(self._done) and not self._running and (self._tells_begin or not self._asked)

    async def hold_next(self) -> None:
        """Check that the next response is permitted, and hold its money. Raises RelayError."""
        async with self._holding:
            if self._next is None and not self.responding:
                response = await self._make()
                if self.over:
                    self._drop(response)
                    return
                self._next = response
                self._exchange.progress = partial(self._progress, response.record)
            if self._next is not None and not await self._next.hold_least():
                raise short_error()

    async def take_speech(self, seconds: float = 0.0, event: Json | None = None) -> None:
        """Hold the money for speech that is about to be sent, or committed. Raises RelayError."""
        speech = self.transcriptions.speech
        if seconds:
            speech.appended(seconds)
        elif event is not None:
            speech.sent(event)
        try:
            await self.transcriptions.hold()
        except RelayError:
            if event is not None and is_commit(event):
                speech.refused()
            raise

    def close(self, reason: str, error: RelayError | None = None) -> None:
        """The connection has ended. What runs is estimated by what arrived; money that was not used is given back.

        Only the first call counts.
        """
        if self.over:
            return
        self.over = True
        for response in self._running.values():
            response.exchange.ended_by = self._exchange.ended_by
            response.submit(reason, None, error, wait=False)
        self.transcriptions.close(reason)
        waiting = [*self._asked, *([self._next] if self._next is not None else [])]
        for response in waiting:
            self._drop(response, reason, error)
        self._exchange.tokens_used = (self._exchange.tokens_used or 0) + self.transcriptions.tokens
        self._running.clear()
        self._asked.clear()
        self._next = None

    # -- money and records -------------------------------------------------------------------------------------------

    def _drop(self, response: RealtimeResponse, reason: str = COMPLETED, error: RelayError | None = None) -> None:
        response.record.sent = False
        response.submit(reason, None, error, wait=False)

    def _lend(self, amount: int, last: bool) -> None:
        """Free up to an amount of what is held. `last`: also what the next response needs to begin."""
        if self._next is not None:
            amount -= self._next.give_up(amount, 0 if last else -1)
        for response in (*self._asked, *self._running.values()):
            if amount > 0:
                amount -= response.give_up(amount)

    async def _take(self) -> RealtimeResponse:
        response, self._next = self._next, None
        return response if response is not None else await self._make()

    def _input_tokens(self) -> int:
        tokens = self.conversation.input_tokens
        if self.conversation.unbounded:
            tokens = max(tokens, self._window() or ADDED_TO_CHAT)
        return self._within_window(tokens)

    def _window(self) -> int | None:
        model = snapshot_cache.snapshot.models.get(self._model)
        return model.context_window if model is not None else None

    def _within_window(self, tokens: int) -> int:
        window = self._window()
        return min(tokens, window) if window else tokens

    def _most_input(self) -> int | None:
        conversation = self.conversation
        if conversation.unbounded or conversation.buffer.direct:
            return None
        return self._within_window(conversation.most_input) + ADDED_TO_CHAT

    async def _make(self, held: bool = True) -> RealtimeResponse:
        """A response with a record of its own. `held`: its money is held. Raises RelayError."""
        run, snapshot, caller = self._run, snapshot_cache.snapshot, self._caller
        turn = self._turn()
        model = snapshot.models.get(self._model)
        if model is None or (held and not caller.may_use(model, turn.wall)):
            raise InvalidRequest(
                "This model is not available to your token any more.", code="model_not_allowed", param="model"
            )
        request = GatewayRequest(
            ENDPOINT,
            self._model,
            partial(check_realtime_channel, run),
            stream=True,
            prompt_tokens=self._input_tokens(),
            output_limit=None,
            most_input=self._most_input,
            dearer_input=lambda: self.conversation.input_parts,
            least_output=LEAST_OUTPUT,
        )
        terms = snapshot.terms(caller)
        charge = RequestCharge(run.reservations, caller, model, terms.multiplier, run.fallback_price, turn.wall)
        if held:
            # The connection keeps its slot.
            checks = [check for check in (*terms.checks, *model.checks) if check.kind != "slots"]
            if checks:
                await run.admission.admit(turn, checks, request.prompt_tokens)
            async with database_timeout():
                await charge.reserve(turn, request)
        else:
            charge.grant = await run.reservations.reserve(turn, caller, 0, 0)
        return self._response(turn, request, self._model, charge)

    def _turn(self) -> Turn:
        turn = Turn(self._caller, b"")
        turn.ip, turn.client = self._exchange.ip, self._exchange.client
        return turn

    def _response(
        self, turn: Exchange, request: GatewayRequest, model: str, charge: RequestCharge, upstream_model: str = ""
    ) -> RealtimeResponse:
        record = Record(turn, self._run.reservations, request, model, charge)
        record.candidate, record.upstream_model = self._candidate, upstream_model or self._upstream_model
        record.attempts = [*self._attempt.record.attempts]
        return RealtimeResponse(record, turn)

    def _progress(self, record: Record) -> dict[str, object]:
        return {**record.progress(), "id": self._exchange.request_id}
