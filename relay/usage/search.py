"""Finds a request by its id, however that was copied: a header as curl prints it, a line of a log, its last digits."""

from __future__ import annotations

import re
from typing import Any, Final

from django.db.models import QuerySet

from relay.models import RefusedRequest, UsageRecord

SCANNED: Final = 50_000  # requests, the newest, of which the end of an id is looked for: no index knows it
_WHOLE: Final = re.compile(r"(?:req_|\b)([0-9a-f]{32})(?![0-9a-f])")
_END: Final = re.compile(r"(?:…|\.\.\.|^)\s*([0-9a-f]{8})(?![0-9a-z])")
_QUOTES: Final = " \t\"'`“”‘’«»"
_LONGEST: Final = 2_000  # characters of what is pasted


def find_request(
    text: str, records: QuerySet[UsageRecord], refusals: QuerySet[RefusedRequest]
) -> UsageRecord | RefusedRequest | None:
    """Return the request whose id is in a pasted text, of those that somebody may see; the end of an id will do."""
    pasted = text.strip(_QUOTES)[:_LONGEST].lower()
    whole, end = _WHOLE.search(pasted), _END.search(pasted)
    for rows in (records, refusals):
        found: Any = None
        if whole is not None:
            found = rows.filter(request_id=f"req_{whole[1]}").first()
        elif end is not None:
            found = _newest(rows).filter(request_id__endswith=end[1]).order_by("-started_at").first()
        if found is not None:
            return found  # type: ignore[no-any-return]  # a row of one of them
    return None


def _newest(rows: QuerySet[Any]) -> QuerySet[Any]:
    edge = rows.order_by("-started_at").values_list("started_at", flat=True)[SCANNED : SCANNED + 1].first()
    return rows if edge is None else rows.filter(started_at__gt=edge)
