"""The admin page of groups, with what their members pay."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import display
from accounts.admin.group import GroupAdmin
from accounts.models import LIMIT_FIELDS, GroupSettings
from relay.admin.money.below_cost import badge, margins_for, warn_below_cost
from relay.catalog.margins import below_cost
from relay.models import Channel, ModelPermission

_LIMITS: Final = (*LIMIT_FIELDS, "member_rpm", "member_tpm", "member_rpd", "member_concurrency")
WORDS: Final[dict[str, Any]] = {
    "owner": _("Role of staff: everything but what superusers alone may do."),
    "operator": _("Role of staff: maintains channels, keys and models, sees requests, and no money."),
    "accountant": _("Role of staff: sets prices and budgets, tops up, sees what is earned."),
    "support": _("Role of staff: helps users to sign in, looks up their requests, writes incidents."),
}

admin.site.unregister(Group)


def _lost(group: Group) -> list[str]:
    """What members of a group have by it, in words; nothing for a group without members."""
    if not group.user_set.exists():
        return []
    settings = GroupSettings.objects.filter(group=group).first()
    found = []
    if settings is not None and settings.price_multiplier != 1:
        found.append(str(_("the price × %(times)s") % {"times": f"{settings.price_multiplier.normalize():f}"}))
    if settings is not None and any(getattr(settings, name) is not None for name in _LIMITS):
        found.append(str(_("its limits of requests and tokens")))
    if models := ModelPermission.objects.filter(group=group).count():
        found.append(str(_("permission for %(n)d model(s)") % {"n": models}))
    if channels := Channel.objects.filter(groups=group).count():
        found.append(str(_("%(n)d channel(s) that serve the group") % {"n": channels}))
    if rights := group.permissions.count():
        found.append(str(_("%(n)d right(s) of staff") % {"n": rights}))
    return found


@admin.register(Group)
class PayingGroupAdmin(GroupAdmin):
    """Groups and the prices of their members."""

    def get_list_display(self, request: HttpRequest) -> Any:
        found = margins_for(request)

        @display(description=_("price"), ordering="settings__price_multiplier")
        def price(group: Group) -> str:
            settings = getattr(group, "settings", None)
            if settings is None:
                return "—"
            mark = badge(below_cost(found, settings.price_multiplier, group.pk)) if found else ""
            return format_html("× {} {}", f"{settings.price_multiplier.normalize():f}", mark)

        return (*super().get_list_display(request), price)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        return super().get_queryset(request).select_related("role")

    @display(description=_("description"))
    def description(self, group: Any) -> str:
        """What was written of it; of a role that nobody has described, what it is for."""
        role = getattr(group, "role", None)
        return super().description(group) or (str(WORDS.get(role.key, "")) if role is not None else "")

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Say what members of the groups lose, before they are deleted."""
        if "post" not in request.POST:
            for group in objs:
                if lost := _lost(group):
                    said = _("%(n)d member(s) of “%(group)s” lose with it: %(what)s.")
                    values = {"n": group.user_set.count(), "group": group, "what": "; ".join(lost)}
                    self.message_user(request, said % values, messages.WARNING)
        return super().get_deleted_objects(objs, request)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        settings = GroupSettings.objects.filter(group=form.instance).first()
        found = margins_for(request) if settings is not None else None
        if settings is not None and found:
            losses = below_cost(found, settings.price_multiplier, form.instance.pk)
            warn_below_cost(request, str(_("Members of “%(group)s”")) % {"group": form.instance}, losses)
