"""Admission, money, channel after channel, and the record, without a network: what each request goes through."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest
from django.http.response import HttpResponseBase

from relay.billing.prices import Price, PriceList
from relay.errors import (
    InsufficientQuota,
    InternalError,
    ModelNotFound,
    NoAvailableChannel,
    RateLimited,
    RelayError,
    RequestEnded,
    UnsupportedEndpoint,
    UpstreamFailed,
    UpstreamRateLimited,
)
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.limits.windows import Limits, MemoryLimiter, Subject, checks
from relay.gateway.outcome import COMPLETED, Outcome
from relay.gateway.pipeline import check_large, serve
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Keys
from relay.gateway.snapshot.views import KeyView, Sealed
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass as C
from tests.gateway.attempts import CALLER, Run, end, model, new_exchange, publish, request
from tests.gateway.routing.pools import Calls, pool
from tests.gateway.routing.routes import channel


async def well(attempt: Attempt) -> HttpResponseBase:
    attempt.answered()
    attempt.record.submit(Outcome(COMPLETED, 200), wait=False)
    return Answer(b"{}")


async def asked(
    run: Run, try_channel: Any = well, exchange: Exchange | None = None, caller: Caller = CALLER, **more: Any
) -> HttpResponseBase:
    """Serve one request, to its end."""
    exchange = exchange or new_exchange()
    try:
        return await serve(exchange, caller, cast(Runtime, run), request(**more), try_channel)
    finally:
        end(exchange)


# -- admission and money -----------------------------------------------------------------------------------------------


async def test_all_the_answers_that_are_asked_for_count_before_a_request_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, exchange = Run(), new_exchange()
    publish(monkeypatch, model(), checks((Subject("token:2", "this token", Limits(tpm=1000)),)))
    await asked(run, exchange=exchange, prompt_tokens=100, output_limit=250, choices=3)
    assert dict(exchange.reply_headers)[b"x-ratelimit-remaining-tokens"] == b"150"


async def test_a_request_that_cannot_be_paid_for_uses_up_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    publish(monkeypatch, model(), checks((Subject("token:2", "this token", Limits(tpm=1000)),)))
    run.reservations.refuses = InsufficientQuota("no money")
    with pytest.raises(InsufficientQuota):
        await asked(run, prompt_tokens=900)
    run.reservations.refuses = None
    assert (await asked(run, prompt_tokens=900)).status_code == 200
    assert run.reservations.row["status"] == 200, "what was never begun leaves no record"


async def test_a_refused_request_frees_nothing_that_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    publish(monkeypatch, model(), checks((Subject("token:2", "this token", Limits(concurrency=1)),)))

    async def while_it_runs(attempt: Attempt) -> HttpResponseBase:
        for _ in range(3):
            with pytest.raises(RateLimited):
                await asked(run)
        return await well(attempt)

    await asked(run, while_it_runs)
    assert (await asked(run)).status_code == 200


async def test_a_request_that_was_ended_while_it_waited_for_money_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    run, exchange = Run(), new_exchange()
    publish(monkeypatch, model())
    run.reservations.asked = lambda one: one.end(Interrupt.KILLED)

    async def never(attempt: Attempt) -> HttpResponseBase:
        raise AssertionError("it was asked")

    with pytest.raises(RequestEnded):
        await asked(run, never, exchange)
    assert not run.reservations.rows


async def test_a_batch_pays_its_own_share_of_the_price(monkeypatch: pytest.MonkeyPatch) -> None:
    run, exchange = Run(), new_exchange()
    publish(monkeypatch, model())
    exchange.price_factor = 500_000
    await asked(run, exchange=exchange)
    assert run.reservations.row["price_multiplier"] == 500_000


# -- the record --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stopping", "reason", "status"), [(False, "client_gone", 499), (True, "shutdown", 503)])
async def test_a_cancelled_request_is_recorded_as_the_clients_doing_or_the_servers(
    monkeypatch: pytest.MonkeyPatch, stopping: bool, reason: str, status: int
) -> None:
    run, exchange = Run(), new_exchange()
    publish(monkeypatch, model())
    run.stopping = stopping

    async def leaves(attempt: Attempt) -> HttpResponseBase:
        exchange.interrupted = Interrupt.CLIENT_GONE
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await asked(run, leaves, exchange)
    assert (run.reservations.row["end_reason"], run.reservations.row["status"]) == (reason, status)
    assert not run.in_flight


async def test_a_fault_of_the_portal_is_told_and_recorded_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    publish(monkeypatch, model())

    async def broken(attempt: Attempt) -> HttpResponseBase:
        raise RuntimeError("a bug")

    with pytest.raises(InternalError):
        await asked(run, broken)
    assert (run.reservations.row["end_reason"], run.reservations.row["status"]) == ("internal_error", 500)
    assert not run.in_flight


# -- channel after channel ---------------------------------------------------------------------------------------------


def failing_by_channel(failures: dict[int, Failure], tried: list[tuple[int, int]] | None = None) -> Any:
    """Channels that fail as they are told to; the others are well."""

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        if tried is not None:
            tried.append(attempt.candidate.pair)
        if attempt.channel.id in failures:
            raise failures[attempt.channel.id]
        return await well(attempt)

    return try_channel


def limited(retry_after: float) -> Failure:
    return Failure(C.RATE, UpstreamRateLimited("slow down", retry_after=retry_after), 429, "", retry_after)


def failed(kind: C) -> Failure:
    error = NoAvailableChannel("busy", retry_after=3.0) if kind is C.OVERLOAD else UpstreamFailed("it failed")
    return Failure(kind, error, 500, "")


@pytest.mark.parametrize(
    ("first", "then", "code", "retry_after"),
    [
        (limited(7.0), failed(C.TRANSIENT), "rate_limit_exceeded", 7.0),
        (failed(C.TRANSIENT), limited(7.0), "rate_limit_exceeded", 7.0),
        (limited(9.0), limited(40.0), "rate_limit_exceeded", 9.0),
        (limited(40.0), limited(9.0), "rate_limit_exceeded", 9.0),
        (failed(C.OVERLOAD), failed(C.TRANSIENT), "no_available_channel", 3.0),
        (failed(C.CONFIG), failed(C.TRANSIENT), "upstream_error", None),
    ],
)
async def test_of_several_failures_the_client_hears_the_one_that_says_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch, first: Failure, then: Failure, code: str, retry_after: float | None
) -> None:
    run = Run()
    publish(monkeypatch, model(channel(1, priority=5), channel(2)))
    with pytest.raises(RelayError) as caught:
        await asked(run, failing_by_channel({1: first, 2: then}))
    assert (caught.value.public_code, caught.value.retry_after) == (code, retry_after)
    assert run.reservations.row["attempts"] == 2 and not run.in_flight


@pytest.mark.parametrize(
    ("first", "made"),
    [
        (Failure(C.TIMEOUT, UpstreamFailed("x"), 0, "idle"), True),
        (Failure(C.UNANSWERED, UpstreamFailed("x"), 0, "connection broke"), True),
        (Failure(C.TRANSIENT, UpstreamFailed("x"), 200, "not an answer"), True),
        (Failure(C.TRANSIENT, UpstreamFailed("x"), 0, "answer larger than …"), True),
        (Failure(C.TRANSIENT, UpstreamFailed("x"), 0, "cannot connect", unreachable=True), False),
        (Failure(C.CONFIG, UpstreamFailed("x"), 0, "the host name stands for …"), False),
        (failed(C.TRANSIENT), False),
        (limited(7.0), False),
    ],
    ids=lambda one: str(one),
)
async def test_what_an_upstream_has_probably_made_is_known_though_another_refuses(
    monkeypatch: pytest.MonkeyPatch, first: Failure, made: bool
) -> None:
    run, exchange = Run(), new_exchange()
    publish(monkeypatch, model(channel(1, priority=5), channel(2)))
    with pytest.raises(RelayError):
        await asked(run, failing_by_channel({1: first, 2: limited(7.0)}), exchange)
    assert exchange.made is made


@pytest.mark.parametrize("limits", [Limits(concurrency=1), Limits(tpm=1000)])
async def test_a_channel_that_failed_is_not_counted_as_used_while_another_answers(
    monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    run = Run()
    own = checks((Subject("channel:1", "the channel", limits),))
    publish(monkeypatch, model(channel(1, priority=5, checks=own), channel(2)))

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        if attempt.channel.id == 1:
            raise failed(C.TRANSIENT)
        entry = await run.admission.enter(new_exchange(), own, 900)
        assert entry.verdict.refused is None
        entry.cancel()
        return await well(attempt)

    for _ in range(2):
        await asked(run, try_channel, prompt_tokens=900)
    assert [row["attempts"] for row in run.reservations.rows] == [2, 2]


async def test_a_channel_at_its_limit_says_when_it_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    own = checks((Subject("channel:1", "the channel", Limits(rpm=1)),))
    publish(monkeypatch, model(channel(1, checks=own)))
    await asked(run)
    with pytest.raises(UpstreamRateLimited) as caught:
        await asked(run)
    assert caught.value.retry_after is not None and 30 < caught.value.retry_after <= 120


async def test_a_channel_at_its_limit_is_looked_at_once_however_many_keys_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, looked = Run(), []
    full = checks((Subject("channel:1", "the channel", Limits(rpm=0)),))
    publish(monkeypatch, model(channel(1, priority=5, keys=50, checks=full), channel(2)))
    enter = run.admission.enter

    async def counted(*arguments: Any) -> Any:
        looked.append(arguments)
        return await enter(*arguments)

    monkeypatch.setattr(run.admission, "enter", counted)
    await asked(run)
    assert len(looked) == 1 and run.reservations.row["channel_id"] == 2


@pytest.mark.parametrize("shape", [(1, 2_000), (300, 5), (2_000, 1)], ids=str)
async def test_a_request_costs_no_more_with_thousands_of_keys(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    price = []
    for routes in (pool(2, 2), pool(*shape)):
        run = Run()
        publish(monkeypatch, replace(model(), routes=routes))
        await asked(run)
        with Calls() as counted:
            for _ in range(20):
                await asked(run)
        price.append(counted.count)
    assert price[1] < 1.1 * price[0]


async def test_keys_at_their_limits_are_looked_at_once_and_the_one_with_room_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, looked, route = Run(), [], channel(1)
    keys = [
        KeyView(number, 1, {}, checks=checks((Subject(f"key:{number}", "a key", Limits(rpm=number // 100)),)))
        for number in range(1, 101)
    ]
    publish(monkeypatch, model(replace(route, channel=replace(route.channel, keys=Keys.made(keys)))))
    enter = run.admission.enter

    async def counted(*arguments: Any) -> Any:
        looked.append(arguments)
        return await enter(*arguments)

    monkeypatch.setattr(run.admission, "enter", counted)
    await asked(run)
    assert run.reservations.row["api_key_id"] == 100 and len(looked) <= 100
    for _ in range(2):
        looked.clear()
        with pytest.raises(UpstreamRateLimited):
            await asked(run)
    assert len(looked) < 12, "what is known to be used up is tried a few times, not by each request again"


async def test_a_key_that_cannot_be_decrypted_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(Sealed):
        def open(self) -> None:
            opened.append(self)

    run, route, opened = Run(), channel(1), list[object]()
    damaged = [KeyView(number, 1, Damaged()) for number in range(1, 40)]
    publish(monkeypatch, model(replace(route, channel=replace(route.channel, keys=(*damaged, KeyView(40, 1, {}))))))
    for _ in range(5):
        await asked(run)
    assert {row["api_key_id"] for row in run.reservations.rows} == {40}
    assert len(opened) <= 39, "each is tried to be decrypted once"
    publish(monkeypatch, model(replace(route, channel=replace(route.channel, keys=tuple(damaged)))))
    with pytest.raises(NoAvailableChannel):
        await asked(run)


async def test_channels_of_a_kind_are_asked_once_whether_they_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = Run(), list[int]()
    urls = {"embeddings": httpx.URL("https://x.example.com")}
    odd = [replace(one, channel=replace(one.channel, urls=urls)) for one in map(channel, range(500, 600))]
    view = model(*map(channel, range(1, 500)), *odd)
    publish(monkeypatch, view)

    def check_channel(one: Any) -> RelayError | None:
        seen.append(one.id)
        return None if "chat.completions" in one.urls else UnsupportedEndpoint("no such API")

    for _ in range(20):
        await asked(run, check_channel=check_channel)
    assert len(seen) == 2 * 20 and all(row["channel_id"] < 500 for row in run.reservations.rows)
    lacks = Failure(C.NO_API, UnsupportedEndpoint("no such API"), 404, "", api="chat.completions")
    run.health.missing_apis.suspected(view.routes[6].channel, KeyView(70, 1, {}), 1, lacks)
    run.health.missing_apis.proven((7, "chat.completions"), "said so")
    seen.clear()
    await asked(run, check_channel=check_channel)
    assert len(seen) == 3 and 7 in seen, "one that lacks an API is a kind of its own"


async def test_a_channel_that_turns_out_to_lack_the_api_is_asked_with_no_other_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run()
    publish(monkeypatch, model(channel(1, priority=5, keys=3), channel(2)))
    lacks = Failure(C.NO_API, UnsupportedEndpoint("no such API"), 404, "", api="chat.completions")
    tried: list[tuple[int, int]] = []

    def check_channel(view: Any) -> RelayError | None:
        return UnsupportedEndpoint("no such API") if tried and view.id == 1 else None

    await asked(run, failing_by_channel({1: lacks}, tried), check_channel=check_channel)
    assert [number for number, _ in tried] == [1, 2]


async def test_conversations_of_one_name_are_spread_by_user_and_kept_only_where_the_model_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    run, routes = Run(), (channel(1), channel(2))
    tried: list[tuple[int, int]] = []
    publish(monkeypatch, model(*routes, strategy="round_robin"))
    for user in range(1, 21):
        for _ in range(2):
            await asked(
                run, failing_by_channel({}, tried), caller=replace(CALLER, user_id=user), conversation="default"
            )
    assert tried[::2] == tried[1::2], "each user's conversation stays where it is"
    assert {number for number, _ in tried} == {1, 2}, "those of others are elsewhere"
    tried.clear()
    publish(monkeypatch, model(*routes, strategy="round_robin", sticky=False))
    for _ in range(4):
        await asked(run, failing_by_channel({}, tried), conversation="default")
    assert sorted(number for number, _ in tried) == [1, 1, 2, 2]


# -- large bodies ----------------------------------------------------------------------------------------------------


async def test_permission_limits_and_money_are_asked_of_what_a_large_body_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, exchange = Run(), new_exchange()
    limited = checks((Subject("token:2", "this token", Limits(rpm=1, tpm=5)),))
    priced = model(price=PriceList((Price(input=1_000, output=1_000),)))
    publish(monkeypatch, priced, limited)
    money: list[Exchange] = []
    run.reservations.asked = money.append

    async def check(body: bytes, default: str = "") -> None:
        await check_large(exchange, CALLER, cast(Runtime, run), "chat.completions", body, default)

    for _ in range(3):
        await check(b'{"x":[1,2],"model":"m"}')  # nothing is counted
    assert len(money) == 3
    await check(b"{}", "m")
    await check(b"{}")
    await check(b'{"model":7}', "m")  # what cannot be read is refused when it is parsed
    await check(b'{"model":"m"', "m")
    assert len(money) == 4
    with pytest.raises(ModelNotFound):
        await check(b'{"model":"%b"}' % (b"none" * 60))
    run.reservations.refuses = InsufficientQuota("no money")
    with pytest.raises(InsufficientQuota):
        await check(b'{"model":"m"}')
    other = new_exchange()
    await run.admission.admit(other, limited, 5)
    end(other)
    with pytest.raises(RateLimited):
        await check(b'{"model":"m"}')
    publish(monkeypatch, model())
    await check(b'{"model":"m"}')  # it costs nothing


@pytest.mark.parametrize("limit", [Limits(rpm=1), Limits(rpd=1), Limits(tpm=7)])
async def test_a_limit_that_is_used_up_says_when_it_is_free(limit: Limits) -> None:
    wanted = checks((Subject("token:2", "this token", limit),))
    limiter = MemoryLimiter()
    assert limiter.refusing(wanted, 0.0) is None
    limiter.acquire(wanted, 7, 10.0)
    window = wanted[0].window
    assert limiter.refusing(wanted, 30.0) == (wanted[0], window - 20.0)
    assert limiter.refusing(wanted, window + 10.0) is None


async def test_requests_at_once_are_asked_without_counting() -> None:
    wanted = checks((Subject("token:2", "this token", Limits(concurrency=1)),))
    limiter = MemoryLimiter()
    assert limiter.refusing(wanted, 0.0) is None
    limiter.acquire(wanted, 0, 0.0)
    assert limiter.refusing(wanted, 0.0) == (wanted[0], 1.0)
