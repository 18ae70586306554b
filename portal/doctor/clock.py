"""Checks of the clock: against those of upstreams, against the records, and that nobody sets it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from statistics import median
from typing import Final

from django.utils.translation import gettext as _

from portal.doctor.report import Check
from portal.lib import clock as clocks
from relay.models import UsageRecord

_WRONG: Final = 300.0  # seconds, from which on clouds refuse signed requests, and tokens of sign-ins are not valid
_LATE: Final = 30.0
_JUMP: Final = 2.0
_STEPS: Final = 60  # seconds that records may be ahead: of another host


class Beginning:
    """When the checks began, by both clocks."""

    def __init__(self) -> None:
        self._wall, self._monotonic = time.time(), time.monotonic()

    def jump(self) -> float:
        """Seconds by which the clock was set since then."""
        return (time.time() - self._wall) - (time.monotonic() - self._monotonic)


def clock(beginning: Beginning, skews: Sequence[float]) -> Iterator[Check]:
    steps = (
        _("Let the system set its clock by the network (NTP), for example: %(command)s")
        % {"command": "timedatectl set-ntp true"},
    )
    jump = beginning.jump()
    if abs(jump) > _JUMP:
        text = _("The clock was set by %(seconds)+.1f seconds while the checks ran.") % {"seconds": jump}
        yield Check("clock", "warn", text, steps, {"jump_seconds": round(jump, 1)})
        return
    newest = UsageRecord.objects.order_by("-pk").values_list("started_at", flat=True).first()
    if newest is not None and newest > clocks.now() + timedelta(seconds=_STEPS):
        ahead = round((newest - clocks.now()).total_seconds())
        text = _("The newest usage record is %(seconds)d seconds in the future: the clock was set back.")
        yield Check("clock", "warn", text % {"seconds": ahead}, steps, {"record_ahead_seconds": ahead})
        return
    if not skews:
        yield Check("clock", "skip", _("No upstream said what time it is, so the clock was not compared."))
        return
    skew = median(skews)
    data = {"skew_seconds": round(skew, 1), "upstreams": len(skews)}
    if abs(skew) <= _LATE:
        yield Check("clock", "pass", _("The clock agrees with those of the upstreams."), data=data)
        return
    text = _("The clock differs from those of the upstreams by %(seconds)d seconds.") % {"seconds": round(abs(skew))}
    yield Check("clock", "fail" if abs(skew) > _WRONG else "warn", text, steps, data)
