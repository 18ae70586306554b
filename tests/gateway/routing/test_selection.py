"""Picking and circuits, without a network: routes and live state in, a choice out."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import httpx
import pytest

from relay.errors import UpstreamFailed
from relay.gateway.routing.circuit_breaker import GRACE, IN_A_ROW, PROBE_SECONDS, CircuitBreaker
from relay.gateway.routing.selection import Live, RoutePreference, RouteStatus, Strategy, explain, pick
from relay.gateway.snapshot.views import ChannelView, KeyView, PoolView, Route, Timeouts
from relay.protocols.chat_completions.request import conversation, parse_chat_request
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass as C

WISH = RoutePreference(7)
NOW = 1_800_000_000.0


def channel(number: int, priority: int = 0, weight: int = 1, keys: int = 1, refusal: str = "", **more: Any) -> Route:
    views = tuple(KeyView(number * 10 + index, 1, {}) for index in range(keys))
    urls, times = {"chat.completions": httpx.URL("https://x.example.com")}, Timeouts(1, 1, 1, 1)
    return Route(ChannelView(number, str(number), "openai", urls, views, priority, weight, frozenset(), "", True, True, times, refusal, **more), "m")


def choose(routes: list[Route], live: Live | None = None, preference: RoutePreference = WISH, number: float = 0.0, now: float = NOW) -> int | None:
    found = pick(routes, set(), live or Live(), preference, now, lambda: number)
    return found.route.channel.id if found else None


def share(routes: list[Route], times: int, **options: Any) -> Counter[int]:
    source = random.Random(7)
    live = options.pop("live", None) or Live()
    preference = options.pop("wish", WISH)
    return Counter(found.route.channel.id for _ in range(times) if (found := pick(routes, set(), live, preference, NOW, source.random)))


def failure(kind: C, wait: float | None = None, **more: Any) -> Failure:
    return Failure(kind, UpstreamFailed("x"), 500, "because", wait, **more)


# -- picking -----------------------------------------------------------------------------------------------------------


def test_pick_goes_down_the_priorities_and_never_repeats() -> None:
    routes = [channel(1, priority=0), channel(2, priority=5, keys=2), channel(3, priority=5), channel(4, priority=9, refusal="not allowed"), channel(5, priority=9, keys=0)]
    tried: set[tuple[int, int]] = set()
    order = []
    while (found := pick(routes, tried, Live(), WISH, NOW, lambda: 0.0)) is not None:
        assert found.pair not in tried
        tried.add(found.pair)
        order.append(found.route.channel.id)
    assert sorted(order[:3]) == [2, 2, 3] and order[3:] == [1] and len(tried) == 4


def test_weighted_follows_the_weights() -> None:
    assert 2850 < share([channel(1, weight=1), channel(2, weight=3)], 4000)[2] < 3150


def test_round_robin_takes_turns_by_weight_and_smoothly() -> None:
    routes, live, preference = [channel(1, weight=1), channel(2, weight=3)], Live(), RoutePreference(7, Strategy.ROUND_ROBIN)
    order = [choose(routes, live, preference) for _ in range(8)]
    assert Counter(order) == {2: 6, 1: 2} and order[:4].count(1) == 1


def test_least_in_flight_takes_the_idlest_by_weight() -> None:
    live, preference = Live(), RoutePreference(7, Strategy.LEAST_IN_FLIGHT)
    routes = [channel(1, weight=1), channel(2, weight=4)]
    for _ in range(3):
        live.begin(2)
    live.begin(1)
    assert choose(routes, live, preference) == 2, "3 of 4 is less than 1 of 1"
    live.end(1)
    assert choose(routes, live, preference) == 1
    for _ in range(3):
        live.end(2)
    assert not live.in_flight


def test_lowest_latency_measures_everybody_then_takes_the_fastest_and_looks_again_now_and_then() -> None:
    live, preference = Live(), RoutePreference(7, Strategy.LOWEST_LATENCY)
    routes = [channel(1), channel(2)]
    live.measured(1, 7, 0.1)
    assert choose(routes, live, preference) == 2, "not measured yet"
    live.measured(2, 7, 0.5)
    found = share(routes, 2000, live=live, preference=preference)
    assert found[1] > 1900 and found[2] > 20
    for _ in range(30):
        live.measured(1, 7, 2.0)
    assert choose(routes, live, preference, 0.9) == 2
    live.measured(1, 8, 0.1)
    assert choose(routes, live, preference, 0.9) == 2, "another model says nothing"


def test_the_models_strategy_stands_before_the_pools_and_that_before_the_installations() -> None:
    pool = PoolView(1, "p", Strategy.ROUND_ROBIN)
    routes = [channel(1, pool=pool), channel(2, pool=pool)]
    live = Live()
    assert [choose(routes, live, RoutePreference(7)) for _ in range(4)] == [1, 2, 1, 2]
    assert [choose(routes, live, RoutePreference(7, Strategy.WEIGHTED)) for _ in range(4)] == [1, 1, 1, 1]
    mixed = [channel(1, pool=pool), channel(3)]
    assert [choose(mixed, live, RoutePreference(7)) for _ in range(4)] == [1, 1, 1, 1], "not all of one pool"
    live = Live()
    assert [choose([channel(1), channel(3)], live, RoutePreference(7, default=Strategy.ROUND_ROBIN)) for _ in range(4)] == [1, 3, 1, 3]


def test_keys_at_random_and_in_turn() -> None:
    in_turn = channel(1, keys=3, key_strategy="round_robin")
    live = Live()
    found = [pick([in_turn], set(), live, WISH, NOW, lambda: 0.0) for _ in range(6)]
    assert [one.key.id for one in found if one] == [10, 11, 12, 10, 11, 12]
    source = random.Random(1)
    keys = Counter(one.key.id for _ in range(3000) if (one := pick([channel(1, keys=3)], set(), Live(), WISH, NOW, source.random)))
    assert all(900 < count < 1100 for count in keys.values())


def test_a_conversation_keeps_its_channel_and_key_and_comes_back_to_it() -> None:
    routes = [channel(number, keys=3, weight=weight) for number, weight in ((1, 1), (2, 1), (3, 2))]
    homes = {}
    for talk in range(600):
        preference = RoutePreference(7, Strategy.ROUND_ROBIN, conversation=f"talk {talk}")
        found = {one.pair for _ in range(3) if (one := pick(routes, set(), Live(), preference, NOW, random.random))}
        assert len(found) == 1
        homes[talk] = found.pop()
    spread = Counter(channel for channel, _ in homes.values())
    assert 240 < spread[3] < 360 and 100 < spread[1] < 200, "by weight"
    live = Live()
    live.breaker.failed(3, 30, 7, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    moved = 0
    for talk, home in homes.items():
        preference = RoutePreference(7, conversation=f"talk {talk}")
        away = pick(routes, set(), live, preference, NOW, random.random)
        assert away is not None
        if home[0] != 3:
            assert away.pair == home, "the others stay where they are"
        else:
            moved += away.route.channel.id != 3
        again = pick(routes, set(), Live(), preference, NOW, random.random)
        assert again is not None and again.pair == home
    assert moved == spread[3]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('"prompt_cache_key":"k","user":"u"', "k"),
        ('"previous_response_id":"resp_1","user":"u"', "resp_1"),
        ('"metadata":{"user_id":"m"},"user":"u"', "m"),
        ('"user":"u"', "u"),
        ('"user":null,"metadata":null', ""),
        ('"user":7,"metadata":{"user_id":{}},"prompt_cache_key":[]', ""),
        ('"temperature":1', ""),
    ],
)
def test_what_tells_a_conversation(body: str, expected: str) -> None:
    request = parse_chat_request(f'{{"model":"m","messages":[{{}}],{body}}}'.encode())
    assert conversation(request.fields) == expected


def test_a_pinned_channel_is_asked_even_while_it_cools_down_and_no_other_is() -> None:
    routes = [channel(1), channel(2, priority=9)]
    live = Live()
    live.breaker.failed(1, 10, 7, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    assert choose(routes, live, RoutePreference(7, pinned=1)) == 1
    assert choose(routes, live, RoutePreference(7, pinned=3)) is None


# -- circuits ----------------------------------------------------------------------------------------------------------


def test_several_failures_open_the_circuit_and_one_probe_at_a_time_closes_it() -> None:
    breaker = CircuitBreaker()
    for index in range(IN_A_ROW):
        assert breaker.blocked(1, 10, 7, NOW) is None
        assert breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW + index, NOW + index) is (index == IN_A_ROW - 1)
    now = NOW + IN_A_ROW
    cooling = breaker.blocked(1, 10, 7, now)
    assert cooling is not None and cooling.kind is C.TRANSIENT and cooling.until == NOW + IN_A_ROW - 1 + 2 and not cooling.half_open
    assert breaker.blocked(1, 10, 8, now) is None and breaker.blocked(1, 11, 7, now) is None, "another model, another key"
    later = cooling.until + 0.1
    assert breaker.blocked(1, 10, 7, later) is None
    probe = breaker.enter(1, 10, 7, later)
    assert probe and (waiting := breaker.blocked(1, 10, 7, later)) is not None and waiting.half_open, "one probe"
    assert breaker.blocked(1, 10, 7, later + PROBE_SECONDS + 1) is None, "a probe that never comes back blocks nobody for ever"
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
    for _ in range(IN_A_ROW):
        live.breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW)
    assert live.breaker.blocked(1, 10, 7, NOW) is not None
    assert choose(routes, live) == 1 and choose([*routes, channel(2, priority=-5)], live) == 2
    assert explain(routes, live, WISH, NOW)[0].standing is RouteStatus.NEXT
    for _ in range(5):
        live.breaker.failed(1, 10, 7, failure(C.TRANSIENT), NOW, NOW)
    assert choose(routes, live) is None, "ten of ten"
    assert explain(routes, live, WISH, NOW)[0].standing is RouteStatus.COOLING
    for kind in (C.RATE, C.OVERLOAD, C.TRANSIENT):
        live = Live()
        live.breaker.failed(1, 10, 7, failure(kind, wait=9.0), NOW, NOW)
        if kind is not C.TRANSIENT:
            assert choose(routes, live) is None, "it asked to be left alone"
        live = Live()
        live.breaker.failed(1, 10, 7, failure(kind), NOW, NOW)
        assert choose(routes, live) == 1, "it did not: for how long is a guess"
    for bad in (failure(C.BILLING), failure(C.KEY_FORBIDDEN_MODEL), failure(C.QUOTA_WINDOW), failure(C.CONFIG), failure(C.RATE, ordered=True)):
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
        (C.RATE, False, False, 5), (C.QUOTA_WINDOW, False, False, 3600), (C.OVERLOAD, True, False, 10), (C.KEY_DEAD, False, True, 30), (C.BILLING, False, True, 60),
        (C.KEY_FORBIDDEN_MODEL, False, False, 3600), (C.CONFIG, True, True, 30),
    ],
)  # fmt: skip
def test_each_class_opens_its_own_scope_at_once(kind: C, blocks_other_key: bool, blocks_other_model: bool, seconds: float) -> None:
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


# -- explaining --------------------------------------------------------------------------------------------------------


def test_an_explanation_agrees_with_what_is_picked_and_uses_no_turn_up() -> None:
    pool = PoolView(1, "p", Strategy.ROUND_ROBIN)
    routes = [channel(1, pool=pool), channel(2, pool=pool), channel(3, priority=-1), channel(4, refusal="no"), channel(5, keys=0), channel(6, keys=2)]
    live = Live()
    live.breaker.failed(6, 60, 7, failure(C.RATE, wait=9.0), NOW, NOW)
    live.breaker.failed(6, 61, 7, failure(C.RATE, wait=9.0), NOW, NOW)
    for _ in range(5):
        lines = {(line.route.channel.id, line.key.id if line.key else 0): line for line in explain(routes, live, WISH, NOW)}
        said = next(pair for pair, line in lines.items() if line.standing is RouteStatus.NEXT)
        found = pick(routes, set(), live, WISH, NOW, lambda: 0.0)
        assert found is not None and found.pair == said
    assert lines[3, 30].standing is RouteStatus.STANDBY and lines[4, 0].standing is RouteStatus.REFUSED and lines[5, 0].standing is RouteStatus.NO_KEY
    cooling = lines[6, 61].cooling
    assert lines[6, 61].standing is RouteStatus.COOLING and cooling is not None and cooling.until == NOW + 9
