"""Rows of a channel: its keys, the models that it serves, and what is noted of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from portal.lib import clock
from portal.lib.redaction.redact import redact
from relay.importers.description import SourceChannel, SourceKey
from relay.importers.mapping import digest
from relay.importers.run import Run
from relay.models import ApiKey, Channel, ChannelModel
from relay.models.channel import AutoDisabled

MOST_WEIGHT: Final = 1000
_TEST_AFTER: Final = timedelta(minutes=1)


def add_keys(row: Channel, keys: Iterable[SourceKey]) -> None:
    """Give a channel keys. Inside the caller's transaction."""
    made, now = [], clock.now()
    for key in keys:
        one = ApiKey(
            channel=row, label=key.label[:80], enabled=key.enabled, weight=max(1, min(key.weight, MOST_WEIGHT))
        )
        one.set_secret(key.secret.strip(), row)
        if key.failed:
            one.auto_disabled, one.auto_disabled_at = AutoDisabled.KEY_DEAD, key.failed_at or now
            one.auto_disabled_reason, one.next_test_at = (
                redact(key.failed.replace(key.secret.strip() or "\n", "…"))[:300],
                now + _TEST_AFTER,
            )
        made.append(one)
    ApiKey.objects.bulk_create(made, batch_size=200)


def add_routes(run: Run, channel: SourceChannel, row: Channel, only: set[str] | None = None) -> None:
    """Let a channel serve its models, or only some of them. Inside the caller's transaction."""
    models = models_by_name(run)
    have = set(ChannelModel.objects.filter(channel=row).values_list("model_id", flat=True))
    made = []
    for route in channel.routes:
        model = models.get(route.model)
        if model is None or model in have or (only is not None and route.model not in only):
            continue
        have.add(model)
        made.append(
            ChannelModel(channel=row, model_id=model, upstream_name=route.upstream[:160], enabled=route.enabled)
        )
    ChannelModel.objects.bulk_create(made, batch_size=500)


def models_by_name(run: Run) -> dict[str, int]:
    """Ids of the models that were carried over, by the names that they have there."""
    found: dict[str, int] = run.memory.setdefault("models", {})
    if not found:
        for known in run.rows.of("model").values():
            found[known.seen["name"]] = known.object_id
    return found


def seen(channel: SourceChannel, row: Channel, keys: Sequence[SourceKey]) -> dict[str, Any]:
    """What is noted of a channel, to see what changes there."""
    return {
        "provider": row.provider,
        "base_url": row.base_url,
        "enabled": row.enabled,
        "priority": row.priority,
        "weight": row.weight,
        "proxy_url": digest(row.proxy_url),
        "overrides": row.overrides,
        "groups": None if channel.groups is None else sorted(channel.groups),
        "routes": sorted([route.model, route.upstream] for route in channel.routes),
        "keys": sorted(digest(key.secret.strip()) for key in keys),
    }
