"""Warns of prices below what upstreams charge, where they are saved and in lists: those who may see what is earned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.rights import may
from portal.lib import clock
from relay.catalog.margins import Margin, margins
from relay.models.usage import EARNINGS


def margins_for(request: HttpRequest) -> list[Margin] | None:
    """Return all margins, read once a page. None for people who may not see what upstreams charge."""
    if not may(request.user, EARNINGS):
        return None
    found: list[Margin] | None = getattr(request, "_margins", None)
    if found is None:
        found = request._margins = margins(clock.now())  # type: ignore[attr-defined]  # kept for the other rows
    return found


def warn_below_cost(request: HttpRequest, what: str, losses: Sequence[Margin]) -> None:
    """Say that what was saved is below what upstreams charge, with an example. `what`: its name, in words."""
    if not losses or not may(request.user, EARNINGS):
        return
    worst = max(losses, key=lambda one: one.factor)
    models = len({one.model for one in losses})
    said = ngettext(
        "%(what)s: users pay less than the upstream charges for %(n)d model.",
        "%(what)s: users pay less than the upstreams charge for %(n)d models.",
        models,
    ) % {"what": what, "n": models}
    messages.warning(request, f"{said} {_example(worst)}")


def badge(losses: Sequence[Margin]) -> str:
    """Return the mark of a price in a list that is below what upstreams charge, empty when it is not."""
    if not losses:
        return ""
    worst: Any = max(losses, key=lambda one: one.factor)
    return format_html('<span class="ar-state bad" title="{}">{}</span>', _example(worst), _("below cost"))


def _example(margin: Margin) -> str:
    values = {"model": margin.model_name, "channel": margin.channel_name}
    if not margin.factor.is_finite():
        return _("“%(channel)s” charges for %(model)s, which is free.") % values
    factor = f"{margin.factor:.4f}".rstrip("0").rstrip(".")
    return _("“%(channel)s” charges up to %(factor)s times the price for %(model)s.") % {**values, "factor": factor}
