"""Why nothing, or not more, of a prompt came from a cache, as far as it can be known. Synchronous.

What is known: the turns of the conversation before, the channels and keys that answered them, and what vendors document
of their caches. What a prompt says is not kept, so that nobody can tell whether its beginning was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from relay.models import CacheSwitch, Channel, ChannelDay, UsageRecord
from relay.models.usage import UsageSource
from relay.providers.vendor import HOUR_SECONDS, NO_CACHE_FACTS, PromptCache
from relay.providers.vendors import VENDORS
from relay.usage.caches.shares import CacheShare
from relay.usage.conversations.turns import Turn, turn_of, turns_before
from relay.usage.reports import today_ordinal

# Endpoints whose prompts vendors cache.
CACHED: Final = frozenset(
    ("chat.completions", "completions", "responses", "responses.compact", "messages", "generate_content")
)
_MOST_PART: Final = 0.9  # of what had been cached, from which nothing is missing
_SILENT_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class CacheVerdict:
    """What became of a prompt and the cache. `text` is in the active language."""

    code: (
        str  # hit, partly, unreported, silent, short, unmarked, nameless, first, channel, key, model, expired, unknown
    )
    text: str
    share: CacheShare


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known beside the turns."""

    facts: PromptCache = NO_CACHE_FACTS
    silent: bool = False  # the channel has reported no cached token of the model for a long time
    reason: str = ""  # why the conversation was answered elsewhere, empty: not known
    channel: str = ""  # that had answered the turn before; empty: the reader is not told


def verdict(turn: Turn, before: Turn | None, about: Surroundings) -> CacheVerdict:
    """Say what became of the prompt of a turn. `before`: the turn of the conversation before it. Pure."""
    code, text = _hit(turn, before, about) if turn.cached else _miss(turn, before, about)
    return CacheVerdict(code, text, CacheShare(turn.input, turn.cached))


def _hit(turn: Turn, before: Turn | None, about: Surroundings) -> tuple[str, str]:
    share = CacheShare(turn.input, turn.cached).text
    text = _("%(share)s of the prompt came from the cache.") % {"share": share}
    if before is None or turn.cached >= _MOST_PART * min(before.warm, turn.input):
        return "hit", text
    if (elsewhere := _elsewhere(turn, before, about)) is not None:
        return "partly", f"{text} {elsewhere[1]}"
    less = _("The turn before had %(n)s tokens there: the prompt was changed since then, or some had expired.")
    return "partly", f"{text} {less % {'n': f'{before.warm:,}'}}"


def _miss(turn: Turn, before: Turn | None, about: Surroundings) -> tuple[str, str]:
    facts, least = about.facts, about.facts.least_for(turn.upstream_model)
    if turn.source != UsageSource.REPORTED:
        return "unreported", _("Unknown: the upstream reported no usage.")
    if turn.input < least:
        said = _("The prompt has %(n)s tokens; prompts of this model are cached from %(least)s on.")
        return "short", said % {"n": f"{turn.input:,}", "least": f"{least:,}"}
    if facts.marked and not turn.written:
        said = _("The request marks nothing for the cache (cache_control), and the vendor caches nothing else.")
        return "unmarked", said
    if turn.conversation is None:
        return "nameless", _("Unknown: the app names no conversation, so that this may be the first turn of one.")
    if before is None:
        return "first", _("It is the first turn of its conversation with this model.")
    if (elsewhere := _elsewhere(turn, before, about)) is not None:
        return elsewhere
    gap, longest = turn.at - before.at, max(facts.longest, HOUR_SECONDS if before.for_an_hour else 0.0)
    least_seconds = HOUR_SECONDS if before.for_an_hour else facts.seconds
    if before.for_an_hour or (facts.marked and before.written and not before.for_an_hour):
        longest = least_seconds  # it is known for how long it was written
    values = {"gap": _time(gap), "least": _time(least_seconds), "longest": _time(longest)}
    if longest and gap > longest:
        said = _("%(gap)s after the turn before: the vendor keeps prompts for %(longest)s at most.")
        return "expired", said % values
    if least_seconds and gap > least_seconds:
        said = _("%(gap)s after the turn before: the vendor keeps prompts for %(least)s, and longer only at times.")
        return "expired", said % values
    if about.silent:
        return "silent", _("This channel has reported no cached token of the model in 30 days: it may report none.")
    return "unknown", _("Unknown. The beginning of the prompt may have been changed, or the upstream had dropped it.")


def _elsewhere(turn: Turn, before: Turn, about: Surroundings) -> tuple[str, str] | None:
    """What stands for a turn that was answered where the one before was not; None: it was answered there."""
    if before.pair != turn.pair:
        return _moved(turn, before, about)
    if before.upstream_model != turn.upstream_model:
        return "model", _("The turn before was answered by another model; each has a cache of its own.")
    return None


def _moved(turn: Turn, before: Turn, about: Surroundings) -> tuple[str, str]:
    same = before.channel == turn.channel
    if same:
        text = _("The turn before was answered with another key; each account has a cache of its own.")
    elif about.channel:
        text = _("The turn before was answered by the channel “%(channel)s”; each has a cache of its own.")
        text %= {"channel": about.channel}
    else:
        text = _("The turn before was answered by another upstream; each has a cache of its own.")
    if about.reason:
        text += " " + _("Why it was left: %(reason)s.") % {"reason": about.reason}
    return "key" if same else "channel", text


def _time(seconds: float) -> str:
    """A duration for people: in minutes, or in hours from two of them on."""
    minutes = round(seconds / 60)
    if minutes < 120:
        return ngettext("%(n)d minute", "%(n)d minutes", minutes) % {"n": minutes}
    hours = round(seconds / 3600)
    return ngettext("%(n)d hour", "%(n)d hours", hours) % {"n": hours}


def cache_of(record: UsageRecord, staff: bool = False) -> CacheVerdict | None:
    """Say what became of the prompt of a request. None: it has none that is cached, or nothing was used.

    `staff`: names channels.
    """
    return caches_of([record], staff).get(record.pk)


def caches_of(records: Sequence[UsageRecord], staff: bool = False) -> dict[int, CacheVerdict]:
    """The same of some requests, by the ids of their records. 5 queries at most."""
    turns = [
        turn_of(record)
        for record in records
        if record.endpoint in CACHED and record.input_tokens and record.channel_id is not None
    ]
    if not turns:
        return {}
    before = turns_before(turns)
    channels = Channel.objects.in_bulk({turn.channel for turn in (*turns, *before.values()) if turn.channel})
    switches = CacheSwitch.objects.filter(request_id__in=[turn.request_id for turn in turns])
    reasons = {row.request_id: str(row.get_reason_display()) for row in switches} if staff else {}
    days = ChannelDay.objects.filter(day__gt=today_ordinal() - _SILENT_DAYS, cached__gt=0)
    reporting = set(days.filter(channel__in=list(channels)).order_by().values_list("channel", "model").distinct())
    found = {}
    for turn in turns:
        channel, then = channels.get(turn.channel or 0), before.get(turn.pk)
        vendor = VENDORS.get(channel.provider) if channel is not None else None
        facts = NO_CACHE_FACTS
        if channel is not None and vendor is not None:
            facts = vendor.cache_at(channel.effective_base_url)
        left = channels.get(then.channel or 0) if then is not None and staff else None
        about = Surroundings(
            facts,
            (turn.channel, turn.model) not in reporting,
            reasons.get(turn.request_id, ""),
            left.name if left is not None else "",
        )
        found[turn.pk] = verdict(turn, then, about)
    return found
