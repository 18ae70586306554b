from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.models import Group, Permission
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.template import loader
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, display
from accounts.admin.inlines import OneRowInline
from accounts.admin.rights import RightsField, grouped, permission_name, sentences
from accounts.models import LIMIT_FIELDS, GroupSettings

BELOW: Final = "ar-below"  # class of a fieldset that comes after the settings of a group


class GroupSettingsInline(OneRowInline):
    model = GroupSettings
    fields = (
        "description",
        "price_multiplier",
        "is_default",
        ("member_rpm", "member_tpm"),
        ("member_rpd", "member_concurrency"),
        LIMIT_FIELDS[:2],
        LIMIT_FIELDS[2:],
    )


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, BaseAdmin):
    """Groups of users. Models and channels can be reserved for a group. Groups with rights are roles of staff."""

    inlines = (GroupSettingsInline,)
    filter_horizontal = ()
    readonly_fields = ("rights",)
    list_display = ("name", "description", "members", "joins_new_users")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        rows: QuerySet[Group] = super().get_queryset(request)
        return rows.select_related("settings").annotate(member_count=Count("user"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show rights as text to those who cannot change them."""
        may = self.has_change_permission(request, obj) if obj is not None else self.has_add_permission(request)
        name = "permissions" if may else "rights"
        return ((None, {"fields": ("name",)}), (_("Rights of staff"), {"fields": (name,), "classes": (BELOW,)}))

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Show the long list of rights below what a group is for, closed unless it has some or something is wrong."""
        group, form = context.get("original"), context["adminform"].form
        context["rights_open"] = bool(form.errors) or (group is not None and group.permissions.exists())
        return super().render_change_form(request, context, *args, **kwargs)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Offer the rights that open something, and those that the group has: saving the page takes none away."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        if "permissions" in form.base_fields:
            names = sentences(self.admin_site)
            rows = Permission.objects.select_related("content_type")
            wanted = {one.pk for one in rows if permission_name(one) in names}
            if obj is not None:
                wanted |= set(obj.permissions.values_list("pk", flat=True))
            form.base_fields["permissions"].queryset = Permission.objects.filter(pk__in=wanted)
        return form

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name != "permissions":
            return super().formfield_for_dbfield(db_field, request, **kwargs)
        field = db_field.formfield(form_class=RightsField)
        field.site, field.label = self.admin_site, _("What members who are staff may do")
        return field

    @display(description=_("What members who are staff may do"))
    def rights(self, group: Group) -> str:
        found = grouped(self.admin_site, list(group.permissions.select_related("content_type")))
        return loader.render_to_string("admin/auth/group/rights_shown.html", {"found": found}) if found else "—"

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
