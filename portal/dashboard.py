"""The numbers on the admin's front page: queries in, dataclasses out. They look at the last 24 hours, over an index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Q, Sum
from django.urls import reverse

from accounts.models import User
from portal.lib import clock, money
from relay.gateway.load import allowances
from relay.models import ApiKey, BlockedAddress, Channel, Model, UsageRecord
from relay.providers.table import PROVIDERS
from relay.upstream_urls import refusal_of


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    value: int | str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Todo:
    """Something only a person can mend, and where."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class ChannelLine:
    name: str
    url: str
    enabled: bool
    requests: int
    failed: int


@dataclass(frozen=True, slots=True)
class Board:
    figures: list[Figure]
    todo: list[Todo]
    channels: list[ChannelLine]


def board() -> Board:
    """Queries: 8."""
    recent = UsageRecord.objects.filter(started_at__gte=clock.now() - timedelta(hours=24))
    failed = Q(status__gte=500) | Q(end_reason__in=("truncated", "timeout", "upstream_error"))
    sums = recent.aggregate(
        requests=Count("pk"),
        failed=Count("pk", filter=failed),
        input=Sum("input_tokens"),
        output=Sum("output_tokens"),
        charged=Sum(F("cost") - F("shortfall")),
        upstream=Sum("upstream_cost"),
    )
    charged, upstream = int(sums["charged"] or 0), int(sums["upstream"] or 0)
    figures = [
        Figure("Requests, 24 h", sums["requests"]),
        Figure("Failed", sums["failed"]),
        Figure("Input tokens", sums["input"] or 0),
        Figure("Output tokens", sums["output"] or 0),
        Figure("Charged", money.show(charged)),
        Figure("Margin", money.show(charged - upstream)),
    ]
    by_channel: dict[int | None, dict[str, Any]] = {
        row["channel_id"]: dict(row) for row in recent.values("channel_id").annotate(requests=Count("pk"), failed=Count("pk", filter=failed))
    }
    channels = list(
        Channel.objects.annotate(
            keys_on=Count("keys", filter=Q(keys__enabled=True), distinct=True),
            keys_out=Count("keys", filter=~Q(keys__auto_disabled=""), distinct=True),
            models_on=Count("served", distinct=True),
        )
    )
    allowed = allowances()
    lines = []
    todo = []
    for channel in channels:
        url = reverse("admin:relay_channel_change", args=[channel.pk])
        counts: dict[str, int] = by_channel.get(channel.pk, {})
        lines.append(ChannelLine(channel.name, url, channel.enabled, counts.get("requests", 0), counts.get("failed", 0)))
        if not channel.enabled:
            continue
        refusal = refusal_of(channel.effective_base_url, allowed) if channel.provider != "demo" else ""
        if refusal:
            todo.append(Todo(f"Channel “{channel}” is not used: {refusal}. Change it, or allow the address.", url))
        if PROVIDERS[channel.provider].needs_key and not channel.keys_on:
            todo.append(Todo(f"Channel “{channel}” has no API key: paste one.", url))
        if channel.keys_out:
            todo.append(Todo(f"Channel “{channel}”: {channel.keys_out} key(s) were taken out of service.", url))
        if not channel.models_on:
            todo.append(Todo(f"Channel “{channel}” serves no model: fetch its models or type them.", url))
        if channel.test_ok is False:
            todo.append(Todo(f"Channel “{channel}” failed its last test: {channel.test_message[:120]}", url))
    serving = Q(served_by__enabled=True, served_by__channel__enabled=True)
    for model in Model.objects.filter(enabled=True).annotate(
        serving=Count("served_by", filter=serving, distinct=True),
        granted=Count("permissions", distinct=True),
        prices_in_force=Count("prices", filter=Q(prices__valid_from__lte=clock.now()), distinct=True),
    ):
        url = reverse("admin:relay_model_change", args=[model.pk])
        if not model.prices_in_force and settings.CONFIG.unpriced == "refuse":
            todo.append(Todo(f"Model “{model}” has no price, so nobody can use it: add one, or take the vendors' list prices.", reverse("admin:relay_model_changelist")))
        if not model.serving:
            todo.append(Todo(f"Model “{model}” is served by no channel.", url))
        elif not model.is_open and not model.granted:
            todo.append(Todo(f"Model “{model}” is not open and nobody has a permission for it.", url))
    blocked = BlockedAddress.objects.filter(blocked_until__gt=clock.now()).count()
    if blocked:
        todo.append(Todo(f"{blocked} address(es) are blocked for bad tokens.", reverse("admin:relay_blockedaddress_changelist")))
    if not ApiKey.objects.exists():
        todo.append(Todo("Only the demo answers so far: add a channel with an API key.", reverse("admin:relay_channel_add")))
    if User.objects.count() == 1:
        todo.append(Todo("You are the only user: create accounts for the others.", reverse("admin:accounts_user_add")))
    return Board(figures, todo[:12], lines[:20])
