"""Conversations that leave a warm cache: once each, with what it cost and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from portal import limits
from portal.lib import clock
from relay.models import CacheSwitch, ChannelModel, Model, ModelPrice
from relay.usage import rollup
from relay.usage.conversations import switches
from relay.usage.conversations.switches import Lost, lost, switch_sums, switches_by_reason
from tests.support.portal import People
from tests.usage.conversations.turns import TURN, before, channel, turn

PRICE = ModelPrice(
    input=Decimal(3),
    cached_input=Decimal("0.3"),
    cache_write=Decimal("3.75"),
    cache_write_1h=Decimal(6),
    output=Decimal(15),
)


@pytest.mark.parametrize(
    ("now", "tokens", "usd"),
    [
        ({}, 8000, "0.0216"),  # read uncached: 2.7 more for a million
        ({"written": 9000}, 8000, "0.0276"),  # written anew: 3.45 more
        ({"written": 9000, "written_1h": 9000}, 8000, "0.0456"),
        ({"written": 5000}, 8000, "0.02535"),
        ({"cached": 8000}, 0, "0"),  # cached there as well
        ({"cached": 3000}, 5000, "0.0135"),
        ({"input": 500}, 500, "0.00135"),  # another prompt: no more than it has
    ],
)
def test_what_is_lost_is_what_had_been_cached_at_the_difference_of_prices(
    now: dict[str, Any], tokens: int, usd: str
) -> None:
    found = lost(before(), replace(TURN, **now), PRICE, 1_000_000)
    assert found == Lost(tokens, int(Decimal(usd) * 10**9))


def test_prices_that_are_missing_cost_what_the_ledger_takes_them_for_and_multipliers_count() -> None:
    bare = ModelPrice(input=Decimal(3), output=Decimal(15))
    assert lost(before(), TURN, bare, 1_000_000) == Lost(8000, 0), "cached input costs as much"
    assert lost(before(), TURN, None, 1_000_000) == Lost(8000, 0)
    assert lost(before(), TURN, PRICE, 500_000).cost == 10_800_000
    odd = ModelPrice(input=Decimal(1), cached_input=Decimal(2), output=Decimal(1))
    assert lost(before(), TURN, odd, 1_000_000).cost == 0, "a switch that saved something cost nothing"


def test_a_switch_is_one_event_with_its_cost_and_a_return_is_another(alone: None, people: People) -> None:
    (main, (key,)), (spare, (other,)) = channel("Main"), channel("Spare", priority=-1)
    price = ModelPrice.objects.create(
        model=Model.objects.get(name="m"), input=3, cached_input=Decimal("0.3"), cache_write=Decimal("3.75"), output=15
    )
    away = {"instead_of": [main.pk, key.pk], "because": "overload", "cooling": True}
    log = [{"channel": spare.pk, "key": other.pk, "ms": 5, "outcome": "ok", **away}]
    turn(people.owner, key, 90, cache_write_tokens=8000)
    moved = turn(people.owner, other, 60, cache_write_tokens=9000, attempt_log=log, price=price)
    turn(people.owner, other, 40, cached_input_tokens=9000, price=price)
    turn(people.owner, other, 35, cached_input_tokens=9000, attempt_log=log, price=price)
    back = turn(people.owner, key, 30, cached_input_tokens=1000, price=price)
    rollup.catch_up()
    rollup.catch_up()
    first, second = CacheSwitch.objects.order_by("pk")
    assert (first.request_id, first.reason, first.detail) == (moved.request_id, "cooling", "overload")
    assert (first.from_channel, first.from_key, first.to_channel, first.to_key) == (main, key, spare, other)
    assert (first.tokens, first.cost, first.user) == (8000, 27_600_000, people.owner)
    assert (second.request_id, second.reason, second.tokens) == (back.request_id, "returned", 8000)
    assert switch_sums(clock.now() - timedelta(hours=1)).switches == 2
    assert switch_sums(clock.now() - timedelta(hours=1), main.pk).tokens == 8000
    assert [reason for reason, _ in switches_by_reason(clock.now() - timedelta(hours=1))] == ["cooling", "returned"]
    rollup.rebuild()
    assert CacheSwitch.objects.count() == 2, "sums are made again, events are not"


@pytest.mark.parametrize("chunked", [False, True], ids=["in one round", "in two"])
def test_nothing_is_lost_without_a_warm_cache(alone: None, people: People, chunked: bool) -> None:
    (_main, (key, second)), (_spare, (other,)) = channel("Main", 2), channel("Spare")

    def look() -> None:
        if chunked:
            rollup.catch_up()

    turn(people.owner, key, 4000, cache_write_tokens=8000, conversation=1)
    look()
    turn(people.owner, other, 10, conversation=1)  # cold by then
    turn(people.owner, key, 60, conversation=2)
    look()
    turn(people.owner, other, 10, conversation=2)  # nothing had been cached
    turn(people.owner, key, 60, cached_input_tokens=8000, conversation=3)
    look()
    turn(people.owner, other, 10, cached_input_tokens=8500, conversation=3)  # cached there, too
    turn(people.owner, key, 60, cached_input_tokens=8000, conversation=None)
    look()
    turn(people.owner, second, 10, conversation=None)
    rollup.catch_up()
    assert not CacheSwitch.objects.exists()


def test_an_hour_long_cache_is_warm_for_an_hour(alone: None, people: People) -> None:
    (_main, (key,)), (_spare, (other,)) = channel("Main"), channel("Spare")
    turn(people.owner, key, 3000, cache_write_tokens=8000, cache_write_1h_tokens=8000)
    turn(people.owner, other, 10)
    rollup.catch_up()
    assert CacheSwitch.objects.get().tokens == 8000


def disable_channel(main: Any, key: Any, spare: Any) -> None:
    main.enabled = False
    main.save()


def disable_key(main: Any, key: Any, spare: Any) -> None:
    key.enabled = False
    key.save()


def delete_key(main: Any, key: Any, spare: Any) -> None:
    key.delete()


def take_key_out(main: Any, key: Any, spare: Any) -> None:
    key.auto_disabled = "billing"
    key.save()


def take_model_off(main: Any, key: Any, spare: Any) -> None:
    ChannelModel.objects.filter(channel=main).update(enabled=False)


def prefer_spare(main: Any, key: Any, spare: Any) -> None:
    spare.priority = 5
    spare.save()


def scatter(main: Any, key: Any, spare: Any) -> None:
    Model.objects.update(sticky=False)


def nothing(main: Any, key: Any, spare: Any) -> None:
    """As when a weight was changed."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (disable_channel, "channel_off"),
        (disable_key, "key_removed"),
        (delete_key, "key_removed"),
        (take_key_out, "key_out"),
        (take_model_off, "model_off"),
        (prefer_spare, "priority"),
        (scatter, "scattered"),
        (nothing, "config"),
    ],
)
def test_what_people_changed_is_the_reason_where_nothing_failed(
    alone: None, people: People, change: Any, reason: str
) -> None:
    (main, (key,)), (spare, (other,)) = channel("Main"), channel("Spare")
    turn(people.owner, key, 60, cache_write_tokens=8000)
    turn(people.owner, other, 10)
    change(main, key, spare)
    rollup.catch_up()
    assert CacheSwitch.objects.get().reason == reason


@pytest.mark.parametrize(
    ("because", "cooling", "reason"),
    [("full", False, "limit"), ("billing", True, "key_out"), ("rate", True, "cooling"), ("timeout", False, "failed")],
)
def test_what_the_worker_wrote_down_is_the_reason(
    alone: None, people: People, because: str, cooling: bool, reason: str
) -> None:
    (main, (key,)), (spare, (other,)) = channel("Main"), channel("Spare")
    turn(people.owner, key, 60, cache_write_tokens=8000)
    entry = {"channel": spare.pk, "key": other.pk, "ms": 5, "outcome": "ok"}
    entry |= {"instead_of": [main.pk, key.pk], "because": because, **({"cooling": True} if cooling else {})}
    turn(people.owner, other, 10, attempt_log=[entry])
    rollup.catch_up()
    assert CacheSwitch.objects.get().reason == reason


def test_many_switches_of_an_hour_are_bounded_rows_with_the_whole_sum(
    alone: None, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CACHE_SWITCHES_AN_HOUR", 3)
    (main, (key,)), (_spare, (other,)) = channel("Main"), channel("Spare")
    at = clock.now().replace(minute=30)  # all of them in one hour
    for number in range(8):
        turn(people.owner, key, conversation=number, started_at=at, cache_write_tokens=8000)
        turn(people.owner, other, conversation=number, started_at=at + timedelta(seconds=9))
        if number in {4, 6}:
            rollup.catch_up()
    rollup.catch_up()
    assert sorted(CacheSwitch.objects.values_list("switches", flat=True)) == [1, 1, 1, 5]
    assert switch_sums(at - timedelta(hours=1), main.pk).tokens == 8 * 8000
    assert CacheSwitch.objects.get(switches=5).user is None


def test_old_switches_are_deleted(alone: None, people: People) -> None:
    old = clock.now() - timedelta(days=limits.CACHE_SWITCH_DAYS, hours=1)
    values = {"model": "m", "request_id": "req_x", "reason": "config", "tokens": 1, "cost": 1}
    CacheSwitch.objects.create(at=old, **values)
    kept = CacheSwitch.objects.create(at=old + timedelta(hours=2), **values)
    assert switches.delete_expired() == 1 and list(CacheSwitch.objects.all()) == [kept]
    assert switches.delete_expired(lambda: True) == 0


def test_sums_do_not_depend_on_it(alone: None, people: People, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    (_main, (key,)) = channel("Main")
    monkeypatch.setattr(switches, "turns", lambda _pks: 1 / 0)
    turn(people.owner, key)
    assert rollup.catch_up() == 0 and "could not be looked for" in caplog.text
