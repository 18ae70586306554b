"""How channels and models stand now, in one word and one sentence each: for the admin's front page, live pages and the status page. Synchronous."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Count, Q
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from portal.lib import clock
from relay.channels.urls import refusal_of
from relay.models import AllowedUpstream, ApiKey, Channel, ChannelModel, Cooldown, Model
from relay.providers.failures import BY_WORD
from relay.providers.vendors import BUILT_IN

UP, COOLING, DOWN, OFF = "up", "cooling", "down", "off"


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """`state`: up, cooling (back by itself), down (needs a person), off (disabled by one). `until`: ISO 8601, when something is tried again."""

    id: int
    name: str
    state: str
    word: str
    text: str
    until: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def channels() -> list[ChannelStatus]:
    """Every channel, in the order of use. Queries: 5."""
    now = clock.now()
    allowed = AllowedUpstream.allowances()
    cooling: dict[int, list[Cooldown]] = {}
    for row in Cooldown.objects.filter(until__gt=now).select_related("model", "api_key"):
        cooling.setdefault(row.channel_id, []).append(row)
    out: dict[int, list[ApiKey]] = {}
    for key in ApiKey.objects.filter(enabled=True).exclude(auto_disabled=""):
        out.setdefault(key.channel_id, []).append(key)
    rows = Channel.objects.annotate(
        keys_on=Count("keys", filter=Q(keys__enabled=True, keys__auto_disabled=""), distinct=True), models_on=Count("served", filter=Q(served__enabled=True), distinct=True)
    )
    return [_channel(row, cooling.get(row.pk, []), out.get(row.pk, []), allowed) for row in rows]


def _channel(channel: Any, cooling: list[Cooldown], out: list[ApiKey], allowed: Any) -> ChannelStatus:
    def stands(state: str, word: str, text: str, until: str | None = None) -> ChannelStatus:
        return ChannelStatus(channel.pk, channel.name, state, word, text, until)

    if not channel.enabled:
        return stands(OFF, _("disabled"), _("Disabled by a person."))
    refusal = refusal_of(channel.effective_base_url, allowed) if channel.provider not in BUILT_IN else ""
    if refusal:
        return stands(DOWN, _("not permitted"), _("Its address may not be used: %(why)s.") % {"why": refusal})
    if not channel.keys_on and out:
        key = out[0]
        return stands(DOWN, _("keys out of service"), f"{key.get_auto_disabled_display()}: {key.auto_disabled_reason}", key.next_test_at.isoformat() if key.next_test_at else None)
    if not channel.keys_on and channel.vendor.needs_key:
        return stands(DOWN, _("no key"), _("It has no enabled key."))
    if not channel.models_on:
        return stands(DOWN, _("no model"), _("It serves no model yet."))
    whole = [row for row in cooling if row.api_key_id is None and row.model_id is None]
    keys = {row.api_key_id for row in cooling if row.api_key_id is not None and row.model_id is None}
    if whole or (keys and len(keys) >= channel.keys_on):
        row = max(whole or cooling, key=lambda one: one.until)
        because = _(BY_WORD[row.kind].text) if row.kind in BY_WORD else row.kind
        return stands(COOLING, _("cooling until %(time)s") % {"time": _clock(row.until)}, f"{because}: {row.detail}", row.until.isoformat())
    if cooling or out:
        parts = [_("%(n)d place(s) left alone") % {"n": len(cooling)}] if cooling else []
        parts += [_("%(n)d key(s) out of service") % {"n": len(out)}] if out else []
        return stands(UP, _("up, in part"), ", ".join(parts) + ".")
    if channel.test_ok is False:
        return stands(UP, _("up, last test failed"), channel.test_message[:200])
    return stands(UP, _("up"), "")


def _clock(at: Any) -> str:
    return formats.date_format(timezone.localtime(at), "H:i:s")


def models(wanted: Iterable[Model]) -> dict[int, str]:
    """The state of each model by id: up while a channel that is up serves it and leaves it not alone. Queries: 7."""
    wanted = list(wanted)
    up = {standing.id for standing in channels() if standing.state == UP}
    alone = set(Cooldown.objects.filter(until__gt=clock.now(), model__isnull=False, api_key=None).values_list("channel_id", "model_id"))
    serving: dict[int, list[int]] = {}
    for channel, model in ChannelModel.objects.filter(enabled=True, channel__enabled=True, model__in=wanted).values_list("channel_id", "model_id"):
        serving.setdefault(model, []).append(channel)
    found = {}
    for model_row in wanted:
        routes = serving.get(model_row.pk, [])
        if any(channel in up and (channel, model_row.pk) not in alone for channel in routes):
            found[model_row.pk] = UP
        else:
            found[model_row.pk] = DOWN if not routes else COOLING
    return found
