"""The admin page of prompt caches: how much comes from them, and which conversations left a warm one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.doors import needs
from accounts.rights import may
from portal.lib import money
from portal.lib.texts import whole_number
from relay.admin.records.usage import sees_money
from relay.models import CacheSwitch, Channel
from relay.models.cache_switch import SwitchReason
from relay.providers.failures import BY_WORD
from relay.usage import rollup
from relay.usage.caches.shares import DAYS, ShareLine, shares_by
from relay.usage.conversations.switches import SwitchSums, switch_sums, switches_by_reason
from relay.usage.reports import since

_ROWS: Final = 50
_TABLES: Final = (
    ("channel", gettext_lazy("By channel"), gettext_lazy("Channel")),
    ("key", gettext_lazy("By key"), gettext_lazy("Key")),
    ("model", gettext_lazy("By model"), gettext_lazy("Model")),
)


@dataclass(frozen=True, slots=True)
class SwitchLine:
    """A switch, with the names of what it refers to, as far as that still exists."""

    row: CacheSwitch
    left: str  # its channel and key
    to: str
    why: str
    cost: str


@needs("relay.view_usagerecord", "relay.view_channel")
def caches_view(request: HttpRequest) -> HttpResponse:
    """Show cache hit shares and switches from warm caches, of all channels or of one (`channel`).

    `before`: the id of the last row that was seen, for older ones.
    """
    behind = rollup.catch_up()
    number = whole_number(request.GET.get("channel", ""))
    channel = get_object_or_404(Channel, pk=number) if number is not None else None
    only = channel.pk if channel is not None else None
    with_money = sees_money(request)
    rows, older = _switches(only, whole_number(request.GET.get("before", "")))
    chosen = {"channel": only} if only is not None else {}
    context = {
        **admin.site.each_context(request),
        "title": _("Caches of “%(channel)s”") % {"channel": channel} if channel is not None else _("Caches"),
        "channel": channel,
        "behind": behind,
        "days": DAYS,
        "tables": [_table(by, title, head, only) for by, title, head in _TABLES if only is None or by != "channel"],
        "periods": [(days, _sums(switch_sums(since(days)[1], only), with_money)) for days in DAYS],
        "reasons": [
            (SwitchReason(reason).label, _sums(sums, with_money))
            for reason, sums in (switches_by_reason(since(max(DAYS))[1], only))
            if reason in SwitchReason.values
        ],
        "rows": [_line(row, with_money) for row in rows],
        "older": f"?{urlencode({**chosen, 'before': older})}" if older else "",
        "money": with_money,
        "users": may(request.user, "accounts.view_user"),
    }
    return render(request, "admin/relay/caches.html", context)


def _table(by: str, title: Any, head: Any, channel: int | None) -> dict[str, Any]:
    lines: list[ShareLine] = shares_by(by, channel)
    return {"by": by, "title": title, "head": head, "lines": lines}


def _sums(sums: SwitchSums, with_money: bool) -> dict[str, Any]:
    return {
        "switches": sums.switches,
        "tokens": sums.tokens,
        "cost": money.show(sums.cost) if with_money else "",
    }


def _switches(channel: int | None, before: int | None) -> tuple[list[CacheSwitch], int | None]:
    """A page of switches, the newest first, and the id from which the older ones go on."""
    found = CacheSwitch.objects.select_related("user", "from_channel", "from_key", "to_channel", "to_key")
    if channel is not None:
        found = found.filter(from_channel=channel)
    if before is not None:
        found = found.filter(pk__lt=before)
    page = list(found.order_by("-pk")[: _ROWS + 1])
    return page[:_ROWS], page[_ROWS - 1].pk if len(page) > _ROWS else None


def _line(row: CacheSwitch, with_money: bool) -> SwitchLine:
    why = str(row.get_reason_display())
    if row.detail in BY_WORD:
        why = f"{why} ({_(BY_WORD[row.detail].text)})"
    return SwitchLine(
        row,
        _place(row.from_channel_id, row.from_channel, row.from_key_id, row.from_key),
        _place(row.to_channel_id, row.to_channel, row.to_key_id, row.to_key),
        why,
        money.show(row.cost) if with_money else "",
    )


def _place(channel_id: int | None, channel: Any, key_id: int | None, key: Any) -> str:
    """A channel and its key, which is named without a part of its secret."""
    if channel_id is None:
        return "—"
    name = str(channel) if channel is not None else f"#{channel_id}"
    if key_id is None:
        return name
    return f"{name}, {key.public_name if key is not None else f'#{key_id}'}"
