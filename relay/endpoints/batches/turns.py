"""Which batches a worker runs: whose is begun next, and which makes room for others. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, Protocol, TypeVar

from portal import limits

SLICE_SECONDS: Final = 30.0  # that a batch runs before it makes room for one that waits


class _Batch(Protocol):
    """A batch that runs (`running.RunningBatch`)."""

    @property
    def user_id(self) -> int: ...
    @property
    def begun_at(self) -> float: ...
    @property
    def ends(self) -> bool: ...
    @property
    def waits(self) -> bool: ...


B = TypeVar("B", bound=_Batch)


def next_user(waiting: Sequence[int], running: Collection[_Batch]) -> int | None:
    """The user whose batch is begun next; None if none fits.

    `waiting`: users with batches that nobody runs, who waits longest first.
    """
    of_user = Counter(one.user_id for one in running)
    counted = _counted(running)
    everybody = counted.total()
    if everybody >= limits.BATCHES or len(running) >= limits.BATCHES + limits.BATCHES_ENDING:
        return None
    fit = [
        user_id
        for user_id in waiting
        if of_user[user_id] < limits.BATCHES // 2 and (everybody < limits.BATCHES_AT_ONCE or not counted[user_id])
    ]
    return min(fit, key=lambda user_id: counted[user_id], default=None)


def to_make_room(waiting: Sequence[int], running: Collection[B], now: float) -> list[B]:
    """The batches that are put back so that users who wait, for whom nothing fits, have a turn.

    One of those users who have more than the one who waits, or their own: their first batches do not shut out the next.
    """
    counted = _counted(running)
    free = [one for one in running if not one.ends and now - one.begun_at >= SLICE_SECONDS]
    found: list[B] = []
    for user_id in waiting:
        fit = [one for one in free if one.user_id == user_id or counted[one.user_id] > counted[user_id]]
        if not fit:
            continue
        one = max(fit, key=lambda one: (counted[one.user_id], one.waits, now - one.begun_at))
        free.remove(one)
        found.append(one)
        counted[one.user_id] -= 1
        counted[user_id] += 1
    return found


def _counted(running: Collection[_Batch]) -> Counter[int]:
    """The batches of each user, but for those that only finish what they have begun."""
    return Counter(one.user_id for one in running if not one.ends)
