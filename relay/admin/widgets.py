"""How vendors are shown in forms."""

from __future__ import annotations

from typing import Final

from django.utils.functional import lazy
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from unfold.widgets import UnfoldAdminSelect2Widget

from relay.models import Channel
from relay.providers.vendors import offered


class VendorSelect(UnfoldAdminSelect2Widget):
    """The vendors by group, with a field to search for one."""


def _help() -> str:
    """The help text of a base URL, with the forms of those that every customer has another of."""
    forms = [(_(vendor.label), vendor.address_form) for vendor in offered() if vendor.address_form]
    return format_html(
        "{} {}<ul>{}</ul>",
        Channel._meta.get_field("base_url").help_text,
        _("These have another for every customer:"),
        format_html_join("", "<li>{}: <code>{}</code></li>", forms),
    )


BASE_URL_HELP: Final = lazy(_help, str)()
