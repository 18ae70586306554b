"""One request for an interaction, for the common text endpoint, and its answer: bytes pass through.

Only the ids of interactions are changed: one that is stored here has an id of the portal's own. It is continued where
its upstream keeps it, on the same channel and with the same key, by the upstream's id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, NoReturn

from portal.lib.json import Json, decode_object, encode, text_of
from relay.billing.estimate import PromptSize, estimate_contents, estimate_kinds
from relay.billing.ledger.rows import Moment, RowWrite, insert
from relay.endpoints.overrides import sent_fields
from relay.endpoints.room import user_room
from relay.endpoints.text.deletion import delete_upstream
from relay.endpoints.text.interactions.upstream import API
from relay.errors import UnsupportedEndpoint
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.unstored import RunningResponse
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import Pair
from relay.gateway.upstream import UpstreamAnswer
from relay.models import StoredResponse
from relay.protocols import contract
from relay.protocols.characters import read_for_storage
from relay.protocols.codec import EVENT_STREAM, BrokenOff
from relay.protocols.fields import Fields
from relay.protocols.interactions.events import COMPLETED, DONE, events_of, log_of
from relay.protocols.interactions.objects import InteractionAnswer, parse_interaction, with_members
from relay.protocols.interactions.request import InteractionRequest, Target
from relay.protocols.interactions.stream import InteractionStream
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.storage.apis.interactions import state_of
from relay.storage.responses import StoredTurn, is_upstream_id

UNSERVED: Final = (
    "No upstream of this model has the Interactions API. Use generateContent or another API, or another model."
)
_MOST_TOKENS: Final = 2_000_000  # that earlier turns are reckoned at, whatever an upstream reported
_LARGEST_LOG: Final = 1024 * 1024  # bytes of a stream's events that are stored beside the interaction


@dataclass(slots=True)
class InteractionTurn:
    """A request for an interaction."""

    parsed: InteractionRequest
    caller: Caller
    id: str
    previous: StoredTurn | None = None  # the interaction that it continues
    maker: Pair | None = None  # the channel and key that began the answer which it continues by a token
    lifetime: timedelta | None = None  # for which the interaction is stored; None: not at all
    in_background: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)  # of the client, which belong to the API
    running: RunningResponse | None = None  # its client may delete it before it ends; None: it cannot
    api: str = API
    stream_type: str = EVENT_STREAM
    demands_limit: bool = False
    choices: int = 1
    client_names: Mapping[str, str] = field(default_factory=dict)  # no request is converted
    parameters_renamed: bool = False
    unserved_message: str = UNSERVED
    left_out: list[str] = field(default_factory=list)
    unsealed: bool = False

    @property
    def fields(self) -> Fields:
        return self.parsed.fields

    @property
    def stream(self) -> bool:
        return self.parsed.stream and not self.in_background

    @property
    def output_limit(self) -> int | None:
        return self.parsed.output_limit

    @property
    def client(self) -> contract.Client:
        """No other API has interactions. Raises UnsupportedEndpoint."""
        raise UnsupportedEndpoint(UNSERVED, param="model")

    @property
    def stored(self) -> bool:
        """Whether the interaction is stored here."""
        return self.parsed.store and self.lifetime is not None

    @property
    def stored_at(self) -> Pair | None:
        """The channel and key whose upstream keeps the interaction that it continues."""
        found = self.previous
        return (found.channel_id or 0, found.key_id or 0) if found is not None else None

    @property
    def own_members(self) -> Json:
        """Members in which an upstream would write its own ids."""
        found: Json = {"id": self.id}
        if self.parsed.previous_id:
            found["previous_interaction_id"] = self.parsed.previous_id
        return found

    def size(self) -> PromptSize:
        """The estimated tokens of its prompt, with those of the interactions before it."""
        earlier = min(self.previous.tokens, _MOST_TOKENS) if self.previous is not None else 0
        return estimate_contents(self.parsed.own_text, self.parsed.files).plus(earlier, earlier)

    def media(self) -> Usage:
        """The estimated tokens of sound and pictures in its input."""
        return estimate_kinds(self.parsed.files)

    async def prepare(self, attempt: Attempt, native: bool) -> None:
        """Every channel is sent the same. Raises UnsupportedEndpoint for one that has denied the API meanwhile."""
        if not native:
            raise UnsupportedEndpoint(UNSERVED, param="model")

    def amend(self, attempt: Attempt, failure: Failure) -> bool:
        return False

    async def open(self, attempt: Attempt) -> OpenedInteraction:
        """Send the request to a channel that speaks the API. Raises Failure, Ended, CancelledError."""
        channel, record, parsed = attempt.channel, attempt.record, self.parsed
        fields, dropped = parameters.apply(channel.policy(API), parsed.fields, channel.strips_nulls)
        fields, _ = sent_fields(attempt, API, fields, dropped)
        record.dropped = [*self.left_out, *dropped]
        previous = self.previous.upstream_id if self.previous is not None else ""
        target = Target(attempt.candidate.route.upstream_name, self.lifetime is not None, record.charge.clamp, previous)
        try:
            upstream = await attempt.open(API, parsed.upstream_body(target, fields), headers=self.headers)
        except Failure as failure:
            self._hide_ids(failure)
            raise
        return OpenedInteraction(self, attempt, upstream)

    def _hide_ids(self, failure: Failure) -> None:
        """Let the client read its own id of the interaction that it continues, in what its upstream says."""
        theirs = self.previous.upstream_id if self.previous is not None else ""
        if theirs:
            error, own = failure.error, self.parsed.previous_id
            error.message = error.message.replace(theirs, own)
            error.verbatim = error.verbatim.replace(theirs.encode(), own.encode())

    def events_of(self, answer: Json) -> bytes:
        return b"".join(one.event for one in events_of(answer)) + DONE

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return ()

    def rows(self, attempt: Attempt, interaction: Json, log: Sequence[bytes], upstream_id: str) -> list[RowWrite]:
        """The row of a stored interaction, for the commit of the usage record."""
        channel, key = attempt.candidate.pair
        now = time.time()
        kept = bool(upstream_id) and is_upstream_id(upstream_id)
        unwanted = self.running is not None and not self.running.end()  # it was deleted meanwhile
        if unwanted and kept:
            gone = StoredTurn(self.id, channel, key, upstream_id, False, now, 0)
            attempt.run.watchdog.work(delete_upstream(attempt.run, gone, API))
        if unwanted or not self.stored or self.lifetime is None:
            return []
        events = log_of(log) if sum(map(len, log)) <= _LARGEST_LOG else b"[]"
        given, body = encode(self.parsed.input), encode({**interaction, **self.own_members})
        user_room.stored(self.caller.user_id, len(given) + len(body) + len(events))
        row = insert(
            StoredResponse,
            ("user_id", "response_id"),
            user_id=self.caller.user_id,
            response_id=self.id,
            request_id=attempt.exchange.request_id,
            model=self.parsed.model[:120],
            channel_id=channel,
            api_key_id=key or None,
            upstream_keeps=kept,
            upstream_id=upstream_id if kept else "",
            status=state_of(text_of(interaction, "status") or "completed"),
            previous_id=self.parsed.previous_id[:120],
            conversation_id="",
            input=given.decode(),
            output=events.decode(),
            body=body.decode(),
            owner="",
            created_at=Moment(now),
            expires_at=Moment(now + self.lifetime.total_seconds()),
        )
        return [replace(row, only_replaces=self.in_background)]


class OpenedInteraction:
    """An upstream's answer whose body has not been read."""

    def __init__(self, turn: InteractionTurn, attempt: Attempt, upstream: UpstreamAnswer) -> None:
        self.upstream, self.received = upstream, b""
        self._turn, self._attempt = turn, attempt
        self._codec: InteractionStream | None = None
        self._interaction: Json | None = None
        self._upstream_id = self._token = ""

    def codec(self) -> InteractionStream:
        self._codec = InteractionStream(own=self._turn.own_members, stored=self._turn.stored)
        return self._codec

    async def read(self) -> tuple[bytes, InteractionAnswer]:
        """The upstream's interaction, finished or not. Raises Failure, Ended, CancelledError."""
        text = await self.upstream.read_all()
        self.upstream.close()
        answer = parse_interaction(text)
        if answer is None:
            self._fail(text)
        if answer.error is not None:
            raise self._attempt.error_in_body(answer.error)
        return text, answer

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        text, answer = await self.read()
        if answer.running:  # it was not asked for one in the background
            self._fail(text)
        self._upstream_id = answer.id
        shown = with_members(text, self._turn.own_members)
        if b'"continuation_token"' in shown:
            self._token = text_of(decode_object(shown) or {}, "continuation_token")
        if self._turn.stored:
            self._interaction = read_for_storage(shown)
            if self._interaction is None:  # it would be charged and not found
                self._fail(text)
        return shown, answer.usage

    def _fail(self, text: bytes) -> NoReturn:
        raise self._attempt.unreadable_answer(text, "an interaction")

    def rows(self) -> Sequence[RowWrite]:
        codec = self._codec
        interaction = self._interaction if codec is None else codec.final
        if token := self._token if codec is None else codec.token:  # whoever began this answer can go on with it
            attempt = self._attempt
            attempt.run.continuity.remember_maker(self._turn.caller.user_id, token, attempt.candidate.pair)
        if interaction is None:
            return ()
        log, upstream_id = ((), self._upstream_id) if codec is None else (codec.log, codec.upstream_id)
        return self._turn.rows(self._attempt, interaction, log, upstream_id)

    def so_far(self) -> Json | None:
        return self._codec.so_far() if self._codec is not None and self._turn.stored else None

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        """An interaction that broke off: with what was passed on, and the reason. Its upstream cannot go on from it."""
        ended: Json = {**so_far, "status": end.status}
        if end.status == "failed":
            ended["errors"] = [{"code": end.code or "internal", "message": end.message}]
        log = list(self._codec.log) if self._codec is not None else []
        last = {name: value for name, value in ended.items() if name != "steps"}
        log.append(encode({"event_type": COMPLETED, "interaction": last}))
        return self._turn.rows(self._attempt, ended, log, "")
