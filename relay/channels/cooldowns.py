"""Open circuits in the database, so that every worker, the admin and a restarted portal know of them. Synchronous; called in threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from accounts.models import AuditEvent, Change
from accounts.models.change import announce
from portal.lib import clock
from relay.models import ApiKey, Channel, ChannelEvent, Cooldown, Model

CooldownPlace = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Open:
    """An open circuit. Moments are seconds since 1970."""

    since: float
    until: float
    kind: str
    detail: str
    opened: int
    guessed: bool = False
    worker: str = ""


def name_of(place: CooldownPlace) -> str:
    return "{}:{}:{}".format(*place)


def place_of(name: str) -> CooldownPlace:
    """Raises ValueError."""
    channel, key, model = (int(part) for part in name.split(":"))
    return channel, key, model


def save(changes: Iterable[tuple[CooldownPlace, Open | None]], worker: str) -> None:
    """Write what this worker's circuits have become, None: closed, and tell the others."""
    changes = list(changes)
    with transaction.atomic():
        channels = set(Channel.objects.filter(pk__in={place[0] for place, _ in changes}).values_list("pk", flat=True))
        keys = set(ApiKey.objects.filter(pk__in={place[1] for place, _ in changes}).values_list("pk", flat=True))
        models = set(Model.objects.filter(pk__in={place[2] for place, _ in changes}).values_list("pk", flat=True))
        for place, state in changes:
            channel, key, model = place
            if state is None:
                gone, _ = Cooldown.objects.filter(place=name_of(place)).delete()
                if gone and channel in channels:
                    ChannelEvent.write(channel, "serves again", what_of(place))
            elif channel in channels and (not key or key in keys) and (not model or model in models):
                values = {
                    "channel_id": channel, "api_key_id": key or None, "model_id": model or None, "kind": state.kind,
                    "detail": state.detail, "opened": state.opened, "guessed": state.guessed,
                    "since": datetime.fromtimestamp(state.since, UTC), "until": datetime.fromtimestamp(state.until, UTC), "worker": worker,
                }  # fmt: skip
                _, opened = Cooldown.objects.update_or_create(place=name_of(place), defaults=values)
                if opened:
                    ChannelEvent.write(channel, "left alone", f"{what_of(place)}: {state.kind}, {state.detail}")
        announce(Change.COOLDOWN, [name_of(place) for place, _ in changes])


def what_of(place: CooldownPlace) -> str:
    """What a circuit belongs to, in words, by its numbers."""
    _, key, model = place
    parts = [f"key {key}" if key else "", f"model {model}" if model else ""]
    return " for ".join(part for part in parts if part) or "the channel"


def read(name: str) -> Open | None:
    row = Cooldown.objects.filter(place=name).first()
    return _open(row) if row is not None else None


def read_all() -> dict[CooldownPlace, Open]:
    """What is open now. Rows of circuits whose time came long ago are removed."""
    Cooldown.objects.filter(until__lt=datetime.fromtimestamp(clock.now().timestamp() - 3600, UTC)).delete()
    return {place_of(row.place): _open(row) for row in Cooldown.objects.all()}


def _open(row: Cooldown) -> Open:
    return Open(row.since.timestamp(), row.until.timestamp(), row.kind, row.detail, row.opened, row.guessed, row.worker)


def lift(*, key_id: int) -> None:
    """Close every circuit of a key."""
    for row in Cooldown.objects.filter(api_key=key_id):
        announce(Change.COOLDOWN, [row.place])
        row.delete()


def end(rows: Iterable[Cooldown], actor: Any, ip: str | None) -> int:
    """A person puts channels back into service at once."""
    count = 0
    with transaction.atomic():
        for row in rows:
            ChannelEvent.write(row.channel_id, "serves again", "ended by hand", actor)
            AuditEvent.write("cooldown.end", actor, row.channel, ip, place=row.place, kind=row.kind)
            announce(Change.COOLDOWN, [row.place])
            row.delete()
            count += 1
    return count
