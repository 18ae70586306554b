"""Which worker runs a batch: workers claim batches, renew claims and put batches back. Synchronous, in threads."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Max, Min, Q
from django.db.models.functions import Coalesce

from portal.lib import clock
from portal.lib.processes import is_dead
from relay.models import Batch
from relay.models.batch import BatchWait

BATCH_LEASE: Final = timedelta(seconds=40)  # a worker that does not renew its claim within this time loses the batch
Status = Batch.Status
# One that was put back waits since then, so that all batches take turns.
_WAITING_SINCE: Final = Coalesce("lease_until", "created_at")
_OPEN_STATUSES: Final = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


def _unclaimed() -> Q:
    """The condition for batches that have not ended and that no living worker has claimed.

    Those that were put back for a while have a lease without an owner.
    """
    now = clock.now()
    leased = Batch.objects.filter(status__in=_OPEN_STATUSES, lease_until__gt=now).exclude(owner="")
    dead = [owner for owner in leased.order_by().values_list("owner", flat=True).distinct() if is_dead(owner)]
    return Q(status__in=_OPEN_STATUSES) & (Q(lease_until=None) | Q(lease_until__lte=now) | Q(owner__in=dead))


def waiting_users(running: Collection[int]) -> list[int]:
    """The users who have batches that no worker runs, who waits longest first. `running`: those of this worker.

    A user whose batch was put back waits since then, however many others they have.
    """
    rows = Batch.objects.filter(_unclaimed()).exclude(pk__in=list(running)).values_list("user_id", flat=True)
    return list(rows.annotate(since=Coalesce(Max("lease_until"), Min("created_at"))).order_by("since", "user_id"))


def claim(owner: str, user_id: int, running: Collection[int]) -> Batch | None:
    """Claim the batch of a user that waits longest, and that no living worker has claimed, for the worker `owner`.

    `running`: those it runs already. Returns None when there is none, or another worker was faster.
    """
    rows = Batch.objects.filter(_unclaimed(), user=user_id).exclude(pk__in=list(running))
    batch = rows.order_by(_WAITING_SINCE, "pk").first()
    until = clock.now() + BATCH_LEASE
    if batch is None or not Batch.objects.filter(pk=batch.pk, owner=batch.owner, lease_until=batch.lease_until).update(
        owner=owner, lease_until=until
    ):
        return None
    batch.owner, batch.lease_until = owner, until
    return batch


class Claiming:
    """One claim that is made in a thread, for somebody who does not wait for it without an end.

    A claim that succeeds after it was given up is given back: nobody would run that batch until the lease has run out.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._over = False
        self._claimed: Batch | None = None

    def claim(self, user_id: int, running: Collection[int]) -> Batch | None:
        """As the function `claim`, in a thread."""
        batch = claim(self._owner, user_id, running)
        with self._lock:
            if not self._over:
                self._claimed = batch
                return batch
        if batch is not None:
            put_back(batch, self._owner, 0.0)
        return None

    def give_up(self) -> Batch | None:
        """Wait for it no longer. Returns the batch if it has been claimed already."""
        with self._lock:
            self._over = True
            return self._claimed


def renew(owner: str, running: Collection[int], extend: bool = True) -> dict[int, str]:
    """Extend the claims of a worker to batches. Returns their status by primary key, of those that it still has.

    Not `extend`: only return it.
    """
    rows = Batch.objects.filter(pk__in=list(running), owner=owner)
    if extend:
        rows.update(lease_until=clock.now() + BATCH_LEASE)
    return dict(rows.values_list("pk", "status"))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a running batch has done and what it waits for, as its pages show it."""

    succeeded: int
    failed: int
    waits_for: str  # a BatchWait; empty: it goes on
    waits_since: datetime | None
    waits_until: datetime | None
    ends_about: datetime | None


def write_standings(found: Sequence[tuple[Batch, str, Standing]]) -> None:
    """Write how far batches are that these workers run, in one commit."""
    with transaction.atomic():
        for batch, owner, standing in found:
            Batch.objects.filter(pk=batch.pk, owner=owner).update(
                succeeded=standing.succeeded,
                failed=standing.failed,
                waits_for=standing.waits_for,
                waits_since=standing.waits_since,
                waits_until=standing.waits_until,
                ends_about=standing.ends_about,
            )


def put_back(batch: Batch, owner: str, seconds: float, waits_for: str = "") -> None:
    """Let any worker claim a batch again, after this time. `waits_for`: why not before, a BatchWait."""
    now = clock.now()
    until = min(now + timedelta(seconds=seconds), max(batch.expires_at, now))
    rows = Batch.objects.filter(pk=batch.pk, owner=owner)
    if waits_for:
        ends = None if waits_for in (BatchWait.ROOM, BatchWait.TURN) else until  # nobody knows when there is room
        rows.update(owner="", lease_until=until, waits_for=waits_for, waits_since=now, waits_until=ends)
    else:
        rows.update(owner="", lease_until=until)
