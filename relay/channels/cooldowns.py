"""Stores open circuits in the database, so that all workers and the admin know them and they survive a restart.

Synchronous; called in threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db import transaction

from accounts.models import AuditEvent, Change
from accounts.models.change import announce
from portal.lib import clock
from relay.models import ApiKey, Channel, ChannelEvent, Cooldown, Model
from relay.providers.failures import BY_WORD, FailureClass

CooldownPlace = tuple[int, int, int]  # ids of channel, key and model, 0: all of them
ApiPlace = tuple[int, str]  # the id of a channel and the name of one of its APIs
NO_API: Final = FailureClass.NO_API.word  # the kind of rows about APIs


@dataclass(frozen=True, slots=True)
class StoredCircuit:
    """An open circuit: a channel, a key, or one of their models that is cooling down."""

    since: float  # seconds since 1970
    until: float  # seconds since 1970
    kind: str  # of failure, a word of relay.providers.failures.FailureClass
    detail: str  # what the upstream said
    opened: int  # how many times in a row
    guessed: bool = False  # the upstream named no time
    worker: str = ""  # that opened it


@dataclass(frozen=True, slots=True)
class MissingApi:
    """Proof that the upstream of a channel lacks an API. Times are seconds since 1970."""

    since: float
    until: float  # when it is asked again
    detail: str  # what the upstream said, and what proves it
    worker: str = ""  # that has the proof


def name_of(place: CooldownPlace) -> str:
    """Return the text form of a place: "channel:key:model"."""
    return "{}:{}:{}".format(*place)


def place_of(name: str) -> CooldownPlace:
    """Parse the text form of a place. Raises ValueError."""
    channel, key, model = (int(part) for part in name.split(":"))
    return channel, key, model


def save_circuits(changes: Iterable[tuple[CooldownPlace, StoredCircuit | None]], worker: str) -> None:
    """Write the new states of this worker's circuits (None: closed) and announce them to the other workers."""
    changes = list(changes)
    with transaction.atomic():
        channels = set(Channel.objects.filter(pk__in={place[0] for place, _ in changes}).values_list("pk", flat=True))
        keys = {key.pk: key.public_name for key in ApiKey.objects.filter(pk__in={place[1] for place, _ in changes})}
        found = Model.objects.filter(pk__in={place[2] for place, _ in changes})
        models = dict(found.values_list("pk", "name"))
        for place, state in changes:
            channel, key, model = place
            where = _describe(keys.get(key, ""), models.get(model, ""))
            if state is None:
                gone, _ = Cooldown.objects.filter(place=name_of(place)).delete()
                if gone and channel in channels:
                    ChannelEvent.write(channel, "serves again", where)
            elif channel in channels and (not key or key in keys) and (not model or model in models):
                values = {
                    "channel_id": channel,
                    "api_key_id": key or None,
                    "model_id": model or None,
                    "kind": state.kind,
                    "detail": state.detail,
                    "opened": state.opened,
                    "guessed": state.guessed,
                    "since": datetime.fromtimestamp(state.since, UTC),
                    "until": datetime.fromtimestamp(state.until, UTC),
                    "worker": worker,
                }
                _, opened = Cooldown.objects.update_or_create(place=name_of(place), defaults=values)
                if opened:
                    kind = BY_WORD[state.kind].text if state.kind in BY_WORD else state.kind
                    why = f"{kind} ({state.detail})" if state.detail else kind
                    ChannelEvent.write(channel, "left alone", f"{where}: {why}")
        announce(Change.COOLDOWN, [name_of(place) for place, _ in changes])


def _describe(key: str, model: str) -> str:
    """Describe a place in words, by the names of its key and model, which may be empty."""
    parts = [f"key {key}" if key else "", f"model {model}" if model else ""]
    return " for ".join(part for part in parts if part) or "the channel"


def is_api_name(name: str) -> bool:
    """Whether the text form of a place is about an API."""
    return ":api:" in name


def api_name_of(place: ApiPlace) -> str:
    """Return the text form of a place that is about an API: "channel:api:name"."""
    return "{}:api:{}".format(*place)


def api_place_of(name: str) -> ApiPlace:
    """Parse the text form of a place that is about an API. Raises ValueError."""
    channel, _, api = name.split(":")
    return int(channel), api


def save_missing_apis(changes: Iterable[tuple[ApiPlace, MissingApi | None]], worker: str) -> None:
    """Write which APIs upstreams lack (None: no longer believed), and announce it to the other workers."""
    changes = list(changes)
    with transaction.atomic():
        channels = set(Channel.objects.filter(pk__in={place[0] for place, _ in changes}).values_list("pk", flat=True))
        for (channel, api), lesson in changes:
            name = api_name_of((channel, api))
            if lesson is None:
                gone, _ = Cooldown.objects.filter(place=name).delete()
                if gone and channel in channels:
                    ChannelEvent.write(channel, "serves again", f"/v1/{api.replace('.', '/')}")
            elif channel in channels:
                detail = f"/v1/{api.replace('.', '/')}: {lesson.detail}"
                values = {
                    "channel_id": channel,
                    "kind": NO_API,
                    "detail": detail[:200],
                    "since": datetime.fromtimestamp(lesson.since, UTC),
                    "until": datetime.fromtimestamp(lesson.until, UTC),
                    "worker": worker,
                }
                _, opened = Cooldown.objects.update_or_create(place=name, defaults=values)
                if opened:
                    ChannelEvent.write(channel, "left alone", detail)
        announce(Change.COOLDOWN, [api_name_of(place) for place, _ in changes])


def read_missing_api(name: str) -> MissingApi | None:
    """Read what is believed of an API, by its place in text form. None when nothing is."""
    row = Cooldown.objects.filter(place=name, kind=NO_API).first()
    return _missing_api_of(row) if row is not None else None


def read_missing_apis() -> dict[str, MissingApi]:
    """Read which APIs upstreams lack, by place in text form."""
    return {row.place: _missing_api_of(row) for row in Cooldown.objects.filter(kind=NO_API, until__gt=clock.now())}


def _missing_api_of(row: Cooldown) -> MissingApi:
    return MissingApi(row.since.timestamp(), row.until.timestamp(), row.detail, row.worker)


def missing_apis_of(channel: Channel) -> list[Cooldown]:
    """Return the APIs that a channel's upstream is believed to lack now."""
    return list(Cooldown.objects.filter(channel=channel, kind=NO_API, until__gt=clock.now()).order_by("place"))


def read_circuit(name: str) -> StoredCircuit | None:
    """Read the open circuit of a place in text form, None when it is closed."""
    row = Cooldown.objects.filter(place=name).first()
    return _circuit_of(row) if row is not None else None


def read_circuits() -> dict[CooldownPlace, StoredCircuit]:
    """Read all open circuits. Deletes rows whose time passed more than an hour ago."""
    Cooldown.objects.filter(until__lt=datetime.fromtimestamp(clock.now().timestamp() - 3600, UTC)).delete()
    return {place_of(row.place): _circuit_of(row) for row in Cooldown.objects.exclude(kind=NO_API)}


def _circuit_of(row: Cooldown) -> StoredCircuit:
    return StoredCircuit(
        row.since.timestamp(), row.until.timestamp(), row.kind, row.detail, row.opened, row.guessed, row.worker
    )


def close_circuits(*, key_id: int) -> None:
    """Close all circuits of a key."""
    for row in Cooldown.objects.filter(api_key=key_id):
        announce(Change.COOLDOWN, [row.place])
        row.delete()


def end_cooldowns(rows: Iterable[Cooldown], actor: Any, ip: str | None) -> int:
    """Close circuits at a person's request, and audit it. Returns how many."""
    count = 0
    with transaction.atomic():
        for row in rows:
            ChannelEvent.write(row.channel_id, "serves again", "ended by hand", actor)
            AuditEvent.write("cooldown.end", actor, row.channel, ip, place=row.place, kind=row.kind)
            announce(Change.COOLDOWN, [row.place])
            row.delete()
            count += 1
    return count
