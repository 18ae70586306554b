"""Limits in words and headers."""

from __future__ import annotations

import pytest

from relay.errors import ConcurrencyLimited
from relay.gateway.access.admission import duration, limit_error, rate_headers
from relay.gateway.limits.windows import Check, LimitRemaining, LimitVerdict


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, b"0ms"),
        (0.0, b"0ms"),
        (0.012, b"12ms"),
        (1.0, b"1s"),
        (59.4, b"59s"),
        (59.6, b"1m0s"),
        (360.0, b"6m0s"),
        (3599.0, b"59m59s"),
        (3723.0, b"1h2m3s"),
        (90_000.0, b"25h0m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, said: bytes) -> None:
    assert duration(seconds) == said


def test_headers_of_requests_and_of_tokens_are_told_apart() -> None:
    verdict = LimitVerdict(requests=LimitRemaining(60, 59, 1.0), tokens=LimitRemaining(1000, 250, 90.0))
    assert dict(rate_headers(verdict)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"250",
        b"x-ratelimit-reset-tokens": b"1m30s",
    }
    assert rate_headers(LimitVerdict()) == []


def test_a_refusal_names_the_limit_and_when_to_come_back() -> None:
    running = limit_error(Check("user:1:slots", "slots", "your account", 3, 0.0), 0.2)
    assert (
        isinstance(running, ConcurrencyLimited)
        and running.retry_after == 1.0
        and "at most 3 at once" in running.message
    )
    daily = limit_error(Check("token:1:rpd", "rpd", "this token", 1000, 86_400.0), 7.5)
    assert not isinstance(daily, ConcurrencyLimited) and daily.retry_after == 7.5
    assert "1,000 requests a day" in daily.message and "this token" in daily.message
