"""The choice of a channel, without a network: routes and live state in, a choice out."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from portal import config
from portal.lib.strategy import Strategy
from relay.gateway.routing.live import Live
from relay.gateway.routing.route_status import RouteStatus, explain_routes
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.snapshot.views import PoolView, Route
from relay.models import Model, Pool
from relay.models.pool import STRATEGY_WORDS
from relay.providers.failures import FailureClass as C
from tests.gateway.routing.routes import NOW, PREFERENCE, channel, choose, failure
from tests.support.server import ROOT


def share(routes: list[Route], times: int, **options: Any) -> Counter[int]:
    source = random.Random(7)
    live = options.pop("live", None) or Live()
    preference = options.pop("preference", PREFERENCE)
    return Counter(
        found.route.channel.id
        for _ in range(times)
        if (found := pick(routes, set(), live, preference, NOW, source.random))
    )


def test_pick_goes_down_the_priorities_and_never_repeats() -> None:
    routes = [
        channel(1, priority=0),
        channel(2, priority=5, keys=2),
        channel(3, priority=5),
        channel(4, priority=9, refusal="not allowed"),
        channel(5, priority=9, keys=0),
    ]
    tried: set[tuple[int, int]] = set()
    order = []
    while (found := pick(routes, tried, Live(), PREFERENCE, NOW, lambda: 0.0)) is not None:
        assert found.pair not in tried
        tried.add(found.pair)
        order.append(found.route.channel.id)
    assert sorted(order[:3]) == [2, 2, 3] and order[3:] == [1] and len(tried) == 4


def test_weighted_follows_the_weights() -> None:
    assert 2850 < share([channel(1, weight=1), channel(2, weight=3)], 4000)[2] < 3150


def test_round_robin_takes_turns_by_weight_and_smoothly() -> None:
    routes, live, preference = (
        [channel(1, weight=1), channel(2, weight=3)],
        Live(),
        RoutePreference(7, Strategy.ROUND_ROBIN),
    )
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
    live.measured(1, 7, 0.1)
    assert choose(routes, live, preference, 0.9) == 2, "one fast answer does not make a slow channel the fastest"


def test_the_models_strategy_stands_before_the_pools_and_that_before_the_installations() -> None:
    pool = PoolView(1, "p", Strategy.ROUND_ROBIN)
    routes = [channel(1, pool=pool), channel(2, pool=pool)]
    live = Live()
    assert [choose(routes, live, RoutePreference(7)) for _ in range(4)] == [1, 2, 1, 2]
    assert [choose(routes, live, RoutePreference(7, Strategy.WEIGHTED)) for _ in range(4)] == [1, 1, 1, 1]
    mixed = [channel(1, pool=pool), channel(3)]
    assert [choose(mixed, live, RoutePreference(7)) for _ in range(4)] == [1, 1, 1, 1], "not all of one pool"
    live = Live()
    assert [
        choose([channel(1), channel(3)], live, RoutePreference(7, default=Strategy.ROUND_ROBIN)) for _ in range(4)
    ] == [1, 3, 1, 3]


def test_keys_at_random_and_in_turn() -> None:
    in_turn = channel(1, keys=3, key_strategy="round_robin")
    live = Live()
    found = [pick([in_turn], set(), live, PREFERENCE, NOW, lambda: 0.0) for _ in range(6)]
    assert [one.key.id for one in found if one] == [10, 11, 12, 10, 11, 12]
    source = random.Random(1)
    keys = Counter(
        one.key.id
        for _ in range(3000)
        if (one := pick([channel(1, keys=3)], set(), Live(), PREFERENCE, NOW, source.random))
    )
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
    live.breaker.failed((3, 30, 7), 1, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
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


def test_the_channel_and_key_that_know_what_came_before_come_first_as_long_as_they_are_open() -> None:
    routes, live = [channel(1, keys=3), channel(2, priority=9)], Live()
    preference = RoutePreference(7, conversation="talk", prefer=(1, 12))
    found = pick(routes, set(), live, preference, NOW, lambda: 0.0)
    assert found is not None and found.pair == (1, 12), "although another has a higher priority"
    again = pick(routes, {(1, 12)}, live, preference, NOW, lambda: 0.0)
    assert again is not None and again.pair == (2, 20), "it has been tried"
    live.breaker.failed((1, 12, 7), 1, failure(C.RATE, wait=9.0), NOW, NOW)
    other = pick(routes, set(), live, preference, NOW, lambda: 0.0)
    assert other is not None and other.pair == (2, 20), "it cools down"


def test_a_pinned_channel_is_asked_even_while_it_cools_down_and_no_other_is() -> None:
    routes = [channel(1), channel(2, priority=9)]
    live = Live()
    live.breaker.failed((1, 10, 7), 1, failure(C.TRANSIENT, unreachable=True), NOW, NOW)
    assert choose(routes, live, RoutePreference(7, pinned=1)) == 1
    assert choose(routes, live, RoutePreference(7, pinned=3)) is None


def test_an_explanation_agrees_with_what_is_picked_and_uses_no_turn_up() -> None:
    pool = PoolView(1, "p", Strategy.ROUND_ROBIN)
    routes = [
        channel(1, pool=pool),
        channel(2, pool=pool),
        channel(3, priority=-1),
        channel(4, refusal="no"),
        channel(5, keys=0),
        channel(6, keys=2),
    ]
    live = Live()
    live.breaker.failed((6, 60, 7), 1, failure(C.RATE, wait=9.0), NOW, NOW)
    live.breaker.failed((6, 61, 7), 1, failure(C.RATE, wait=9.0), NOW, NOW)
    for _ in range(5):
        lines = {
            (line.route.channel.id, line.key.id if line.key else 0): line
            for line in explain_routes(routes, live, PREFERENCE, NOW)
        }
        said = next(pair for pair, line in lines.items() if line.status is RouteStatus.NEXT)
        found = pick(routes, set(), live, PREFERENCE, NOW, lambda: 0.0)
        assert found is not None and found.pair == said
    assert (
        lines[3, 30].status is RouteStatus.STANDBY
        and lines[4, 0].status is RouteStatus.REFUSED
        and lines[5, 0].status is RouteStatus.NO_KEY
    )
    cooling = lines[6, 61].cooling
    assert lines[6, 61].status is RouteStatus.COOLING and cooling is not None and cooling.until == NOW + 9


def test_every_strategy_can_be_set_chosen_and_explained() -> None:
    strategies = [strategy.value for strategy in Strategy]
    assert list(STRATEGY_WORDS) == strategies
    for field in (Model._meta.get_field("strategy"), Pool._meta.get_field("strategy")):
        assert [value for value, _words in field.flatchoices if value] == strategies
    for strategy in strategies:
        assert (
            config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_ROUTING_STRATEGY": strategy}).routing_strategy == strategy
        )
    sources = [path for room in ("portal", "relay") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in sources if "\nclass Strategy(" in path.read_text()] == ["strategy.py"]
