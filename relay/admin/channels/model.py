from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin.base import BaseAdmin, action, display, request_ip
from accounts.admin.inlines import PagedInline
from accounts.doors import may_open
from accounts.models import LIMIT_FIELDS, AuditEvent
from accounts.models.counts import count_of
from accounts.rights import may
from portal.lib import clock
from relay.admin.channels.model_list import PRICING, complete_models, make_free, unpriced, who_sets_prices
from relay.admin.forms import ModelForm
from relay.admin.pasted import ticked
from relay.billing import price_import
from relay.catalog.facts import fill_facts
from relay.catalog.price_texts import NO_PRICE, PriceNow, current_prices, prices_now, without_price
from relay.channels.models import add_gpt, gpt_channels, gpt_id
from relay.models import Channel, ChannelModel, Model, ModelPermission
from relay.models.catalog import RETIRES_SOON
from relay.providers.vendors.openai import GPT_FAMILY

_MOST_PRICES = 200  # models whose list prices are taken at once


class PermissionInline(PagedInline):
    """Who may use a model that is not open."""

    model = ModelPermission
    fields = ("user", "group", "expires_at")
    verbose_name_plural = _("permissions")
    autocomplete_fields = ("user", "group")
    ordering = ("pk",)
    list_parameter = "model__id__exact"


class ServedByInline(PagedInline):
    """The channels that serve a model."""

    model = ChannelModel
    fields = ("channel", "upstream_name", "enabled")
    verbose_name_plural = _("channels")
    autocomplete_fields = ("channel",)
    ordering = ("channel__name",)
    list_parameter = "model__id__exact"


class StateFilter(admin.SimpleListFilter):
    """Filters models that nobody can use, as the dashboard counts them."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("unpriced", _("no price")),
            ("unserved", _("no channel")),
            ("unused", _("nobody may use it")),
            ("retiring", _("retired, or soon")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        if self.value() == "unpriced":
            return without_price(queryset.filter(enabled=True))
        if self.value() == "unserved":
            return queryset.filter(enabled=True).exclude(
                pk__in=ChannelModel.objects.filter(enabled=True, channel__enabled=True).values("model")
            )
        if self.value() == "unused":
            return queryset.filter(enabled=True, is_open=False).exclude(pk__in=ModelPermission.objects.values("model"))
        if self.value() == "retiring":
            return queryset.filter(enabled=True, retires_on__lte=(clock.now() + RETIRES_SOON).date())
        return queryset


class GptForm(forms.Form):
    """The form that adds a GPT of ChatGPT as a model."""

    link = forms.CharField(
        max_length=300,
        label=_("Link to the GPT"),
        help_text=_(
            "Such as https://chatgpt.com/g/g-2fkFE8rbu-dall-e, copied from the browser, or its id alone. Nothing is "
            "fetched from there."
        ),
    )
    name = forms.CharField(max_length=120, required=False, label=_("Name"), help_text=_("As users see it."))
    channels: forms.ModelMultipleChoiceField[Channel] = forms.ModelMultipleChoiceField(
        queryset=Channel.objects.none(),
        label=_("Channels"),
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Which serve it. GPTs need an upstream that offers the gpt-4-gizmo models."),
    )
    is_open = forms.BooleanField(required=False, label=_("Open to everyone"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = gpt_channels()
        field = self.fields["channels"]
        assert isinstance(field, forms.ModelMultipleChoiceField)  # noqa: S101
        field.queryset = Channel.objects.filter(pk__in=[channel.pk for channel in found])
        field.initial = [found[0].pk] if len(found) == 1 else []

    def clean_link(self) -> str:
        found = gpt_id(self.cleaned_data["link"])
        if found is None:
            raise forms.ValidationError(
                _("This is no link to a GPT. Open the GPT in ChatGPT and copy the address: it contains /g/g-…")
            )
        return found


@admin.register(Model)
class ModelAdmin(BaseAdmin):
    """Public model names."""

    form = ModelForm
    instead_of_deleting = _("Receipts of past requests refer to its prices, so it is kept. Disable it instead.")
    inlines = (ServedByInline, PermissionInline)
    list_display = (
        "named",
        "copy_name",
        "is_open",
        "enabled",
        "state",
        "price",
        "channel_names",
        "permission_count",
        "window",
    )
    list_editable = ("is_open", "enabled")
    list_filter = ("is_open", "enabled", StateFilter, "channels")
    search_fields = ("name", "display_name", "aliases__name")
    actions = ("open_models", "close_models", "take_list_prices", "make_free", "fill_in_facts")
    actions_list: ClassVar[Any] = ("add_gpt",)
    actions_detail: ClassVar[Any] = ("prices", "explain")
    fieldsets = (
        (None, {"fields": ("name", "is_open", "enabled", "display_name", "description", "further_names")}),
        (_("Routing"), {"fields": ("strategy", "sticky", "keeps_cache", "native_only"), "classes": ("tab",)}),
        (
            _("Shown in /v1/models"),
            {
                "fields": (
                    "owned_by",
                    ("context_window", "max_output_tokens"),
                    "retires_on",
                    "abilities",
                    "reasoning_levels",
                ),
                "classes": ("tab",),
            },
        ),
        (_("Limits"), {"fields": (LIMIT_FIELDS[:2], LIMIT_FIELDS[2:]), "classes": ("tab",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        rows: QuerySet[Model] = super().get_queryset(request)
        return rows.prefetch_related("served_by__channel", "aliases").annotate(
            serving=count_of(ChannelModel.objects.filter(enabled=True, channel__enabled=True), "model"),
            granted=count_of(ModelPermission.objects.all(), "model"),
            price_input=Subquery(current_prices().values("input")[:1]),
        )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Read the prices of all models of a page at once."""
        changes: Any = super().get_changelist_instance(request)
        prices = prices_now((model.pk for model in changes.result_list), clock.now())
        for model in changes.result_list:
            model.price_now = prices[model.pk]
        return changes

    @display(description=_("context window"), ordering="context_window")
    def window(self, model: Model) -> str:
        return f"{model.context_window:,}" if model.context_window else "—"

    @display(description=_("further names"))
    def further_names(self, model: Model) -> str:
        return ", ".join(alias.name for alias in model.aliases.all()) or "—"

    @display(description=_("name"), ordering="name")
    def named(self, model: Model) -> str:
        """With its further names below it."""
        others = [alias.name for alias in model.aliases.all()]
        shown = ", ".join(others[:3]) + (f" +{len(others) - 3}" if len(others) > 3 else "")
        return format_html('{}<br><small class="font-normal">{}</small>', model.name, shown) if others else model.name

    @display(description=_("price"), ordering="price_input")
    def price(self, model: Any) -> str:
        found: PriceNow | None = getattr(model, "price_now", None)
        return found.words(unpriced=settings.CONFIG.unpriced) if found is not None else "—"

    @display(
        description=_("state"),
        label={
            "usable": "success",
            "no channel": "danger",
            "no price": "danger",
            "nobody may use it": "warning",
            "disabled": "",
        },
    )
    def state(self, model: Any) -> tuple[str, Any]:
        if not model.enabled:
            return "disabled", _("disabled")
        if not model.serving:
            return "no channel", _("no channel")
        if not getattr(model, "price_now", NO_PRICE).known and settings.CONFIG.unpriced == "refuse":
            return "no price", _("no price")
        return (
            ("usable", _("usable")) if model.is_open or model.granted else ("nobody may use it", _("nobody may use it"))
        )

    @display(description=_("channels"), ordering="serving")
    def channel_names(self, model: Any) -> str:
        names = [link.channel.name for link in model.served_by.all() if link.enabled and link.channel.enabled]
        return ", ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "") or "—"

    @display(description=_("copy"))
    def copy_name(self, model: Model) -> str:
        return format_html(
            '<button type="button" class="ar-link" data-copy-text="{}" aria-label="{} {}">{}</button>',
            model.name,
            _("Copy"),
            model.name,
            _("Copy"),
        )

    def has_gpt_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_add_permission(request)

    @action(description=_("Add GPTs"), url_path="gpt", icon="add_link", permissions=["gpt"])
    def add_gpt(self, request: HttpRequest) -> HttpResponse:
        """Add a GPT of ChatGPT as a model, from its link."""
        form = GptForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            data = form.cleaned_data
            model, made = add_gpt(data["link"], data["name"], list(data["channels"]), data["is_open"])
            AuditEvent.write("model.add-gpt", request.user, model, request_ip(request), made=made)
            said = _("“%(name)s” is there.") if made else _("“%(name)s” was there already; the channels serve it.")
            self.message_user(request, said % {"name": model.name}, messages.SUCCESS)
            return (
                redirect("admin:relay_model_change", model.pk)
                if "another" not in request.POST
                else redirect("admin:relay_model_add_gpt")
            )
        context = {
            **self.admin_site.each_context(request),
            "title": _("Add GPTs"),
            "opts": self.model._meta,
            "form": form,
            "family": Model.objects.filter(name=f"{GPT_FAMILY}*").first(),
        }
        return render(request, "admin/relay/model/gpt.html", context, status=422 if form.errors else 200)

    def has_price_list_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may(request.user, "relay.view_modelprice")

    @action(description=_("Prices"), url_path="prices", icon="sell", permissions=["price_list"])
    def prices(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show all prices of a model: in force, past and future."""
        url = reverse("admin:relay_modelprice_changelist")
        return redirect(f"{url}?{urlencode({'model__id__exact': get_object_or_404(Model, pk=object_id).pk})}")

    def has_explain_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may_open(request, reverse("admin-explain"))

    @action(description=_("Explain"), url_path="explain", icon="help", permissions=["explain"])
    def explain(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Explain the routing of requests for a model."""
        model = get_object_or_404(Model, pk=object_id)
        return redirect(
            f"{reverse('admin-explain')}?{urlencode({'user': request.user.get_username(), 'model': model.name})}"
        )

    @display(description=_("permissions"), ordering="granted")
    def permission_count(self, model: Any) -> str:
        return str(_("open")) if model.is_open else str(model.granted)

    @admin.action(description=_("Open to everyone"), permissions=["change"])
    def open_models(self, request: HttpRequest, rows: QuerySet[Model]) -> None:
        self._switch(request, rows, True)

    @admin.action(description=_("Close: permission needed"), permissions=["change"])
    def close_models(self, request: HttpRequest, rows: QuerySet[Model]) -> None:
        self._switch(request, rows, False)

    @admin.action(description=_("Take the vendors' list prices"), permissions=["change"])
    def take_list_prices(self, request: HttpRequest, rows: QuerySet[Model]) -> HttpResponse | None:
        """Show the differences from the list prices of genai-prices, then apply those that are ticked.

        Who may not set prices takes them for models that are refused because they have none. Such a person cannot
        choose an amount, change one that somebody has set, or put a price on what is free.
        """
        sets_prices = may(request.user, PRICING)
        chosen = list(Model.objects.filter(pk__in=rows.values("pk")).order_by("name"))
        found, unknown = price_import.propose_changes(chosen if sets_prices else unpriced(chosen))
        if not sets_prices:
            found, others = price_import.for_new_models(found)
            unknown = sorted([*unknown, *others], key=lambda model: model.name)
        found, more = found[:_MOST_PRICES], len(found[_MOST_PRICES:])
        if request.POST.get("confirmed"):
            chosen_models = set(ticked(request, "model"))
            wanted = [proposal for proposal in found if str(proposal.model.pk) in chosen_models]
            if sets_prices:
                count = price_import.apply_proposals(wanted, actor=request.user, ip=request_ip(request))
            else:
                count = price_import.add_list_prices(
                    [one.model for one in wanted],
                    {one.model.name: one.listing for one in wanted},
                    actor=request.user,
                    ip=request_ip(request),
                )
            self.message_user(request, _("%(count)s model(s) priced.") % {"count": count}, messages.SUCCESS)
            if more:
                self.message_user(
                    request, _("%(n)d more have another list price. Take it in the same way.") % {"n": more}
                )
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("List prices"),
            "opts": self.model._meta,
            "proposals": found,
            "unknown": unknown,
            "chosen": chosen,
            "more": more,
            "sets_prices": sets_prices,
            "who_sets_prices": who_sets_prices() if unknown and not sets_prices else "",
        }
        return render(request, "admin/relay/model/prices.html", context)

    def has_pricing_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_change_permission(request) and may(request.user, PRICING)

    @admin.action(description=_("Make those without a price free"), permissions=["pricing"])
    def make_free(self, request: HttpRequest, rows: QuerySet[Model]) -> None:
        count = make_free(request, Model.objects.filter(pk__in=rows.values("pk")))
        self.message_user(
            request,
            ngettext("%(n)d model is free now.", "%(n)d models are free now.", count) % {"n": count},
            messages.SUCCESS,
        )

    @admin.action(description=_("Fill in context window and abilities"), permissions=["change"])
    def fill_in_facts(self, request: HttpRequest, rows: QuerySet[Model]) -> None:
        """Fill in what names and list prices tell; what somebody has set stays."""
        count = fill_facts(rows.values_list("name", flat=True))
        AuditEvent.write("model.facts", request.user, None, request_ip(request), count=count)
        self.message_user(
            request,
            ngettext("Something was filled in for %(n)d model.", "Something was filled in for %(n)d models.", count)
            % {"n": count},
            messages.SUCCESS,
        )

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if isinstance(form, ModelForm):  # not a row of the list, edited in place
            rows: list[dict[str, Any]] = request.audit_rows  # type: ignore[attr-defined]  # of AuditedAdmin
            rows += [{"kind": "modelalias", "row": name, "did": did} for did, name in form.save_names()]
        if not change:
            complete_models(request, [form.instance.name], listed=False)

    def _switch(self, request: HttpRequest, rows: QuerySet[Model], is_open: bool) -> None:
        found = self.switch(request, rows, "is_open", is_open, "model.open" if is_open else "model.close")
        said = _("%(n)d model(s) are now open to everyone.") if is_open else _("%(n)d model(s) are now closed.")
        self.message_user(request, said % {"n": len(found)}, messages.SUCCESS)


@admin.register(ModelPermission)
class ModelPermissionAdmin(BaseAdmin):
    """Permissions of users and groups for models that are not open."""

    list_display = ("model", "user", "group", "expires_at")
    list_filter = ("model", "group")
    list_select_related = ("model", "user", "group")
    search_fields = ("model__name", "user__username", "group__name")
    autocomplete_fields = ("model", "user", "group")
