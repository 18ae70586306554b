from __future__ import annotations

import re
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import F, Func, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, UncountedPaginator, action, display, format_time, request_ip
from accounts.admin.inlines import PagedInline
from accounts.doors import may_open
from accounts.models import LIMIT_FIELDS, AuditEvent
from accounts.rights import exceeds, may
from portal.lib import money
from portal.lib.crypto import mask
from relay.admin.forms import EXCEEDS, TokenForm
from relay.billing.ledger import movements
from relay.models import Budget, Token, UsageRecord
from relay.models.ledger import AMOUNTS
from relay.models.token import STATES, make_token_secret
from relay.tokens import lifecycle
from relay.usage.receipts import quota_accounts

_FIRST, _LAST = 7, 4  # letters of a token that are stored in clear: its beginning and its end
# What people have of a token: a part of it, or its beginning and end with whatever they write for what is between.
_VISIBLE: Final = re.compile(r"([\w-]*)(?:(…|\.{2,}|\*+)([\w-]*))?")
_WHOLE: Final = re.compile(r"sk-[\w-]{16,}|[\w-]{40,}")


class TokenBudgetInline(PagedInline):
    """The budgets of a token."""

    model = Budget
    fk_name = "token"
    fields = ("period", "limit")
    verbose_name_plural = _("budgets")
    ordering = ("pk",)
    max_num = 3
    list_parameter = "token__id__exact"


@admin.register(Token)
class TokenAdmin(BaseAdmin):
    """Relay tokens. Staff create, rotate and revoke them; only the owner can reveal one."""

    form = TokenForm
    inlines = (TokenBudgetInline,)
    list_display = (
        "name",
        "user",
        "hint",
        "state_label",
        "purpose",
        "used",
        "quota",
        "expires_at",
        "last_used",
        "created_at",
    )
    list_filter = ("enabled", "purpose")
    guarded_fields: ClassVar[Any] = {"used": AMOUNTS}
    list_select_related = ("user",)
    search_fields = ("name", "=user__username", "=user__email")
    search_help_text = _("A part of the name, the owner's whole name or address, or any visible part of the token.")
    autocomplete_fields = ("user", "models_allowed")
    readonly_fields = ("hint", "created_at", "rotated_at", "revoked_at")
    actions = ("enable", "disable", "revoke_selected")
    actions_detail = ("explain", "usage", "budgets", "rotate", "revoke")
    paginator = UncountedPaginator
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("user", "name", "purpose", "hint", "enabled", "expires_at", "notes")}),
        (
            _("Limits"),
            {
                "fields": (
                    "quota",
                    "limits_fixed",
                    "models_allowed",
                    "models_limited",
                    "allowed_ips",
                    LIMIT_FIELDS[:2],
                    LIMIT_FIELDS[2:],
                )
            },
        ),
        (_("Dates"), {"fields": ("created_at", "rotated_at", "revoked_at"), "classes": ("collapse",)}),
    )

    def has_explain_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may_open(request, reverse("admin-explain"))

    @action(description=_("Explain"), url_path="explain", icon="help", permissions=["explain"])
    def explain(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Explain the routing of requests with a token."""
        token = get_object_or_404(Token.objects.select_related("user"), pk=object_id)
        return redirect(
            f"{reverse('admin-explain')}?{urlencode({'user': token.user.get_username(), 'token': token.pk})}"
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.readonly_fields, "user") if obj else self.readonly_fields

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Forbid deletion: tokens are revoked instead, since usage records refer to them."""
        return False

    @display(
        description=_("state"),
        label={
            "active": "success",
            "disabled": "",
            "expired": "warning",
            "revoked": "danger",
            "used_up": "warning",
        },
    )
    def state_label(self, token: Any) -> tuple[str, Any]:
        left = (token.quota_granted or 0) - (token.quota_used or 0) if token.quota_limited else None
        state = token.state(left=left)
        return state, _(STATES[state])

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        if not change:
            secret = make_token_secret()
            obj.set_secret(secret)
            request.new_token_secret = secret  # type: ignore[attr-defined]  # shown by response_add, not stored
        super().save_model(request, obj, form, change)
        quota = form.cleaned_data.get("quota")
        if "quota" in form.changed_data:
            movements.set_quota(obj, None if quota is None else money.nano(quota))
            AuditEvent.write(
                "token.quota", request.user, obj, request_ip(request), usd=None if quota is None else str(quota)
            )
        if not change:
            AuditEvent.write("token.create", request.user, obj, request_ip(request), owner=obj.user.get_username())

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if isinstance(form, TokenForm) and form.limits_to_nothing():
            self.message_user(
                request,
                _("“%(token)s” may use no model: it is limited to some, and none is chosen.")
                % {"token": form.instance},
                messages.WARNING,
            )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Token], search_term: str
    ) -> tuple[QuerySet[Token], bool]:
        """Find tokens by what people have of one, too: its beginning, its end, both, or the whole of it."""
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        shown = _VISIBLE.fullmatch(search_term.strip())
        if shown is None:
            return found, may_repeat
        first, gap, last = shown.groups(default="")
        starts = Q(hint__startswith=first[:_FIRST]) | Q(hint__startswith=f"sk-{first}"[:_FIRST])
        if gap:
            parts = starts & Q(hint__endswith=last[-_LAST:])
        else:
            parts = Q(hint__contains=first) if len(first) <= _LAST else starts
        return found | queryset.filter(parts), may_repeat

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Take a whole token out of the address, which browsers and proxies keep."""
        typed = request.GET.get(SEARCH_VAR, "").strip()
        if _WHOLE.fullmatch(typed):
            query = request.GET.copy()
            query[SEARCH_VAR] = mask(typed)
            text = _("A whole token was searched for. Ask people for its first and last letters only.")
            self.message_user(request, text, messages.WARNING)
            return redirect(f"{request.path}?{query.urlencode()}")
        return super().changelist_view(request, extra_context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Token]:
        account = quota_accounts()
        rows: QuerySet[Token] = super().get_queryset(request)
        return rows.annotate(
            used_at=Subquery(
                UsageRecord.objects.filter(token=OuterRef("pk"))
                .order_by()
                .annotate(last=Func(F("started_at"), function="MAX"))
                .values("last")
            ),
            quota_used=Subquery(account.values("used")[:1]),
            quota_granted=Subquery(account.values("granted")[:1]),
            quota_limited=Subquery(account.values("limited")[:1]),
        )

    @action(description=_("Usage"), url_path="usage", icon="receipt_long", permissions=["usage"])
    def usage(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the usage of a token, the newest requests first."""
        url = reverse("admin:relay_usagerecord_changelist")
        return redirect(f"{url}?{urlencode({'token': get_object_or_404(Token, pk=object_id).pk})}")

    def has_usage_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and may(request.user, "relay.view_usagerecord")

    @action(description=_("Budgets"), url_path="budgets", icon="savings", permissions=["budgets"])
    def budgets(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Show the budgets of a token, for those who may change them and not the token."""
        url = reverse("admin:relay_budget_changelist")
        return redirect(f"{url}?{urlencode({'token__id__exact': get_object_or_404(Token, pk=object_id).pk})}")

    def has_budgets_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "relay.view_budget")

    @display(description=_("last used"))
    def last_used(self, token: Any) -> str:
        return format_time(token.used_at) if token.used_at is not None else "—"

    @display(description=_("used"), ordering="quota_used")
    def used(self, token: Any) -> str:
        return money.show(token.quota_used or 0)

    @display(description=_("quota"), ordering="quota_granted")
    def quota(self, token: Any) -> str:
        return money.show(token.quota_granted) if token.quota_limited else "—"

    def response_add(self, request: HttpRequest, obj: Token, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_secret(request, obj, request.new_token_secret)  # type: ignore[attr-defined]

    def _show_secret(self, request: HttpRequest, token: Token, secret: str) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("Token “%(token)s” of %(user)s") % {"token": token, "user": token.user},
            "opts": self.model._meta,
            "object": token,
            "secret": secret,
        }
        response = render(request, "admin/relay/token/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def get_form(self, request: HttpRequest, obj: Token | None = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.person = request.user
        return form

    @action(description=_("Rotate"), url_path="rotate", icon="autorenew", permissions=["change"])
    def rotate(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        token: Token = get_object_or_404(Token.objects.select_related("user"), pk=object_id)
        if token.revoked_at:
            self.message_user(request, _("A revoked token cannot be rotated. Create a new one."), messages.ERROR)
            return redirect("admin:relay_token_change", token.pk)
        if exceeds(token.user, request.user):
            self.message_user(request, EXCEEDS, messages.ERROR)
            return redirect("admin:relay_token_change", token.pk)
        if request.method != "POST":
            return self.confirm(
                request,
                token,
                _("Rotate “%(token)s”") % {"token": token},
                _("The token gets a new secret. The old one is refused from then on, on every worker."),
                _("Rotate"),
                danger=True,
            )
        return self._show_secret(
            request, token, lifecycle.rotate_token(token, actor=request.user, ip=request_ip(request))
        )

    @action(description=_("Revoke"), url_path="revoke", icon="block", permissions=["change"])
    def revoke(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        token = get_object_or_404(Token, pk=object_id)
        if request.method != "POST":
            text = _("The token is refused from now on and its running streams are ended. This cannot be undone.")
            return self.confirm(
                request, token, _("Revoke “%(token)s”") % {"token": token}, text, _("Revoke"), danger=True
            )
        lifecycle.revoke_token(token, actor=request.user, ip=request_ip(request))
        self.message_user(request, _("“%(token)s” is revoked.") % {"token": token}, messages.SUCCESS)
        return redirect("admin:relay_token_changelist")

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Token]) -> None:
        self._switch(request, rows, True)

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[Token]) -> None:
        self._switch(request, rows, False)

    @admin.action(description=_("Revoke for good"), permissions=["change"])
    def revoke_selected(self, request: HttpRequest, rows: QuerySet[Token]) -> HttpResponse | None:
        found = list(rows.filter(revoked_at__isnull=True))
        if not request.POST.get("confirmed"):
            return self.confirm_many(request, found, _("Revoke tokens"), "revoke_selected", _("Revoke"))
        for token in found:
            lifecycle.revoke_token(token, actor=request.user, ip=request_ip(request))
        self.message_user(request, _("%(n)s token(s) revoked.") % {"n": len(found)}, messages.SUCCESS)
        return None

    def _switch(self, request: HttpRequest, rows: QuerySet[Token], enabled: bool) -> None:
        found = self.switch(
            request,
            rows.filter(revoked_at__isnull=True),
            "enabled",
            enabled,
            "token.enable" if enabled else "token.disable",
        )
        said = _("%(n)d token(s) enabled.") if enabled else _("%(n)d token(s) disabled.")
        self.message_user(request, said % {"n": len(found)}, messages.SUCCESS)
