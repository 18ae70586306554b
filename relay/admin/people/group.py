"""The admin page of groups, with what their members pay."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import display
from accounts.admin.group import GroupAdmin
from accounts.models import GroupSettings
from relay.admin.money.below_cost import badge, margins_for, warn_below_cost
from relay.catalog.margins import below_cost

admin.site.unregister(Group)


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
            return format_html("× {}{}", f"{settings.price_multiplier.normalize():f}", mark)

        return (*super().get_list_display(request), price)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        settings = GroupSettings.objects.filter(group=form.instance).first()
        found = margins_for(request) if settings is not None else None
        if settings is not None and found:
            losses = below_cost(found, settings.price_multiplier, form.instance.pk)
            warn_below_cost(request, str(_("Members of “%(group)s”")) % {"group": form.instance}, losses)
