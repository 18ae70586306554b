"""Money in the admin: users with their wallets, accounts, entries, prices, codes."""

from __future__ import annotations

import csv
import time
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import formats, timezone
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.base import BaseAdmin, ReadOnlyAdmin, UncountedPaginator, address
from accounts.admin.user import UserAdmin
from accounts.models import LIMIT_FIELDS, AuditEvent, User
from portal.lib import clock, money
from portal.lib.crypto import Undecryptable
from relay.billing import ledger
from relay.billing.verify import verify
from relay.models import Budget, LedgerAccount, LedgerEntry, ModelPrice, Notice, RedemptionBatch
from relay.models.price import TOKEN_CLASSES, UNIT_CLASSES
from relay.redemption import MOST, codes_of, create_codes

LIMITS = ("Limits", {"fields": (LIMIT_FIELDS[:2], LIMIT_FIELDS[2:]), "classes": ("tab",)})


class UserBudgetInline(TabularInline):
    model = Budget
    fk_name = "user"
    fields = ("period", "limit")
    verbose_name_plural = "budgets"
    extra = 0
    max_num = 3
    tab = True


class AmountForm(forms.Form):
    """An amount and a reason."""

    amount: forms.DecimalField = forms.DecimalField(
        min_value=Decimal("0.000001"),
        max_value=Decimal(1_000_000_000),
        max_digits=18,
        decimal_places=6,
        label="Amount in USD",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autofocus": True}),
    )
    reason = forms.CharField(max_length=200, help_text="Kept in the ledger; the user sees it.", widget=UnfoldAdminTextInputWidget())


admin.site.unregister(User)


@admin.register(User)
class PayingUserAdmin(UserAdmin):
    """Users and their wallets."""

    list_display: Any = ("username", "email", "active", "staff", "group_names", "balance", "used", "token_count", "last_login")
    inlines = (UserBudgetInline,)
    actions_detail: ClassVar[Any] = ("top_up", "deduct", "switch_unlimited")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        wallet = LedgerAccount.objects.filter(user=OuterRef("pk"), kind="wallet")
        rows = super().get_queryset(request)
        return rows.annotate(
            wallet_balance=Subquery(wallet.annotate(left=F("granted") - F("used")).values("left")[:1]),
            wallet_used=Subquery(wallet.values("used")[:1]),
            wallet_limited=Subquery(wallet.values("limited")[:1]),
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_fieldsets(request, obj)
        return (*found, LIMITS) if obj is not None else found

    @display(description="balance", ordering="wallet_balance")
    def balance(self, user: Any) -> str:
        return money.show(user.wallet_balance or 0) if user.wallet_limited is not False else "unlimited"

    @display(description="used", ordering="wallet_used")
    def used(self, user: Any) -> str:
        return money.show(user.wallet_used or 0)

    def has_wallet_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.is_active and request.user.has_perm("relay.add_ledgerentry"))

    @action(description="Top up", url_path="top-up", icon="add_card", permissions=["wallet"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def top_up(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._move(request, object_id, "Top up", "Add to the balance of")

    @action(description="Deduct", url_path="deduct", icon="money_off", permissions=["wallet"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def deduct(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._move(request, object_id, "Deduct", "Take from the balance of")

    def _move(self, request: HttpRequest, object_id: Any, button: str, words: str) -> HttpResponse:
        user = get_object_or_404(User, pk=object_id)
        form = AmountForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            amount, reason = money.nano(form.cleaned_data["amount"]), form.cleaned_data["reason"]
            try:
                with transaction.atomic():
                    (ledger.top_up if button == "Top up" else ledger.deduct)(user, amount, actor=request.user, reason=reason)
                    AuditEvent.write("wallet.top-up" if button == "Top up" else "wallet.deduct", request.user, user, address(request), usd=money.plain(amount), reason=reason)
            except ledger.NotEnough as error:
                form.add_error("amount", str(error))
            else:
                left = LedgerAccount.objects.get(user=user, kind="wallet").balance
                self.message_user(
                    request, f"{money.show(amount)} {'added to' if button == 'Top up' else 'taken from'} {user}: the balance is {money.show(left)}.", messages.SUCCESS
                )
                return redirect("admin:accounts_user_change", user.pk)
        wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
        context = {
            **self.admin_site.each_context(request), "title": f"{words} {user}", "opts": self.model._meta, "object": user, "form": form, "button": button,
            "text": f"The balance is {money.show(wallet.balance if wallet else 0)}, of which running requests hold {money.show(wallet.reserved if wallet else 0)}."
            + (" It limits nothing: this user is unlimited." if wallet and not wallet.limited else ""),
        }  # fmt: skip
        return render(request, "admin/form.html", context, status=422 if form.errors else 200)

    @action(description="Unlimited on or off", url_path="unlimited", icon="all_inclusive", permissions=["wallet"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def switch_unlimited(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = get_object_or_404(User, pk=object_id)
        wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
        limited = wallet is None or wallet.limited
        if request.method != "POST":
            left = money.show(wallet.balance if wallet else 0)
            text = f"{user} may then spend without end; the portal pays." if limited else f"{user} may then spend the balance of {left}, and no more."
            return self.confirm(request, user, f"{'Lift' if limited else 'Set'} the limit of {user}", text, "Make unlimited" if limited else "Limit to the balance")
        with transaction.atomic():
            ledger.set_unlimited(user, limited)
            AuditEvent.write("wallet.unlimited" if limited else "wallet.limited", request.user, user, address(request))
        self.message_user(request, f"{user} is {'unlimited' if limited else 'limited to the balance'} now.", messages.SUCCESS)
        return redirect("admin:accounts_user_change", user.pk)


@admin.register(LedgerAccount)
class LedgerAccountAdmin(ReadOnlyAdmin):
    """Wallets, quotas and budgets as the ledger has them."""

    list_display = ("account", "user", "token", "limit", "used_usd", "reserved_usd", "left")
    list_filter = ("kind", "limited", "period")
    list_select_related = ("user", "token")
    search_fields = ("user__username", "token__name", "=key")
    actions_list: ClassVar[Any] = ("verify_books",)
    paginator = UncountedPaginator
    ordering = ("-id",)

    @display(description="account", ordering="kind")
    def account(self, row: LedgerAccount) -> str:
        return f"budget of a {row.period}, from {_day(row.first_day)}" if row.kind == "budget" else row.get_kind_display()

    @display(description="granted or limit", ordering="granted")
    def limit(self, row: LedgerAccount) -> str:
        return money.show(row.granted) if row.limited or row.granted else "unlimited"

    @display(description="used", ordering="used")
    def used_usd(self, row: LedgerAccount) -> str:
        return money.show(row.used)

    @display(description="reserved", ordering="reserved")
    def reserved_usd(self, row: LedgerAccount) -> str:
        return money.show(row.reserved)

    @display(description="left")
    def left(self, row: LedgerAccount) -> str:
        return money.show(row.free) if row.limited else "unlimited"

    @action(description="Verify the books", url_path="verify", icon="fact_check", permissions=["view"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def verify_books(self, request: HttpRequest) -> HttpResponse:
        """The same as `manage.py ledger verify`."""
        began = time.monotonic()
        report = verify()
        totals = [(name, money.show(amount)) for name, amount in sorted(report.totals.items())]
        context = {
            **self.admin_site.each_context(request), "title": "The books", "opts": self.model._meta, "report": report, "seconds": time.monotonic() - began, "totals": totals,
            "reserved": money.show(report.reserved), "differences": report.differences[:100],
        }  # fmt: skip
        return render(request, "admin/relay/ledgeraccount/verify.html", context)


def moment(at: datetime) -> str:
    """A moment in the portal's time zone, short enough for a column."""
    return formats.date_format(timezone.localtime(at), "j M Y H:i:s")


def _day(ordinal: int) -> str:
    return f"{date.fromordinal(ordinal):%-d %b %Y}" if ordinal else ""


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """Every movement of money. Written by the relay, changed by nobody."""

    list_display = ("time", "kind", "user", "token", "amount_usd", "way", "actor", "reason", "request_id")
    list_filter = ("kind",)
    list_select_related = ("user", "token", "actor")
    search_fields = ("=user__username", "=request_id")
    search_help_text = "A user name, or a whole request id."
    paginator = UncountedPaginator
    ordering = ("-id",)

    @display(description="time", ordering="at")
    def time(self, row: LedgerEntry) -> str:
        return moment(row.at)

    @display(description="amount", ordering="amount")
    def amount_usd(self, row: LedgerEntry) -> str:
        return money.show(row.amount)

    @display(description="from → to")
    def way(self, row: LedgerEntry) -> str:
        return f"{row.debit} → {row.credit}"


@admin.register(ModelPrice)
class ModelPriceAdmin(BaseAdmin):
    """Prices, by the moment from which they hold. What is in force is not changed: a new row takes its place."""

    list_display = ("model", "channel", "whose", "since", "above", "input_usd", "cached_usd", "output_usd", "state", "source")
    list_filter = ("purpose", "channel")
    list_select_related = ("model", "channel")
    search_fields = ("model__name", "source")
    autocomplete_fields = ("model", "channel")
    actions_detail: ClassVar[Any] = ("new_version",)
    ordering = ("model__name", "-valid_from", "above_tokens")
    fieldsets = (
        (None, {"fields": ("model", ("purpose", "channel"), "valid_from", "above_tokens")}),
        ("USD per 1M tokens", {"fields": (("input", "output"), ("cached_input", "cache_write"), ("reasoning", "image_input"), ("audio_input", "audio_output"))}),
        ("USD per unit", {"fields": (UNIT_CLASSES[:2], UNIT_CLASSES[2:])}),
        (None, {"fields": ("source",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelPrice]:
        newest = ModelPrice.objects.filter(model=OuterRef("model"), purpose=OuterRef("purpose"), valid_from__lte=clock.now(), channel__isnull=True).order_by("-valid_from")
        rows: QuerySet[ModelPrice] = super().get_queryset(request)
        return rows.annotate(newest=Subquery(newest.values("valid_from")[:1]))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(super().has_change_permission(request, obj)) and not (obj is not None and obj.in_force)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(super().has_delete_permission(request, obj)) and not (obj is not None and obj.in_force)

    def has_version_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_add_permission(request)

    def get_actions(self, request: HttpRequest) -> Any:
        return {name: found for name, found in super().get_actions(request).items() if name != "delete_selected"}

    def save_model(self, request: HttpRequest, obj: ModelPrice, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        AuditEvent.write("price.change" if change else "price.create", request.user, obj, address(request), input=str(obj.input), output=str(obj.output))

    @action(description="New version", url_path="new-version", icon="edit", permissions=["version"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def new_version(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """The form of a new price with this one's numbers."""
        row = get_object_or_404(ModelPrice, pk=object_id)
        values = {"model": row.model_id, "purpose": row.purpose, "above_tokens": row.above_tokens, **({"channel": row.channel_id} if row.channel_id else {})}
        for name in (*TOKEN_CLASSES, *UNIT_CLASSES):
            if (value := getattr(row, name)) is not None:
                values[name] = format(value.normalize(), "f")
        return redirect(f"{reverse('admin:relay_modelprice_add')}?{urlencode(values)}")

    @display(description="what", ordering="purpose")
    def whose(self, row: ModelPrice) -> str:
        return "price" if row.purpose == "sale" else "upstream cost"

    @display(description="valid from", ordering="valid_from")
    def since(self, row: ModelPrice) -> str:
        return moment(row.valid_from)

    @display(description="prompts above", ordering="above_tokens")
    def above(self, row: ModelPrice) -> str:
        return f"{row.above_tokens:,}" if row.above_tokens else "all"

    @display(description="state", label={"in force": "success", "to come": "info", "past": ""})
    def state(self, row: Any) -> str:
        if not row.in_force:
            return "to come"
        return "in force" if row.channel_id or row.newest is None or row.valid_from >= row.newest else "past"

    @display(description="input / 1M", ordering="input")
    def input_usd(self, row: ModelPrice) -> str:
        return _usd(row.input)

    @display(description="cached / 1M", ordering="cached_input")
    def cached_usd(self, row: ModelPrice) -> str:
        return _usd(row.cached_input)

    @display(description="output / 1M", ordering="output")
    def output_usd(self, row: ModelPrice) -> str:
        return _usd(row.output)


def _usd(value: Decimal | None) -> str:
    return "—" if value is None else money.show(money.nano(value))


class BatchForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    usd: forms.DecimalField = forms.DecimalField(
        min_value=Decimal("0.01"),
        max_value=Decimal(1_000_000),
        max_digits=12,
        decimal_places=2,
        label="USD of each code",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
    )

    class Meta:
        model = RedemptionBatch
        fields = ("name", "count", "expires_at")

    def clean_count(self) -> int:
        count: int = self.cleaned_data["count"]
        if not 1 <= count <= MOST:
            raise forms.ValidationError(f"A batch has 1 to {MOST} codes.")
        return count


@admin.register(RedemptionBatch)
class RedemptionBatchAdmin(BaseAdmin):
    """Codes that users redeem for balance. They are shown and exported to those who may add them; the database keeps them encrypted."""

    list_display = ("name", "amount_usd", "count", "redeemed", "expires_at", "created_at", "created_by")
    list_select_related = ("created_by",)
    search_fields = ("name", "codes__hint")
    actions_detail: ClassVar[Any] = ("show_codes", "export_codes", "disable_codes")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **({"form": BatchForm} if obj is None else {}), **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return ((None, {"fields": ("name", ("usd", "count"), "expires_at") if obj is None else ("name", "amount_usd", "count", "expires_at", "created_at", "created_by")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else ("amount_usd", "count", "created_at", "created_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RedemptionBatch]:
        rows: QuerySet[RedemptionBatch] = super().get_queryset(request)
        return rows.annotate(redeemed_count=Count("codes", filter=Q(codes__redeemed_at__isnull=False)))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Codes are disabled, not deleted: the ledger names them."""
        return False

    def has_secret_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_add_permission(request)

    @display(description="each")
    def amount_usd(self, batch: RedemptionBatch) -> str:
        return money.show(batch.amount)

    @display(description="redeemed")
    def redeemed(self, batch: Any) -> str:
        return f"{batch.redeemed_count} of {batch.count}"

    def save_model(self, request: HttpRequest, obj: RedemptionBatch, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            AuditEvent.write("codes.change", request.user, obj, address(request))
            return
        batch, _ = create_codes(obj.name, money.nano(form.cleaned_data["usd"]), obj.count, actor=request.user, expires_at=obj.expires_at, ip=address(request))
        obj.pk, obj.amount, obj.created_by = batch.pk, batch.amount, batch.created_by

    def response_add(self, request: HttpRequest, obj: RedemptionBatch, post_url_continue: str | None = None) -> HttpResponse:
        self.message_user(request, f"{obj.count} code(s) of {money.show(obj.amount)} made.", messages.SUCCESS)
        return redirect("admin:relay_redemptionbatch_show_codes", obj.pk)

    @action(description="Show the codes", url_path="codes", icon="visibility", permissions=["secret"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def show_codes(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        batch = get_object_or_404(RedemptionBatch, pk=object_id)
        rows = self._open(request, batch)
        if rows is None:
            return redirect("admin:relay_redemptionbatch_change", batch.pk)
        AuditEvent.write("codes.show", request.user, batch, address(request))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Codes “{batch}”",
            "opts": self.model._meta,
            "object": batch,
            "amount": money.show(batch.amount),
            "rows": rows[:1000],
        }
        response = render(request, "admin/relay/redemptionbatch/codes.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @action(description="Export as CSV", url_path="export", icon="download", permissions=["secret"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def export_codes(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        batch = get_object_or_404(RedemptionBatch, pk=object_id)
        rows = self._open(request, batch)
        if rows is None:
            return redirect("admin:relay_redemptionbatch_change", batch.pk)
        AuditEvent.write("codes.export", request.user, batch, address(request))
        response = HttpResponse(
            content_type="text/csv; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="codes-{batch.pk}.csv"', "Cache-Control": "no-store"}
        )
        writer = csv.writer(response)
        writer.writerow(("code", "usd", "state", "redeemed_by", "redeemed_at", "valid_until"))
        for code, secret in rows:
            redeemed = code.redeemed_at.isoformat() if code.redeemed_at else ""
            writer.writerow((secret, money.plain(batch.amount), code.state(), code.redeemed_by or "", redeemed, batch.expires_at.isoformat() if batch.expires_at else ""))
        return response

    @action(description="Disable what is left", url_path="disable", icon="block", permissions=["change"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def disable_codes(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        batch = get_object_or_404(RedemptionBatch, pk=object_id)
        if request.method != "POST":
            return self.confirm(request, batch, f"Disable “{batch}”", "Codes that nobody has redeemed yet become worthless.", "Disable", danger=True)
        with transaction.atomic():
            count = batch.codes.filter(redeemed_at__isnull=True, enabled=True).update(enabled=False)
            AuditEvent.write("codes.disable", request.user, batch, address(request), count=count)
        self.message_user(request, f"{count} code(s) disabled.", messages.SUCCESS)
        return redirect("admin:relay_redemptionbatch_change", batch.pk)

    def _open(self, request: HttpRequest, batch: RedemptionBatch) -> Any:
        try:
            return codes_of(batch)
        except Undecryptable:
            self.message_user(request, "The codes cannot be decrypted with the configured encryption keys.", messages.ERROR)
            return None


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    """What users were told about their money, and whether it reached them."""

    list_display = ("created_at", "user", "kind", "subject", "email_state", "webhook_state", "done")
    list_filter = ("kind", "done")
    list_select_related = ("user",)
    search_fields = ("user__username", "subject")
    paginator = UncountedPaginator
