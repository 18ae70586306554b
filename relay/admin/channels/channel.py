from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import action, display, request_ip
from accounts.doors import may_open
from accounts.models import LIMIT_FIELDS, AuditEvent
from accounts.models.counts import count_of
from portal.lib import clock
from relay.admin.channels.inlines import ApiKeyInline, ChannelModelInline, TagFilter
from relay.admin.channels.model_list import ModelListAdmin, complete_models
from relay.admin.forms import BaseUrlForm, ChannelForm
from relay.admin.money.below_cost import warn_below_cost
from relay.admin.overrides import OverridesAdmin
from relay.admin.pasted import parse_served
from relay.admin.widgets import VendorFilter
from relay.billing.price_import import listings_for
from relay.catalog.margins import below_cost, margins
from relay.channels import cooldowns
from relay.channels import status as channel_status
from relay.channels.keys import add_keys
from relay.channels.models import add_models, copy_channel
from relay.models import ApiKey, Channel, ChannelEvent, ChannelModel, Cooldown
from relay.models.usage import EARNINGS
from relay.providers.vendors import PRIVATE, VENDORS

_AUDITED = 200  # added keys that an audit event names
_BEHAVIOUR = (
    "text_api",
    "parameters",
    "sends_done",
    "stream_usage",
    "retry_unanswered",
    "proxy_url",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
)


@admin.register(Channel)
class ChannelAdmin(OverridesAdmin, ModelListAdmin):
    """Channels: configured ways to upstreams."""

    form = ChannelForm
    guarded_fields: ClassVar[Any] = {"cost_multiplier": EARNINGS}
    inlines = (ApiKeyInline, ChannelModelInline)
    instead_of_deleting = _("Receipts of past requests refer to its prices, so it is kept. Disable it instead.")
    list_display = ("named", "state", "enabled", "priority", "weight", "key_count", "model_count", "last_test")
    list_editable = ("enabled", "priority", "weight")
    list_before_template = "admin/relay/channel_states.html"
    list_filter = ("enabled", VendorFilter, TagFilter)
    search_fields = ("name", "base_url", "notes", "tags")
    autocomplete_fields = ("groups",)
    readonly_fields = (
        "tested_at",
        "test_ok",
        "test_latency_ms",
        "test_first_token_ms",
        "test_message",
        "listed_at",
    )
    actions = ("enable", "disable", "test_selected", "tag_selected")
    actions_detail: Any = (
        "test_channel",
        "choose_models",
        {
            "title": _("More"),
            "icon": "more_horiz",
            "items": [
                "edit_overrides",
                "take_costs",
                "explain",
                "caches",
                "state_history",
                "put_keys_back",
                "forget_apis",
                "copy",
            ],
        },
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "provider",
                    "base_url",
                    "enabled",
                    ("priority", "weight"),
                    ("pool", "key_strategy"),
                    "tags",
                    "new_keys",
                    "new_models",
                )
            },
        ),
        (_("Who may use it"), {"fields": ("groups", "groups_limited"), "classes": ("tab",)}),
        (
            _("Cost and limits"),
            {
                "fields": ("cost_multiplier", "disconnect_policy", LIMIT_FIELDS[:2], LIMIT_FIELDS[2:]),
                "classes": ("tab",),
            },
        ),
        (
            _("Behaviour"),
            {
                "fields": _BEHAVIOUR,
                "classes": ("tab",),
            },
        ),
        (
            _("Overrides"),
            {
                "description": _("Under More → Overrides they can be tried on a request before they are saved."),
                "fields": ("overrides",),
                "classes": ("tab",),
            },
        ),
        (
            _("Notes and tests"),
            {
                "fields": (
                    "notes",
                    ("test_model", "test_every"),
                    "tested_at",
                    "test_ok",
                    ("test_latency_ms", "test_first_token_ms"),
                    "test_message",
                    "listed_at",
                ),
                "classes": ("tab",),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Channel]:
        rows: QuerySet[Channel] = super().get_queryset(request)
        keys = ApiKey.objects.filter(enabled=True)
        return rows.exclude(provider__in=PRIVATE).annotate(
            keys_on=count_of(keys.filter(auto_disabled=""), "channel"),
            keys_out=count_of(keys.exclude(auto_disabled=""), "channel"),
            models_on=count_of(ChannelModel.objects.filter(enabled=True), "channel"),
            cooling=count_of(Cooldown.objects.filter(until__gt=clock.now()), "channel"),
        )

    # -- columns -----------------------------------------------------------------------------------------------------

    @display(description=_("name"), ordering="name")
    def named(self, channel: Channel) -> str:
        """The name, with the vendor unless it is the same, and the tags."""
        provider = str(_(channel.vendor.label)) if channel.provider in VENDORS else channel.provider
        under = [
            text
            for text in (provider if provider != channel.name else "", *(f"#{tag}" for tag in channel.tags.split()))
            if text
        ]
        return (
            format_html('{}<span class="ar-under">{}</span>', channel.name, " · ".join(under))
            if under
            else channel.name
        )

    @display(description=_("state"))
    def state(self, channel: Any) -> str:
        """The current status, updated live by the page."""
        found: channel_status.ChannelStatus | None = getattr(channel, "current_status", None)
        if found is None:
            return "—"
        return format_html(
            '<span data-channel="{}"><span class="ar-state {}" title="{}">{}</span></span>',
            found.id,
            found.state,
            found.text,
            found.word,
        )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Read the status of all channels of a page at once."""
        changes: Any = super().get_changelist_instance(request)
        statuses = {one.id: one for one in channel_status.channel_statuses()}
        for channel in changes.result_list:
            channel.current_status = statuses.get(channel.pk)
        return changes

    @display(description=_("keys"), ordering="keys_on")
    def key_count(self, channel: Any) -> str:
        if channel.keys_out:
            return str(_("%(on)d, %(out)d out of service") % {"on": channel.keys_on, "out": channel.keys_out})
        return str(channel.keys_on or ("—" if not channel.vendor.needs_key else 0))

    @display(description=_("models"), ordering="models_on")
    def model_count(self, channel: Any) -> int:
        return int(channel.models_on)

    @display(description=_("last test"), ordering="tested_at")
    def last_test(self, channel: Channel) -> str:
        if channel.tested_at is None:
            return str(_("never"))
        return f"{channel.test_latency_ms} ms" if channel.test_ok else channel_status.shorten(channel.test_message, 80)

    def get_form(self, request: HttpRequest, obj: Channel | None = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.allows_addresses = bool(getattr(request.user, "is_superuser", False))
        return form

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        typed = form if isinstance(form, BaseUrlForm) else None  # the list has a form without an address
        if typed is not None:
            typed.allow_address(request.user, request_ip(request))
        super().save_model(request, obj, form, change)
        if typed is not None and typed.completed:
            self.message_user(request, typed.completed)
        if not change:
            ChannelEvent.write(obj.pk, "created", "", request.user)
            return
        if {"provider", "base_url", "proxy_url"} & set(form.changed_data):  # another upstream, perhaps
            cooldowns.end_cooldowns(list(obj.cooldowns.all()), request.user, request_ip(request))
        if "enabled" in form.changed_data:
            ChannelEvent.write(obj.pk, "enabled" if obj.enabled else "disabled", "", request.user)

    # -- saving ------------------------------------------------------------------------------------------------------

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Look up the prices of new models before the transaction begins in which all of the form is saved."""
        typed = request.POST.get("new_models", "")
        if typed.strip() and (self.has_change_permission(request) or self.has_add_permission(request)):
            try:
                request.listings = listings_for(  # type: ignore[attr-defined]  # read by save_related
                    request.POST.get("provider", ""), parse_served(typed)
                )
            except forms.ValidationError:
                pass  # the form says so
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_related(self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not isinstance(form, ChannelForm):  # a row of the list, edited in place
            return
        channel = form.instance
        new, there = add_keys(channel, form.cleaned_data.get("new_keys") or ())
        if there:
            self.message_user(
                request,
                _("%(n)d of the pasted keys were there already and are not added again.") % {"n": there},
                messages.WARNING,
            )
        names = form.cleaned_data.get("new_models") or ()
        added = add_models(channel, names, getattr(request, "listings", {})) if names else 0
        rows: list[dict[str, Any]] = request.audit_rows  # type: ignore[attr-defined]  # of AuditedAdmin
        rows += [{"kind": "apikey", "row": str(key)[:200], "did": "add"} for key in new[:_AUDITED]]
        if added:
            rows.append(
                {"kind": "channelmodel", "did": "add", "row": ", ".join(name for name, _upstream in names)[:5000]}
            )
        if names:
            complete_models(request, [public for public, _upstream in names])
        if form.limits_to_nothing():
            self.message_user(
                request,
                _("Nobody may use “%(channel)s”: it is reserved for groups, and none is chosen.")
                % {"channel": channel},
                messages.WARNING,
            )
        if "cost_multiplier" in form.changed_data:
            losses = below_cost(margins(clock.now(), channel=channel.pk))
            warn_below_cost(request, f"“{channel}”", losses)
        if elsewhere := sum(not key.is_for(channel) for key in channel.keys.only("given_for")):
            self.message_user(
                request,
                _(
                    "%(n)d key(s) were given for another address and are not sent to this one. Enter them again, or "
                    "change the address back."
                )
                % {"n": elsewhere},
                messages.WARNING,
            )

    # -- actions on the list -----------------------------------------------------------------------------------------

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Channel]) -> None:
        self._switch(request, rows, True)

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[Channel]) -> None:
        self._switch(request, rows, False)

    def _switch(self, request: HttpRequest, rows: QuerySet[Channel], enabled: bool) -> None:
        channels = self.switch(request, rows, "enabled", enabled, "channel.enable" if enabled else "channel.disable")
        for channel in channels:
            ChannelEvent.write(channel.pk, "enabled" if enabled else "disabled", "", request.user)
        said = _("%(n)d channel(s) enabled: %(names)s.") if enabled else _("%(n)d channel(s) disabled: %(names)s.")
        self.message_user(
            request,
            said % {"n": len(channels), "names": ", ".join(map(str, channels)) or _("none needed it")},
            messages.SUCCESS,
        )

    @admin.action(description=_("Tag…"), permissions=["change"])
    def tag_selected(self, request: HttpRequest, rows: QuerySet[Channel]) -> HttpResponse | None:
        """Add words to the tags of channels, and remove those that are given with a minus before them."""
        chosen = list(rows)
        words = request.POST.get("tags", "").split()
        if not request.POST.get("confirmed"):
            context = {
                **self.admin_site.each_context(request),
                "title": _("Tag channels"),
                "opts": self.model._meta,
                "rows": chosen,
            }
            return render(request, "admin/relay/channel/tag.html", context)
        for channel in chosen:
            before = channel.tags.split()
            after = [
                word
                for word in dict.fromkeys([*before, *(word for word in words if not word.startswith("-"))])
                if f"-{word}" not in words
            ]
            if after != before:
                channel.tags = " ".join(after)[:200]
                with transaction.atomic():
                    channel.save()
                    AuditEvent.write(
                        "channel.tag",
                        request.user,
                        channel,
                        request_ip(request),
                        changes={"tags": [" ".join(before), channel.tags]},
                    )
        self.message_user(request, _("%(n)d channel(s) tagged.") % {"n": len(chosen)}, messages.SUCCESS)
        return None

    # -- actions on one channel --------------------------------------------------------------------------------------

    def has_explain_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may_open(request, reverse("admin-explain"))

    @action(description=_("Explain"), url_path="explain", icon="help", permissions=["explain"])
    def explain(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Explain the routing of requests for the channel's first model."""
        channel = get_object_or_404(Channel, pk=object_id)
        first = channel.served.select_related("model").order_by("pk").first()
        asked = {"user": request.user.get_username(), **({"model": first.model.name} if first is not None else {})}
        return redirect(f"{reverse('admin-explain')}?{urlencode(asked)}")

    def has_copy_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_add_permission(request)

    @action(description=_("Copy"), url_path="copy", icon="content_copy", permissions=["copy"])
    def copy(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        channel = get_object_or_404(Channel, pk=object_id)
        if request.method != "POST":
            text = _(
                "A new channel with the same settings and models is made, disabled and without keys: paste them, then "
                "enable it."
            )
            return self.confirm(request, channel, _("Copy “%(name)s”") % {"name": channel}, text, _("Copy"))
        made = copy_channel(channel)
        AuditEvent.write("channel.copy", request.user, made, request_ip(request), of=channel.name)
        self.message_user(
            request, _("“%(name)s” is there. Paste its keys and enable it.") % {"name": made}, messages.SUCCESS
        )
        return redirect("admin:relay_channel_change", made.pk)
