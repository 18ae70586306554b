"""When to come back: headers, words and members that vendors send."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from relay.providers import retry_after
from relay.providers.classify import classify
from tests.providers.bodies import anthropic, gemini, quota, zhipu

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("9", 9),
        ("1.5", 1.5),
        ("0", 0),
        ("6m0s", 360),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("34s", 34),
        ("2d", 172_800),
        ("34.074824224s", 34.074824224),
        (str(int(NOW) + 60), 60),
        (str(int((NOW + 60) * 1000)), 60),
        (("Sun, 22 Nov 2026 12:01:00 GMT"), 60),
        ("2026-11-22T12:01:00Z", 60),
        ("2026-11-22T12:01:00.500+00:00", 60.5),
        ("2026-11-22T13:01:00+01:00", 60),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1 week", None),
        ("NaN", None),
        ("1e9", None),
    ],
)
def test_forms_of_waiting_times(text: str, seconds: float | None) -> None:
    found = retry_after.parse_wait(text, NOW)
    assert found == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "9"}, 9),
        ({"retry-after": "0"}, 0.05),
        ({"retry-after": "99999999"}, 32 * 86_400),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:30 GMT"}, 0.05),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1m2s",
                "x-ratelimit-remaining-tokens": "900",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            62,
        ),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-22T12:00:45Z",
            },
            45,
        ),
        ({"x-ratelimit-reset": str(int((NOW + 20) * 1000))}, 20),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1m2s"}, None),
        ({"x-ratelimit-limit-requests": "5"}, None),
        ({}, None),
    ],
)
def test_waiting_times_in_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after.from_headers(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 1m2.5s.", 62.5), ((
            "Please try again in "
            "20ms."
        ), 0.05), ("Please retry in 34.07s.", 34.07), ("Try again in 5 minutes", 300),
        ("Please retry after 20 seconds.", 20), ((
            "Please wait for 2 "
            "hours"
        ), 7200), ("You will regain access on 2026-12-01 at 00:00 UTC.", 8.5 * 86_400),
        ("Your limit will reset at 2026-11-22 12:30:00", 1800), ("no idea", None), ("try again later", None),
    ],
)  # fmt: skip
def test_waiting_times_in_words(message: str, seconds: float | None) -> None:
    assert retry_after.from_text(message, NOW) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("您的限额将在 2026-11-22 21:00:00 重置。", 3600),
        ("Your limit will reset at 2026-11-22 20:30:00", 1800),
        ("Your limit will reset at 2026-11-22 12:30:00 UTC", 1800),
        ("Your limit will reset at 2026-11-22T12:30:00Z", 1800),
        ("Your limit will reset at 2026-11-22 20:30:00+08:00", 1800),
        ("请在 30 秒后重试", 30),
        ("请 2分钟后再试", 120),
        ("Your limit will reset at 2026-11-22 19:00:00", None),
        ("Your limit will reset at 2026-13-41 19:00:00", None),
    ],
)
def test_a_moment_without_a_zone_is_by_the_vendors_clock(message: str, seconds: float | None) -> None:
    """One that has passed says nothing."""
    found = retry_after.from_text(message, NOW, "Asia/Shanghai")
    assert found == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("status", "code", "message", "seconds"),
    [
        (429, "rate_limit_exceeded", "Rate limit reached for x on tokens per min. Please try again in 6s.", 6),
        (429, "rate_limit_exceeded", "Rate limit reached for x. Please try again in 32 days.", 60),
        (429, "rate_limit_exceeded", "Rate limit reached for 'x try again in 9 s'.", None),
        (503, None, "Overloaded. Please try again in 30 seconds.", 30),
        (400, None, "Bad value. Please try again in 30 seconds.", None),
        (404, None, "No such file: try again in 30 seconds", None),
        (500, None, "Please try again in 30 seconds", None),
    ],
)
def test_a_text_says_how_long_to_wait_only_where_the_status_promises_it(
    status: int, code: str | None, message: str, seconds: float | None
) -> None:
    body = json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}}).encode()
    assert classify(status, {}, body, "openai", now=NOW).wait == seconds


def test_waiting_times_in_members_and_by_rule() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    body = json.dumps(gemini(429, "RESOURCE_EXHAUSTED", "x", quota("PerMinute"), info)).encode()
    assert classify(429, {}, body, "gemini", now=NOW).wait == 34
    body = json.dumps({"error": {"type": "usage_limit_reached", "message": "x", "resets_in_seconds": 90}}).encode()
    assert classify(429, {}, body, now=NOW).wait == 90
    body = json.dumps(gemini(429, "RESOURCE_EXHAUSTED", "x", quota("RequestsPerDay"))).encode()
    assert classify(429, {}, body, "gemini", now=NOW).wait == pytest.approx(20 * 3600), "midnight in California"
    body = json.dumps(zhipu("1304")).encode()
    assert classify(429, {}, body, "zhipu", now=NOW).wait == pytest.approx(4 * 3600), "midnight in Shanghai"
    body = json.dumps(anthropic("rate_limit_error", details={"error_code": "contract_spend_limit_reached"})).encode()
    assert classify(429, {}, body, "anthropic", now=NOW).wait == pytest.approx(8.5 * 86_400), "the first of the month"
    december = datetime(2026, 12, 31, 23, 0, tzinfo=UTC).timestamp()
    assert retry_after.from_rule("month", december) == 3600
