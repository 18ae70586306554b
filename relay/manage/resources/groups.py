"""The settings of a group, which its page shows as a part of the group's own form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.admin.group import GroupSettingsInline
from accounts.models import LIMIT_FIELDS, GroupSettings
from relay.manage.requests.access import need
from relay.manage.requests.problems import Forbidden

SETTINGS: Final = (
    "description", "price_multiplier", "is_default", "member_rpm", "member_tpm", "member_rpd", "member_concurrency",
    *LIMIT_FIELDS,
)  # fmt: skip
_PREFIX: Final = "settings"


def settings_formsets(values: Mapping[str, Any]) -> Callable[[Any, Any], list[Any]]:
    """Make the page's formset of a group's settings from these values; what is not among them stays."""

    def formsets(page: Any, group: Any) -> list[Any]:
        row = GroupSettings.objects.filter(group=group.pk).first() if group.pk else None
        if not values:
            return []
        shown = group if group.pk else None
        inlines = page.page.get_inline_instances(page.request, shown)
        inline = next((one for one in inlines if isinstance(one, GroupSettingsInline)), None)
        if inline is None:  # whoever sees no settings changes none
            raise Forbidden(_("The owner of this key may not change the settings of groups."), code="missing_right")
        allowed = inline.has_change_permission if row is not None else inline.has_add_permission
        need(allowed(page.request, shown))
        kind, stored = inline.get_formset(page.request, shown), row or GroupSettings()
        data = QueryDict(mutable=True)
        data[f"{_PREFIX}-TOTAL_FORMS"], data[f"{_PREFIX}-INITIAL_FORMS"] = "1", "0" if row is None else "1"
        if row is not None:
            data[f"{_PREFIX}-0-id"] = str(row.pk)
        data[f"{_PREFIX}-0-group"] = str(group.pk or "")
        for name in SETTINGS:
            value = values.get(name, getattr(stored, name))
            if isinstance(value, bool):
                if value:
                    data[f"{_PREFIX}-0-{name}"] = "on"
            else:
                data[f"{_PREFIX}-0-{name}"] = "" if value is None else str(value)
        rows = inline.get_queryset(page.request)
        return [kind(data=data, instance=group, prefix=_PREFIX, queryset=rows, request=page.request)]

    return formsets
