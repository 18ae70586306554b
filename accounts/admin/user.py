from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.admin.base import BaseAdmin, display
from accounts.models import User


@admin.register(User)
class UserAdmin(DjangoUserAdmin, BaseAdmin):  # type: ignore[type-arg]
    """Users. Disabling one stops all of their tokens within a second."""

    form, add_form, change_password_form = UserChangeForm, UserCreationForm, AdminPasswordChangeForm
    list_display = ("username", "email", "active", "staff", "group_names", "token_count", "last_login")
    list_filter = ("is_active", "is_staff", "groups")
    search_fields = ("username", "email", "first_name", "last_name")
    ordering = ("username",)
    autocomplete_fields = ("groups",)
    filter_horizontal = ("user_permissions",)
    fieldsets = (
        (None, {"fields": ("username", "password", "email", ("first_name", "last_name"), "notes")}),
        ("What they may do", {"fields": ("is_active", "groups", "is_staff", "is_superuser", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("username", "email", "password1", "password2")}),)
    readonly_fields = ("last_login", "date_joined")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        rows: QuerySet[User] = super().get_queryset(request)
        return rows.prefetch_related("groups").annotate(live_tokens=Count("tokens", filter=Q(tokens__revoked_at__isnull=True)))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only a superuser hands out rights: staff who may edit users must not promote themselves, be it through a group that carries rights."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or getattr(request.user, "is_superuser", False):
            return fieldsets
        hidden = {"is_staff", "is_superuser", "user_permissions"} | ({"groups"} if obj.is_staff else set())
        return tuple((title, {**options, "fields": tuple(field for field in options["fields"] if field not in hidden)}) for title, options in fieldsets)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Staff edit users and themselves; other staff and superusers, whose passwords would give them more, only superusers do."""
        if obj is not None and (obj.is_staff or obj.is_superuser) and obj != request.user and not getattr(request.user, "is_superuser", False):
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Users are disabled, not deleted: their usage must keep its owner."""
        return False

    @display(description="active", boolean=True, ordering="is_active")
    def active(self, user: User) -> bool:
        return user.is_active

    @display(description="staff", boolean=True, ordering="is_staff")
    def staff(self, user: User) -> bool:
        return user.is_staff

    @display(description="groups")
    def group_names(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or "—"

    @display(description="tokens", ordering="live_tokens")
    def token_count(self, user: Any) -> int:
        return int(user.live_tokens)
