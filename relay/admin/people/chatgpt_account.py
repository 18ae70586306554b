"""Users' sign-ins at ChatGPT, for staff: who and in what state, never a token."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, action, display, request_ip
from accounts.rights import may
from relay.channels.chatgpt_accounts import sign_in, store
from relay.models import ChatGPTAccount
from relay.models.chatgpt_account import SignInState


@admin.register(ChatGPTAccount)
class ChatGPTAccountAdmin(BaseAdmin):
    """Sign-ins of users with their own ChatGPT plans. Only the owner turns one on; staff can turn it off."""

    list_display = ("user", "email", "plan", "state_shown", "on_shown", "api_enabled", "used", "refreshed_at")
    list_filter = ("state", "api_enabled")
    list_select_related = ("user",)
    search_fields = ("user__username", "email")
    ordering = ("pk",)
    fields = (
        "user", "email", "plan", "account_id", "state_word", "shape", "source", "enabled_at",
        "api_enabled", "used", "models_shown", "listed_at", "signed_in_at", "refreshed_at", "expires_at", "created_at",
    )  # fmt: skip
    readonly_fields = fields
    actions_detail = ("turn_off", "sign_out")
    rights_words: ClassVar[Any] = {
        "change_chatgptaccount": _("Turn off users' ChatGPT plans, and sign users out of them")
    }

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_end_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Whether somebody may turn a plan off, or sign its owner out."""
        return may(request.user, "relay.change_chatgptaccount")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(
        description=_("state"),
        ordering="state",
        label={"signed_in": "success", "expired": "warning", "incomplete": "warning", "signed_out": "info"},
    )
    def state_shown(self, account: ChatGPTAccount) -> tuple[str, str]:
        return account.state, str(SignInState(account.state).label)

    @display(description=_("state"))
    def state_word(self, account: ChatGPTAccount) -> str:
        return str(SignInState(account.state).label)

    @display(description=_("turned on"), boolean=True)
    def on_shown(self, account: ChatGPTAccount) -> bool:
        return account.is_on

    @display(description=_("used"))
    def used(self, account: ChatGPTAccount) -> str:
        found = account.windows if isinstance(account.windows, dict) else {}
        windows = [window for name in ("primary", "secondary") if isinstance(window := found.get(name), dict)]
        return ", ".join(f"{window.get('label', '')} {window['used_percent']} %".strip() for window in windows) or "—"

    @display(description=_("models"))
    def models_shown(self, account: ChatGPTAccount) -> str:
        return ", ".join(model["name"] for model in account.listed) or "—"

    @action(description=_("Turn off"), url_path="turn-off", icon="power_settings_new", permissions=["end"])
    def turn_off(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        account = get_object_or_404(ChatGPTAccount, pk=object_id)
        if request.method != "POST":
            text = _("Requests to the plan end. Its owner can turn it on again; PLAN_USERS=off ends it for all.")
            return self.confirm(request, account, _("Turn off “%(name)s”") % {"name": account}, text, _("Turn off"))
        store.set_on(account, False, request.user, request_ip(request))
        self.message_user(request, _("It is off."), messages.SUCCESS)
        return redirect("admin:relay_chatgptaccount_change", account.pk)

    @action(description=_("Sign out"), url_path="sign-out", icon="logout", permissions=["end"])
    def sign_out(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        account = get_object_or_404(ChatGPTAccount, pk=object_id)
        if request.method != "POST":
            text = _("The tokens are deleted here, and the issuer is told. Its owner can sign in again.")
            title = _("Sign “%(name)s” out") % {"name": account}
            return self.confirm(request, account, title, text, _("Sign out"), danger=True)
        told = sign_in.sign_out(account, request.user, request_ip(request))
        said = _("It is signed out.") if told else _("It is signed out here. The issuer could not be told.")
        self.message_user(request, said, messages.SUCCESS if told else messages.WARNING)
        return redirect("admin:relay_chatgptaccount_change", account.pk)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChatGPTAccount]:
        rows: QuerySet[ChatGPTAccount] = super().get_queryset(request)
        return rows.defer("sealed")
