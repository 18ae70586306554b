"""The current status of channels and models, in one word and one sentence, for the admin and the status page.

Synchronous.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from accounts.models.counts import count_of
from portal.lib import clock
from relay.channels import recent
from relay.channels.cooldowns import NO_API
from relay.channels.urls import url_refusal
from relay.models import AllowedUpstream, ApiKey, Channel, ChannelModel, Cooldown, Model
from relay.providers.failures import BY_WORD
from relay.providers.vendors import BUILT_IN, PRIVATE

UP, PARTLY, COOLING, DOWN, OFF = "up", "partly", "cooling", "down", "off"
FAILING = "failing"  # of a model: it should be served, but its last requests have failed
_MOST_COOLDOWNS = 10  # that are described


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """The status of one channel."""

    id: int
    name: str
    # UP, PARTLY (serves, but something is wrong), COOLING (recovers without help), DOWN (needs a person) or OFF
    # (disabled by a person)
    state: str
    word: str  # for the state, in the reader's language
    text: str  # the reason in one sentence, empty when there is none
    until: str | None = None  # when it is tried again, in ISO 8601
    details: tuple[str, ...] = ()  # everything that is wrong but keys out of service, a sentence each
    failed_test: str = ""  # why its last test failed, empty: it did not
    failing: int = 0  # requests that it has failed since it last answered one; 0: too few to tell

    @property
    def serves(self) -> bool:
        """Whether it can serve requests now."""
        return self.state in {UP, PARTLY}

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object, without what is for pages alone."""
        found = asdict(self)
        del found["details"], found["failing"], found["failed_test"]
        return found


def channel_status(channel_id: int) -> ChannelStatus | None:
    """Return the status of one channel, None when there is no such channel."""
    return next(iter(channel_statuses(channel_id)), None)


def channel_statuses(only: int | None = None) -> list[ChannelStatus]:
    """Return the status of every channel, or of `only` one, in the order in which they are used. Takes 7 queries.

    Channels of users' own plans are left out: their rows are only what usage records point to.
    """
    now = clock.now()
    allowed = AllowedUpstream.allowances()
    cooling: dict[int, list[Cooldown]] = {}
    chosen = {} if only is None else {"channel": only}
    open_circuits = Cooldown.objects.filter(until__gt=now, **chosen).exclude(kind=NO_API)
    for row in open_circuits.select_related("model", "api_key"):
        if row.api_key is not None and (row.api_key.auto_disabled or not row.api_key.enabled):
            continue  # not used anyway
        cooling.setdefault(row.channel_id, []).append(row)
    out: dict[int, list[ApiKey]] = {}
    for key in ApiKey.objects.filter(enabled=True, **chosen).exclude(auto_disabled=""):
        out.setdefault(key.channel_id, []).append(key)
    rows = Channel.objects.exclude(provider__in=PRIVATE).annotate(
        keys_on=count_of(ApiKey.objects.filter(enabled=True, auto_disabled=""), "channel"),
        models_on=count_of(ChannelModel.objects.filter(enabled=True), "channel"),
        reserved=Exists(Channel.groups.through.objects.filter(channel=OuterRef("pk"))),
    )
    if only is not None:
        rows = rows.filter(pk=only)
    in_service = ApiKey.objects.filter(enabled=True, auto_disabled="", **chosen)
    given: dict[int, set[str]] = {}
    for channel_id, given_for in in_service.order_by().values_list("channel", "given_for").distinct():
        given.setdefault(channel_id, set()).add(given_for)
    runs = recent.failing().channels
    return [
        _with_failures(
            _status_of(row, cooling.get(row.pk, []), out.get(row.pk, []), given.get(row.pk, set()), allowed),
            runs.get(row.pk),
        )
        for row in rows
    ]


def _with_failures(found: ChannelStatus, run: recent.Run | None) -> ChannelStatus:
    if run is None or not found.serves:
        return found
    said = _("None of its last %(n)d requests was answered: %(why)s") % {"n": run.count, "why": shorten(run.why)}
    return replace(
        found,
        state=PARTLY,
        word=_("failing"),
        text=f"{said} · {found.text}" if found.text else said,
        details=(said, *found.details),
        failing=run.count,
    )


def _status_of(
    channel: Any, cooling: list[Cooldown], out: list[ApiKey], given: set[str], allowed: Any
) -> ChannelStatus:
    def status(state: str, word: str, text: str, until: str | None = None) -> ChannelStatus:
        details = (*_test_details(channel), *_cooldown_details(cooling))
        why = channel.test_message if channel.test_ok is False else ""
        return ChannelStatus(channel.pk, channel.name, state, word, text, until, details, why)

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
    if given and channel.key_destination() not in given:
        text = _("Its keys were given for another address. Enter them again, or change the address back.")
        return status(DOWN, _("no key for this address"), text)
    if not channel.models_on:
        return status(DOWN, _("no model"), _("It serves no model yet."))
    if channel.groups_limited and not channel.reserved:
        text = _("It is reserved for groups, and none is left of them. Choose others, or lift the limit.")
        return status(DOWN, _("reserved for nobody"), text)
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
    failed = _("last test failed: %(why)s") % {"why": shorten(channel.test_message)} if channel.test_ok is False else ""
    if cooling or out:
        parts = [_("%(n)d key(s) or model(s) left alone") % {"n": len(cooling)}] if cooling else []
        parts += [_("%(n)d key(s) out of service") % {"n": len(out)}] if out else []
        parts += [failed] if failed else []
        return status(PARTLY, _("up, in part"), " · ".join(parts))
    if failed:
        return status(PARTLY, _("up, last test failed"), shorten(channel.test_message))
    return status(UP, _("up"), "")


def _test_details(channel: Channel) -> list[str]:
    if channel.test_ok is not False or channel.tested_at is None:
        return []
    said = _("The last test, %(at)s, failed: %(why)s")
    return [said % {"at": _moment(channel.tested_at), "why": channel.test_message}]


def _cooldown_details(rows: list[Cooldown]) -> list[str]:
    """Describe what is cooling down, what comes back last first."""
    rows = sorted(rows, key=lambda one: one.until, reverse=True)
    more = len(rows) - _MOST_COOLDOWNS
    found = [describe_cooldown(row) for row in rows[:_MOST_COOLDOWNS]]
    return [*found, _("%(n)d more are left alone, see “Cooldowns”.") % {"n": more}] if more > 0 else found


def describe_cooldown(row: Cooldown) -> str:
    """Say what is cooling down until when, and why, in one sentence."""
    names = {"key": row.api_key.public_name if row.api_key else "", "model": row.model}
    if row.api_key and row.model:
        what = _("The key %(key)s for the model %(model)s") % names
    elif row.api_key:
        what = _("The key %(key)s") % names
    else:
        what = _("The model %(model)s") % names if row.model else _("The channel")
    because = _(BY_WORD[row.kind].text) if row.kind in BY_WORD else row.kind
    said = _("%(what)s is left alone until %(until)s: %(why)s (%(detail)s).")
    return said % {"what": what, "until": _moment(row.until), "why": because, "detail": row.detail.rstrip(".") or "—"}


def shorten(text: str, most: int = 200) -> str:
    """Cut a text that is too long for a list, with an ellipsis."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _moment(at: Any) -> str:
    return formats.date_format(timezone.localtime(at), "MOMENT_FORMAT")


def _clock(at: Any) -> str:
    return formats.date_format(timezone.localtime(at), "H:i:s")


def model_states(wanted: Iterable[Model], groups: Collection[int] = ()) -> dict[int, str]:
    """Return the state of each model by id: UP while a channel that is up serves it and is not cooling down for it.

    Channels count that are open to all or to one of the `groups`, by id. Takes 9 queries.
    """
    wanted, runs = list(wanted), recent.failing().models
    up = {status.id for status in channel_statuses() if status.serves}
    cooling = set(
        Cooldown.objects.filter(until__gt=clock.now(), model__isnull=False, api_key=None).values_list(
            "channel_id", "model_id"
        )
    )
    serving: dict[int, list[int]] = {}
    mine = Q(channel__groups_limited=False) | Q(channel__groups__in=groups)
    for channel, model in (
        ChannelModel.objects.filter(mine, enabled=True, channel__enabled=True, model__in=wanted)
        .values_list("channel_id", "model_id")
        .distinct()
    ):
        serving.setdefault(model, []).append(channel)
    found = {}
    for model_row in wanted:
        routes = serving.get(model_row.pk, [])
        if any(channel in up and (channel, model_row.pk) not in cooling for channel in routes):
            found[model_row.pk] = FAILING if model_row.name in runs else UP
        else:
            found[model_row.pk] = DOWN if not routes else COOLING
    return found
