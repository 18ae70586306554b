"""Template filter for how long something took: `{{ timedelta|took }}`."""

from __future__ import annotations

from datetime import timedelta

from django import template
from django.utils.translation import gettext as _

register = template.Library()


@register.filter
def took(time: timedelta) -> str:
    """Format a time in its two largest units, down to seconds; less than one in milliseconds."""
    milliseconds = round(time.total_seconds() * 1000)
    if 0 < milliseconds < 1000:
        return _("%(milliseconds)s ms") % {"milliseconds": milliseconds}
    seconds = max(0, round(time.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return _("%(days)s d %(hours)s h") % {"days": f"{days:,}", "hours": hours % 24}
    if hours:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes % 60}
    if minutes:
        return _("%(minutes)s min %(seconds)s s") % {"minutes": minutes, "seconds": seconds % 60}
    return _("%(seconds)s s") % {"seconds": seconds}
