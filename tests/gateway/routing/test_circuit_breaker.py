"""Circuits of channels, keys and models, without a network."""

from __future__ import annotations

import pytest

from relay.gateway.routing.circuit_breaker import CONSECUTIVE_FAILURES, GRACE, PROBE_SECONDS, CircuitBreaker, leave
from relay.gateway.routing.live import Live
from relay.gateway.routing.route_status import RouteStatus, explain_routes
from relay.providers.failures import FailureClass as C
from tests.gateway.routing.routes import NOW, PREFERENCE, channel, choose, failure


def test_several_failures_open_the_circuit_and_one_probe_at_a_time_closes_it() -> None:
    breaker = CircuitBreaker(own=True)
    for index in range(CONSECUTIVE_FAILURES):
        assert breaker.blocked((1, 10, 7), NOW) is None
        assert breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), NOW + index, NOW + index) is (
            index == CONSECUTIVE_FAILURES - 1
        )
    now = NOW + CONSECUTIVE_FAILURES
    cooling = breaker.blocked((1, 10, 7), now)
    assert (
        cooling is not None
        and cooling.kind is C.TRANSIENT
        and cooling.until == NOW + CONSECUTIVE_FAILURES - 1 + 2
        and not cooling.half_open
    )
    assert breaker.blocked((1, 10, 8), now) is None and breaker.blocked((1, 11, 7), now) is None, (
        "another model, another key"
    )
    later = cooling.until + 0.1
    assert breaker.blocked((1, 10, 7), later) is None
    probe = breaker.enter((1, 10, 7), later)
    assert probe and (waiting := breaker.blocked((1, 10, 7), later)) is not None and waiting.half_open, "one probe"
    assert breaker.blocked((1, 10, 7), later + PROBE_SECONDS + 1) is None, (
        "a probe that never comes back blocks nobody for ever"
    )
    leave(probe)
    probe = breaker.enter((1, 10, 7), later)
    breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), later, later)
    leave(probe)
    again = breaker.blocked((1, 10, 7), later)
    assert again is not None and again.until == pytest.approx(later + 4), "twice as long"
    last = again.until + 1
    probe = breaker.enter((1, 10, 7), last)
    breaker.succeeded((1, 10, 7), last)
    leave(probe)
    assert breaker.blocked((1, 10, 7), last) is None
    assert breaker.changed == {(1, 10, 7)}


def test_streams_that_begin_and_break_open_it_too() -> None:
    breaker = CircuitBreaker(own=True)
    opened = []
    for _ in range(7):
        breaker.succeeded((1, 10, 7), NOW)
        opened.append(breaker.failed((1, 10, 7), 1, failure(C.STREAM_BROKEN), NOW, NOW))
    assert opened == [False] * 6 + [True]


def test_most_of_the_last_ten_open_it_and_a_third_do_not() -> None:
    breaker = CircuitBreaker(own=True)
    for index in range(300):
        if index % 3:
            breaker.succeeded((1, 10, 7), NOW)
        else:
            assert not breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), NOW, NOW)
    opened = []
    for index in range(20):
        if index % 5 == 4:
            breaker.succeeded((1, 10, 7), NOW)
        else:
            opened.append(breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), NOW, NOW))
    assert any(opened)


def test_what_fails_now_and_then_is_used_when_nothing_else_is_left_and_what_always_fails_is_not() -> None:
    routes, live, at = [channel(1)], Live(), (1, 10, 7)
    for _ in range(CONSECUTIVE_FAILURES):
        live.failed(at, 1, failure(C.TRANSIENT), NOW, NOW)
    assert live.blocked(at, 1, NOW) is not None
    assert choose(routes, live) == 1 and choose([*routes, channel(2, priority=-5)], live) == 2
    assert next(explain_routes(routes, live, PREFERENCE, NOW)).status is RouteStatus.NEXT
    for _ in range(5):
        live.failed(at, 1, failure(C.TRANSIENT), NOW, NOW)
    assert choose(routes, live) is None, "ten of ten"
    assert next(explain_routes(routes, live, PREFERENCE, NOW)).status is RouteStatus.COOLING
    for kind in (C.RATE, C.OVERLOAD, C.TRANSIENT):
        live = Live()
        live.failed(at, 1, failure(kind, wait=9.0), NOW, NOW)
        if kind is not C.TRANSIENT:
            assert choose(routes, live) is None, "it asked to be left alone"
        live = Live()
        live.failed(at, 1, failure(kind), NOW, NOW)
        assert choose(routes, live) == 1, "it did not: for how long is a guess"
    for proof in (
        failure(C.BILLING, reserved=True),
        failure(C.KEY_DEAD, reserved=True),
        failure(C.QUOTA_WINDOW, wait=60.0),
        failure(C.CONFIG, ordered=True),
        failure(C.RATE, ordered=True),
        failure(C.TRANSIENT, unreachable=True),
    ):
        live = Live()
        live.failed(at, 1, proof, NOW, NOW)
        assert choose(routes, live) is None and not live.suspicions, "it is certain"
    for guess in (
        failure(C.BILLING),
        failure(C.KEY_DEAD),
        failure(C.QUOTA_WINDOW),
        failure(C.CONFIG),
        failure(C.CONFIG, status=302),
        failure(C.KEY_FORBIDDEN_MODEL, reserved=True),
    ):
        live = Live()
        for _ in range(20):
            live.failed(at, 1, guess, NOW, NOW)
        assert choose(routes, live) == 1 and choose([*routes, channel(2, priority=-5)], live) == 2


def test_rare_failures_open_nothing_and_are_forgotten() -> None:
    breaker = CircuitBreaker(own=True)
    for index in range(50):
        assert not breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), NOW + index, NOW + index)
        for _ in range(9):
            breaker.succeeded((1, 10, 7), NOW + index)
    for _ in range(10):
        breaker.succeeded((1, 10, 7), NOW + 60)
    assert not breaker.circuits


@pytest.mark.parametrize(
    ("kind", "blocks_other_key", "blocks_other_model", "seconds"),
    [
        (C.RATE, False, False, 5),
        (C.QUOTA_WINDOW, False, False, 60),
        (C.OVERLOAD, True, False, 10),
        (C.KEY_DEAD, False, True, 30),
        (C.BILLING, False, True, 60),
        (C.KEY_FORBIDDEN_MODEL, False, False, 60),
        (C.CONFIG, True, True, 30),
    ],
)
def test_each_class_opens_its_own_scope_when_requests_of_two_users_failed_so(
    kind: C, blocks_other_key: bool, blocks_other_model: bool, seconds: float
) -> None:
    breaker = CircuitBreaker()
    for _ in range(20):
        assert not breaker.failed((1, 10, 7), 1, failure(kind), NOW, NOW)
    assert breaker.blocked((1, 10, 7), NOW) is None, "all of one user"
    assert breaker.failed((1, 10, 7), 2, failure(kind), NOW, NOW)
    found = breaker.blocked((1, 10, 7), NOW)
    assert found is not None and found.until == NOW + seconds
    assert (breaker.blocked((1, 11, 7), NOW) is not None) == blocks_other_key
    assert (breaker.blocked((1, 10, 8), NOW) is not None) == blocks_other_model
    assert breaker.blocked((2, 10, 7), NOW) is None


@pytest.mark.parametrize("kind", [C.CLIENT, C.CONTENT, C.TOO_LARGE, C.FULL, C.ENDED])
def test_what_is_not_the_channels_fault_is_not_held_against_it(kind: C) -> None:
    breaker = CircuitBreaker()
    for _ in range(20):
        assert not breaker.failed((1, 10, 7), 1, failure(kind, wait=9.0), NOW, NOW)
    assert not breaker.circuits and not breaker.changed


def test_the_upstreams_own_time_counts_and_grows_only_without_one() -> None:
    breaker = CircuitBreaker(own=True)
    breaker.failed((1, 10, 7), 1, failure(C.RATE, wait=17.5), NOW, NOW)
    found = breaker.blocked((1, 10, 7), NOW)
    assert found is not None and found.until == NOW + 17.5
    breaker = CircuitBreaker(own=True)
    moment, waits = NOW, []
    for _ in range(9):
        breaker.failed((1, 10, 7), 1, failure(C.RATE), moment, moment)
        found = breaker.blocked((1, 10, 7), moment)
        assert found is not None
        waits.append(found.until - moment)
        moment = found.until + 0.1
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300, 300])


def test_what_was_under_way_when_it_opened_neither_lengthens_nor_closes_it() -> None:
    breaker = CircuitBreaker(own=True)
    breaker.failed((1, 10, 7), 1, failure(C.RATE), NOW, NOW + 1)
    for _ in range(20):
        breaker.failed((1, 10, 7), 1, failure(C.RATE), NOW, NOW + 1.5)
    breaker.succeeded((1, 10, 7), NOW)
    found = breaker.blocked((1, 10, 7), NOW + 2)
    assert found is not None and found.until == NOW + 6
    breaker.failed((1, 10, 7), 1, failure(C.RATE, wait=30.0), NOW, NOW + 2)
    found = breaker.blocked((1, 10, 7), NOW + 2)
    assert found is not None and found.until == NOW + 32, "but for a longer time that the upstream names"


def test_an_address_that_nobody_answers_at_is_closed_at_once_for_all_keys_and_models() -> None:
    breaker = CircuitBreaker()
    assert breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    assert breaker.blocked((1, 11, 8), NOW) is not None
    breaker.succeeded((1, 11, 8), NOW + 5)
    assert breaker.blocked((1, 10, 7), NOW) is None


def test_another_workers_circuit_holds_here_and_its_owner_probes_first() -> None:
    breaker = CircuitBreaker()
    breaker.take_over((1, 0, 0), NOW, NOW + 10, "transient", "refused", 1)
    assert breaker.blocked((1, 10, 7), NOW + 10 + GRACE / 2) is not None
    assert breaker.blocked((1, 10, 7), NOW + 10 + GRACE) is None
    assert breaker.blocked((1, 10, 7), NOW, last_resort=True) is not None
    breaker.drop((1, 0, 0))
    assert breaker.blocked((1, 10, 7), NOW) is None and not breaker.changed
    breaker.take_over((1, 10, 7), NOW, NOW + 10, "rate", "x", 1, guessed=True)
    assert breaker.blocked((1, 10, 7), NOW) is not None and breaker.blocked((1, 10, 7), NOW, last_resort=True) is None


def test_a_circuit_that_nobody_asked_for_is_forgotten() -> None:
    breaker = CircuitBreaker(own=True)
    breaker.failed((1, 10, 7), 1, failure(C.RATE), NOW, NOW)
    breaker.changed.clear()
    breaker.forget(NOW + 300)
    assert breaker.circuits
    breaker.forget(NOW + 1000)
    assert not breaker.circuits and breaker.changed == {(1, 10, 7)}


def test_failures_of_long_ago_do_not_add_up_with_those_of_now() -> None:
    breaker = CircuitBreaker(own=True)
    for _ in range(CONSECUTIVE_FAILURES - 1):
        breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), NOW, NOW)
    assert not breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT), NOW + 601, NOW + 601)


def test_a_key_cools_down_no_longer_than_its_class_allows_since_a_test_brings_it_back() -> None:
    breaker = CircuitBreaker()
    breaker.failed((1, 10, 7), 1, failure(C.KEY_DEAD, wait=86_400.0, reserved=True), NOW, NOW)
    found = breaker.blocked((1, 10, 7), NOW)
    assert found is not None and found.until == NOW + C.KEY_DEAD.longest


def test_an_older_word_of_another_worker_shortens_nothing() -> None:
    breaker = CircuitBreaker()
    breaker.take_over((1, 10, 7), NOW, NOW + 60, "rate", "new", 2)
    breaker.take_over((1, 10, 7), NOW - 30, NOW + 10, "rate", "old", 1)
    circuit = breaker.circuits[1, 10, 7]
    assert (circuit.until, circuit.detail, circuit.opened) == (NOW + 60, "new", 2)


def test_a_circuit_is_not_forgotten_while_it_is_probed() -> None:
    breaker = CircuitBreaker(own=True)
    breaker.failed((1, 10, 7), 1, failure(C.RATE), NOW, NOW)
    probe = breaker.enter((1, 10, 7), NOW + 1000)
    breaker.forget(NOW + 1000)
    waiting = breaker.blocked((1, 10, 7), NOW + 1000)
    assert probe and waiting is not None and waiting.half_open
    assert waiting.until == NOW + 1001, "the others come back in a second, and not in the past"
    leave(probe)
    breaker.forget(NOW + 1000)
    assert not breaker.circuits


# -- one user and everybody --------------------------------------------------------------------------------------------


def test_an_upstream_that_fails_for_several_users_is_left_alone_by_all() -> None:
    """At least two of the failures must be of other users than the rest."""
    breaker, at = CircuitBreaker(), (1, 10, 7)
    for _ in range(50):
        assert not breaker.failed(at, 1, failure(C.TRANSIENT), NOW, NOW)
    assert not breaker.failed(at, 2, failure(C.TIMEOUT), NOW, NOW), "once is chance"
    assert breaker.failed(at, 2, failure(C.TRANSIENT), NOW, NOW)
    assert breaker.blocked(at, NOW) is not None
    breaker = CircuitBreaker()
    opened = [breaker.failed(at, user, failure(C.TRANSIENT), NOW, NOW) for user in range(1, 7)]
    assert opened == [False] * 4 + [True, False]


def test_failures_of_one_user_among_the_successes_of_others_open_nothing() -> None:
    breaker, at = CircuitBreaker(), (1, 10, 7)
    for _ in range(50):
        for _ in range(9):
            assert not breaker.failed(at, 1, failure(C.TRANSIENT), NOW, NOW)
            assert not breaker.failed(at, 1, failure(C.RATE), NOW, NOW)
        breaker.succeeded(at, NOW)
        assert not breaker.failed(at, 2, failure(C.RATE), NOW, NOW), "an answer lies between"
        breaker.succeeded(at, NOW)


def test_a_user_whose_every_request_fails_does_not_keep_a_circuit_open_for_the_others() -> None:
    breaker, at = CircuitBreaker(), (1, 10, 7)
    breaker.failed(at, 1, failure(C.RATE, wait=5.0), NOW, NOW)
    for index in range(20):
        later = NOW + 6 + index
        probe = breaker.enter(at, later)
        assert not breaker.failed(at, 1, failure(C.TRANSIENT), later, later)
        leave(probe)
        assert breaker.blocked(at, later + 0.1) is None, "it waits for the probe of somebody else"
    breaker.failed(at, 2, failure(C.TRANSIENT), NOW + 30, NOW + 30)
    assert breaker.blocked(at, NOW + 30) is not None


def test_a_probe_that_fails_for_two_users_reopens_the_circuit_for_longer() -> None:
    breaker, at = CircuitBreaker(), (1, 10, 7)
    for user in (1, 2, 3, 4, 5):
        breaker.failed(at, user, failure(C.TRANSIENT), NOW, NOW)
    for user in (1, 2):
        breaker.failed(at, user, failure(C.TRANSIENT), NOW + 3, NOW + 3)
    found = breaker.blocked(at, NOW + 3)
    assert found is not None and found.until == NOW + 7, "twice as long"


def test_after_the_time_that_an_upstream_named_all_pass_where_nothing_else_can_serve() -> None:
    routes, live = [channel(1)], Live()
    live.failed((1, 10, 7), 1, failure(C.RATE, wait=5.0), NOW, NOW)
    assert choose(routes, live, now=NOW + 4.9) is None
    for _ in range(50):
        assert choose(routes, live, now=NOW + 5) == 1
        live.enter((1, 10, 7), 2, NOW + 5)
    assert choose([*routes, channel(2, priority=-5)], live, now=NOW + 5) == 2, "elsewhere there is room meanwhile"
    foreign = Live()
    foreign.breaker.take_over((1, 10, 7), NOW, NOW + 5, "rate", "x", 1)
    foreign.enter((1, 10, 7), 2, NOW + 5)
    assert choose(routes, foreign, now=NOW + 5) == 1, "on every worker"


def test_after_a_time_that_was_a_guess_a_growing_number_passes_where_nothing_else_can_serve() -> None:
    routes, live = [channel(1)], Live()
    live.failed((1, 10, 7), 1, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    passed: list[int] = []
    for second in range(2, 7):
        before = len(passed)
        while choose(routes, live, now=NOW + second) is not None:
            passed.append(second)
            live.enter((1, 10, 7), 2, NOW + second)
        assert len(passed) == 2 ** (second - 2) and len(passed) > before


def test_a_pause_that_an_upstream_names_is_believed_for_an_hour_and_a_quota_for_a_day() -> None:
    for kind, longest in ((C.RATE, 3600.0), (C.OVERLOAD, 3600.0), (C.QUOTA_WINDOW, 86_400.0)):
        breaker = CircuitBreaker()
        breaker.failed((1, 10, 7), 1, failure(kind, wait=30 * 86_400.0), NOW, NOW)
        found = breaker.blocked((1, 10, 7), NOW)
        assert found is not None and found.until == NOW + longest


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500])
def test_a_pause_in_an_answer_that_promises_none_concerns_one_user(status: int) -> None:
    live = Live()
    live.failed((1, 10, 7), 1, failure(C.RATE, wait=30 * 86_400.0, status=status), NOW, NOW)
    assert live.blocked((1, 10, 7), 2, NOW) is None
    mine = live.blocked((1, 10, 7), 1, NOW)
    assert mine is not None and mine.own and mine.until == NOW + 300
    assert choose([channel(1)], live) == 1, "nor does it refuse that user's requests"
