"""Stores running calls of /v1/realtime/calls, and which worker meters each. Synchronous: called in threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q

from portal.lib import clock
from portal.lib.processes import is_dead
from relay.models import RealtimeCall, UsageRecord

LEASE: Final = timedelta(seconds=40)  # a worker that does not renew its lease within this time loses the call


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker has counted of a call that no usage record has yet. Tokens are estimates."""

    running: tuple[tuple[str, str], ...] = ()  # responses that it has begun: the upstream's ids, and the portal's
    input_tokens: int = 0  # that each of them reads
    output_tokens: int = 0  # of all of them together


def store(call: RealtimeCall, seconds: float) -> None:
    """Store a call, which lasts so many seconds at most, for the worker that `call.owner` names."""
    call.created_at = clock.now()
    call.ends_at, call.lease_until = call.created_at + timedelta(seconds=seconds), call.created_at + LEASE
    call.save(force_insert=True)


def count(user_id: int) -> int:
    """How many calls of the user are running."""
    return RealtimeCall.objects.filter(user=user_id).count()


def find(user_id: int, call_id: str) -> RealtimeCall | None:
    """A running call of the user, None: there is none of this id."""
    return RealtimeCall.objects.filter(user=user_id, call_id=call_id).first()


def renew(owner: str, standings: Mapping[str, Standing | None]) -> set[str]:
    """Renew the leases of a worker's calls, and write what it has counted. Returns the ids of those it still has.

    `standings`: by the id of the call; None where nothing has changed.
    """
    with transaction.atomic():
        rows = RealtimeCall.objects.filter(owner=owner, call_id__in=list(standings))
        rows.update(lease_until=clock.now() + LEASE)
        for call_id, standing in standings.items():
            if standing is not None:
                rows.filter(call_id=call_id).update(
                    running=[list(ids) for ids in standing.running],
                    input_tokens=standing.input_tokens,
                    output_tokens=standing.output_tokens,
                )
        return set(rows.values_list("call_id", flat=True))


def claim(owner: str) -> Sequence[RealtimeCall]:
    """Claim the calls whose worker is gone, or which were put back, for the worker `owner`."""
    now = clock.now()
    owners = RealtimeCall.objects.filter(lease_until__gt=now).exclude(owner="").order_by()
    dead = [one for one in owners.values_list("owner", flat=True).distinct() if is_dead(one)]
    found = []
    for call in RealtimeCall.objects.filter(Q(lease_until__lte=now) | Q(owner__in=dead)):
        mine = RealtimeCall.objects.filter(pk=call.pk, owner=call.owner, lease_until=call.lease_until)
        if mine.update(owner=owner, lease_until=now + LEASE):
            found.append(call)
    return found


def unrecorded(call: RealtimeCall) -> list[str]:
    """The upstream's ids of responses that were running, without those that were recorded a moment later."""
    ids: dict[str, str] = {request_id: upstream_id for upstream_id, request_id in call.running}
    recorded = UsageRecord.objects.filter(request_id__in=list(ids)).values_list("request_id", flat=True)
    return [ids[request_id] for request_id in ids.keys() - set(recorded)]


def settled(call_id: str, owner: str) -> None:
    """What had been counted of a call has been charged: nobody charges it again."""
    RealtimeCall.objects.filter(call_id=call_id, owner=owner).update(running=[], input_tokens=0, output_tokens=0)


def put_back(call_id: str, owner: str, seconds: float) -> None:
    """Let any worker try to hang a call up after this time."""
    until = clock.now() + timedelta(seconds=seconds)
    RealtimeCall.objects.filter(call_id=call_id, owner=owner).update(owner="", lease_until=until)


def delete(call_id: str) -> None:
    """A call is over."""
    RealtimeCall.objects.filter(call_id=call_id).delete()
