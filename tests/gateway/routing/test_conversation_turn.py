"""Where a conversation's prompt is expected to be cached, and why another channel or key is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from relay.gateway.routing.continuity import Continuity, LastTurn
from relay.gateway.routing.conversation_turn import ConversationTurn, cold_at, home, only
from relay.gateway.routing.live import Live
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.snapshot.views import DisabledKey, Pair, Route
from relay.protocols.usage import Usage
from relay.providers.failures import FailureClass as C
from tests.gateway.routing.routes import NOW, channel, failure

TALK = RoutePreference(7, conversation="1 talk", user=1)


def choose(known: Continuity, routes: list[Route], live: Live, failed: dict[Pair, C] | None = None) -> ConversationTurn:
    """The turn after a channel was chosen for it, of which these had failed before."""
    turn = ConversationTurn(known, known.digest(1, 7, "talk"))
    for pair, kind in (failed or {}).items():
        turn.failed(pair, failure(kind))
    chosen = pick(routes, set(failed or ()), live, TALK, NOW, lambda: 0.0)
    assert chosen is not None
    turn.choose(chosen.pair, routes, live, TALK, NOW)
    return turn


def test_a_conversation_has_the_same_digest_on_every_worker_and_another_with_another_model_user_or_key() -> None:
    one = Continuity(b"k").digest(1, 7, "talk")
    assert one == Continuity(b"k").digest(1, 7, "talk") and -(2**63) <= one < 2**63
    others = {
        Continuity(b"other").digest(1, 7, "talk"),
        Continuity(b"k").digest(2, 7, "talk"),
        Continuity(b"k").digest(1, 8, "talk"),
        Continuity(b"k").digest(1, 7, "tal\ud800k"),
    }
    assert len(others | {one}) == 5


def test_home_is_what_is_picked_while_nothing_fails() -> None:
    routes = [channel(number, keys=3) for number in range(1, 6)] + [channel(9, priority=-1)]
    for number in range(50):
        preference = replace(TALK, conversation=f"1 {number}")
        chosen = pick(routes, set(), Live(), preference, NOW, lambda: 0.0)
        assert chosen is not None and home(routes, preference) == chosen.pair
    assert home(routes, replace(TALK, conversation="")) is None and home([], TALK) is None


def test_at_home_there_is_nothing_to_say() -> None:
    routes = [channel(1), channel(2), channel(3)]
    assert choose(Continuity(), routes, Live()).elsewhere is None


def open_circuit(live: Live, pair: Pair) -> None:
    live.failed((*pair, 7), 1, failure(C.RATE, wait=60.0, reserved=True), NOW, NOW)


def fail_in_request(live: Live, pair: Pair) -> None:
    """Nothing that stays."""


@pytest.mark.parametrize(
    ("before", "failed", "expected"),
    [(open_circuit, None, ("rate", True)), (fail_in_request, C.TRANSIENT, ("transient", False))],
    ids=["left alone", "failed now"],
)
@pytest.mark.parametrize("remembered", [True, False])
def test_it_says_why_another_one_is_asked_also_on_a_worker_that_had_no_turn_of_it(
    remembered: bool, before: Callable[[Live, Pair], None], failed: C | None, expected: tuple[str, bool]
) -> None:
    routes, known, live = [channel(1), channel(2), channel(3)], Continuity(), Live()
    usual = home(routes, TALK)
    assert usual is not None
    if remembered:
        known.remember_turn(known.digest(1, 7, "talk"), LastTurn(usual, NOW - 10))
    before(live, usual)
    turn = choose(known, routes, live, {usual: failed} if failed is not None else None)
    assert turn.elsewhere == (usual, *expected)


def test_what_was_taken_away_by_people_is_left_to_the_records() -> None:
    known = Continuity()
    known.remember_turn(known.digest(1, 7, "talk"), LastTurn((8, 80), NOW - 10))
    assert choose(known, [channel(1), channel(2)], Live()).elsewhere is None


def test_the_last_turn_is_remembered_and_the_hour_that_it_was_written_for() -> None:
    known = Continuity()
    digest = known.digest(1, 7, "talk")
    ConversationTurn(known, digest).answered((1, 10), Usage(input=0), NOW)
    assert known.last_turn(digest) is None, "nothing reached the upstream, as when tokens are counted"
    ConversationTurn(known, digest).answered((1, 10), Usage(input=900, cache_write=800, cache_write_1h=800), NOW)
    assert known.last_turn(digest) == LastTurn((1, 10), NOW, True)
    ConversationTurn(known, digest).answered((1, 10), Usage(input=990, cached_input=800), NOW + 5)
    assert known.last_turn(digest) == LastTurn((1, 10), NOW + 5, True), "what is read stays for another hour"
    ConversationTurn(known, digest).answered((2, 20), Usage(input=990, cached_input=800), NOW + 9)
    assert known.last_turn(digest) == LastTurn((2, 20), NOW + 9, False)


def test_a_cache_is_warm_for_as_long_as_its_vendor_keeps_prompts() -> None:
    routes = [channel(1), channel(2, cache_seconds=7200.0)]
    assert cold_at(LastTurn((1, 10), NOW), routes) == NOW + 300
    assert cold_at(LastTurn((1, 10), NOW, True), routes) == NOW + 3600
    assert cold_at(LastTurn((2, 20), NOW), routes) == NOW + 7200
    assert cold_at(LastTurn((3, 30), NOW), routes) == 0, "the channel is gone"


def test_only_one_channel_and_key_are_left_of_the_routes() -> None:
    out = DisabledKey(12, "k", "billing", "no money", NOW, 0)
    routes = [channel(1, keys=2, disabled_keys=(out,)), channel(2), channel(3, refusal="not permitted")]
    kept = only(routes, (1, 11))
    assert kept is not None and [(one.channel.id, [key.id for key in one.channel.keys]) for one in kept] == [(1, [11])]
    assert only(routes, (2, 20)) == [routes[1]]
    assert only(routes, (1, 12)) == [], "out of service, and may come back"
    assert only(routes, (1, 13)) is None and only(routes, (4, 40)) is None and only(routes, (3, 30)) is None
