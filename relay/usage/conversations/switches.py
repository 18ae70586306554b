"""Finds conversations that left a warm cache, and estimates what that cost. Synchronous.

It runs when usage is added up, once for each record. What a turn had cached is what its upstream reported; the turn
after it that was answered elsewhere had to read as much uncached, or to write it anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import DatabaseError, connection, transaction
from django.db.models import Sum

from portal import limits
from portal.lib import clock
from relay.billing.prices import ONE
from relay.models import ApiKey, CacheSwitch, Channel, ChannelModel, Model, ModelPrice, UsageRecord
from relay.models.cache_switch import SwitchReason
from relay.providers.failures import FailureClass
from relay.providers.vendor import HOUR_SECONDS, UNDOCUMENTED_SECONDS
from relay.providers.vendors import VENDORS
from relay.usage.conversations.turns import Turn, turns, turns_before

logger: Final = logging.getLogger(__name__)
_DELETED_AT_ONCE: Final = 2_000
_OUT: Final = frozenset((FailureClass.KEY_DEAD.word, FailureClass.BILLING.word))


@dataclass(frozen=True, slots=True)
class Lost:
    """What a switch lost. `cost` in nano-USD, an estimate."""

    tokens: int
    cost: int


def lost(before: Turn, now: Turn, price: Any, multiplier: int) -> Lost:
    """Return what the turn `now` read uncached or wrote anew that the one before had cached elsewhere.

    `price`: the row of prices that it was charged at, None: none; `multiplier` in parts per million.
    """
    tokens = max(0, min(before.warm, now.input) - now.cached)
    if price is None or not tokens:
        return Lost(tokens, 0)
    base = price.input
    cached = base if price.cached_input is None else price.cached_input
    short = base if price.cache_write is None else price.cache_write
    hour = short if price.cache_write_1h is None else price.cache_write_1h
    written = min(tokens, now.written)
    for_an_hour = min(written, now.written_1h)
    parts = (written - for_an_hour) * short + for_an_hour * hour + (tokens - written) * base
    # USD per 1M tokens times tokens are millionths of USD: 1,000 nano-USD.
    return Lost(tokens, max(0, int((parts - tokens * cached) * 1000 * multiplier / ONE)))


@dataclass(frozen=True, slots=True)
class Configuration:
    """What routing depends on, as it is now, for the channels and keys of some turns."""

    channels: Mapping[int, Channel]  # by id
    keys: Mapping[int, ApiKey]
    served: frozenset[tuple[int, str]]  # channels and names of models that they serve
    sticky: Mapping[str, bool]  # whether conversations keep their channel, by names of models

    @classmethod
    def of(cls, found: Iterable[Turn]) -> Configuration:
        every = list(found)
        channels = Channel.objects.in_bulk({turn.channel for turn in every if turn.channel})
        keys = ApiKey.objects.in_bulk({turn.key for turn in every if turn.key})
        links = ChannelModel.objects.filter(enabled=True, channel__in=list(channels))
        names = {turn.model for turn in every}
        served = links.filter(model__name__in=names, model__enabled=True).values_list("channel", "model__name")
        sticky = Model.objects.filter(name__in=names).values_list("name", "sticky")
        return cls(channels, keys, frozenset(served), dict(sticky))

    def cache_seconds(self, turn: Turn) -> float:
        """How long the prompt of a turn is cached at least, as far as its vendor says."""
        if turn.for_an_hour:
            return HOUR_SECONDS
        channel = self.channels.get(turn.channel or 0)
        vendor = VENDORS.get(channel.provider) if channel is not None else None
        if channel is None or vendor is None:
            return UNDOCUMENTED_SECONDS
        return vendor.cache_at(channel.effective_base_url).seconds or UNDOCUMENTED_SECONDS


def why(before: Turn, now: Turn, log: Sequence[Mapping[str, Any]], left: bool, known: Configuration) -> tuple[str, str]:
    """Return why a turn was answered elsewhere than the one before: a SwitchReason, and a word of a failure.

    `log`: its attempts; `left`: the turn before had not been at the conversation's usual place.
    """
    last = log[-1] if log else {}
    failed = next((one for one in log if (one.get("channel"), one.get("key")) == before.pair), None)
    if failed is not None and failed.get("outcome") not in {None, "ok"}:
        return SwitchReason.FAILED, str(failed["outcome"])
    if tuple(last.get("instead_of", ())) == before.pair:
        word = str(last.get("because", ""))
        if word == FailureClass.FULL.word:
            return SwitchReason.LIMIT, ""
        if word in _OUT:
            return SwitchReason.KEY_OUT, word
        return (SwitchReason.COOLING if last.get("cooling") else SwitchReason.FAILED), word
    return _configured(before, now, left, known), ""


def _configured(before: Turn, now: Turn, left: bool, known: Configuration) -> str:
    channel, key = known.channels.get(before.channel or 0), known.keys.get(before.key or 0)
    here = known.channels.get(now.channel or 0)
    if channel is None or not channel.enabled:
        return SwitchReason.CHANNEL_OFF
    if before.key and (key is None or not key.enabled):
        return SwitchReason.KEY_REMOVED
    if key is not None and key.auto_disabled:
        return SwitchReason.KEY_OUT
    if (channel.pk, before.model) not in known.served:
        return SwitchReason.MODEL_OFF
    if known.sticky.get(before.model) is False:
        return SwitchReason.SCATTERED
    if left:
        return SwitchReason.RETURNED
    return SwitchReason.PRIORITY if here is not None and here.priority > channel.priority else SwitchReason.CONFIG


def write_switches(pks: Iterable[int]) -> int:
    """Write what is found among records that have just been added up. Returns how many switches there were.

    Whatever goes wrong is logged: sums do not depend on it.
    """
    try:
        with transaction.atomic():
            return _write(_found(turns(pks)))
    except DatabaseError:
        logger.warning("switches from warm caches could not be looked for", exc_info=True)
    except Exception:
        logger.exception("switches from warm caches could not be looked for")
    return 0


def _found(fresh: Sequence[Turn]) -> list[CacheSwitch]:
    """The switches of some turns, the oldest first, as rows to be written."""
    firsts: dict[int | None, Turn] = {}
    for turn in fresh:
        firsts.setdefault(turn.conversation, turn)
    earlier, moved = turns_before(firsts.values()), list[tuple[Turn, Turn]]()
    last = {talk: earlier[turn.pk] for talk, turn in firsts.items() if turn.pk in earlier}
    for turn in fresh:
        before = last.get(turn.conversation)
        if before is not None and before.pair != turn.pair and before.warm:
            moved.append((before, turn))
        last[turn.conversation] = turn
    if not moved:
        return []
    known = Configuration.of(one for pair in moved for one in pair)
    moved = [(before, turn) for before, turn in moved if turn.at - before.at < known.cache_seconds(before)]
    pks = {one.pk for pair in moved for one in pair}
    records = {row[0]: row[1:] for row in _details(pks)}
    prices = ModelPrice.objects.in_bulk({row[1] for row in records.values() if row[1] is not None})
    found = []
    for before, turn in moved:
        if turn.pk not in records or before.pk not in records:
            continue
        log, price, multiplier = records[turn.pk]
        left = any("instead_of" in one for one in records[before.pk][0][-1:])
        reason, detail = why(before, turn, log, left, known)
        estimate = lost(before, turn, prices.get(price), multiplier)
        if not estimate.tokens:
            continue  # another prefix, or one that is cached here as well
        found.append(
            CacheSwitch(
                at=datetime.fromtimestamp(turn.at, UTC),
                user_id=turn.user,
                model=turn.model,
                request_id=turn.request_id,
                from_channel_id=before.channel,
                from_key_id=before.key,
                to_channel_id=turn.channel,
                to_key_id=turn.key,
                reason=reason,
                detail=detail[:20],
                tokens=estimate.tokens,
                cost=estimate.cost,
            )
        )
    return found


def _details(pks: Iterable[int]) -> list[tuple[Any, ...]]:
    wanted, found = sorted(pks), []
    for start in range(0, len(wanted), 500):
        rows = UsageRecord.objects.filter(pk__in=wanted[start : start + 500])
        found += list(rows.values_list("pk", "attempt_log", "price", "price_multiplier"))
    return found


def _write(found: Sequence[CacheSwitch]) -> int:
    """Write rows: the first of an hour of each channel and reason one by one, the others as one row."""
    fresh: list[CacheSwitch] = []
    counts: Counter[tuple[Any, ...]] = Counter()
    rest: dict[tuple[Any, ...], CacheSwitch] = {}
    for row in found:
        hour = row.at.replace(minute=0, second=0, microsecond=0)
        key = (hour, row.from_channel_id, row.reason)
        if key not in counts:
            counts[key] = CacheSwitch.objects.filter(
                from_channel=row.from_channel_id, reason=row.reason, at__gte=hour, at__lt=hour + timedelta(hours=1)
            ).count()
        if counts[key] < limits.CACHE_SWITCHES_AN_HOUR:
            counts[key] += 1
            fresh.append(row)
            continue
        one = rest.get(key)
        if one is None:
            one = rest[key] = _last_of_hour(hour, row)
        else:
            _add(one, row)
    CacheSwitch.objects.bulk_create(fresh, batch_size=200)
    for one in rest.values():
        one.save()
    return len(found)


def _last_of_hour(hour: datetime, row: CacheSwitch) -> CacheSwitch:
    """The row of an hour that stands for many, with this switch in it."""
    many = CacheSwitch.objects.filter(
        from_channel=row.from_channel_id,
        reason=row.reason,
        at__gte=hour,
        at__lt=hour + timedelta(hours=1),
        user=None,
        to_channel=None,
    ).first()
    if many is None:
        row.user_id, row.to_channel_id, row.to_key_id, row.from_key_id = None, None, None, None
        return row
    _add(many, row)
    return many


def _add(many: CacheSwitch, row: CacheSwitch) -> None:
    many.switches += row.switches
    many.tokens += row.tokens
    many.cost += row.cost


@dataclass(frozen=True, slots=True)
class SwitchSums:
    """Switches of a time. `cost` in nano-USD, an estimate."""

    switches: int = 0
    tokens: int = 0
    cost: int = 0


def switch_sums(since: datetime, channel: int | None = None) -> SwitchSums:
    """Return the sums of all switches since a moment, or of those from one channel."""
    rows = CacheSwitch.objects.filter(at__gte=since)
    if channel is not None:
        rows = rows.filter(from_channel=channel)
    found = rows.order_by().aggregate(n=Sum("switches"), tokens=Sum("tokens"), cost=Sum("cost"))
    return SwitchSums(*(int(found[name] or 0) for name in ("n", "tokens", "cost")))


def switches_by_reason(since: datetime, channel: int | None = None) -> list[tuple[str, SwitchSums]]:
    """Return the sums of switches since a moment by reason, the dearest first: of all, or of those from one channel."""
    rows = CacheSwitch.objects.filter(at__gte=since)
    if channel is not None:
        rows = rows.filter(from_channel=channel)
    sums = rows.order_by().values("reason").annotate(n=Sum("switches"), whole=Sum("tokens"), dear=Sum("cost"))
    found = [(row["reason"], SwitchSums(int(row["n"]), int(row["whole"]), int(row["dear"]))) for row in sums]
    return sorted(found, key=lambda one: (-one[1].cost, -one[1].switches))


def delete_expired(stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete switches that are older than pages show, a bounded number in each statement. Returns how many."""
    before, whole = clock.now() - timedelta(days=limits.CACHE_SWITCH_DAYS), 0
    while not stopping():
        pks = list(CacheSwitch.objects.filter(at__lt=before).values_list("pk", flat=True)[:_DELETED_AT_ONCE])
        if not pks:
            break
        whole += len(pks)
        CacheSwitch.objects.filter(pk__in=pks).delete()
    return whole


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run one round of deleting, and close the database connection."""
    try:
        delete_expired(stopping)
    finally:
        connection.close()
