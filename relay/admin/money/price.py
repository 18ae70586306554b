"""The admin page of prices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, action, display, format_time, request_ip
from accounts.models import AuditEvent
from accounts.rights import may
from portal.lib import clock
from relay.admin.money.below_cost import margins_for, warn_below_cost
from relay.catalog.margins import Margin, below_cost, margins
from relay.catalog.price_texts import classes_of, unit_words, usd
from relay.models import ModelPrice
from relay.models.price import CLASSES, TOKEN_CLASSES, UNIT_CLASSES, PricePurpose
from relay.models.usage import EARNINGS

_STATES: Final = {"in force": "success", "below cost": "danger", "to come": "info", "past": ""}


@admin.register(ModelPrice)
class ModelPriceAdmin(BaseAdmin):
    """Prices of models by the time from which they apply. A price in force is not changed but replaced by a new row.

    What upstreams charge is seen, and set, by those who may see what is earned: with it, prices tell the margin.
    """

    list_display = (
        "model",
        "channel",
        "whose",
        "since",
        "input_usd",
        "cached_usd",
        "output_usd",
        "units",
        "state",
        "source",
    )
    list_filter = ("purpose", "channel", ("model", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("model", "channel")
    search_fields = ("model__name", "source")
    autocomplete_fields = ("model", "channel")
    actions_detail: ClassVar[Any] = ("new_version",)
    ordering = ("model__name", "-valid_from", "above_tokens")
    fieldsets = (
        (
            None,
            {
                "fields": ("model", ("purpose", "channel"), "valid_from", "above_tokens"),
                "description": _(
                    "Without a price of “what the channel's upstream charges”, what users pay, times the multiplier of "
                    "the channel, counts as the upstream's cost: raising the one raises the other, and nothing seems "
                    "to be earned."
                ),
            },
        ),
        (
            _("USD per 1M tokens"),
            {
                "fields": (
                    ("input", "output"),
                    ("cached_input", "cached_audio_input"),
                    ("cache_write", "cache_write_1h"),
                    ("reasoning", "image_input"),
                    ("audio_input", "audio_output"),
                )
            },
        ),
        (_("USD per unit"), {"fields": (UNIT_CLASSES[:2], UNIT_CLASSES[2:4], UNIT_CLASSES[4:])}),
        (None, {"fields": ("source",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelPrice]:
        newest = ModelPrice.objects.filter(
            model=OuterRef("model"), purpose=OuterRef("purpose"), valid_from__lte=clock.now(), channel__isnull=True
        ).order_by("-valid_from")
        rows: QuerySet[ModelPrice] = super().get_queryset(request)
        if not may(request.user, EARNINGS):
            rows = rows.filter(purpose=PricePurpose.SALE)
        return rows.annotate(newest=Subquery(newest.values("valid_from")[:1]))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(super().has_change_permission(request, obj)) and not (obj is not None and obj.in_force)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(super().has_delete_permission(request, obj)) and not (obj is not None and obj.in_force)

    def may_go_along(self, request: HttpRequest) -> bool:
        """A price in force that no receipt refers to goes with its model or channel."""
        return bool(super().has_delete_permission(request))

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Leave the prices of input and output empty at first: a price of zero must be typed."""
        if db_field.name in {"input", "output"}:
            kwargs["initial"] = None
        elif db_field.name == "purpose" and not may(request.user, EARNINGS):
            kwargs["choices"] = [(PricePurpose.SALE.value, PricePurpose.SALE.label)]
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_fieldsets(request, obj)
        if may(request.user, EARNINGS):
            return found
        return [
            (title, {key: value for key, value in options.items() if key != "description"}) for title, options in found
        ]

    def get_list_filter(self, request: HttpRequest) -> Any:
        found = super().get_list_filter(request)
        return found if may(request.user, EARNINGS) else [one for one in found if one != "purpose"]

    def concealed_in_log(self, request: HttpRequest, ids: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Conceal the amounts of what upstreams charge, and of prices that are deleted, whose purpose is not known."""
        if may(request.user, EARNINGS):
            return {}
        known = [int(pk) for pk in ids if pk.isdecimal() and len(pk) < 19]
        sold = ModelPrice.objects.filter(pk__in=known, purpose=PricePurpose.SALE).values_list("pk", flat=True)
        return dict.fromkeys(set(ids) - {str(pk) for pk in sold}, frozenset(CLASSES))

    def has_version_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_add_permission(request)

    def get_actions(self, request: HttpRequest) -> Any:
        return {name: found for name, found in super().get_actions(request).items() if name != "delete_selected"}

    def save_model(self, request: HttpRequest, obj: ModelPrice, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and not form.changed_data:
            return
        AuditEvent.write(
            "price.change" if change else "price.create",
            request.user,
            obj,
            request_ip(request),
            input=str(obj.input),
            output=str(obj.output),
        )
        found = margins(max(obj.valid_from, clock.now()), model=obj.model_id, channel=obj.channel_id)
        warn_below_cost(request, str(obj.model), below_cost(found))

    @action(description=_("New version"), url_path="new-version", icon="edit", permissions=["version"])
    def new_version(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Open the form of a new price, filled with the values of this one."""
        row = self.get_object(request, str(object_id))
        if row is None:
            raise Http404
        values = {
            "model": row.model_id,
            "purpose": row.purpose,
            "above_tokens": row.above_tokens,
            **({"channel": row.channel_id} if row.channel_id else {}),
        }
        for name in (*TOKEN_CLASSES, *UNIT_CLASSES):
            if (value := getattr(row, name)) is not None:
                values[name] = format(value.normalize(), "f")
        return redirect(f"{reverse('admin:relay_modelprice_add')}?{urlencode(values)}")

    @display(description=_("what"), ordering="purpose")
    def whose(self, row: ModelPrice) -> str:
        kind = _("price") if row.purpose == "sale" else _("upstream cost")
        if not row.above_tokens:
            return str(kind)
        return format_html(
            '{}<span class="ar-under">{}</span>', kind, _("prompts above %(n)s tokens") % {"n": f"{row.above_tokens:,}"}
        )

    @display(description=_("valid from"), ordering="valid_from")
    def since(self, row: ModelPrice) -> str:
        return format_time(row.valid_from)

    def get_list_display(self, request: HttpRequest) -> Any:
        found = margins_for(request)
        losses = below_cost(found) if found else []

        @display(description=_("state"), label=_STATES)
        def state(row: Any) -> tuple[str, Any]:
            if self.state(row)[0] == "in force" and any(_concerns(row, one) for one in losses):
                return "below cost", _("below cost")
            return self.state(row)

        return [state if name == "state" else name for name in super().get_list_display(request)]

    @display(description=_("state"), label=_STATES)
    def state(self, row: Any) -> tuple[str, Any]:
        if not row.in_force:
            return "to come", _("to come")
        newest = row.channel_id or row.newest is None or row.valid_from >= row.newest
        return ("in force", _("in force")) if newest else ("past", _("past"))

    @display(description=_("input / 1M"), ordering="input")
    def input_usd(self, row: ModelPrice) -> str:
        return _usd(row.input)

    @display(description=_("cached / 1M"), ordering="cached_input")
    def cached_usd(self, row: ModelPrice) -> str:
        return _usd(row.cached_input)

    @display(description=_("output / 1M"), ordering="output")
    def output_usd(self, row: ModelPrice) -> str:
        return _usd(row.output)

    @display(description=_("per unit"))
    def units(self, row: ModelPrice) -> str:
        return unit_words(classes_of(row)) or "—"


def _concerns(row: ModelPrice, margin: Margin) -> bool:
    """Whether what users pay, or what the upstream charges, is this row."""
    if row.channel_id is None:
        return row.model_id == margin.model and not margin.own_price
    return (row.model_id, row.channel_id) == (margin.model, margin.channel)


def _usd(value: Decimal | None) -> str:
    return "—" if value is None else usd(Decimal(value))
