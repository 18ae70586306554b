"""What the database says of channels and their keys, and what this worker knows of their health, for the metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from django.db.models import Count, Sum

from portal.metrics.samples import Upstreams
from relay.errors import RelayUnavailable
from relay.gateway.routing.circuit_breaker import CircuitBreaker
from relay.gateway.runtime import current
from relay.gateway.snapshot.cache import snapshot_cache
from relay.models import ApiKey, Channel

_KEEP: Final = 30.0  # seconds for which what was read is shown
_WAIT: Final = 2.0  # seconds for which a scrape waits for the database; then it shows what was read before


class UpstreamReader:
    """Reads channels and keys now and then. Belongs to one event loop."""

    def __init__(self) -> None:
        self._known = Upstreams()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def upstreams(self) -> Upstreams:
        if time.monotonic() - self._read_at > _KEEP:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.ensure_future(self._read())
            await asyncio.wait((self._reading,), timeout=_WAIT)
        known, run = self._known, current()
        if run is None:
            return known
        causes, cooling = _open_circuits(run.health.live.breaker, time.time())
        keys = {**known.keys, "cooling": cooling}
        return Upstreams(known.names, known.balances, known.channels, keys, causes)

    async def _read(self) -> None:
        try:
            self._known = await snapshot_cache.in_thread(_read)
        except RelayUnavailable:
            return  # it has been logged
        self._read_at = time.monotonic()


def _read() -> Upstreams:
    channels = list(Channel.objects.order_by("id").values_list("id", "name", "enabled"))
    keys = ApiKey.objects.filter(balance__isnull=False).exclude(balance_currency="")
    balances = keys.values_list("channel_id", "balance_currency").annotate(Sum("balance")).order_by("channel_id")
    states = Counter({"enabled": 0, "out_of_service": 0, "disabled": 0})
    numbers = ApiKey.objects.order_by().values_list("enabled").annotate(Count("pk"), Count("auto_disabled_at"))
    for enabled, number, taken_out in numbers:
        states["enabled" if enabled else "disabled"] += number - taken_out * enabled
        states["out_of_service"] += taken_out * enabled
    on = sum(enabled for _, _, enabled in channels)
    return Upstreams(
        {channel: name for channel, name, _ in channels},
        [(channel, currency, float(amount)) for channel, currency, amount in balances],
        {"enabled": on, "disabled": len(channels) - on},
        states,
    )


def _open_circuits(breaker: CircuitBreaker, now: float) -> tuple[dict[str, int], int]:
    """The open circuits by their cause, and how many keys are concerned."""
    causes: Counter[str] = Counter()
    keys = set()
    for (channel, key, _), circuit in breaker.circuits.items():
        if circuit.until > now:
            causes[circuit.kind] += 1
            if key:
                keys.add((channel, key))
    return dict(causes), len(keys)
