"""The log of both programs, added up by day. Only what was charged for is counted, and errors where they are logged."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from django.conf import settings

from portal.lib.days import Days
from relay.importers.reading.database import Database
from relay.importers.reading.row import Row, object_of, whole_of
from relay.importers.usage_sums import UsageChunk, UsageKey

_COLUMNS: Final = (
    "id", "user_id", "created_at", "type", "token_id", "token_name", "model_name", "quota", "prompt_tokens",
    "completion_tokens", "channel_id", "channel", "other",
)  # fmt: skip
_CONSUMED, _FAILED = 2, 5
_PAGE: Final = 20_000
_TOGETHER: Final = 100_000  # rows that are carried over in one transaction
_CACHED: Final = '"cache_tokens":'
_NANO: Final = 1_000_000_000
_FIRST, _END = 946_684_800, 32_503_680_000  # the years 2000 and 3000
_MOST: Final = 10**12  # tokens, and units of quota, of one request


class LogReader:
    """Reads the log of one installation."""

    def __init__(self, program: str, database: Database, quota_per_usd: Decimal) -> None:
        self._program, self._database = program, database
        self._nano = _NANO / quota_per_usd
        self._whole = int(self._nano) if self._nano == int(self._nano) else 0
        self._days = Days(settings.TIME_ZONE)

    def chunks(self, after: int, names: dict[tuple[str, str], str]) -> Iterator[UsageChunk]:
        """What was used behind a row of the log. `names`: ids of tokens by user and name, which one-api logs."""
        chunk = UsageChunk(mark=after)
        for rows in self._database.pages("logs", _COLUMNS, after=after, page=_PAGE):
            chunk.mark = whole_of(rows[-1]["id"])
            for row in rows:
                kind = row.whole("type", _CONSUMED)
                if kind == _CONSUMED or (kind == _FAILED and self._program == "new-api"):
                    self._add(chunk, row, failed=kind == _FAILED, names=names)
            if chunk.rows >= _TOGETHER:
                yield chunk
                chunk = UsageChunk(mark=chunk.mark)
        if chunk.mark > after:
            yield chunk

    def _add(self, chunk: UsageChunk, row: Row, failed: bool, names: dict[tuple[str, str], str]) -> None:
        user = str(row.get("user_id") or "")
        token = str(row.get("token_id") or "") or names.get((user, row.text("token_name")), "")
        channel = str(row.get("channel_id") or row.get("channel") or "")
        moment = row.get("created_at")
        if not isinstance(moment, int) or not _FIRST <= moment < _END:
            found_at = row.moment("created_at")  # of another kind, or in milliseconds
            if found_at is None:
                return  # of no day
            moment = found_at.timestamp()
        key = UsageKey(self._days.of(moment), user, token, channel, row.text("model_name"))
        found = chunk.sums[key]
        chunk.rows += 1
        found.requests += 1
        if failed:
            found.failed += 1
            found.faults += 1
            return
        found.input += _figure(row.get("prompt_tokens"))
        found.output += _figure(row.get("completion_tokens"))
        other = row.get("other")
        if other and (not isinstance(other, str) or _CACHED in other):
            found.cached += _figure(object_of(other).get("cache_tokens"))
        quota = _figure(row.get("quota"))
        found.charged += quota * self._whole if self._whole else int(quota * self._nano)


def _figure(value: object) -> int:
    """A figure of one request, within what may be added up."""
    found = value if isinstance(value, int) else whole_of(value)
    return found if 0 <= found <= _MOST else 0 if found < 0 else _MOST
