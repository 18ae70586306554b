"""Circuits of channels, keys and models, without a network."""

from __future__ import annotations

import pytest

from relay.gateway.routing.circuit_breaker import CONSECUTIVE_FAILURES, GRACE, PROBE_SECONDS, CircuitBreaker
from relay.gateway.routing.selection import Live, RouteStatus, explain_routes
from relay.providers.failures import FailureClass as C
from tests.gateway.routing.routes import NOW, PREFERENCE, channel, choose, failure


def test_several_failures_open_the_circuit_and_one_probe_at_a_time_closes_it() -> None:
    breaker = CircuitBreaker()
    for index in range(CONSECUTIVE_FAILURES):
        assert breaker.blocked(1, 10, 7, NOW) is None
        assert breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW + index, NOW + index) is (
            index == CONSECUTIVE_FAILURES - 1
        )
    now = NOW + CONSECUTIVE_FAILURES
    cooling = breaker.blocked(1, 10, 7, now)
    assert (
        cooling is not None
        and cooling.kind is C.TRANSIENT
        and cooling.until == NOW + CONSECUTIVE_FAILURES - 1 + 2
        and not cooling.half_open
    )
    assert breaker.blocked(1, 10, 8, now) is None and breaker.blocked(1, 11, 7, now) is None, (
        "another model, another key"
    )
    later = cooling.until + 0.1
    assert breaker.blocked(1, 10, 7, later) is None
    probe = breaker.enter(1, 10, 7, later)
    assert probe and (waiting := breaker.blocked(1, 10, 7, later)) is not None and waiting.half_open, "one probe"
    assert breaker.blocked(1, 10, 7, later + PROBE_SECONDS + 1) is None, (
        "a probe that never comes back blocks nobody for ever"
    )
    breaker.leave(probe)
    probe = breaker.enter(1, 10, 7, later)
    breaker.failed(1, 10, 7, failure(C.TRANSIENT), later, later)
    breaker.leave(probe)
    again = breaker.blocked(1, 10, 7, later)
    assert again is not None and again.until == pytest.approx(later + 4), "twice as long"
    last = again.until + 1
    probe = breaker.enter(1, 10, 7, last)
    breaker.succeeded(1, 10, 7, last)
    breaker.leave(probe)
    assert breaker.blocked(1, 10, 7, last) is None
    assert breaker.changed == {(1, 10, 7)}


def test_streams_that_begin_and_break_open_it_too() -> None:
    breaker = CircuitBreaker()
    opened = []
    for _ in range(7):
        breaker.succeeded(1, 10, 7, NOW)
        opened.append(breaker.failed(1, 10, 7, failure(C.STREAM_BROKEN), NOW, NOW))
    assert opened == [False] * 6 + [True]


def test_most_of_the_last_ten_open_it_and_a_third_do_not() -> None:
    breaker = CircuitBreaker()
    for index in range(300):
        if index % 3:
            breaker.succeeded(1, 10, 7, NOW)
        else:
            assert not breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW)
    opened = []
    for index in range(20):
        if index % 5 == 4:
            breaker.succeeded(1, 10, 7, NOW)
        else:
            opened.append(breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW))
    assert any(opened)


def test_what_fails_now_and_then_is_used_when_nothing_else_is_left_and_what_always_fails_is_not() -> None:
    routes, live = [channel(1)], Live()
    for _ in range(CONSECUTIVE_FAILURES):
        live.breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW)
    assert live.breaker.blocked(1, 10, 7, NOW) is not None
    assert choose(routes, live) == 1 and choose([*routes, channel(2, priority=-5)], live) == 2
    assert explain_routes(routes, live, PREFERENCE, NOW)[0].status is RouteStatus.NEXT
    for _ in range(5):
        live.breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW)
    assert choose(routes, live) is None, "ten of ten"
    assert explain_routes(routes, live, PREFERENCE, NOW)[0].status is RouteStatus.COOLING
    for kind in (C.RATE, C.OVERLOAD, C.TRANSIENT):
        live = Live()
        live.breaker.failed(1, 10, 7, failure(kind, wait=9.0), NOW, NOW)
        if kind is not C.TRANSIENT:
            assert choose(routes, live) is None, "it asked to be left alone"
        live = Live()
        live.breaker.failed(1, 10, 7, failure(kind), NOW, NOW)
        assert choose(routes, live) == 1, "it did not: for how long is a guess"
    for bad in (
        failure(C.BILLING),
        failure(C.KEY_FORBIDDEN_MODEL),
        failure(C.QUOTA_WINDOW),
        failure(C.CONFIG),
        failure(C.RATE, ordered=True),
    ):
        live = Live()
        live.breaker.failed(1, 10, 7, bad, NOW, NOW)
        assert choose(routes, live) is None, "it is certain"
    live = Live()
    live.breaker.failed(1, 10, 7, failure(C.KEY_DEAD, certain=False), NOW, NOW)
    assert choose(routes, live) == 1 and choose([*routes, channel(2, priority=-5)], live) == 2
    live = Live()
    live.breaker.failed(1, 10, 7, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    assert choose(routes, live) is None


def test_rare_failures_open_nothing_and_are_forgotten() -> None:
    breaker = CircuitBreaker()
    for index in range(50):
        assert not breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW + index, NOW + index)
        for _ in range(9):
            breaker.succeeded(1, 10, 7, NOW + index)
    for _ in range(10):
        breaker.succeeded(1, 10, 7, NOW + 60)
    assert not breaker.circuits


@pytest.mark.parametrize(
    ("kind", "blocks_other_key", "blocks_other_model", "seconds"),
    [
        (C.RATE, False, False, 5),
        (C.QUOTA_WINDOW, False, False, 3600),
        (C.OVERLOAD, True, False, 10),
        (C.KEY_DEAD, False, True, 30),
        (C.BILLING, False, True, 60),
        (C.KEY_FORBIDDEN_MODEL, False, False, 3600),
        (C.CONFIG, True, True, 30),
    ],
)
def test_each_class_opens_its_own_scope_at_once(
    kind: C, blocks_other_key: bool, blocks_other_model: bool, seconds: float
) -> None:
    breaker = CircuitBreaker()
    assert breaker.failed(1, 10, 7, failure(kind), NOW, NOW)
    found = breaker.blocked(1, 10, 7, NOW)
    assert found is not None and found.until == NOW + seconds
    assert (breaker.blocked(1, 11, 7, NOW) is not None) == blocks_other_key
    assert (breaker.blocked(1, 10, 8, NOW) is not None) == blocks_other_model
    assert breaker.blocked(2, 10, 7, NOW) is None


@pytest.mark.parametrize("kind", [C.CLIENT, C.CONTENT, C.TOO_LARGE, C.FULL, C.ENDED])
def test_what_is_not_the_channels_fault_is_not_held_against_it(kind: C) -> None:
    breaker = CircuitBreaker()
    for _ in range(20):
        assert not breaker.failed(1, 10, 7, failure(kind, wait=9.0), NOW, NOW)
    assert not breaker.circuits and not breaker.changed


def test_the_upstreams_own_time_counts_and_grows_only_without_one() -> None:
    breaker = CircuitBreaker()
    breaker.failed(1, 10, 7, failure(C.RATE, wait=17.5), NOW, NOW)
    found = breaker.blocked(1, 10, 7, NOW)
    assert found is not None and found.until == NOW + 17.5
    breaker = CircuitBreaker()
    moment, waits = NOW, []
    for _ in range(9):
        breaker.failed(1, 10, 7, failure(C.RATE), moment, moment)
        found = breaker.blocked(1, 10, 7, moment)
        assert found is not None
        waits.append(found.until - moment)
        moment = found.until + 0.1
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300, 300])


def test_what_was_under_way_when_it_opened_neither_lengthens_nor_closes_it() -> None:
    breaker = CircuitBreaker()
    breaker.failed(1, 10, 7, failure(C.RATE), NOW, NOW + 1)
    for _ in range(20):
        breaker.failed(1, 10, 7, failure(C.RATE), NOW, NOW + 1.5)
    breaker.succeeded(1, 10, 7, NOW)
    found = breaker.blocked(1, 10, 7, NOW + 2)
    assert found is not None and found.until == NOW + 6
    breaker.failed(1, 10, 7, failure(C.RATE, wait=30.0), NOW, NOW + 2)
    found = breaker.blocked(1, 10, 7, NOW + 2)
    assert found is not None and found.until == NOW + 32, "but for a longer time that the upstream names"


def test_an_address_that_nobody_answers_at_is_closed_at_once_for_all_keys_and_models() -> None:
    breaker = CircuitBreaker()
    assert breaker.failed(1, 10, 7, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    assert breaker.blocked(1, 11, 8, NOW) is not None
    breaker.succeeded(1, 11, 8, NOW + 5)
    assert breaker.blocked(1, 10, 7, NOW) is None


def test_another_workers_circuit_holds_here_and_its_owner_probes_first() -> None:
    breaker = CircuitBreaker()
    breaker.take_over((1, 0, 0), NOW, NOW + 10, "transient", "refused", 1)
    assert breaker.blocked(1, 10, 7, NOW + 10 + GRACE / 2) is not None
    assert breaker.blocked(1, 10, 7, NOW + 10 + GRACE) is None
    assert breaker.blocked(1, 10, 7, NOW, last_resort=True) is not None
    breaker.drop((1, 0, 0))
    assert breaker.blocked(1, 10, 7, NOW) is None and not breaker.changed
    breaker.take_over((1, 10, 7), NOW, NOW + 10, "rate", "x", 1, guessed=True)
    assert breaker.blocked(1, 10, 7, NOW) is not None and breaker.blocked(1, 10, 7, NOW, last_resort=True) is None


def test_a_circuit_that_nobody_asked_for_is_forgotten() -> None:
    breaker = CircuitBreaker()
    breaker.failed(1, 10, 7, failure(C.RATE), NOW, NOW)
    breaker.changed.clear()
    breaker.forget(NOW + 300)
    assert breaker.circuits
    breaker.forget(NOW + 1000)
    assert not breaker.circuits and breaker.changed == {(1, 10, 7)}


def test_failures_of_long_ago_do_not_add_up_with_those_of_now() -> None:
    breaker = CircuitBreaker()
    for _ in range(CONSECUTIVE_FAILURES - 1):
        breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW)
    assert not breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW + 601, NOW + 601)


def test_a_key_cools_down_no_longer_than_its_class_allows_since_a_test_brings_it_back() -> None:
    breaker = CircuitBreaker()
    breaker.failed(1, 10, 7, failure(C.KEY_DEAD, wait=86_400.0), NOW, NOW)
    found = breaker.blocked(1, 10, 7, NOW)
    assert found is not None and found.until == NOW + C.KEY_DEAD.longest


def test_an_older_word_of_another_worker_shortens_nothing() -> None:
    breaker = CircuitBreaker()
    breaker.take_over((1, 10, 7), NOW, NOW + 60, "rate", "new", 2)
    breaker.take_over((1, 10, 7), NOW - 30, NOW + 10, "rate", "old", 1)
    circuit = breaker.circuits[1, 10, 7]
    assert (circuit.until, circuit.detail, circuit.opened) == (NOW + 60, "new", 2)


def test_a_circuit_is_not_forgotten_while_it_is_probed() -> None:
    breaker = CircuitBreaker()
    breaker.failed(1, 10, 7, failure(C.RATE), NOW, NOW)
    probe = breaker.enter(1, 10, 7, NOW + 1000)
    breaker.forget(NOW + 1000)
    waiting = breaker.blocked(1, 10, 7, NOW + 1000)
    assert probe and waiting is not None and waiting.half_open
    assert waiting.until == NOW + 1001, "the others come back in a second, and not in the past"
    breaker.leave(probe)
    breaker.forget(NOW + 1000)
    assert not breaker.circuits
