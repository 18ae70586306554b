"""What a worker makes of failures: keys taken out of service, shared circuits, words for clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay.channels.cooldowns import StoredCircuit, name_of
from relay.channels.keys import Evidence
from relay.errors import CredentialsExhausted, NoAvailableChannel, RelayError, RelayUnavailable, UpstreamRateLimited
from relay.gateway.routing import health as module
from relay.gateway.routing.health import Health, Requester
from relay.gateway.routing.suspicions import MAX_PLACES, MAX_USERS, Suspicions
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import DisabledKey, Route
from relay.providers.failures import FailureClass as C
from tests.gateway.routing.routes import PREFERENCE, channel, failure

PLACE = (1, 10, 7)
ANNA, BERT = Requester(1, "req_a"), Requester(2, "req_b")


class Threads:
    """In the place of the snapshot cache, whose threads do what concerns the database."""

    def __init__(self) -> None:
        self.called: list[tuple[str, tuple[Any, ...]]] = []
        self.down = False

    async def in_thread(self, function: Callable[..., object], *arguments: Any) -> object:
        if self.down:
            raise RelayUnavailable("down")
        self.called.append((function.__name__, arguments))
        return True

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.called if called == name]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    threads = Threads()
    monkeypatch.setattr(module, "snapshot_cache", threads)
    yield threads


def candidate(route: Route | None = None) -> Candidate:
    route = route or channel(1)
    return Candidate(route, route.channel.keys[0])


# -- keys --------------------------------------------------------------------------------------------------------------


async def test_a_bare_401_takes_a_key_out_when_it_comes_again_later_or_to_another_user(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    bare = failure(C.KEY_DEAD, certain=False)
    for later, by, out in ((0.0, ANNA, False), (29.0, ANNA, False), (31.0, ANNA, True), (1.0, BERT, True)):
        health = Health("w")
        for _ in range(5):
            health.failed(candidate(), 7, bare, now, ANNA)
        health.failed(candidate(), 7, bare, now + later, by)
        threads.called.clear()
        await health.flush()
        evidence = Evidence(401, "", by.user, by.request_id)
        assert threads.of("take_out") == ([(10, "key_dead", "because", evidence)] if out else [])
        assert threads.of("order_test") == [(10,)], "and it is tested meanwhile, once"
    health = Health("w")
    health.failed(candidate(), 7, bare, now, ANNA)
    health.failed(candidate(), 7, bare, now - 0.1, BERT)
    await health.flush()
    assert len(threads.of("take_out")) == 1, "both were under way"


async def test_pages_of_a_proxy_only_order_a_test_of_the_key(threads: Threads) -> None:
    health, page = Health("w"), failure(C.KEY_DEAD, certain=False)
    page.said = None
    lacks = failure(C.NO_API, status=401, api="chat.completions")
    for number in range(100):
        for one in (page, lacks):
            health.failed(candidate(), 7, one, time.time() + number, (ANNA, BERT)[number % 2])
    await health.flush()
    assert not threads.of("take_out") and threads.of("order_test") == [(10,)]


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 413, 422, 429])
@pytest.mark.parametrize("kind", [C.KEY_DEAD, C.BILLING])
async def test_what_an_answer_says_of_a_key_without_a_code_only_orders_a_test(
    threads: Threads, kind: C, status: int
) -> None:
    """Its words may be those of the request; `certain` as where a rule goes by them."""
    health = Health("w")
    for number in range(100):
        health.failed(candidate(), 7, failure(kind, status=status), time.time() + number, (ANNA, BERT)[number % 2])
    await health.flush()
    assert not threads.of("take_out") and threads.of("order_test") == [(10,)]


async def test_a_reserved_code_takes_a_key_out_at_once(threads: Threads) -> None:
    health = Health("w")
    health.failed(candidate(), 7, failure(C.BILLING, wait=60.0, reserved=True), time.time(), ANNA)
    await health.flush()
    await health.flush()
    assert threads.of("take_out") == [(10, "billing", "because", Evidence(402, "", 1, "req_a"))], "once"
    assert not threads.of("order_test")


async def test_an_answer_between_two_bare_refusals_clears_the_key(threads: Threads) -> None:
    health, bare = Health("w"), failure(C.KEY_DEAD, certain=False)
    health.failed(candidate(), 7, bare, time.time(), ANNA)
    health.answered(candidate(), 7, time.time() + 1, 0.1, ANNA.user)
    health.failed(candidate(), 7, bare, time.time() + 40, BERT)
    await health.flush()
    assert not threads.of("take_out")


async def test_staff_are_told_of_a_wrong_address_when_its_circuit_opens(threads: Threads) -> None:
    health = Health("w")
    for by in (ANNA, ANNA, BERT):
        assert not threads.of("_notify_channel_fault"), "one user's requests prove nothing"
        health.failed(candidate(), 7, failure(C.CONFIG, status=301), time.time(), by)
    await health.flush()
    health.failed(candidate(), 7, failure(C.CONFIG, status=301), time.time(), ANNA)
    await health.flush()
    assert threads.of("_notify_channel_fault") == [(1, "1", "because")]


# -- other workers -----------------------------------------------------------------------------------------------------


async def test_a_circuit_that_could_not_be_written_is_written_the_next_time(threads: Threads) -> None:
    health = Health("w")
    health.failed(candidate(), 7, failure(C.RATE, wait=9.0), time.time(), ANNA)
    threads.down = True
    with pytest.raises(RelayUnavailable):
        await health.flush()
    threads.down = False
    await health.flush()
    await health.flush()
    ((changes, worker),) = threads.of("save_circuits")
    assert worker == "w" and [(place, state.kind) for place, state in changes] == [(PLACE, "rate")]


def test_what_others_say_stands_but_for_a_change_of_ours_that_they_have_not_heard_of() -> None:
    now = time.time()
    health = Health("w")
    opened = StoredCircuit(now, now + 60, "rate", "x", 1, worker="other")
    health.take_over(name_of(PLACE), opened)
    assert health.live.breaker.blocked(PLACE, now) is not None
    health.take_over(name_of(PLACE), None)
    assert health.live.breaker.blocked(PLACE, now) is None
    health.failed(candidate(), 7, failure(C.RATE, wait=30.0), now, ANNA)
    health.take_over(name_of(PLACE), None)
    assert health.live.breaker.blocked(PLACE, now) is not None, "ours is not written yet"
    health.take_over("nonsense", None)


def test_our_own_circuit_that_comes_back_from_the_database_is_ours_to_probe() -> None:
    now = time.time()
    health = Health("w")
    health.failed(candidate(), 7, failure(C.RATE, wait=30.0), now, ANNA)
    health.take_over(name_of(PLACE), StoredCircuit(now, now + 500, "rate", "x", 1, worker="w"))
    circuit = health.live.breaker.circuits[PLACE]
    assert not circuit.foreign and circuit.until < now + 60


# -- words -------------------------------------------------------------------------------------------------------------


def test_clients_hear_of_the_earliest_return_and_whether_a_retry_helps() -> None:
    now = time.time()
    routes, health = [channel(1), channel(2)], Health("w")
    for number, wait in ((1, 40.0), (2, 9.0)):
        health.failed(candidate(channel(number)), 7, failure(C.RATE, wait=wait), now, ANNA)
    error: RelayError = health.no_channel_error("m", routes, PREFERENCE)
    assert isinstance(error, UpstreamRateLimited) and error.retry is None
    assert error.retry_after is not None and 8 < error.retry_after <= 9
    health.failed(candidate(channel(1)), 7, failure(C.OVERLOAD, wait=90.0), now, ANNA)
    error = health.no_channel_error("m", routes, PREFERENCE)
    assert isinstance(error, NoAvailableChannel) and error.retry_after is not None and error.retry_after <= 9


@pytest.mark.parametrize(
    ("kind", "expected", "code", "retry"),
    [
        (C.QUOTA_WINDOW, UpstreamRateLimited, "rate_limit_exceeded", False),
        (C.RATE, UpstreamRateLimited, "rate_limit_exceeded", None),
        (C.BILLING, CredentialsExhausted, "upstream_credentials_exhausted", False),
        (C.KEY_DEAD, CredentialsExhausted, "upstream_credentials_exhausted", False),
        (C.CONFIG, NoAvailableChannel, "no_available_channel", None),
    ],
)
def test_each_kind_of_failure_has_words_of_its_own(kind: C, expected: type, code: str, retry: bool | None) -> None:
    health = Health("w")
    health.failed(candidate(), 7, failure(kind, wait=30.0, reserved=True, ordered=kind is C.CONFIG), time.time(), ANNA)
    error = health.no_channel_error("m", [channel(1)], PREFERENCE)
    assert isinstance(error, expected) and (error.public_code, error.retry) == (code, retry)


def test_a_model_that_no_key_may_use_is_unknown_to_the_client() -> None:
    health = Health("w")
    health.failed(candidate(), 7, failure(C.KEY_FORBIDDEN_MODEL, ordered=True), time.time(), ANNA)
    assert health.no_channel_error("m", [channel(1)], PREFERENCE).http_status == 404


def test_without_anything_to_wait_for_a_retry_does_not_help() -> None:
    nothing = Health("w").no_channel_error("m", [channel(1, keys=0)], PREFERENCE)
    assert isinstance(nothing, NoAvailableChannel) and nothing.retry is False and nothing.retry_after is None
    out = channel(1, keys=0, disabled_keys=(DisabledKey(10, "k", "key_dead", "x", 0.0, 0.0),))
    assert isinstance(Health("w").no_channel_error("m", [out], PREFERENCE), CredentialsExhausted)


@pytest.mark.parametrize(("kinds", "money"), [(("billing",), True), (("billing", "key_dead"), False)])
def test_a_client_is_told_when_only_money_is_missing(kinds: tuple[str, ...], money: bool) -> None:
    keys = tuple(DisabledKey(10 + n, "k", kind, "HTTP 402", 0.0, 0.0) for n, kind in enumerate(kinds))
    error = Health("w").no_channel_error("m", [channel(1, keys=0, disabled_keys=keys)], PREFERENCE)
    assert isinstance(error, CredentialsExhausted) and ("no money left" in error.message) == money


# -- suspicions --------------------------------------------------------------------------------------------------------


def test_suspicions_are_bounded_and_forgotten() -> None:
    suspicions, now = Suspicions(), time.time()
    for user in range(1, MAX_USERS + 10):
        suspicions.failed(PLACE, user, failure(C.RATE), now, now)
    assert suspicions.of(1) is None and suspicions.of(MAX_USERS + 9) is not None
    for model in range(MAX_PLACES + 10):
        suspicions.failed((1, 10, model), 5_000, failure(C.RATE), now, now + model)
    mine = suspicions.of(5_000)
    assert mine is not None and len(mine.circuits) == MAX_PLACES and (1, 10, 0) not in mine.circuits
    suspicions.succeeded(PLACE, MAX_USERS, now + 1)
    suspicions.drop(PLACE)
    assert suspicions.of(MAX_USERS) is None and suspicions.of(5_000) is not None
    suspicions.forget(now + 2_000)
    assert not suspicions


def test_a_failure_that_concerns_no_place_is_no_suspicion() -> None:
    suspicions = Suspicions()
    suspicions.failed(PLACE, 1, failure(C.CLIENT), time.time(), time.time())
    assert not suspicions
