"""Admin pages of the ledger: accounts, entries, and verifications."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator, action, display, format_time, request_ip
from accounts.models import AuditEvent
from accounts.rights import may
from portal.lib import money
from relay.billing.ledger import proofs
from relay.models import BooksProof, LedgerAccount, LedgerEntry
from relay.models.budget import PERIOD_WORDS
from relay.models.ledger import EntryKind
from relay.models.usage import EARNINGS
from relay.usage.entries import ALL, MOST_SUMMED, PEOPLE, REQUESTS, EntryQuery, entry_csv
from relay.usage.query import REPORT_FILTERS, months

_MAX_PROOFS: Final = 20
_STATES: Final = {
    "running": ("", _("being made")),
    "clean": ("good", _("balance")),
    "differs": ("bad", _("differ")),
    "failed": ("bad", _("could not be read")),
    "stopped": ("warn", _("broken off")),
}
_ROWS: Final = 50  # of one page of entries
_WAYS: Final = (
    ("", _("Movements by people")),
    (REQUESTS, _("Lines of requests")),
    (ALL, _("Everything")),
)
_STAGES: Final = {"usage records": _("usage records"), "reservations": _("reservations"), "entries": _("entries")}


@admin.register(LedgerAccount)
class LedgerAccountAdmin(ReadOnlyAdmin):
    """The accounts of the ledger: wallets, quotas and budgets."""

    list_display = ("account", "user", "token", "limit", "used_usd", "reserved_usd", "left")
    list_filter = ("kind", "limited", "period")
    list_select_related = ("user", "token")
    search_fields = ("user__username", "token__name", "=key")
    actions_list: ClassVar[Any] = ("verify_books",)
    actions_detail: ClassVar[Any] = ("movements",)
    rights_words: ClassVar[Any] = {"view_ledgeraccount": _("See what users pay, have and may spend")}
    fields = ("account", "user", "token", "limit", "used_usd", "reserved_usd", "left")
    readonly_fields = fields
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

    @action(description=_("Movements"), url_path="movements", icon="menu_book", permissions=["entries"])
    def movements(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the movements of an account's user by people, or the entries of its token."""
        row = get_object_or_404(LedgerAccount, pk=object_id)
        chosen = {"user": row.user_id} if row.token_id is None else {"token": row.token_id, "kind": ALL}
        return redirect(f"{reverse('admin:relay_ledgerentry_changelist')}?{urlencode(chosen)}")

    def has_entries_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "relay.view_ledgerentry")

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
    actions_list: ClassVar[Any] = ("export_csv",)
    fields = (
        "time", "kind", "way", "amount_usd", "user", "token", "actor", "reason", "request_id",
    )  # fmt: skip
    readonly_fields = fields
    search_help_text = _(
        "Searched are reasons, the names of users, of tokens and of who moved the money, and ids of requests, of which "
        "the last 8 characters will do."
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show entries, filtered and paged by keyset, with their sums: the table may have millions of rows."""
        if not self.has_view_permission(request):
            return super().changelist_view(request, extra_context)
        query = _query(request)
        page, usage = query.page(request.GET.get("before", ""), _ROWS), query.usage
        context = {
            **self.admin_site.each_context(request),
            "title": _("Ledger"),
            "opts": self.model._meta,
            "cl": None,
            "rows": [
                (row, usage.link(user=row.user_id), usage.link(token=row.token_id, kind=ALL) if row.token_id else "")
                for row in page.rows
            ],
            "older": usage.link(before=page.before) if page.before else "",
            "until": page.until,
            "sums": query.sums(),
            "indexed": query.indexed,
            "most": MOST_SUMMED,
            "query": query,
            "ways": [(kind or PEOPLE, label, usage.link(kind=kind or None)) for kind, label in _WAYS],
            "way": query.kind if query.kind in {REQUESTS, ALL} else PEOPLE if query.kind in {"", PEOPLE} else "",
            "kinds": [(kind.value, gettext(kind.label)) for kind in EntryKind],
            "months": [(label, usage.link(month=month), month) for month, label in months()],
            "month": dict(query.period.parameters).get("month") if query.period is not None else None,
            "dates": query.period.dates if query.period is not None else {},
            "zone": settings.TIME_ZONE if timezone.get_current_timezone_name() != settings.TIME_ZONE else "",
            "user_name": usage.user_name() or usage.nobody,
            "names": usage.names(),
            "narrowed": bool(usage.filters or query.period or query.kind or query.text or usage.nobody),
            "searched": self.search_help_text,
            "receipts": may(request.user, "relay.view_usagerecord"),
            "links": {
                "export": usage.link(),
                "report": usage.only(REPORT_FILTERS).link(),
                "earnings": may(request.user, "relay.view_usagerecord", EARNINGS),
            },
        }
        return render(request, "admin/relay/ledgerentry/list.html", context)

    @action(description=_("Export as CSV"), url_path="export", icon="download", permissions=["view"])
    def export_csv(self, request: HttpRequest) -> HttpResponseBase:
        """Stream the entries as CSV that the list shows with the same period, filters and search."""
        query = _query(request)
        AuditEvent.write("ledger.export", request.user, None, request_ip(request), query=query.usage.link())
        dates = query.period.dates if query.period is not None else {}
        name = "-".join(["ledger", *(dates[side] for side in ("since", "until") if side in dates)])
        response = StreamingHttpResponse(entry_csv(query), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
        return response

    @display(description=_("time"), ordering="at")
    def time(self, row: LedgerEntry) -> str:
        return format_time(row.at)

    @display(description=_("amount"), ordering="amount")
    def amount_usd(self, row: LedgerEntry) -> str:
        return money.exact(row.amount)

    @display(description=_("from → to"))
    def way(self, row: LedgerEntry) -> str:
        return row.way


def _query(request: HttpRequest) -> EntryQuery:
    """The period, filters and search of the list or its export."""
    return EntryQuery.read(request.GET, by_address=may(request.user, "accounts.view_user"))
