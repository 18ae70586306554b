"""The admin page of users, with their wallets, limits and permissions."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import action, display, request_ip
from accounts.admin.inlines import PagedInline
from accounts.admin.recovery import HelpedUserAdmin
from accounts.models import LIMIT_FIELDS, User
from accounts.rights import exceeds, may
from accounts.view_as import may_view_as
from portal.lib import money
from relay.admin.forms import EXCEEDS
from relay.admin.people.wallet import AmountForm, Meanwhile, check_seen, newest_seen
from relay.billing import wallets
from relay.billing.ledger import movements
from relay.models import Budget, LedgerAccount, ModelPermission
from relay.models.ledger import AMOUNTS
from relay.tokens.bundles import make_bundle

_WALLET: Final = ("balance", "used", "held")  # what is shown beside top-ups and deductions
LIMITS = (_("Limits"), {"fields": (LIMIT_FIELDS[:2], LIMIT_FIELDS[2:]), "classes": ("tab",)})


class UserBudgetInline(PagedInline):
    """The budgets of a user."""

    model = Budget
    fk_name = "user"
    fields = ("period", "limit")
    verbose_name_plural = _("budgets")
    ordering = ("pk",)
    max_num = 3
    list_parameter = "user__id__exact"


class UserPermissionInline(PagedInline):
    """The models that a user may use although they are not open."""

    model = ModelPermission
    fk_name = "user"
    fields = ("model", "expires_at")
    autocomplete_fields = ("model",)
    verbose_name_plural = _("model permissions")
    ordering = ("model__name",)
    list_parameter = "user__id__exact"


class BalanceFilter(admin.SimpleListFilter):
    """Filters users by the state of their balance."""

    title = _("balance")
    parameter_name = "balance"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("empty", _("used up")), ("unlimited", _("unlimited"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        wallets = LedgerAccount.objects.filter(kind="wallet")
        if self.value() == "empty":
            return queryset.filter(
                is_active=True, pk__in=wallets.filter(limited=True, used__gt=0, granted__lte=F("used")).values("user")
            )
        if self.value() == "unlimited":
            return queryset.filter(pk__in=wallets.filter(limited=False).values("user"))
        return queryset


admin.site.unregister(User)


@admin.register(User)
class PayingUserAdmin(HelpedUserAdmin):
    """Users and their wallets."""

    list_display: Any = (
        "username",
        "email",
        "active",
        "staff",
        "group_names",
        "balance",
        "used",
        "token_count",
        "last_login",
    )
    list_filter = ("is_active", "is_staff", "groups", BalanceFilter)  # type: ignore[assignment]  # longer than the base's
    inlines = (UserPermissionInline, UserBudgetInline)
    guarded_fields: ClassVar[Any] = {"balance": AMOUNTS, "used": AMOUNTS}
    actions_detail: ClassVar[Any] = (
        "top_up",
        "deduct",
        "look",
        {
            "title": _("More"),
            "icon": "more_horiz",
            "items": [
                "sign_in_help",
                "usage",
                "movements",
                "tokens",
                "budgets",
                "geekai",
                "switch_unlimited",
                "send_reset_mail",
                "remove_factors",
                "lift_limits",
            ],
        },
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        wallet = LedgerAccount.objects.filter(user=OuterRef("pk"), kind="wallet")
        rows = super().get_queryset(request)
        return rows.annotate(
            wallet_balance=Subquery(wallet.annotate(left=F("granted") - F("used")).values("left")[:1]),
            wallet_used=Subquery(wallet.values("used")[:1]),
            wallet_held=Subquery(wallet.values("reserved")[:1]),
            wallet_limited=Subquery(wallet.values("limited")[:1]),
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_fieldsets(request, obj)
        if obj is None:
            return found
        wallet = ((_("Balance"), {"fields": (_WALLET,)}),) if self._sees_wallet(request) else ()
        return (*wallet, *found, LIMITS)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*super().get_readonly_fields(request, obj), *_WALLET)

    def _sees_wallet(self, request: HttpRequest) -> bool:
        return may(request.user, "relay.view_ledgeraccount") or self.has_wallet_permission(request)

    @display(description=_("balance"), ordering="wallet_balance")
    def balance(self, user: Any) -> str:
        return money.show_left(user.wallet_balance or 0) if user.wallet_limited is not False else str(_("unlimited"))

    @display(description=_("used"), ordering="wallet_used")
    def used(self, user: Any) -> str:
        return money.show(user.wallet_used or 0)

    @display(description=_("held by running requests"))
    def held(self, user: Any) -> str:
        return money.show(user.wallet_held or 0)

    def has_wallet_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may(request.user, "relay.add_ledgerentry")

    @action(description=_("Top up"), url_path="top-up", icon="add_card", permissions=["wallet"])
    def top_up(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._move(request, object_id, adds=True)

    @action(description=_("Deduct"), url_path="deduct", icon="money_off", permissions=["wallet"])
    def deduct(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._move(request, object_id, adds=False)

    def _move(self, request: HttpRequest, object_id: Any, *, adds: bool) -> HttpResponse:
        """Ask for an amount and a reason, then top up or deduct."""
        user = get_object_or_404(User, pk=object_id)
        # A link may say what is meant, such as that of a receipt to give back; nothing moves before it is sent.
        wanted = {name: value[:200] for name in ("amount", "reason") if (value := request.GET.get(name, ""))}
        form = AmountForm(request.POST if request.method == "POST" else None, initial=wanted)
        if request.method == "POST" and form.is_valid():
            amount, reason = money.nano(form.cleaned_data["amount"]), form.cleaned_data["reason"]
            try:
                wallets.book(
                    user,
                    amount if adds else -amount,
                    reason,
                    actor=request.user,
                    ip=request_ip(request),
                    check=partial(check_seen, user, request.POST.get("seen", "")),
                )
            except movements.NotEnough as error:
                form.add_error("amount", str(error))
            except Meanwhile as error:
                form.add_error(None, error)
            except ValidationError as error:
                form.add_error("amount", error)
            else:
                left = LedgerAccount.objects.get(user=user, kind="wallet").balance
                said = (
                    _("%(amount)s added to %(user)s: the balance is %(left)s.")
                    if adds
                    else _("%(amount)s taken from %(user)s: the balance is %(left)s.")
                )
                self.message_user(
                    request,
                    said % {"amount": money.exact(amount), "user": user, "left": money.show_left(left)},
                    messages.SUCCESS,
                )
                return redirect("admin:accounts_user_change", user.pk)
        wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
        title = (_("Add to the balance of %(user)s") if adds else _("Take from the balance of %(user)s")) % {
            "user": user
        }
        have = {
            "balance": money.exact(wallet.balance if wallet else 0),
            "held": money.exact(wallet.reserved if wallet else 0),
        }
        text = str(_("The balance is %(balance)s, of which running requests hold %(held)s.") % have)
        if wallet and not wallet.limited:
            text += " " + _("It limits nothing: this user is unlimited.")
        button = _("Top up") if adds else _("Deduct")
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.model._meta,
            "object": user,
            "form": form,
            "button": button,
            "text": text,
            "seen": newest_seen(user),
        }
        return render(request, "admin/form.html", context, status=422 if form.errors else 200)

    @action(description=_("Unlimited on or off"), url_path="unlimited", icon="all_inclusive", permissions=["wallet"])
    def switch_unlimited(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = get_object_or_404(User, pk=object_id)
        wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
        limited = wallet is None or wallet.limited
        # What the page said it would do: on two open pages, the second must not undo the first.
        limited = request.POST.get("wanted", "unlimited" if limited else "limited") == "unlimited"
        if request.method != "POST":
            left = money.show_left(wallet.balance if wallet else 0)
            text = (
                _("%(user)s may then spend without end; the portal pays.")
                if limited
                else _("%(user)s may then spend the balance of %(left)s, and no more.")
            )
            title = _("Lift the limit of %(user)s") if limited else _("Set the limit of %(user)s")
            names = {"user": user, "left": left}
            return self.confirm(
                request,
                user,
                title % names,
                text % names,
                _("Make unlimited") if limited else _("Limit to the balance"),
                wanted="unlimited" if limited else "limited",
            )
        wallets.set_unlimited(user, limited, actor=request.user, ip=request_ip(request))
        said = _("%(user)s is unlimited now.") if limited else _("%(user)s is limited to the balance now.")
        self.message_user(request, said % {"user": user}, messages.SUCCESS)
        return redirect("admin:accounts_user_change", user.pk)

    # -- support ------------------------------------------------------------------------------------------------------

    @action(description=_("Usage"), url_path="usage", icon="receipt_long", permissions=["usage"])
    def usage(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the usage of a user, the newest requests first."""
        url = reverse("admin:relay_usagerecord_changelist")
        return redirect(f"{url}?{urlencode({'user': get_object_or_404(User, pk=object_id).pk})}")

    def has_usage_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "relay.view_usagerecord")

    @action(description=_("Movements"), url_path="movements", icon="menu_book", permissions=["entries"])
    def movements(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show what was added to the balance of a user and taken from it, other than for requests."""
        url = reverse("admin:relay_ledgerentry_changelist")
        return redirect(f"{url}?{urlencode({'user': get_object_or_404(User, pk=object_id).pk})}")

    def has_entries_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "relay.view_ledgerentry")

    @action(description=_("Tokens"), url_path="tokens", icon="vpn_key", permissions=["tokens"])
    def tokens(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        url = reverse("admin:relay_token_changelist")
        return redirect(f"{url}?{urlencode({'user__id__exact': get_object_or_404(User, pk=object_id).pk})}")

    def has_tokens_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "relay.view_token")

    @action(description=_("Budgets"), url_path="budgets", icon="savings", permissions=["budgets"])
    def budgets(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the budgets of a user, for those who may change them and not the user."""
        url = reverse("admin:relay_budget_changelist")
        return redirect(f"{url}?{urlencode({'user__id__exact': get_object_or_404(User, pk=object_id).pk})}")

    def has_budgets_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "relay.view_budget")

    @action(description=_("GeekAI bundle"), url_path="geekai", icon="package_2", permissions=["bundle"])
    def geekai(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Create the three tokens that GeekAI needs, and show once what to paste into it."""
        user = get_object_or_404(User, pk=object_id)
        if exceeds(user, request.user):
            self.message_user(request, EXCEEDS, messages.ERROR)
            return redirect("admin:accounts_user_change", user.pk)
        if request.method != "POST":
            text = _(
                "Three tokens are made for %(name)s: one for chat, one for pictures, one for Midjourney. They are "
                "shown once, as the rows to paste into GeekAI."
            ) % {"name": user}
            return self.confirm(
                request, user, _("GeekAI bundle for %(name)s") % {"name": user}, text, _("Make the three tokens")
            )
        rows = make_bundle(user, settings.CONFIG.origin(request), actor=request.user, ip=request_ip(request))
        context = {
            **self.admin_site.each_context(request),
            "title": _("GeekAI bundle for %(name)s") % {"name": user},
            "opts": self.model._meta,
            "object": user,
            "rows": rows,
        }
        response = render(request, "admin/relay/token/geekai.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def has_bundle_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may(request.user, "relay.add_token")

    @action(description=_("Look as this user"), url_path="look", icon="visibility", permissions=["look"])
    def look(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Ask for confirmation. The page posts to the view that begins to show the portal as the user."""
        user = get_object_or_404(User, pk=object_id)
        if not may_view_as(request.user, user):
            raise PermissionDenied
        text = _(
            "You see the pages of the portal as %(name)s does, and can change nothing. That you looked is noted in "
            "the audit log."
        ) % {"name": user}
        context = {
            **self.admin_site.each_context(request),
            "title": _("Look as %(name)s") % {"name": user},
            "opts": self.model._meta,
            "object": user,
            "text": text,
            "button": _("Look"),
        }
        return render(request, "admin/confirm.html", {**context, "target": reverse("view-as", args=[user.pk])})

    def has_look_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        pk = str(object_id or "")
        user = User.objects.filter(pk=pk).first() if pk.isdecimal() and len(pk) < 19 else None
        return may(request.user, "accounts.view_as") if user is None else may_view_as(request.user, user)
