"""Admin pages of the ledger: accounts, entries, and verifications."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Final

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import formats
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator, action, display, format_time
from accounts.rights import may
from portal.lib import money
from relay.billing.ledger import proofs
from relay.models import BooksProof, LedgerAccount, LedgerEntry
from relay.models.budget import PERIOD_WORDS
from relay.models.usage import EARNINGS

_MAX_PROOFS: Final = 20
_STATES: Final = {
    "running": ("", _("being made")),
    "clean": ("good", _("balance")),
    "differs": ("bad", _("differ")),
    "failed": ("bad", _("could not be read")),
    "stopped": ("warn", _("broken off")),
}
_STAGES: Final = {"usage records": _("usage records"), "reservations": _("reservations"), "entries": _("entries")}


@admin.register(LedgerAccount)
class LedgerAccountAdmin(ReadOnlyAdmin):
    """The accounts of the ledger: wallets, quotas and budgets."""

    list_display = ("account", "user", "token", "limit", "used_usd", "reserved_usd", "left")
    list_filter = ("kind", "limited", "period")
    list_select_related = ("user", "token")
    search_fields = ("user__username", "token__name", "=key")
    actions_list: ClassVar[Any] = ("verify_books",)
    rights_words: ClassVar[Any] = {"view_ledgeraccount": _("See what users pay, have and may spend")}
    paginator = UncountedPaginator
    ordering = ("-id",)

    @display(description=_("account"), ordering="kind")
    def account(self, row: LedgerAccount) -> str:
        return (
            str(
                _("%(period)s budget, from %(day)s")
                % {"period": _(PERIOD_WORDS[row.period]), "day": _day(row.first_day)}
            )
            if row.kind == "budget"
            else row.get_kind_display()
        )

    @display(description=_("granted or limit"), ordering="granted")
    def limit(self, row: LedgerAccount) -> str:
        return money.exact(row.granted) if row.limited or row.granted else str(_("unlimited"))

    @display(description=_("used"), ordering="used")
    def used_usd(self, row: LedgerAccount) -> str:
        return money.exact(row.used)

    @display(description=_("reserved"), ordering="reserved")
    def reserved_usd(self, row: LedgerAccount) -> str:
        return money.exact(row.reserved)

    @display(description=_("left"))
    def left(self, row: LedgerAccount) -> str:
        return money.exact(row.free) if row.limited else str(_("unlimited"))

    def has_earnings_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, EARNINGS)

    @action(description=_("The books"), url_path="verify", icon="fact_check", permissions=["earnings"])
    def verify_books(self, request: HttpRequest) -> HttpResponse:
        """Show the last verifications, and start the next one in another process."""
        if request.method == "POST":
            proofs.start_proof(request.user)
            return redirect("admin:relay_ledgeraccount_verify_books")
        found = list(BooksProof.objects.select_related("actor")[:_MAX_PROOFS])
        running = next((one for one in found[:1] if one.state == "running"), None)
        if request.GET.get("now"):
            return JsonResponse({"running": running is not None})
        last = next((one for one in found if one.state in {"clean", "differs"}), None)
        context = {
            **self.admin_site.each_context(request),
            "title": _("The books"),
            "opts": self.model._meta,
            "proofs": [(one, _STATES[one.state]) for one in found],
            "running": running,
            "stage": _STAGES.get(running.stage, "") if running else "",
            "last": last,
            "totals": [(_(name), amount) for name, amount in sorted(last.totals.items())] if last else [],
        }
        return render(request, "admin/relay/ledgeraccount/verify.html", context)


def _day(ordinal: int) -> str:
    return formats.date_format(date.fromordinal(ordinal), "DATE_FORMAT") if ordinal else ""


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """The entries of the ledger. They are written by the relay and never changed."""

    rights_words: ClassVar[Any] = {"add_ledgerentry": _("Top up, deduct, and lift or set the limit of users")}
    list_display = ("time", "kind", "user", "token", "amount_usd", "way", "actor", "reason", "receipt")
    list_filter = ("kind",)
    list_select_related = ("user", "token", "actor")
    search_fields = ("=user__username", "=request_id")
    search_help_text = _("A user name, or a whole request id.")
    paginator = UncountedPaginator
    ordering = ("-id",)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Link receipts for those who may open them."""
        changes: Any = super().get_changelist_instance(request)
        linked = may(request.user, "relay.view_usagerecord")
        for row in changes.result_list:
            row.linked = linked
        return changes

    @display(description=_("time"), ordering="at")
    def time(self, row: LedgerEntry) -> str:
        return format_time(row.at)

    @display(description=_("amount"), ordering="amount")
    def amount_usd(self, row: LedgerEntry) -> str:
        return money.show(row.amount)

    @display(description=_("receipt"))
    def receipt(self, row: LedgerEntry) -> str:
        if not row.request_id:
            return "—"
        if not getattr(row, "linked", False):
            return f"…{row.request_id[-6:]}"
        return format_html(
            '<a href="{}?q={}" title="{}">…{}</a>',
            reverse("admin:relay_usagerecord_changelist"),
            row.request_id,
            row.request_id,
            row.request_id[-6:],
        )

    @display(description=_("from → to"))
    def way(self, row: LedgerEntry) -> str:
        return row.way
