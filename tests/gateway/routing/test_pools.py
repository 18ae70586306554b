"""Pools of thousands of keys: everybody's share, conversations that stay, and a price that does not grow."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from portal.lib.strategy import Strategy
from relay.gateway.routing.live import Live
from relay.gateway.routing.route_status import cooling_circuits
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.snapshot.routes import Keys, Routes
from relay.gateway.snapshot.shares import Shares, Turn, seeds_of
from relay.gateway.snapshot.views import Pair
from relay.providers.failures import FailureClass as C
from tests.gateway.routing.pools import Calls, pool
from tests.gateway.routing.routes import NOW, failure

DRAWS = int(os.environ.get("AIRELAYS_TEST_DRAWS", "20000"))  # a million proves more, and takes minutes
MIXED = (1, 3, 10, 1000)


def cool(live: Live, pairs: list[Pair], seconds: float = 99.0, model: int = 7) -> None:
    for channel, key in pairs:
        live.breaker.failed((channel, key, model), 1, failure(C.RATE, wait=seconds), NOW, NOW)


def pairs_of(routes: Routes) -> list[Pair]:
    return [(route.channel.id, key.id) for route in routes for key in route.channel.keys]


def chosen(routes: Routes, live: Live, preference: RoutePreference, source: random.Random, **more: Any) -> Pair:
    found = pick(routes, more.get("tried", frozenset()), live, preference, more.get("now", NOW), source.random)
    assert found is not None
    return found.pair


def assert_fair(found: Counter[int], weights: dict[int, int]) -> None:
    """By the chi-square test, which chance alone fails once in a million times; and nobody is left out."""
    draws, total = sum(found.values()), sum(weights.values())
    assert set(found) <= set(weights)
    expected = {item: draws * weight / total for item, weight in weights.items()}
    square = sum((found[item] - number) ** 2 / number for item, number in expected.items())
    free = len(weights) - 1
    assert square < free + 5 * (2 * free) ** 0.5 + 15, (square, free)
    assert all(found[item] for item, number in expected.items() if number > 20)


@pytest.mark.parametrize("strategy", [Strategy.WEIGHTED, Strategy.LEAST_IN_FLIGHT])
@pytest.mark.parametrize("weights", [(1,), (1, 3, 10)], ids=["equal", "mixed"])
def test_channels_get_their_share_of_draws(strategy: Strategy, weights: tuple[int, ...]) -> None:
    routes, source, live = pool(100, weights=weights), random.Random(5), Live()
    found = Counter(chosen(routes, live, RoutePreference(7, strategy), source)[0] for _ in range(DRAWS))
    assert_fair(found, {route.channel.id: route.channel.weight for route in routes})


@pytest.mark.parametrize("weights", [(1,), (1, 3, 10)], ids=["equal", "mixed"])
@pytest.mark.parametrize("cooling", [2, 20], ids=["half cooling", "nearly all cooling"])
def test_what_is_left_shares_by_weight_while_the_others_cool_down(weights: tuple[int, ...], cooling: int) -> None:
    routes, source, live = pool(200, weights=weights), random.Random(5), Live()
    open_ = {route.channel.id: route.channel.weight for route in routes if route.channel.id % cooling == 1}
    cool(live, [pair for pair in pairs_of(routes) if pair[0] not in open_])
    found = Counter(chosen(routes, live, RoutePreference(7), source)[0] for _ in range(DRAWS))
    assert_fair(found, open_)


@pytest.mark.parametrize("weights", [(1,), (1, 3, 10), MIXED], ids=["equal", "mixed", "far apart"])
def test_keys_get_their_share_of_draws_and_of_turns(weights: tuple[int, ...]) -> None:
    source = random.Random(5)
    for strategy in ("random", "round_robin"):
        routes, live = pool(1, 100, weights, key_strategy=strategy), Live()
        shares = {key.id: key.weight for key in routes[0].channel.keys}
        found = Counter(chosen(routes, live, RoutePreference(7), source)[1] for _ in range(DRAWS))
        assert_fair(found, shares)


@pytest.mark.parametrize("weights", [(1,), (1, 3, 10), MIXED], ids=["equal", "mixed", "far apart"])
def test_turns_are_exact(weights: tuple[int, ...]) -> None:
    routes, live, source = pool(40, weights=weights), Live(), random.Random(1)
    total = sum(route.channel.weight for route in routes)
    preference = RoutePreference(7, Strategy.ROUND_ROBIN)
    found = Counter(chosen(routes, live, preference, source)[0] for _ in range(3 * total))
    for route in routes:
        assert abs(found[route.channel.id] - 3 * route.channel.weight) <= 2, "each gets its own turns, whoever else"


@pytest.mark.parametrize("weights", [(1,), (1, 3, 10), MIXED], ids=["equal", "mixed", "far apart"])
def test_conversations_are_spread_by_weight(weights: tuple[int, ...]) -> None:
    routes, live, source = pool(100, weights=weights), Live(), random.Random(1)
    found = Counter(
        chosen(routes, live, RoutePreference(7, conversation=f"talk {talk}"), source)[0] for talk in range(DRAWS)
    )
    assert_fair(found, {route.channel.id: route.channel.weight for route in routes})


def test_weights_are_kept_exactly() -> None:
    """Of all numbers that can be drawn, and of all cells: what chance adds is left out."""
    for weights in ([1] * 1000, [1, 3, 10] * 300, list(MIXED) * 300, [1000] * 999 + [1]):
        shares = Shares(list(range(len(weights))), weights)
        shares.prepare()
        total = sum(weights)
        steps = 200_000
        drawn = Counter(shares.draw(step / steps) for step in range(steps))
        for item in (0, 1, 2, len(weights) - 1):
            assert abs(drawn[item] / steps - weights[item] / total) <= 2 / steps
        turn, turns = Turn(), 2 * total
        if turns < 20_000:
            taken = Counter(shares.next(turn) for _ in range(turns))
            assert all(abs(taken[item] - 2 * weight) <= 1 for item, weight in enumerate(weights))


def test_conversations_move_only_while_their_key_is_away() -> None:
    routes, source = pool(50, 20), random.Random(1)
    talks = [RoutePreference(7, conversation=f"talk {talk}") for talk in range(2_000)]
    homes = [chosen(routes, Live(), talk, source) for talk in talks]
    live, away = Live(), set(pairs_of(routes)[::7])
    cool(live, sorted(away))
    for talk, home in zip(talks, homes, strict=True):
        now_at = chosen(routes, live, talk, source)
        assert now_at == home if home not in away else now_at[0] == home[0] and now_at not in away
        assert chosen(routes, live, talk, source, now=NOW + 100) == home, "and it comes back"


def test_every_worker_sends_a_conversation_to_the_same_key() -> None:
    """Whatever they have seen before, in whatever order the rows came, and in every process."""
    first, second = pool(100, 3), pool(100, 3)
    busy = Live()
    source = random.Random(2)
    for _ in range(300):
        busy.begin(chosen(first, busy, RoutePreference(7, Strategy.ROUND_ROBIN), source)[0])
    for talk in range(300):
        preference = RoutePreference(7, conversation=f"talk {talk}")
        assert chosen(first, busy, preference, source) == chosen(second, Live(), preference, random.Random(talk))
    assert seeds_of("a conversation") == (10072833296997618912, 1164545114738895799)
    shares = Shares(list(range(1, 11)), [1] * 10)
    homes = [next(shares.walk(seeds_of(f"talk {talk}")[0])) for talk in range(12)]
    assert homes == [5, 3, 3, 8, 3, 0, 1, 8, 5, 1, 5, 2]


@pytest.mark.parametrize("weights", [(1,), (1, 3, 10)], ids=["equal", "mixed"])
def test_few_conversations_move_when_keys_are_added_and_removed(weights: tuple[int, ...]) -> None:
    ids = list(range(1, 1_001))
    weight = {number: weights[number % len(weights)] for number in range(1, 2_000)}
    talks = [seeds_of(f"talk {talk}")[0] for talk in range(20_000)]

    def homes(of: list[int]) -> list[int]:
        shares = Shares(of, [weight[one] for one in of])
        return [of[next(shares.walk(talk))] for talk in talks]

    before = homes(ids)
    without = homes([one for one in ids if one % 100])
    gone = sum(not one % 100 for one in before)
    moved = sum(old != new for old, new in zip(before, without, strict=True))
    assert gone and moved < 1.6 * gone, "those of the ten keys, and few of those that took another place for theirs"
    more = homes([*ids, 1_001, 1_002, 1_003])
    assert all(new > 1_000 for old, new in zip(before, more, strict=True) if old != new), "only to the new ones"


def test_a_key_out_of_service_keeps_its_conversations() -> None:
    ids = list(range(1, 101))
    talks = [seeds_of(f"talk {talk}")[0] for talk in range(3_000)]
    every, out = Shares(ids, [1] * 100), Shares([one for one in ids if one != 40], [1] * 99, [(40, 1)])
    for talk in talks:
        home = ids[next(every.walk(talk))]
        now_at = out.ids[next(out.walk(talk))]
        assert now_at == home if home != 40 else now_at != 40


def calls(work: Callable[[], object]) -> int:
    with Calls() as counted:
        work()
    return counted.count


def price(routes: Routes, live: Live, **preference: Any) -> float:
    source = random.Random(3)
    talks = preference.pop("talks", False)
    wanted = [RoutePreference(7, conversation=f"talk {n}" if talks else "", user=1, **preference) for n in range(200)]

    def run() -> None:
        for one in wanted:
            chosen(routes, live, one, source)

    run()
    return calls(run) / len(wanted)


@pytest.mark.parametrize("cooling", [False, True], ids=["calm", "half cooling"])
@pytest.mark.parametrize("strategy", [*Strategy, "conversation"])
def test_a_choice_costs_the_same_among_ten_and_ten_thousand(strategy: str, cooling: bool) -> None:
    found = []
    for channels, keys in ((10, 1), (10_000, 1)):
        routes, live = pool(channels, keys), Live()
        for route in routes:
            live.measured(route.channel.id, 7, 0.1)
        cool(live, pairs_of(routes)[1::2] if cooling else [])
        talks = strategy == "conversation"
        found.append(price(routes, live, talks=talks, strategy="" if talks else strategy))
    assert found[1] < 1.25 * found[0]


@pytest.mark.parametrize("cooling", [False, True], ids=["calm", "half cooling"])
@pytest.mark.parametrize("strategy", ["random", "round_robin", "conversation"])
def test_a_key_costs_the_same_among_ten_and_ten_thousand(strategy: str, cooling: bool) -> None:
    found = []
    for keys in (10, 10_000):
        routes, live = pool(1, keys, key_strategy="random" if strategy == "conversation" else strategy), Live()
        cool(live, pairs_of(routes)[1::2] if cooling else [])
        found.append(price(routes, live, talks=strategy == "conversation"))
    assert found[1] < 1.25 * found[0]


@pytest.mark.parametrize("shape", [(10_000, 1), (1, 10_000), (100, 100)], ids=str)
@pytest.mark.parametrize("strategy", [*Strategy, "conversation"])
def test_one_usable_key_of_ten_thousand_is_found_at_once(shape: tuple[int, int], strategy: str) -> None:
    routes, live = pool(*shape), Live()
    pairs = pairs_of(routes)
    left = pairs.pop(7_777)
    cool(live, pairs)
    talks = strategy == "conversation"
    preference = RoutePreference(7, "" if talks else strategy, conversation="talk" if talks else "", user=1)
    source = random.Random(4)
    for _ in range(3):
        assert chosen(routes, live, preference, source) == left, "every key is asked once"
    assert calls(lambda: chosen(routes, live, preference, source)) < 2_500
    again = pairs[123]
    live.breaker.succeeded((*again, 7), NOW + 1)
    found = {chosen(routes, live, RoutePreference(7, user=1), source) for _ in range(200)}
    assert found == {left, again}, "one that has come back is known"
    later = {chosen(routes, live, RoutePreference(7, user=1), source, now=NOW + 100) for _ in range(200)}
    assert len(later) > 50, "so are those whose time is over"


def test_that_nothing_is_left_is_known_without_asking_each() -> None:
    for shape in ((10_000, 1), (1, 10_000)):
        routes, live, source = pool(*shape), Live(), random.Random(1)
        cool(live, pairs_of(routes))
        wanted = RoutePreference(7, user=1)
        assert pick(routes, frozenset(), live, wanted, NOW, source.random) is None
        assert calls(lambda: pick(routes, frozenset(), live, wanted, NOW, source.random)) < 200  # noqa: B023
        circuits, whole = cooling_circuits(routes, live, wanted, NOW)
        assert 100 < len(circuits) < 1_000 and not whole
        assert pick(routes, frozenset(), live, wanted, NOW + 100, source.random) is not None


def test_a_lower_priority_serves_while_thousands_of_the_higher_one_are_away() -> None:
    high, low = pool(3_000, priority=5), pool(3_001)
    routes = Routes([*high, low[3_000]])
    live, source, wanted = Live(), random.Random(1), RoutePreference(7, user=1)
    cool(live, pairs_of(high))
    assert chosen(routes, live, wanted, source)[0] == 3_001
    assert calls(lambda: chosen(routes, live, wanted, source)) < 300
    assert chosen(routes, live, wanted, source, now=NOW + 100)[0] <= 3_000


def test_what_is_at_its_limit_is_passed_over_and_tried_last() -> None:
    routes, live, source = pool(2_000), Live(), random.Random(1)
    for channel, key in pairs_of(routes)[1:]:
        live.was_full((channel, key), 30.0, NOW)
    wanted = RoutePreference(7, user=1)
    assert {chosen(routes, live, wanted, source)[0] for _ in range(50)} == {1}
    assert calls(lambda: chosen(routes, live, wanted, source)) < 300
    live.was_full((1, 0), 30.0, NOW)
    assert chosen(routes, live, wanted, source)[0] > 0, "nothing else is left"
    live.begin(9)
    live.end(9, 9 * 20_000)
    assert {chosen(routes, live, wanted, source)[0] for _ in range(50)} == {9}, "a request of it has ended"


def test_tried_pinned_and_preferred_ones_cost_no_more() -> None:
    routes, live, source = pool(5_000, 2), Live(), random.Random(1)
    pairs = pairs_of(routes)
    tried = frozenset(pairs[:200:2])
    for _ in range(100):
        assert chosen(routes, live, RoutePreference(7), source, tried=tried) not in tried
    pinned = RoutePreference(7, pinned=4_000)
    chosen(routes, live, pinned, source)
    assert {chosen(routes, live, pinned, source)[0] for _ in range(50)} == {4_000}
    preferred = RoutePreference(7, prefer=pairs[-1], conversation="talk")
    assert chosen(routes, live, preferred, source) == pairs[-1]
    assert calls(lambda: chosen(routes, live, pinned, source)) < 100
    assert calls(lambda: chosen(routes, live, preferred, source)) < 100
    whole = chosen(routes, live, preferred, source, tried=frozenset({(pairs[-1][0], 0)}))
    assert whole[0] != pairs[-1][0], "all keys of the channel were tried"


def test_the_fastest_of_thousands_is_found_after_each_was_measured() -> None:
    routes, live, source = pool(500), Live(), random.Random(1)
    wanted = RoutePreference(7, Strategy.LOWEST_LATENCY)
    seen = set()
    for _ in range(500):
        channel = chosen(routes, live, wanted, source)[0]
        seen.add(channel)
        live.measured(channel, 7, 1.0 + channel / 1000)
    assert len(seen) == 500, "each is measured once, before any is measured again"
    for _ in range(3_000):
        chosen(routes, live, wanted, source)
    found = Counter(chosen(routes, live, wanted, source)[0] for _ in range(1_000))
    assert found.most_common(1)[0][0] <= 3 and found.most_common(1)[0][1] > 850
    cool(live, [(found.most_common(1)[0][0], found.most_common(1)[0][0] * 20_000)])
    assert chosen(routes, live, wanted, source)[0] != found.most_common(1)[0][0]


def test_the_least_busy_of_many_is_no_busier_than_the_others() -> None:
    routes, live, source = pool(1_000), Live(), random.Random(1)
    for _ in range(3_000):
        live.begin(chosen(routes, live, RoutePreference(7, Strategy.LEAST_IN_FLIGHT), source)[0])
    assert max(live.in_flight.values()) <= 6, "of three on average; drawn without looking, some have ten"


def test_what_is_remembered_between_choices_is_bounded() -> None:
    live, source = Live(), random.Random(1)
    for number in range(1, 30):
        routes = pool(number, 2, key_strategy="round_robin")
        for strategy in Strategy:
            for _ in range(3):
                live.measured(chosen(routes, live, RoutePreference(7, strategy), source)[0], 7, 1.0)
    live.keep(frozenset({1, 2}))
    assert set(live.latency) == {(1, 7), (2, 7)}
    assert Keys.number_of(pool(1, 5)[0].channel, 20_003) == 3
