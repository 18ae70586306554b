"""The admin pages of what upstreams say that they billed, and of the keys that may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from channels.db import database_sync_to_async
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminPasswordWidget

from accounts.admin.base import BaseAdmin, ReadOnlyAdmin, action, display, format_time
from accounts.rights import may
from portal.lib import clock, money
from relay.admin.pasted import parse_key
from relay.channels.bills import reports
from relay.models import BillingKey, Channel, UpstreamBill
from relay.models.bill import BillSourceKind
from relay.models.usage import EARNINGS
from relay.providers.vendors import VENDORS
from relay.usage.csv_files import table_csv

_CHUNK = 1000  # rows of one query of an export
_STATES = {"differs": "danger", "agrees": "success", "not comparable": "", "today": "info"}


class BillingKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A billing key. What was typed before is not shown; an empty field keeps it."""

    secret = forms.CharField(
        label=_("Key"),
        required=False,
        max_length=1000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text=_(
            "Of an administrator of the account: sk-admin-… (OpenAI), sk-ant-admin… (Anthropic), a management key "
            "(OpenRouter)."
        ),
    )

    class Meta:
        model = BillingKey
        fields = ("channel", "scope", "also")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.sealed:
            self.fields["secret"].label = _("New key")
            self.fields["secret"].help_text = _("Stored, and never shown again. Leave this empty to keep it.")

    def clean_secret(self) -> str:
        typed = str(self.cleaned_data.get("secret") or "").strip()
        if typed:
            return parse_key(typed, None)
        if not self.instance.sealed:
            raise forms.ValidationError(gettext("Enter the key."))
        return ""

    def clean_channel(self) -> Channel:
        channel: Channel = self.cleaned_data["channel"]
        vendor = VENDORS.get(channel.provider)
        if vendor is None or vendor.bill is None:
            raise forms.ValidationError(
                gettext(
                    "Reports of costs are known of %(vendors)s. Of other upstreams that say what is left, balances are "
                    "compared without a key."
                )
                % {"vendors": ", ".join(str(_(one.label)) for one in VENDORS.values() if one.bill is not None)}
            )
        return channel

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        self._check_also(data)
        moved = self.instance.pk and "channel" in self.changed_data
        if moved and "secret" in data and not data["secret"]:
            self.add_error("secret", gettext("Enter the key again: it was given for the address of another channel."))
        return data

    def _check_also(self, data: dict[str, Any]) -> None:
        """What a channel recorded is on one bill: on two it would be counted twice."""
        others = BillingKey.objects.exclude(pk=self.instance.pk).select_related("channel")
        chosen = list(data.get("also") or ())
        twice = [(row, key) for row in chosen for key in others.filter(Q(channel=row) | Q(also=row))[:1]]
        text = gettext("The channel “%(channel)s” is on the bill of the billing key of “%(other)s” already.")
        if twice:
            self.add_error("also", text % {"channel": twice[0][0], "other": twice[0][1].channel})
        channel = data.get("channel")
        if channel is not None and (key := others.filter(also=channel).first()) is not None:
            self.add_error("channel", text % {"channel": channel, "other": key.channel})


class _Earnings(BaseAdmin):
    """Pages of what upstreams cost, for those who may see what is earned."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, EARNINGS) and bool(super().has_view_permission(request, obj))


@admin.register(BillingKey)
class BillingKeyAdmin(_Earnings):
    """Keys that may read the bills of upstreams' accounts."""

    form = BillingKeyForm
    empty_text = _(
        "With one, the portal asks OpenAI, Anthropic or OpenRouter what it billed, and compares that with its records, "
        "day by day."
    )
    list_display = ("channel", "key", "scope", "asked", "fault")
    list_select_related = ("channel",)
    search_fields = ("channel__name", "scope")
    autocomplete_fields = ("channel", "also")
    fieldsets = ((None, {"fields": ("channel", "secret", "scope", "also")}),)
    readonly_fields = ("key", "asked", "fault")
    actions_detail: ClassVar[Any] = ("ask_now",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, EARNINGS) and bool(super().has_change_permission(request, obj))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may(request.user, EARNINGS) and bool(super().has_add_permission(request))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, EARNINGS) and bool(super().has_delete_permission(request, obj))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_fieldsets(request, obj)
        return found if obj is None else (*found, (None, {"fields": ("key", "asked", "fault")}))

    @display(description=_("key"))
    def key(self, row: BillingKey) -> str:
        return format_html("<code>{}</code>", row.hint)

    @display(description=_("last asked"), ordering="asked_at")
    def asked(self, row: BillingKey) -> str:
        return format_time(row.asked_at) if row.asked_at else "—"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        secret = form.cleaned_data.get("secret")
        if secret:
            obj.set_secret(secret, Channel.objects.get(pk=obj.channel_id))
            obj.fault, obj.asked_at = "", None
        super().save_model(request, obj, form, change)

    @action(description=_("Ask now"), url_path="ask", icon="sync", permissions=["change"])
    def ask_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Fetch the report, and compare it."""
        row = get_object_or_404(BillingKey.objects.select_related("channel"), pk=object_id)
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        if request.method != "POST":
            return self.confirm(
                request, row, _("Ask the upstream for its bill?"), _("This costs nothing."), _("Ask now")
            )
        outcome = reports.compare(row)
        row.refresh_from_db()
        if row.fault:
            self.message_user(request, row.fault, messages.ERROR)
            return redirect("admin:relay_billingkey_change", row.pk)
        self.message_user(request, gettext("The report was compared: %(outcome)s.") % {"outcome": outcome})
        return redirect(f"{reverse('admin:relay_upstreambill_changelist')}?channel__id__exact={row.channel_id}")


@admin.register(UpstreamBill)
class UpstreamBillAdmin(_Earnings, ReadOnlyAdmin):
    """What upstreams say that they billed, beside what was recorded."""

    empty_text = _(
        "They come by themselves: from the reports of OpenAI, Anthropic and OpenRouter once there is a billing key, "
        "and elsewhere from the balances that an upstream tells."
    )
    list_display = ("day", "channel", "state", "billed", "recorded_usd", "difference_usd", "requests", "known_by")
    list_filter = ("drifts", "source", ("channel", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("channel",)
    search_fields = ("channel__name",)
    date_hierarchy = "day"
    fields = (
        "channel",
        "day",
        "source",
        "billed",
        "recorded_usd",
        "difference_usd",
        "requests",
        "begins_at",
        "ends_at",
        "gaps",
        "state_words",
        "compared_at",
    )
    actions = ("export",)

    @display(description=_("billed"), ordering="reported")
    def billed(self, row: UpstreamBill) -> str:
        if row.reported is None:
            return str(_("unknown: money was added"))
        if row.currency != "USD":
            return f"{money.plain(row.reported)} {row.currency}"
        return money.show(row.reported)

    @display(description=_("recorded"), ordering="recorded")
    def recorded_usd(self, row: UpstreamBill) -> str:
        return money.show(row.recorded)

    @display(description=_("difference"))
    def difference_usd(self, row: UpstreamBill) -> str:
        if row.difference is None:
            return "—"
        sign = "+" if row.difference > 0 else ""
        percent = f" ({sign}{row.percent:.1f}\u00a0%)" if row.percent is not None else ""
        return f"{sign}{money.show(row.difference)}{percent}"

    @display(description=_("known by"), ordering="source")
    def known_by(self, row: UpstreamBill) -> str:
        return str(_("report") if row.source == BillSourceKind.REPORT else _("balance"))

    @display(description=_("state"), ordering="drifts", label=_STATES)
    def state(self, row: UpstreamBill) -> tuple[str, Any]:
        if row.difference is None:
            return "not comparable", _("not comparable")
        if not row.complete:
            return "today", _("so far")
        return ("differs", _("differs")) if row.drifts else ("agrees", _("agrees"))

    @display(description=_("state"))
    def state_words(self, row: UpstreamBill) -> str:
        return str(self.state(row)[1])

    @admin.action(description=_("Export as CSV"), permissions=["view"])
    def export(self, request: HttpRequest, rows: QuerySet[UpstreamBill]) -> StreamingHttpResponse:
        """The chosen rows, with amounts in USD, however many they are."""
        response = StreamingHttpResponse(_csv(rows.select_related("channel")), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="upstream-bills-{clock.now():%Y-%m-%d}.csv"'
        return response


async def _csv(rows: QuerySet[UpstreamBill]) -> AsyncIterator[bytes]:
    """The rows, newest first: some at a time, so that neither memory nor a transaction grows with their number."""
    yield table_csv(
        [["day", "channel", "source", "billed", "currency", "recorded_usd", "requests", "times_left_out", "differs"]]
    )
    ordered = rows.order_by("-day", "-pk")
    behind = Q()
    while page := await database_sync_to_async(list)(ordered.filter(behind)[:_CHUNK]):
        last = page[-1]
        behind = Q(day__lt=last.day) | Q(day=last.day, pk__lt=last.pk)
        yield table_csv([_values(row) for row in page])


def _values(row: UpstreamBill) -> list[Any]:
    billed = "" if row.reported is None else money.plain(row.reported)
    return [
        row.day.isoformat(),
        row.channel.name,
        row.source,
        billed,
        row.currency,
        money.plain(row.recorded),
        row.requests,
        row.gaps,
        row.drifts,
    ]
