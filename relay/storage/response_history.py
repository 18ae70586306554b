"""Reads the conversation up to a stored response: one query, however long it is. Synchronous: called in threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from django.db import connection

from portal.lib import clock
from portal.lib.json import Json, decode, decode_object, objects_of, text_of
from relay.models import ConversationItem, StoredResponse
from relay.models.byte_count import texts_of

_SEALED: Final = "encrypted_content"  # the member of an item that only its maker can read
MAX_TURNS: Final = 10_000
MAX_CHARACTERS: Final = 32 * 1024 * 1024  # of the JSON of all turns together; a request may be sent as much
# MySQL and MariaDB stop a recursive query after 1,000 steps by default.
_MYSQL_STEPS: Final = 900

# From the newest turn to the oldest. An older turn has a smaller key, so that the search ends whatever the ids are:
# rows of version 0.2 have the ids of upstreams, which may repeat. Before the newest comes one that has been found.
_TURNS: Final = """
WITH RECURSIVE turns (id, previous_id, conversation_id, number, size) AS (
    SELECT id, previous_id, conversation_id, 1, {length}
    FROM {table} WHERE user_id = %s AND response_id = %s AND expires_at > %s
    UNION ALL
    SELECT {table}.id, {table}.previous_id, {table}.conversation_id, turns.number + 1, turns.size + {length}
    FROM turns JOIN {table} ON {table}.user_id = %s AND {table}.response_id = turns.previous_id
    WHERE turns.previous_id <> '' AND turns.conversation_id = '' AND turns.number <= %s AND turns.size <= %s
        AND {table}.id < turns.id AND {table}.expires_at > %s
)
SELECT turns.number, turns.size, turns.previous_id, turns.conversation_id, {table}.channel_id, {table}.api_key_id,
    {table}.input, {table}.output, CASE WHEN {table}.output IS NULL THEN {table}.body ELSE NULL END
FROM turns JOIN {table} ON {table}.id = turns.id ORDER BY turns.number
"""
_LENGTH: Final = "LENGTH({table}.input) + LENGTH(COALESCE({table}.output, {table}.body))"


class HistoryTooLong(Exception):
    """A conversation has more turns, or more text, than is read."""


@dataclass(slots=True)
class History:
    """The items of a conversation, oldest first."""

    items: list[Json] = field(default_factory=list)
    whole: bool = True  # no earlier turn has been deleted or has expired
    # Which channel and key (0: none) made the encrypted content of items.
    makers: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Turn:
    previous_id: str
    conversation_id: str
    channel_id: int | None
    key_id: int | None
    input: list[Json]
    output: list[Json]


def read_history(user_id: int, response_id: str) -> History:
    """Read all items up to the end of a response. Raises HistoryTooLong."""
    turns: list[_Turn] = []
    wanted = response_id
    while wanted:
        found = _read_turns(user_id, wanted, MAX_TURNS - len(turns))
        turns += found
        oldest = found[-1] if found else None
        more = connection.vendor == "mysql" and len(found) > _MYSQL_STEPS
        wanted = oldest.previous_id if oldest is not None and more and not oldest.conversation_id else ""
    history = History()
    if turns:
        oldest = turns[-1]
        history.whole = not oldest.previous_id or bool(oldest.conversation_id)
        if oldest.conversation_id:
            _add_conversation(history, user_id, oldest)
    for turn in reversed(turns):
        history.items += turn.input
        history.items += turn.output
        if turn.channel_id is not None:
            pair = (turn.channel_id, turn.key_id or 0)
            history.makers.update((sealed, pair) for item in turn.output if (sealed := text_of(item, _SEALED)))
    return history


def _read_turns(user_id: int, response_id: str, left: int) -> list[_Turn]:
    """Read turns, newest first."""
    table = connection.ops.quote_name(StoredResponse._meta.db_table)
    sql = _TURNS.format(table=table, length=_LENGTH.format(table=table))
    now = connection.ops.adapt_datetimefield_value(clock.now())
    steps = min(left, _MYSQL_STEPS) if connection.vendor == "mysql" else left
    turns: list[_Turn] = []
    with connection.cursor() as cursor:
        cursor.execute(sql, [user_id, response_id, now, user_id, steps, MAX_CHARACTERS, now])
        for number, size, previous, conversation, channel, key, given, output, body in cursor:
            if number > left or size > MAX_CHARACTERS:
                raise HistoryTooLong
            made = objects_of(decode_object(body or "") or {}, "output") if output is None else _items(output)
            turns.append(_Turn(previous, conversation, channel, key, _items(given), made))
    return turns


def _add_conversation(history: History, user_id: int, turn: _Turn) -> None:
    """Add the items of a conversation that came before a turn which continued it."""
    own = {text_of(item, "id") for item in (*turn.input, *turn.output)}
    bodies = ConversationItem.objects.filter(
        conversation__user=user_id, conversation__conversation_id=turn.conversation_id
    )
    size = 0
    for body in texts_of(bodies, "body"):
        size += len(body)
        if size > MAX_CHARACTERS:
            raise HistoryTooLong
        item = decode_object(body)
        if item is None:
            continue
        if text_of(item, "id") in own:
            return
        history.items.append(item)


def _items(text: str | None) -> list[Json]:
    found = decode(text or "[]")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
