"""The admin page of budgets, for those who may set them, whatever else they may change of users and tokens."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.base import BaseAdmin, UncountedPaginator, display
from portal.lib import clock, money
from portal.lib.days import Days
from relay.models import Budget, LedgerAccount
from relay.models.budget import PERIOD_WORDS
from relay.models.fields import UsdField


class BudgetForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A budget of a user or of one token."""

    limit = UsdField(
        label=_("Limit in USD"),
        decimal_places=9,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        help_text=_("The most that may be spent in each period. It holds at once, for the present period as well."),
    )

    class Meta:
        model = Budget
        fields = ("user", "token", "period", "limit")


@admin.register(Budget)
class BudgetAdmin(BaseAdmin):
    """Budgets: the most that a user or one token may spend in a calendar day, week or month."""

    form = BudgetForm
    fields = ("user", "token", "period", "limit")
    list_display = ("whose", "period_word", "limit_usd", "used_usd", "left_usd")
    list_filter = ("period",)
    list_select_related = ("user", "token__user")
    search_fields = ("=user__username", "token__name", "=token__user__username")
    search_help_text = _("A whole user name, or a part of a token's name.")
    autocomplete_fields = ("user", "token")
    paginator = UncountedPaginator
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Budget]:
        """Read the account of the present period along: there is one as soon as the budget was set or used in it."""
        day = Days(settings.TIME_ZONE).of(clock.now().timestamp())
        accounts = LedgerAccount.objects.filter(
            kind="budget", period=OuterRef("period"), first_day__lte=day, last_day__gte=day
        )
        of_user = accounts.filter(user=OuterRef("user"), token__isnull=True)
        of_token = accounts.filter(user=OuterRef("token__user"), token=OuterRef("token"))
        rows: QuerySet[Budget] = super().get_queryset(request)
        return rows.annotate(
            used_by_user=Subquery(of_user.values("used")[:1]), used_by_token=Subquery(of_token.values("used")[:1])
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A budget stays with its owner and period: delete it, and set another."""
        fields = super().get_readonly_fields(request, obj)
        return (*fields, "user", "token", "period") if obj is not None else fields

    def get_changeform_initial_data(self, request: HttpRequest) -> Any:
        """Add for the user or the token whose list was open."""
        shown = dict(parse_qsl(request.GET.get("_changelist_filters", "")))
        initial = {name: shown[f"{name}__id__exact"] for name in ("user", "token") if f"{name}__id__exact" in shown}
        return {**initial, **super().get_changeform_initial_data(request)}

    @display(description=_("whose"))
    def whose(self, budget: Budget) -> str:
        if budget.token is None:
            return str(budget.user)
        return format_html('{}<span class="ar-under">{}</span>', budget.token, budget.token.user)

    @display(description=_("period"), ordering="period")
    def period_word(self, budget: Budget) -> str:
        return str(_(PERIOD_WORDS[budget.period]))

    @display(description=_("limit"), ordering="limit")
    def limit_usd(self, budget: Budget) -> str:
        return money.show(money.nano(budget.limit))

    @display(description=_("used"))
    def used_usd(self, budget: Any) -> str:
        return money.show(_used(budget))

    @display(description=_("left"))
    def left_usd(self, budget: Any) -> str:
        return money.show_left(max(0, money.nano(budget.limit) - _used(budget)))


def _used(budget: Any) -> int:
    """Nano-USD that were spent in the present period."""
    found: int | None = budget.used_by_user if budget.token_id is None else budget.used_by_token
    return found or 0
