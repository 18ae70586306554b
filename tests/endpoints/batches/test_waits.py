"""What follows from an attempt at a line of a batch that gave no answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay import errors
from relay.endpoints.batches.waits import Wait, wait_after
from relay.models.batch import BatchWait

NOW = 1_000_000.0


def _money(retry: bool | None = None, renewed_at: float | None = None) -> errors.InsufficientQuota:
    found = errors.InsufficientQuota("x", retry_after=2 if retry else None)
    found.retry, found.renewed_at = retry if retry is not None else found.retry, renewed_at
    return found


def _no_channel(retry: bool | None, wait: float | None = None) -> errors.NoAvailableChannel:
    found = errors.NoAvailableChannel("x", retry_after=wait)
    found.retry = retry
    return found


def _window(wait: float | None) -> errors.UpstreamRateLimited:
    found = errors.UpstreamRateLimited("x", retry_after=wait)
    found.retry = False
    return found


LIMIT, UPSTREAM = BatchWait.LIMIT, BatchWait.UPSTREAM


@pytest.mark.parametrize(
    ("error", "reached", "expected"),
    [
        # The portal's own limits are no outcome.
        (errors.RateLimited("x", retry_after=7), False, Wait(LIMIT, 7)),
        (errors.RateLimited("x", retry_after=80_000), False, Wait(LIMIT, 80_000)),
        (errors.ConcurrencyLimited("x", retry_after=1), False, Wait(LIMIT, 1, at_once=True)),
        (_money(True), False, Wait(BatchWait.HELD, 2, at_once=True)),
        (_money(renewed_at=NOW + 50), False, Wait(BatchWait.BUDGET, 50)),
        (_money(renewed_at=NOW - 50), False, Wait(BatchWait.BUDGET, 0)),
        (_money(), False, Wait(BatchWait.MONEY, bounded=True)),
        (errors.RequestTooLarge("x", code="storage_quota_exceeded"), False, Wait(BatchWait.ROOM)),
        (errors.RelayUnavailable("x", retry_after=5), False, Wait(BatchWait.PORTAL, 5)),
        (errors.StorageFull("x"), False, Wait(BatchWait.PORTAL)),
        # An upstream that says until when, and channels that are left alone.
        (errors.UpstreamRateLimited("x", retry_after=4_000), True, Wait(UPSTREAM, 4_000)),
        (_window(18_000), False, Wait(UPSTREAM, 18_000)),
        (_window(None), False, Wait(UPSTREAM)),
        (errors.UpstreamFailed("x", retry_after=3), True, Wait(UPSTREAM, 3)),
        (_no_channel(None), False, Wait(UPSTREAM)),
        (_no_channel(None, 9), False, Wait(UPSTREAM, 9)),
        # What somebody has to do.
        (_no_channel(False), False, Wait(BatchWait.OPERATOR, bounded=True)),
        (errors.CredentialsExhausted("x"), True, Wait(BatchWait.OPERATOR, bounded=True)),
        # What may pass, so many times.
        (errors.UpstreamRateLimited("x"), True, Wait(UPSTREAM, counted=True)),
        (errors.UpstreamFailed("x"), True, Wait(UPSTREAM, counted=True)),
        (errors.UpstreamTimeout("x"), True, Wait(UPSTREAM, counted=True)),
        (errors.InternalError(), False, Wait(UPSTREAM, counted=True)),
        # What is wrong with the line.
        (_window(None), True, None),
        (errors.InvalidRequest("x"), False, None),
        (errors.RequestTooLarge("x"), False, None),
        (errors.ModelNotFound("x"), False, None),
        (errors.Forbidden("x"), False, None),
        (errors.RequestEnded("x"), True, None),
    ],
)
def test_what_is_no_answer(error: errors.RelayError, reached: bool, expected: Wait | None) -> None:
    assert wait_after(error.http_status, error, reached, NOW) == expected


@pytest.mark.parametrize(
    "error",
    [
        errors.RelayUnavailable("x", code="overloaded", retry_after=5),
        errors.RelayUnavailable("x"),
        errors.StorageFull("x"),
        errors.RateLimited("x", retry_after=7),
        _money(True),
        _money(renewed_at=NOW + 50),
        _money(),
        errors.RequestTooLarge("x", code="storage_quota_exceeded"),
    ],
    ids=lambda error: f"{type(error).__name__} {error.public_code} {error.retry}",
)
def test_what_keeps_the_portal_from_an_answer_that_an_upstream_has_made_is_counted(error: errors.RelayError) -> None:
    before, after = [wait_after(error.http_status, error, reached, NOW) for reached in (False, True)]
    assert before is not None and not before.counted
    assert after == replace(before, counted=True)


@pytest.mark.parametrize("error", [_window(18_000), _no_channel(None, 9), errors.CredentialsExhausted("x")])
def test_what_one_upstream_has_made_is_counted_though_another_says_until_when(error: errors.RelayError) -> None:
    told, made = [wait_after(error.http_status, error, True, NOW, made) for made in (False, True)]
    assert told is not None and not told.counted and made == replace(told, counted=True)
