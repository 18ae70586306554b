"""Turns of conversations for the tests of caches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from portal.lib import clock
from relay.models import ApiKey, Channel, ChannelModel, Model, UsageRecord
from relay.usage.conversations.turns import Turn
from tests.usage.records import record

TURN = Turn(
    pk=2,
    request_id="req_2",
    at=1_800_000_000.0,
    user=1,
    channel=1,
    key=10,
    model="m",
    upstream_model="m",
    input=10_000,
    cached=0,
    written=0,
    written_1h=0,
    source="reported",
    conversation=77,
)


def before(**more: Any) -> Turn:
    """The turn a minute before `TURN`, which left 8,000 tokens in the cache."""
    return replace(TURN, **{"pk": 1, "request_id": "req_1", "at": TURN.at - 60, "cached": 8000, **more})


def channel(name: str, keys: int = 1, model: str = "m", **more: Any) -> tuple[Channel, list[ApiKey]]:
    """A channel that serves a model, and its keys."""
    made = Channel.objects.create(name=name, **{"provider": "anthropic", **more})
    served, _ = Model.objects.get_or_create(name=model)
    ChannelModel.objects.create(channel=made, model=served)
    found = []
    for number in range(keys):
        key = ApiKey(channel=made, label=f"{name} {number}")
        key.set_secret(f"sk-ant-secret-{name}-{number}-0123456789")
        key.save()
        found.append(key)
    return made, found


_numbers = iter(range(1, 1_000_000))


def turn(user: Any, key: ApiKey, seconds_ago: float = 0.0, **more: Any) -> UsageRecord:
    """The record of a turn that a channel answered with this key."""
    values = {
        "started_at": clock.now() - timedelta(seconds=seconds_ago),
        "channel": key.channel,
        "api_key": key,
        "conversation": 77,
        "upstream_model": "m",
        "input_tokens": 10_000,
        "cached_input_tokens": 0,
        "attempt_log": [{"channel": key.channel_id, "key": key.pk, "ms": 5, "outcome": "ok"}],
    }
    return record(9_000_000 + next(_numbers), user, **{**values, **more})
