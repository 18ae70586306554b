"""What a worker remembers of conversations: per user, bounded, for a day."""

from __future__ import annotations

import pytest

from relay.gateway.routing import continuity
from relay.gateway.routing.continuity import Continuity

ID = "resp_0123456789abcdef"


def test_makers_are_known_to_their_user_alone() -> None:
    known = Continuity()
    known.remember_maker(1, "gAAA", (7, 9))
    known.remember_maker(1, "gBBB", (8, 0))
    assert known.makers(1, ["gAAA", "gCCC", "gBBB"]) == {"gAAA": (7, 9), "gBBB": (8, 0)}
    assert known.makers(2, ["gAAA"]) == {}


def test_a_channel_that_forgets_is_named_nothing_for_a_day_and_by_one_user() -> None:
    known = Continuity()
    known.remember_forgetful(1, 7, 1000.0)
    assert not known.can_name(1, 7, ID, 1000.0 + 86_399)
    assert known.can_name(1, 7, ID, 1000.0 + 86_400)
    assert known.can_name(2, 7, ID, 1000.0) and known.can_name(1, 8, ID, 1000.0)


def test_an_id_that_came_twice_names_nothing() -> None:
    known = Continuity()
    known.remember_id(7, ID)
    assert known.can_name(1, 7, ID, 0.0)
    known.remember_id(8, ID)  # of another upstream
    assert known.can_name(1, 7, ID, 0.0)
    known.remember_id(7, ID)
    assert not known.can_name(1, 7, ID, 0.0) and known.can_name(1, 8, ID, 0.0)


def test_it_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuity, "_MOST", 2)
    known = Continuity()
    for number in range(3):
        known.remember_maker(1, f"g{number}", (number, 0))
        known.remember_forgetful(number, 7, 1000.0)
    assert known.makers(1, ["g0", "g1", "g2"]) == {"g1": (1, 0), "g2": (2, 0)}
    assert [known.is_forgetful(number, 7, 1000.0) for number in range(3)] == [False, True, True]
