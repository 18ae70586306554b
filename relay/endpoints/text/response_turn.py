"""One turn of /v1/responses: what each channel is told of the conversation, and the rows that store the answer.

Whichever channel answers, a stored response has an id of the portal's own. Where its upstream stores it as well, the
next turn names it there by the upstream's id, and the earlier turns are not even read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import msgspec

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, text_of
from relay.billing.ledger.rows import Moment, RowWrite, insert, update
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_inputs import FileInputs, names_files
from relay.endpoints.room import user_room
from relay.endpoints.text.deletion import delete_upstream
from relay.endpoints.text.native_response import OpenedResponse, open_response
from relay.errors import InvalidRequest
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.unstored import RunningResponse
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import Pair
from relay.models import Conversation, ConversationItem, StoredResponse
from relay.protocols.codec import EVENT_STREAM
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.responses.client import MEMBERS, ResponsesClient
from relay.protocols.responses.compaction import expand_summaries
from relay.protocols.responses.replay import events_of
from relay.protocols.responses.request import (
    ResponsesRequest,
    is_reasoning,
    sealed_content,
    user_item,
    with_short_ids,
    without_packed_reasoning,
    without_sealed,
    without_upstream_ids,
)
from relay.protocols.responses.tools import with_matching_outputs
from relay.protocols.responses.unfinished.response import UNFINISHED, usable_items
from relay.providers.classify import Failure
from relay.providers.continuations import (
    cannot_read_reasoning,
    has_forgotten,
    refuses_long_ids,
    refuses_readable_reasoning,
)
from relay.storage import response_history
from relay.storage import responses as stored_responses
from relay.storage.responses import StoredTurn

ENDPOINT: Final = "responses"
CONVERSATION_LIFETIME: Final = timedelta(days=30)  # if responses are not stored at all
# A response that is forgotten sooner has not expired at its upstream: responses are not kept there.
_YOUNG_SECONDS: Final = 86_400.0
_EARLIER_TURNS: Final = "previous_response_id[earlier]"  # left out, since they have been deleted or have expired
TOO_LONG: Final = (
    "The conversation before this response is too long to be sent to the upstream as a whole. Begin a new one with a "
    "summary."
)
_ENDINGS: Final = frozenset(("completed", "incomplete", "failed", "cancelled"))


@dataclass(slots=True)
class ResponseTurn:
    """One request of /v1/responses with the conversation so far, for the common text endpoint."""

    parsed: ResponsesRequest
    caller: Caller
    raw_input: list[Json]  # the input as the client sent it, which is what is stored
    expanded_input: list[Json]  # the same with files inlined and references resolved
    history: list[Json] = field(default_factory=list)  # the items of earlier turns
    previous: StoredTurn | None = None  # the response that it continues
    unread: bool = False  # `history` is not read yet: an upstream that stores the previous response needs none
    tells_all: bool = False  # no channel is named the previous response
    conversation_pk: int = 0  # 0: none
    makers: dict[str, Pair] = field(default_factory=dict)  # the channel and key that made encrypted content of items
    lifetime: timedelta | None = None  # for which the response is stored, None: not at all
    no_room: bool = False  # the user has none left, so the response is not stored
    files: FileInputs | None = None  # the stored files that the conversation names
    covered_by: Exchange | None = None  # the request that is admitted and can be paid for, so that files are put in
    id: str = ""  # of the response, unless it is not stored and the upstream chooses one
    in_background: bool = False
    running: RunningResponse | None = None  # its client may delete it before it ends; None: it cannot
    created: int = 0  # seconds since 1970
    api: str = ENDPOINT
    endpoint: str = ENDPOINT  # in usage records
    stream_type: str = EVENT_STREAM
    unsealed: bool = False
    demands_limit: bool = False
    choices: int = 1
    client_names: Mapping[str, str] = field(default_factory=lambda: MEMBERS)
    parameters_renamed: bool = False
    unserved_message: str = "The upstream of this model serves no text. Use another endpoint or another model."
    # What the current channel is sent, set by `prepare`.
    named: bool = False  # it stores the previous response, which is named in place of `history`
    told: list[Json] | None = None  # all items that it is sent
    left_out: list[str] = field(default_factory=list)  # as the client is told
    _earlier_missing: bool = False  # a part of `history` has been deleted or has expired
    _forgotten: bool = False  # the upstream that stored the previous response does not have it
    _unreadable: bool = False  # an upstream could not read encrypted content: none is sent
    _only_sealed: bool = False  # an upstream refused reasoning that can be read: none is sent to it natively
    _short_ids: bool = False  # an upstream refused long ids of calls
    _members: Json | None = None
    _client: ResponsesClient | None = None

    @property
    def fields(self) -> Fields:
        return self.parsed.fields

    @property
    def stream(self) -> bool:
        return self.parsed.stream

    @property
    def output_limit(self) -> int | None:
        return self.parsed.output_limit

    @property
    def members(self) -> Json:
        """The decoded request."""
        if self._members is None:
            self._members = decode_object(self.parsed.body) or {}
        return self._members

    @property
    def items(self) -> list[Json]:
        """The whole conversation, as far as it has been read."""
        return [*self.history, *self.expanded_input]

    @property
    def client(self) -> ResponsesClient:
        if self._client is None:
            ids: Json = {**self.ids, **self.overridden_members(False)}
            items = self.items if self.told is None else self.told
            if self.unread and not items:  # earlier turns come before the request, which may have no input of its own
                items = [user_item("")]
            self._client = ResponsesClient(self.members, items, ids, time_ordered_hex, lambda: int(time.time()))
        return self._client

    @property
    def ids(self) -> Json:
        return {"id": self.id, "created_at": self.created}

    @property
    def stored(self) -> bool:
        """Whether the response is stored here."""
        return self.parsed.store and self.lifetime is not None

    @property
    def stored_at(self) -> Pair | None:
        """The channel and key whose upstream stores the previous response."""
        found = self.previous
        if found is None or not found.upstream_id or found.channel_id is None or self._forgotten:
            return None
        return found.channel_id, found.key_id or 0

    @property
    def preferred(self) -> Pair | None:
        """The channel and key that can best continue: its upstream stores the conversation, or made its reasoning."""
        return self.stored_at or next(reversed(self.makers.values()), None)

    def overridden_members(self, native: bool) -> Json:
        """Members that the portal sets in the upstream's place. `native`: it speaks the Responses API."""
        found = self.own_ids
        if self.in_background:
            found.update(created_at=self.created, background=True)
        if self.parsed.conversation_id:
            found["conversation"] = {"id": self.parsed.conversation_id}
        if native and self.stored:
            found["store"] = True
        return found

    @property
    def own_ids(self) -> Json:
        """Members of the response in which an upstream would write its own ids."""
        found: Json = {"id": self.id} if self.stored else {}
        if self.parsed.previous_id:
            found["previous_response_id"] = self.parsed.previous_id
        return found

    def limit_output(self, tokens: int) -> None:
        """Ask for an answer of so many tokens from now on."""
        fields = {**self.parsed.fields, "max_output_tokens": msgspec.Raw(encode(tokens))}
        self.parsed = replace(self.parsed, body=encode(fields), fields=fields, output_limit=tokens)
        self._members = self._client = None

    # -- each channel ------------------------------------------------------------------------------------------------

    async def prepare(self, attempt: Attempt, native: bool) -> None:
        """Decide what the channel is sent. `native`: it speaks the Responses API. Raises RelayError."""
        pair = attempt.candidate.pair
        self.named = native and not self.tells_all and self.stored_at == pair
        if not self.named:
            await self.read_history()
        history = [] if self.named else without_upstream_ids(self.history) if native else self.history
        foreign = None if self._unreadable else {sealed for sealed, maker in self.makers.items() if maker != pair}
        readable = not (native and self._only_sealed)
        told, names = without_sealed([*history, *self.expanded_input], foreign, readable, converted=not native)
        told = with_matching_outputs(without_packed_reasoning(told)) if native else told
        told = with_short_ids(told) if native and self._short_ids else told
        if told != (self.items if self.told is None else self.told):
            self._client = None
        self.told = told
        missing = [_EARLIER_TURNS] if self._earlier_missing and not self.named else []
        self.left_out = [*missing, *(["store"] if self.no_room else []), *names]

    def events_of(self, answer: Json) -> bytes:
        return b"".join(events_of(answer))

    def amend(self, attempt: Attempt, failure: Failure) -> bool:
        """Whether to ask the same channel once more, because it needs more than it was sent, or less."""
        previous = self.previous
        if self.named and previous is not None and has_forgotten(failure, previous.upstream_id):
            self._forgotten = True
            now = time.time()
            if now - previous.created < _YOUNG_SECONDS:
                attempt.run.continuity.remember_forgetful(self.caller.user_id, attempt.channel.id, now)
            return True
        if not self._short_ids and refuses_long_ids(failure):
            self._short_ids = True
            return True
        if any(map(is_reasoning, self.told or ())):
            before = self._unreadable, self._only_sealed
            self._unreadable |= cannot_read_reasoning(failure)
            self._only_sealed |= refuses_readable_reasoning(failure)
            return before != (self._unreadable, self._only_sealed)
        return False

    async def read_whole(self) -> None:
        """Read the items of earlier turns, which every channel is told. Raises RelayError."""
        self.tells_all = True
        await self.read_history()

    async def read_history(self) -> None:
        """Read the items of earlier turns, unless they have been read. Raises RelayError."""
        if not self.unread:
            return
        name = self.parsed.previous_id
        try:
            found = await snapshot_cache.in_thread(response_history.read_history, self.caller.user_id, name)
        except response_history.HistoryTooLong:
            raise InvalidRequest(TOO_LONG, code="context_length_exceeded", param="previous_response_id") from None
        try:
            self.history = await self.find_files(expand_summaries(found.items), "previous_response_id")
        except BadRequest as bad:
            raise invalid(bad) from None
        self.makers = {**found.makers, **self.makers}
        self._earlier_missing, self.unread, self._client = not found.whole, False, None

    async def find_files(self, items: list[Json], where: str) -> list[Json]:
        """Items whose stored files are looked up, and put in if the request is covered already.

        `where`: the field of the request that they are from. Raises BadRequest, RelayUnavailable.
        """
        if self.files is None or not names_files(encode(items)):
            return items
        items = await self.files.find(items, where)
        if self.covered_by is None:
            return items
        return await self.files.put_in(items, where, self.covered_by.hold)

    async def put_files_in(self, exchange: Exchange) -> None:
        """Put in the stored files that were found. Raises RelayError."""
        self.covered_by = exchange
        if self.files is None or not self.files.waiting:
            return
        where = "conversation" if self.conversation_pk else "previous_response_id"
        try:
            self.history = await self.files.put_in(self.history, where, exchange.hold)
            self.expanded_input = await self.files.put_in(self.expanded_input, "input", exchange.hold)
        except BadRequest as bad:
            raise invalid(bad) from None
        self._client = None

    async def open(self, attempt: Attempt) -> OpenedResponse:
        return await open_response(self, attempt)

    # -- storing -----------------------------------------------------------------------------------------------------

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return self.rows(attempt, answer)

    def rows(self, attempt: Attempt, response: Json, upstream_id: str = "") -> list[RowWrite]:
        """The rows of a stored response and of its conversation, for the commit of the usage record.

        A response that broke off is stored with what has arrived, and is no part of its conversation.

        `upstream_id`: by which the upstream stores the response as well; empty: it does not.
        """
        found: list[RowWrite] = []
        exchange, (channel, key) = attempt.exchange, attempt.candidate.pair
        output, broken = usable_items(response), text_of(response, "status") in UNFINISHED
        for item in output:
            if sealed := sealed_content(item):
                attempt.run.continuity.remember_maker(self.caller.user_id, sealed, attempt.candidate.pair)
        taken = {text_of(item, "id") for item in self.history} if self.conversation_pk else None
        raw_input = stored_responses.with_ids(self.raw_input, exchange.request_id.removeprefix("req_"), taken)
        now = time.time()
        user_room.stored(self.caller.user_id, len(self.parsed.body))
        unwanted = self.running is not None and not self.running.end()  # it was deleted meanwhile
        if unwanted and upstream_id:
            gone = StoredTurn(self.id, channel, key, upstream_id, False, now, 0)
            attempt.run.watchdog.work(delete_upstream(attempt.run, gone))
        if self.stored and self.lifetime is not None and not unwanted:
            status = text_of(response, "status")
            # A response that is made in the background has its row already, unless it was deleted meanwhile.
            found.append(
                replace(
                    insert(
                        StoredResponse,
                        ("user_id", "response_id"),
                        user_id=self.caller.user_id,
                        response_id=self.id,
                        request_id=exchange.request_id,
                        model=self.parsed.model[:120],
                        channel_id=channel,
                        api_key_id=key or None,
                        upstream_keeps=bool(upstream_id),
                        upstream_id=upstream_id,
                        status=status if status in _ENDINGS else "completed",
                        previous_id=self.parsed.previous_id[:120],
                        conversation_id=self.parsed.conversation_id[:64],
                        input=encode(raw_input).decode(),
                        output=encode(output).decode(),
                        body=encode(response).decode(),
                        owner="",
                        created_at=Moment(now),
                        expires_at=Moment(now + self.lifetime.total_seconds()),
                    ),
                    only_replaces=self.in_background,
                )
            )
        if self.conversation_pk and not broken:
            for item in (*raw_input, *stored_responses.with_ids(output, time_ordered_hex(), taken)):
                found.append(_item_row(self.conversation_pk, item))
            found.append(
                update(
                    Conversation,
                    self.conversation_pk,
                    expires_at=Moment(now + (self.lifetime or CONVERSATION_LIFETIME).total_seconds()),
                )
            )
        return found


def _item_row(conversation_pk: int, item: Json) -> RowWrite:
    """The row of an item. It gets an id of our own when another turn, which ran beside this one, has taken its id."""

    def row(item: Json) -> RowWrite:
        body = encode(item).decode()
        return insert(ConversationItem, conversation_id=conversation_pk, item_id=text_of(item, "id"), body=body)

    def renamed() -> RowWrite:
        (fresh,) = stored_responses.with_ids([item], time_ordered_hex(), {text_of(item, "id")})
        return row(fresh)

    return replace(row(item), otherwise=renamed)
