"""Turns of conversations, as usage records tell them. Synchronous."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import OuterRef, QuerySet, Subquery

from relay.models import UsageRecord

_FIELDS: Final = (
    "pk", "request_id", "started_at", "user_id", "channel_id", "api_key_id", "model", "upstream_model", "input_tokens",
    "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens", "usage_source", "conversation",
)  # fmt: skip
_CHUNK: Final = 500  # conversations of one query


@dataclass(frozen=True, slots=True)
class Turn:
    """An answered request. `at` in seconds since 1970; the others as the columns of its record."""

    pk: int
    request_id: str
    at: float
    user: int | None
    channel: int | None
    key: int | None
    model: str
    upstream_model: str
    input: int  # tokens, of which the next are parts
    cached: int
    written: int
    written_1h: int
    source: str
    conversation: int | None  # the digest of its conversation, None: none is known

    @property
    def warm(self) -> int:
        """The tokens that were in the cache when it had been answered, as far as the upstream tells."""
        return self.cached + self.written

    @property
    def for_an_hour(self) -> bool:
        return self.written_1h > 0

    @property
    def pair(self) -> tuple[int, int]:
        """The ids of its channel and key, 0 for none."""
        return self.channel or 0, self.key or 0


def turn_of(record: UsageRecord) -> Turn:
    """The turn that a record is of."""
    return _turn([record.pk if name == "pk" else getattr(record, name) for name in _FIELDS])


def _turn(row: Sequence[Any]) -> Turn:
    pk, request_id, at, *rest = row
    return Turn(pk, request_id, at.timestamp(), *rest)


def answered(rows: QuerySet[UsageRecord]) -> QuerySet[UsageRecord]:
    """Those of the records that can have left something in a cache: tokens of a prompt reached an upstream."""
    return rows.filter(status__lt=500, input_tokens__gt=0, channel__isnull=False)


def last_turn(conversation: int, since: float) -> Turn | None:
    """The last turn of a conversation since a moment, in seconds since 1970; None: there is none.

    `conversation`: the digest in usage records. One query of an index.
    """
    rows = answered(UsageRecord.objects.filter(conversation=conversation)).order_by("-pk").values_list(*_FIELDS)[:1]
    found = next(iter(rows), None)
    return _turn(found) if found is not None and found[2] >= datetime.fromtimestamp(since, UTC) else None


def turns_before(of: Iterable[Turn]) -> dict[int, Turn]:
    """The turn of the same conversation before each of these, by the ids of their records, as far as there is one.

    Two queries for 500 of them, however long conversations are.
    """
    pks = [turn.pk for turn in of if turn.conversation is not None]
    found: dict[int, Turn] = {}
    for start in range(0, len(pks), _CHUNK):
        same = UsageRecord.objects.filter(conversation=OuterRef("conversation"), pk__lt=OuterRef("pk"))
        newest = Subquery(answered(same).order_by("-pk").values("pk")[:1])
        rows = UsageRecord.objects.filter(pk__in=pks[start : start + _CHUNK]).annotate(before=newest)
        before = dict(rows.exclude(before=None).values_list("pk", "before"))
        turns_of = {
            row[0]: _turn(row) for row in UsageRecord.objects.filter(pk__in=before.values()).values_list(*_FIELDS)
        }
        found |= {pk: turns_of[one] for pk, one in before.items() if one in turns_of}
    return found


def turns(pks: Iterable[int]) -> list[Turn]:
    """The turns of these records, the oldest first."""
    wanted, found = sorted(pks), list[Turn]()
    for start in range(0, len(wanted), _CHUNK):
        rows = answered(UsageRecord.objects.filter(pk__in=wanted[start : start + _CHUNK])).order_by("pk")
        found += [_turn(row) for row in rows.values_list(*_FIELDS)]
    return found
