from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.models import Group, Permission
from django.db.models import Count, QuerySet
from django.forms import CheckboxSelectMultiple
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import StackedInline

from accounts.admin.base import BaseAdmin, display
from accounts.models import GroupSettings


class GroupSettingsInline(StackedInline):
    model = GroupSettings
    can_delete = False
    extra = 1
    max_num = 1


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, BaseAdmin):
    """Groups of users. Models and channels can be reserved for a group."""

    inlines = (GroupSettingsInline,)
    filter_horizontal = ()
    list_display = ("name", "description", "members", "joins_new_users")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        rows: QuerySet[Group] = super().get_queryset(request)
        return rows.select_related("settings").annotate(member_count=Count("user"))

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        """Show permissions as check boxes: the usual pair of lists does not fit on a phone."""
        if db_field.name == "permissions":
            kwargs["widget"] = CheckboxSelectMultiple(attrs={"class": "ar-rights"})
            kwargs["queryset"] = Permission.objects.filter(
                content_type__app_label__in=("relay", "accounts", "auth", "socialaccount")
            ).select_related("content_type")
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    @display(description=_("description"))
    def description(self, group: Group) -> str:
        settings = getattr(group, "settings", None)
        return settings.description if settings else ""

    @display(description=_("members"), ordering="member_count")
    def members(self, group: Any) -> int:
        return int(group.member_count)

    @display(description=_("new users join"), boolean=True)
    def joins_new_users(self, group: Group) -> bool:
        settings = getattr(group, "settings", None)
        return bool(settings and settings.is_default)
