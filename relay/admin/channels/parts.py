"""The keys and the models of channels in lists of their own: any number of them, with search, filters and actions."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, display
from accounts.admin.lookups import read_initial
from accounts.models import LIMIT_FIELDS
from accounts.rights import may
from relay.admin.channels.inlines import KeyColumns
from relay.admin.forms import ApiKeyForm
from relay.models import ApiKey, Channel, ChannelModel


class PartAdmin(BaseAdmin):
    """Rows that belong to a channel. The list is that of one channel when it is reached from the channel's page."""

    list_before_template = "admin/relay/channel/parts.html"
    list_select_related = ("channel",)
    actions = ("enable", "disable")

    def may_go_along(self, request: HttpRequest) -> bool:
        return True

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        pk = request.GET.get("channel__id__exact", "")
        channel = Channel.objects.filter(pk=int(pk)).first() if pk.isdecimal() and len(pk) < 19 else None
        context: dict[str, Any] = {}
        if channel is not None:
            context = {
                "channel": channel,
                "title": _("%(rows)s of “%(channel)s”")
                % {"rows": self.model._meta.verbose_name_plural, "channel": channel},
            }
        response: HttpResponse = super().changelist_view(request, {**context, **(extra_context or {})})
        return response

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Link channels for those who may open them."""
        changes: Any = super().get_changelist_instance(request)
        linked = may(request.user, "relay.view_channel")
        for row in changes.result_list:
            row.linked = linked
        return changes

    def get_changeform_initial_data(self, request: HttpRequest) -> Any:
        """Add to the channel whose list was open."""
        filters = request.GET.get("_changelist_filters", "")
        found = dict(part.split("=", 1) for part in filters.split("&") if "=" in part)
        initial: Any = super().get_changeform_initial_data(request)
        return {**read_initial(self.model, {"channel": found.get("channel__id__exact")}), **initial}

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A row stays with its channel: a key must not be sent to another address than the one it was given for."""
        fields = super().get_readonly_fields(request, obj)
        return (*fields, "channel") if obj is not None else fields

    @display(description=_("channel"), ordering="channel__name")
    def of_channel(self, row: Any) -> str:
        url = reverse("admin:relay_channel_change", args=[row.channel_id])
        if not getattr(row, "linked", False):
            return str(row.channel)
        return format_html('<a class="ar-link" href="{}">{}</a>', url, row.channel)

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        self._switch(request, rows, True)

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        self._switch(request, rows, False)

    def _switch(self, request: HttpRequest, rows: QuerySet[Any], enabled: bool) -> None:
        what = self.model._meta.model_name
        found = self.switch(request, rows, "enabled", enabled, f"{what}.enable" if enabled else f"{what}.disable")
        said = _("%(n)d row(s) enabled.") if enabled else _("%(n)d row(s) disabled.")
        self.message_user(request, said % {"n": len(found)}, messages.SUCCESS)


@admin.register(ApiKey)
class ApiKeyAdmin(KeyColumns, PartAdmin):
    """The keys of channels. A secret is written, never shown."""

    form = ApiKeyForm
    list_display = (
        "numbered",
        "label",
        "of_channel",
        "enabled",
        "weight",
        "state",
        "cooldown",
        "last_use",
        "balance_label",
    )
    list_display_links = ("numbered",)
    list_editable = ("label", "enabled", "weight")
    list_filter = ("enabled", "auto_disabled", "channel")
    search_fields = ("label", "hint", "channel__name")
    autocomplete_fields = ("channel",)
    readonly_fields = ("numbered", "state", "cooldown", "balance_label")
    fieldsets = (
        (None, {"fields": ("channel", "numbered", "label", "secret", "enabled", "weight")}),
        (_("State"), {"fields": ("state", "cooldown", "balance_label")}),
        (_("Limits"), {"fields": (LIMIT_FIELDS[:2], LIMIT_FIELDS[2:])}),
    )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Read the last uses of a page of keys at once."""
        changes = super().get_changelist_instance(request)
        self.read_last_uses({key.channel_id for key in changes.result_list})
        return changes

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        rows: QuerySet[ApiKey] = super().get_queryset(request)
        return rows.prefetch_related("cooldowns__model")


@admin.register(ChannelModel)
class ChannelModelAdmin(PartAdmin):
    """The models that channels serve, and what they are called there."""

    list_display = ("model", "upstream_name", "of_channel", "enabled", "missing_since")
    list_display_links = ("model",)
    list_editable = ("upstream_name", "enabled")
    list_filter = ("enabled", ("missing_since", admin.EmptyFieldListFilter), "channel")
    search_fields = ("model__name", "upstream_name", "channel__name")
    autocomplete_fields = ("channel", "model")
    ordering = ("model__name", "channel")
    fields = ("channel", "model", "upstream_name", "enabled")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChannelModel]:
        rows: QuerySet[ChannelModel] = super().get_queryset(request)
        return rows.select_related("model")
