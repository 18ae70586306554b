"""Users and their wallets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.base import action, address, display
from accounts.admin.user import UserAdmin
from accounts.models import LIMIT_FIELDS, AuditEvent, User
from portal.lib import money
from relay.billing import ledger
from relay.models import Budget, LedgerAccount

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

    @action(description="Top up", url_path="top-up", icon="add_card", permissions=["wallet"])
    def top_up(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._move(request, object_id, "Top up", "Add to the balance of")

    @action(description="Deduct", url_path="deduct", icon="money_off", permissions=["wallet"])
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

    @action(description="Unlimited on or off", url_path="unlimited", icon="all_inclusive", permissions=["wallet"])
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
