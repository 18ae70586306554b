"""What became of the last requests: which channels and models have answered none of them.

A circuit opens for what is proved to be the channel's fault, and for everybody; one user's requests can fail for long
before that, and people should see it. Synchronous.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from portal.lib import clock
from relay.models import UsageRecord
from relay.models.usage import EndReason

_WINDOW: Final = timedelta(minutes=10)
_MOST: Final = 300  # records that are looked at
LEAST: Final = 5  # failures in a row that are told of
_FAILED: Final = frozenset((EndReason.UPSTREAM_ERROR, EndReason.TIMEOUT, EndReason.TRUNCATED, EndReason.NO_CHANNEL))
_SILENT: Final = frozenset((EndReason.CLIENT_GONE, EndReason.ENDED, EndReason.SHUTDOWN, EndReason.INTERNAL))


@dataclass(slots=True)
class Run:
    """The failures of a channel or model since it last answered."""

    count: int = 0
    why: str = ""  # of the last one
    over: bool = False  # an answer came before them


@dataclass(slots=True)
class Recent:
    """Runs of failures that are long enough to be told of."""

    channels: dict[int, Run] = field(default_factory=dict)  # by id
    models: dict[str, Run] = field(default_factory=dict)  # by name


def failing() -> Recent:
    """What has answered none of its last requests, LEAST at the least, within ten minutes. One query."""
    found = Recent()
    rows = UsageRecord.objects.filter(started_at__gt=clock.now() - _WINDOW).order_by("-pk")
    for channel, model, reason, why in rows.values_list("channel_id", "model", "end_reason", "error_message")[:_MOST]:
        if reason in _SILENT:
            continue
        runs = [found.models.setdefault(model, Run())]
        if channel is not None:
            runs.append(found.channels.setdefault(channel, Run()))
        for run in runs:
            if reason not in _FAILED:
                run.over = True
            elif not run.over:
                run.count, run.why = run.count + 1, run.why or why
    found.channels = {pk: run for pk, run in found.channels.items() if run.count >= LEAST}
    found.models = {name: run for name, run in found.models.items() if run.count >= LEAST}
    return found
