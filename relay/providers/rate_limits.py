"""What a refusal for a rate limit or a quota says: how long to wait, and how far it is about the size of the request.

Pure. Limiters compute the wait for the request at hand, so that a large one is told to come back in hours while small
ones are served. Such a wait says nothing about the requests of others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from relay.protocols.errors import UpstreamError
from relay.providers import retry_after
from relay.providers.failures import FailureClass

# Statuses whose message may say how long to wait, and the classes that have an end: with the longest wait, in seconds,
# that a text is believed. A limit per minute ends within one.
TIMED_STATUSES: Final = frozenset((402, 403, 429, 498, 503, 529))
_LONGEST_TOLD: Final = {
    FailureClass.RATE: 60.0,
    FailureClass.OVERLOAD: 60.0,
    FailureClass.QUOTA_WINDOW: retry_after.LONGEST,
    FailureClass.BILLING: retry_after.LONGEST,
}
# “Limit 100000, Used 60000, Requested 50000” (Groq, OpenAI), “Requested ~12903” (Groq), “Limit 30000, Requested 30601”,
# “Limit: 90000 / min. Current: 89000 / min.” (OpenAI, formerly).
_NUMBER: Final = r":? ~?(\d[\d,]*)\b(?: / \w+)?[,.;]? ?"
_COUNTS: Final = re.compile(rf"\blimit{_NUMBER}(?:(?:used|current){_NUMBER})?(?:requested{_NUMBER})?", re.I)
_TOKENS: Final = re.compile(r"\btokens?\b|\bTP[MHD]\b", re.I)
_SMALL: Final = 1000  # tokens of a small request; of a limit of fewer, the tenth part
# Anthropic, whose headers say what is left: “This request would exceed your organization's rate limit of 30,000 input
# tokens per minute”.
_WOULD_EXCEED: Final = re.compile(r"^this request would exceed\b.*?\b(?:(input|output) )?tokens? per\b", re.I)
# Azure, of requests larger than the limit of a minute while others have room: “Your request exceeds the maximum usage
# size allowed during peak load.”
_PEAK: Final = re.compile(
    r"^the system is currently experiencing high demand\b.*\bexceeds the maximum usage size", re.I
)
# Azure, of a limit per minute. It names a day to a request that is larger than the whole limit (climb #1, dify #12709).
_PER_MINUTE: Final = re.compile(r"^(your )?requests to .*\bexceeded (the )?token rate limit\b", re.I)
_HOUR: Final = 3600.0


def stated_wait(
    headers: Mapping[str, str], error: UpstreamError | None, now: float, kind: FailureClass
) -> float | None:
    """Seconds until another try makes sense, from the headers or the members of a refusal."""
    found = retry_after.from_headers(headers, now)
    if found is None and error is not None and kind in _LONGEST_TOLD:
        for text in error.resets:
            seconds = retry_after.parse_wait(text, now)
            if seconds is not None:
                return retry_after.clamp(seconds)
    return found


def told_wait(error: UpstreamError | None, now: float, kind: FailureClass, status: int, zone: str) -> float | None:
    """Seconds until another try makes sense, from the text of a refusal. `zone`: of times that name none."""
    longest = _LONGEST_TOLD.get(kind)
    if error is None or longest is None or status not in TIMED_STATUSES:
        return None
    found = retry_after.from_text(error.own, now, zone)
    return min(found, longest) if found is not None else None


def exceeds_limit(message: str, wait: float | None) -> bool:
    """Whether the request is larger than the whole limit, so that waiting is of no use. `wait`: seconds, as stated."""
    if wait is not None and wait >= _HOUR and _PER_MINUTE.match(message):
        return True
    found = _COUNTS.search(message)
    return found is not None and found[3] is not None and _count(found[3]) > _count(found[1])


def shared_part(message: str, headers: Mapping[str, str]) -> float:
    """The part of the wait that a small request has to wait, too: 1 is all of it, 0 means that it would be served.

    `message`: in the upstream's own words. What is left is refilled evenly, so that the wait is proportional to what
    a request lacks.
    """
    exceeding = _WOULD_EXCEED.match(message)
    if exceeding is not None:
        name = f"{exceeding[1].lower()}-tokens" if exceeding[1] else "tokens"
        left = headers.get(f"anthropic-ratelimit-{name}-remaining", "")
        return 0.0 if left.isascii() and left.isdigit() and int(left) >= _SMALL else 1.0
    if _PEAK.match(message):
        return 0.0
    found = _COUNTS.search(message)
    if found is None or found[2] is None:
        return 1.0
    limit, used = _count(found[1]), _count(found[2])
    small = max(1, min(_SMALL, limit // 10)) if _TOKENS.search(message) else 1
    if found[3] is None:
        return 0.0 if limit - used >= small else 1.0
    requested = _count(found[3])
    if requested <= small or used + requested <= limit:
        return 1.0
    return min(1.0, max(0, used + small - limit) / (used + requested - limit))


def _count(text: str) -> int:
    return int(text.replace(",", "")[:18])
