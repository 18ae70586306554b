from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from unfold.admin import TabularInline

from accounts.admin.base import BaseAdmin, address, display
from accounts.models import LIMIT_FIELDS
from portal.lib import clock, money
from relay import price_import
from relay.admin.forms import ModelForm
from relay.models import ChannelModel, Model, ModelPermission, ModelPrice


class PermissionInline(TabularInline):
    model = ModelPermission
    fields = ("user", "group", "expires_at")
    verbose_name_plural = "permissions"
    autocomplete_fields = ("user", "group")
    extra = 0
    tab = True


class ServedByInline(TabularInline):
    model = ChannelModel
    fields = ("channel", "upstream_name", "enabled")
    verbose_name_plural = "channels"
    autocomplete_fields = ("channel",)
    extra = 0
    tab = True


@admin.register(Model)
class ModelAdmin(BaseAdmin):
    """Public model names."""

    form = ModelForm
    inlines = (ServedByInline, PermissionInline)
    list_display = ("name", "is_open", "enabled", "state", "price", "channel_count", "permission_count", "context_window")
    list_editable = ("is_open", "enabled")
    list_filter = ("is_open", "enabled", "channels")
    search_fields = ("name", "display_name")
    actions = ("open_models", "close_models", "take_list_prices")
    fieldsets = (
        (None, {"fields": ("name", "is_open", "enabled", "display_name", "description")}),
        ("Routing", {"fields": ("strategy", "sticky"), "classes": ("tab",)}),
        ("Shown in /v1/models", {"fields": ("owned_by", ("context_window", "max_output_tokens"), "abilities"), "classes": ("tab",)}),
        ("Limits", {"fields": (LIMIT_FIELDS[:2], LIMIT_FIELDS[2:]), "classes": ("tab",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        rows: QuerySet[Model] = super().get_queryset(request)
        serving = Q(served_by__enabled=True, served_by__channel__enabled=True)
        now = ModelPrice.objects.filter(model=OuterRef("pk"), channel=None, purpose="sale", valid_from__lte=clock.now(), above_tokens=0).order_by("-valid_from")
        return rows.annotate(
            serving=Count("served_by", filter=serving, distinct=True),
            granted=Count("permissions", distinct=True),
            price_input=Subquery(now.values("input")[:1]),
            price_output=Subquery(now.values("output")[:1]),
        )

    @display(description="price in / out, per 1M", ordering="price_input")
    def price(self, model: Any) -> str:
        if model.price_input is None:
            return "none"
        return f"{money.show(money.nano(model.price_input))} / {money.show(money.nano(model.price_output))}"

    @display(description="state", label={"usable": "success", "no channel": "danger", "no price": "danger", "nobody may use it": "warning", "disabled": ""})
    def state(self, model: Any) -> str:
        if not model.enabled:
            return "disabled"
        if not model.serving:
            return "no channel"
        if model.price_input is None and settings.CONFIG.unpriced == "refuse":
            return "no price"
        return "usable" if model.is_open or model.granted else "nobody may use it"

    @display(description="channels", ordering="serving")
    def channel_count(self, model: Any) -> int:
        return int(model.serving)

    @display(description="permissions", ordering="granted")
    def permission_count(self, model: Any) -> str:
        return "open" if model.is_open else str(model.granted)

    @admin.action(description="Open to everyone", permissions=["change"])
    def open_models(self, request: HttpRequest, rows: QuerySet[Model]) -> None:
        self._switch(request, rows, True)

    @admin.action(description="Close: permission needed", permissions=["change"])
    def close_models(self, request: HttpRequest, rows: QuerySet[Model]) -> None:
        self._switch(request, rows, False)

    @admin.action(description="Take the vendors' list prices", permissions=["change"])
    def take_list_prices(self, request: HttpRequest, rows: QuerySet[Model]) -> HttpResponse | None:
        """Shows what differs from the list prices of genai-prices, then applies what is ticked."""
        if not request.user.has_perm("relay.add_modelprice"):
            raise PermissionDenied
        chosen = list(Model.objects.filter(pk__in=rows.values("pk")).order_by("name"))
        found, unknown = price_import.proposals(chosen)
        if request.POST.get("confirmed"):
            ticked = set(request.POST.getlist("model"))
            count = price_import.apply([proposal for proposal in found if str(proposal.model.pk) in ticked], actor=request.user, ip=address(request))
            self.message_user(request, f"{count} model(s) priced.", messages.SUCCESS)
            return None
        context = {**self.admin_site.each_context(request), "title": "List prices", "opts": self.model._meta, "proposals": found, "unknown": unknown, "chosen": chosen}
        return render(request, "admin/relay/model/prices.html", context)

    def _switch(self, request: HttpRequest, rows: QuerySet[Model], is_open: bool) -> None:
        found = self.switch(request, rows, "is_open", is_open, "model.open" if is_open else "model.close")
        self.message_user(request, f"{len(found)} model(s) are now {'open to everyone' if is_open else 'closed'}.", messages.SUCCESS)


@admin.register(ModelPermission)
class ModelPermissionAdmin(BaseAdmin):
    """Who may use which model that is not open."""

    list_display = ("model", "user", "group", "expires_at")
    list_filter = ("model", "group")
    list_select_related = ("model", "user", "group")
    search_fields = ("model__name", "user__username", "group__name")
    autocomplete_fields = ("model", "user", "group")
