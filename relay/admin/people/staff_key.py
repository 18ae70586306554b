"""The admin page of staff keys, with which people use the management API from scripts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, action, display, request_ip
from accounts.models import StaffKey
from accounts.models.staff_key import AREAS, SCOPES
from accounts.rights import may, may_everything
from portal.lib import clock

_DAYS = 90  # that a new key is valid unless somebody says otherwise
_STATES = {"active": _("active"), "expired": _("expired"), "revoked": _("revoked")}
_POWERS = {"read": _("read"), "write": _("read and write")}


def scope_choices() -> list[tuple[str, str]]:
    """The scopes in words."""
    found = []
    for scope in SCOPES:
        area, power = scope.split(":")
        words = str(AREAS[area])
        found.append((scope, f"{words[:1].upper()}{words[1:]}: {_POWERS[power]}"))
    return found


class StaffKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A new key of the one who makes it."""

    scopes = forms.MultipleChoiceField(
        label=_("What it is for"),
        choices=scope_choices,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("It never allows more than you may do yourself, whatever is ticked here."),
    )

    class Meta:
        model = StaffKey
        fields = ("name", "scopes", "expires_at")


@admin.register(StaffKey)
class StaffKeyAdmin(BaseAdmin):
    """Keys of staff. Everybody makes keys of their own; superusers see, and revoke, those of all."""

    form = StaffKeyForm
    list_display = ("name", "user", "hint", "state_label", "expires_at", "last_used_at", "last_ip", "created_at")
    list_select_related = ("user",)
    search_fields = ("name", "=user__username")
    ordering = ("-id",)
    empty_text = _("Scripts send one to the management API at /api/v1, or to the calls of one-api's that there are.")
    actions = ("revoke_selected",)
    actions_detail: ClassVar[Any] = ("revoke",)
    rights_words: ClassVar[Any] = {
        "add_staffkey": _("Make keys for the management API, for what they may do themselves"),
        "change_staffkey": _("Revoke their own keys for the management API"),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[StaffKey]:
        rows: QuerySet[StaffKey] = super().get_queryset(request)
        return rows if may_everything(request.user) else rows.filter(user=request.user.pk or 0)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ((None, {"fields": ("name", "scopes", "expires_at")}),)
        shown = ("name", "user", "hint", "state_words", "scope_words", "expires_at")
        return ((None, {"fields": (*shown, "created_at", ("last_used_at", "last_ip"), "revoked_at")}),)

    readonly_fields = (
        "user",
        "hint",
        "state_words",
        "scope_words",
        "created_at",
        "last_used_at",
        "last_ip",
        "revoked_at",
    )

    def get_changeform_initial_data(self, request: HttpRequest) -> Any:
        initial: Any = super().get_changeform_initial_data(request)
        return {"expires_at": clock.now() + timedelta(days=_DAYS), **initial}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return may(request.user, "accounts.change_staffkey")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Forbid deletion: keys are revoked instead."""
        return False

    def may_go_along(self, request: HttpRequest) -> bool:
        return True

    @display(description=_("state"), label={"active": "success", "expired": "warning", "revoked": "danger"})
    def state_label(self, key: StaffKey) -> tuple[str, Any]:
        return key.state(), _STATES[key.state()]

    @display(description=_("state"))
    def state_words(self, key: StaffKey) -> str:
        return str(self.state_label(key)[1])

    @display(description=_("What it is for"))
    def scope_words(self, key: StaffKey) -> str:
        words = dict(scope_choices())
        return "; ".join(words.get(scope, scope) for scope in key.scopes) or "—"

    def save_model(self, request: HttpRequest, obj: StaffKey, form: Any, change: bool) -> None:
        if change:
            return
        person: Any = request.user
        obj.user = person
        request.new_staff_key = obj.new_secret()  # type: ignore[attr-defined]  # shown by response_add, not stored
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: StaffKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key, once."""
        context = {
            **self.admin_site.each_context(request),
            "title": _("Staff key “%(name)s”") % {"name": obj},
            "opts": self.model._meta,
            "object": obj,
            "address": request.build_absolute_uri("/api/v1/"),
            "secret": request.new_staff_key,  # type: ignore[attr-defined]
        }
        response = render(request, "admin/accounts/staffkey/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @action(description=_("Revoke"), url_path="revoke", icon="block", permissions=["revoke"])
    def revoke(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        key = get_object_or_404(self.get_queryset(request), pk=object_id)
        if request.method != "POST":
            text = _("The key is refused from now on. This cannot be undone.")
            return self.confirm(request, key, _("Revoke “%(name)s”") % {"name": key}, text, _("Revoke"), danger=True)
        key.revoke(request.user, request_ip(request))
        self.message_user(request, _("“%(name)s” is revoked.") % {"name": key}, messages.SUCCESS)
        return redirect("admin:accounts_staffkey_changelist")

    @admin.action(description=_("Revoke for good"), permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, rows: QuerySet[StaffKey]) -> HttpResponse | None:
        found = list(rows.filter(revoked_at__isnull=True))
        if not request.POST.get("confirmed"):
            return self.confirm_many(request, found, _("Revoke staff keys"), "revoke_selected", _("Revoke"))
        for key in found:
            key.revoke(request.user, request_ip(request))
        self.message_user(request, _("%(n)s key(s) revoked.") % {"n": len(found)}, messages.SUCCESS)
        return None
