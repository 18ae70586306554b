"""How vendors are shown in forms and lists."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import lazy
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminSelect2Widget

from relay.models import Channel
from relay.providers.vendors import VENDORS, offered


class VendorSelect(UnfoldAdminSelect2Widget):
    """The vendors by group, with a field to search for one."""


class VendorFilter(admin.SimpleListFilter):
    """Filters rows by vendor, of those that there are rows of."""

    title = gettext_lazy("provider")
    parameter_name = "provider__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = model_admin.model._default_manager.order_by()
        used = set(rows.values_list("provider", flat=True).distinct())
        return [(vendor.key, _(vendor.label)) for vendor in VENDORS.values() if vendor.key in used]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


def _help() -> str:
    """The help text of a base URL, with the forms of those that every customer has another of."""
    forms = [(_(vendor.label), vendor.address_form) for vendor in offered() if vendor.address_form]
    return format_html(
        '{} {}<ul class="ar-forms">{}</ul>',
        Channel._meta.get_field("base_url").help_text,
        _("These have another for every customer:"),
        format_html_join("", "<li>{}: <code>{}</code></li>", forms),
    )


BASE_URL_HELP: Final = lazy(_help, str)()
