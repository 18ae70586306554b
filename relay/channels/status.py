"""The current status of channels and models, in one word and one sentence, for the admin and the status page.

Synchronous.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Count, Q
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from portal.lib import clock
from relay.channels.cooldowns import NO_API
from relay.channels.urls import url_refusal
from relay.models import AllowedUpstream, ApiKey, Channel, ChannelModel, Cooldown, Model
from relay.providers.failures import BY_WORD
from relay.providers.vendors import BUILT_IN

UP, COOLING, DOWN, OFF = "up", "cooling", "down", "off"


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """The status of one channel."""

    id: int
    name: str
    state: str  # UP, COOLING (recovers without help), DOWN (needs a person) or OFF (disabled by a person)
    word: str  # for the state, in the reader's language
    text: str  # the reason in one sentence, empty when there is none
    until: str | None = None  # when it is tried again, in ISO 8601

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


def channel_statuses() -> list[ChannelStatus]:
    """Return the status of every channel, in the order in which they are used. Takes 5 queries."""
    now = clock.now()
    allowed = AllowedUpstream.allowances()
    cooling: dict[int, list[Cooldown]] = {}
    for row in Cooldown.objects.filter(until__gt=now).exclude(kind=NO_API).select_related("model", "api_key"):
        cooling.setdefault(row.channel_id, []).append(row)
    out: dict[int, list[ApiKey]] = {}
    for key in ApiKey.objects.filter(enabled=True).exclude(auto_disabled=""):
        out.setdefault(key.channel_id, []).append(key)
    rows = Channel.objects.annotate(
        keys_on=Count("keys", filter=Q(keys__enabled=True, keys__auto_disabled=""), distinct=True),
        models_on=Count("served", filter=Q(served__enabled=True), distinct=True),
    )
    return [_status_of(row, cooling.get(row.pk, []), out.get(row.pk, []), allowed) for row in rows]


def _status_of(channel: Any, cooling: list[Cooldown], out: list[ApiKey], allowed: Any) -> ChannelStatus:
    def status(state: str, word: str, text: str, until: str | None = None) -> ChannelStatus:
        return ChannelStatus(channel.pk, channel.name, state, word, text, until)

    if not channel.enabled:
        return status(OFF, _("disabled"), _("Disabled by a person."))
    refusal = url_refusal(channel.effective_base_url, allowed) if channel.provider not in BUILT_IN else ""
    if refusal:
        return status(DOWN, _("not permitted"), _("Its address may not be used: %(why)s.") % {"why": refusal})
    if not channel.keys_on and out:
        key = out[0]
        return status(
            DOWN,
            _("keys out of service"),
            f"{key.get_auto_disabled_display()}: {key.auto_disabled_reason}",
            key.next_test_at.isoformat() if key.next_test_at else None,
        )
    if not channel.keys_on and channel.vendor.needs_key:
        return status(DOWN, _("no key"), _("It has no enabled key."))
    if not channel.models_on:
        return status(DOWN, _("no model"), _("It serves no model yet."))
    whole = [row for row in cooling if row.api_key_id is None and row.model_id is None]
    keys = {row.api_key_id for row in cooling if row.api_key_id is not None and row.model_id is None}
    if whole or (keys and len(keys) >= channel.keys_on):
        row = max(whole or cooling, key=lambda one: one.until)
        because = _(BY_WORD[row.kind].text) if row.kind in BY_WORD else row.kind
        return status(
            COOLING,
            _("cooling until %(time)s") % {"time": _clock(row.until)},
            f"{because}: {row.detail}",
            row.until.isoformat(),
        )
    if cooling or out:
        parts = [_("%(n)d place(s) left alone") % {"n": len(cooling)}] if cooling else []
        parts += [_("%(n)d key(s) out of service") % {"n": len(out)}] if out else []
        return status(UP, _("up, in part"), ", ".join(parts) + ".")
    if channel.test_ok is False:
        return status(UP, _("up, last test failed"), channel.test_message[:200])
    return status(UP, _("up"), "")


def _clock(at: Any) -> str:
    return formats.date_format(timezone.localtime(at), "H:i:s")


def model_states(wanted: Iterable[Model]) -> dict[int, str]:
    """Return the state of each model by id: UP while a channel that is up serves it and is not cooling down for it.

    Takes 7 queries.
    """
    wanted = list(wanted)
    up = {status.id for status in channel_statuses() if status.state == UP}
    cooling = set(
        Cooldown.objects.filter(until__gt=clock.now(), model__isnull=False, api_key=None).values_list(
            "channel_id", "model_id"
        )
    )
    serving: dict[int, list[int]] = {}
    for channel, model in ChannelModel.objects.filter(
        enabled=True, channel__enabled=True, model__in=wanted
    ).values_list("channel_id", "model_id"):
        serving.setdefault(model, []).append(channel)
    found = {}
    for model_row in wanted:
        routes = serving.get(model_row.pk, [])
        if any(channel in up and (channel, model_row.pk) not in cooling for channel in routes):
            found[model_row.pk] = UP
        else:
            found[model_row.pk] = DOWN if not routes else COOLING
    return found
