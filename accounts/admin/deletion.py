"""Deletes many rows from a list: thousands in one step, without a form field for each."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.actions import delete_selected
from django.db import router, transaction
from django.db.models import ProtectedError, QuerySet, RestrictedError
from django.db.models.deletion import Collector
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

_SAME: Any = delete_selected
_EACH_SHOWN: Final = 100  # rows up to which the page lists everything that goes with them
_NAMED: Final = 20
_AT_ONCE: Final = 500  # rows in one statement: databases limit its parameters


@admin.action(permissions=["delete"], description=_SAME.short_description)
def delete_rows(page: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
    """Ask for confirmation, then delete the chosen rows.

    Few are shown with all that goes with them, as Django does. Of many, counts are shown, and the page that comes back
    says only that it means all of the filtered list, and how many those were.
    """
    chosen = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
    everything = request.POST.get("select_across") == "1"
    if not everything and len(chosen) <= _EACH_SHOWN:
        response: HttpResponse | None = delete_selected(page, request, rows)
        return response
    ids = list(rows.order_by("pk").values_list("pk", flat=True))
    portions = [
        page.model._default_manager.filter(pk__in=ids[start : start + _AT_ONCE])
        for start in range(0, len(ids), _AT_ONCE)
    ]
    if request.POST.get("post") and request.POST.get("count") == str(len(ids)) and _delete(page, request, portions):
        page.message_user(request, _("%(n)d rows deleted.") % {"n": len(ids)}, messages.SUCCESS)
        return None
    context = {
        **page.admin_site.each_context(request),
        "title": _("Delete %(n)d rows") % {"n": len(ids)},
        "opts": page.model._meta,
        "count": len(ids),
        "names": [str(row) for some in portions[:1] for row in some[:_NAMED]],
        "more": max(0, len(ids) - _NAMED),
        "along": sorted(
            {
                str(kind._meta.verbose_name_plural)
                for some in portions
                for kind in _kinds(some)
                if kind is not page.model
            }
        ),
        "lacking": sorted({kind for some in portions for kind in _lacking(page, request, some)}),
        "protected": [row for some in portions for row in _protected(some)][:_NAMED],
        "asked_again": bool(request.POST.get("post")),
        "chosen": [] if everything else chosen,
    }
    return render(request, "admin/delete_many.html", context)


def _delete(page: Any, request: HttpRequest, portions: list[QuerySet[Any]]) -> bool:
    """Delete rows, all or none. False when something keeps one of them."""
    with transaction.atomic():
        if any(_lacking(page, request, some) or _protected(some) for some in portions):
            return False
        for some in portions:
            page.log_deletions(request, some)
            page.delete_queryset(request, some)
    return True


def _collected(rows: QuerySet[Any]) -> Collector:
    collector = Collector(using=router.db_for_write(rows.model), origin=rows)
    collector.collect(rows)
    return collector


def _kinds(rows: QuerySet[Any]) -> set[Any]:
    """The models of all rows that would be deleted."""
    try:
        found = _collected(rows)
    except (ProtectedError, RestrictedError):
        return set()
    kinds = {*found.data, *(fast.model for fast in found.fast_deletes if fast.exists())}
    return {kind for kind in kinds if not kind._meta.auto_created}  # links between rows, which have no page


def _lacking(page: Any, request: HttpRequest, rows: QuerySet[Any]) -> set[str]:
    """What would be deleted, too, and this person may not delete."""
    found = set()
    for kind in _kinds(rows):
        other = page.admin_site._registry.get(kind)
        along = getattr(other, "may_go_along", None)
        if other is None or other.has_delete_permission(request) or (along is not None and along(request)):
            continue
        found.add(str(kind._meta.verbose_name_plural))
    return found


def _protected(rows: QuerySet[Any]) -> list[str]:
    """What keeps the rows from being deleted."""
    try:
        _collected(rows)
    except ProtectedError as error:
        return [str(row) for row in list(error.protected_objects)]
    except RestrictedError as error:
        return [str(row) for row in list(error.restricted_objects)]
    return []
