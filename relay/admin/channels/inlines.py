"""Parts of a channel's admin pages: its keys, its models, the filter by tag."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import display, format_time
from accounts.admin.inlines import PagedInline
from portal.lib import clock
from relay.admin.forms import ApiKeyForm
from relay.models import ApiKey, Channel, ChannelModel, UsageRecord

_RECENT = 2000  # requests among which the last use of a key is looked for


class KeyColumns:
    """Columns of a key, in the list of its channel's keys and in that of all keys. Lives as long as a request."""

    last_uses: dict[Any, Any]

    @display(description=_("key"), ordering="pk")
    def numbered(self, key: ApiKey) -> str:
        """The number by which texts call a key, and the ends of its secret."""
        return format_html("#{} <code>{}</code>", key.pk, key.hint) if key.pk else "—"

    @display(description=_("state"))
    def state(self, key: ApiKey) -> str:
        if not key.is_for(key.channel):
            return str(_("given for another address: enter it again"))
        if key.auto_disabled:
            why = f"{key.get_auto_disabled_display()} ({key.auto_disabled_reason})"
            return str(_("out of service: %(why)s") % {"why": why})
        if key.enabled and key.next_test_at:
            return str(_("in service, under test"))
        return str(_("in service") if key.enabled else _("disabled"))

    @display(description=_("left alone until"))
    def cooldown(self, key: ApiKey) -> str:
        rows = [row for row in key.cooldowns.all() if row.until > clock.now()]
        return ", ".join(f"{format_time(row.until)}{f' ({row.model})' if row.model_id else ''}" for row in rows) or "—"

    @display(description=_("last use"))
    def last_use(self, key: ApiKey) -> str:
        """The last use among the latest requests of the channel, a dash when the key is not among them."""
        at = self.last_uses.get(key.pk)
        return format_time(at) if at is not None else "—"

    @display(description=_("balance"))
    def balance_label(self, key: ApiKey) -> str:
        return f"{key.balance.normalize():f} {key.balance_currency}".strip() if key.balance is not None else "—"

    def read_last_uses(self, channels: Collection[int]) -> None:
        """Read the last uses of all keys of some channels at once."""
        recent = (
            UsageRecord.objects.filter(channel__in=channels)
            .order_by("-started_at")
            .values_list("api_key_id", "started_at")[:_RECENT]
            if channels
            else ()
        )
        self.last_uses = dict(reversed(list(recent)))


class ApiKeyInline(KeyColumns, PagedInline):
    """The keys of a channel. Their limits are on the page of each."""

    model = ApiKey
    form = ApiKeyForm
    fields = ("numbered", "label", "secret", "enabled", "weight", "state", "cooldown", "last_use", "balance_label")
    readonly_fields = ("numbered", "state", "cooldown", "last_use", "balance_label")
    hide_title = True
    show_change_link = True
    list_parameter = "channel__id__exact"

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        self.read_last_uses([obj.pk] if obj is not None else [])
        return super().get_formset(request, obj, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        rows: QuerySet[ApiKey] = super().get_queryset(request)
        return rows.select_related("channel").prefetch_related("cooldowns__model")


class ChannelModelInline(PagedInline):
    """The models that a channel serves."""

    model = ChannelModel
    fields = ("model", "upstream_name", "enabled")
    autocomplete_fields = ("model",)
    verbose_name_plural = _("models")
    ordering = ("model__name",)
    list_parameter = "channel__id__exact"


class TagFilter(admin.SimpleListFilter):
    """Filters channels by tag."""

    title = _("tag")
    parameter_name = "tag"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        words = {
            word for tags in Channel.objects.exclude(tags="").values_list("tags", flat=True) for word in tags.split()
        }
        return [(word, word) for word in sorted(words)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Channel]) -> QuerySet[Channel]:
        word = self.value()
        if not word:
            return queryset
        return queryset.filter(pk__in=[pk for pk, tags in queryset.values_list("pk", "tags") if word in tags.split()])
