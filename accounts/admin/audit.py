from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts import audit_words
from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator, display, moment
from accounts.models import AuditEvent

_RECENT = 2000
_SHOWN = 120
_PARTS = frozenset(("changes", "rows"))


def _said(value: Any) -> Any:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return ", ".join(map(str, value)) if isinstance(value, list) else "—" if value in (None, "") else value


def _change(name: str, before: Any, after: Any) -> str:
    return name if before == after else f"{name}: {_said(before)} → {_said(after)}"


def _changes(kind: str, detail: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    return [(audit_words.field(kind, name), [_said(value) for value in pair]) for name, pair in detail.get("changes", {}).items()]


class ActionFilter(admin.SimpleListFilter):
    """What was done lately: the choices are not looked for in the whole log, which only grows."""

    title = _("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        recent = AuditEvent.objects.order_by("-pk").values_list("action", flat=True)[:_RECENT]
        found = {*recent, *filter(None, [request.GET.get("action")])}
        return sorted(((action, audit_words.said(action)) for action in found), key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who did what, from where, and what it was before."""

    list_display = ("when", "who", "did", "target", "what", "where")
    list_filter = (ActionFilter,)
    search_fields = ("=actor_name", "=target_name", "=target_id", "=ip")
    search_help_text = _("A whole name, id or address.")
    paginator = UncountedPaginator
    ordering = ("-id",)

    @display(description=_("time"), ordering="id")
    def when(self, event: AuditEvent) -> str:
        return moment(event.at)

    @display(description=_("who"))
    def who(self, event: AuditEvent) -> str:
        return event.actor_name or str(_("the portal itself"))

    @display(description=_("did"))
    def did(self, event: AuditEvent) -> str:
        return format_html('<span title="{}">{}</span>', event.action, audit_words.said(event.action))

    @display(description=_("to"))
    def target(self, event: AuditEvent) -> str:
        return event.target_name or ""

    @display(description=_("what changed"))
    def what(self, event: AuditEvent) -> str:
        detail = event.detail or {}
        parts = [_change(audit_words.field(event.target_type, name), *pair) for name, pair in detail.get("changes", {}).items()]
        parts += [f"{audit_words.thing(row['kind'])} {row['row']}: {audit_words.deed(row['did'])}" for row in detail.get("rows", ())]
        parts += [f"{audit_words.field('', name)}: {_said(value)}" for name, value in detail.items() if name not in _PARTS and value not in (None, "", [])]
        text = ", ".join(parts)
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

    @display(description=_("IP address"))
    def where(self, event: AuditEvent) -> str:
        return event.ip or ""

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Before and after, side by side."""
        event = self.get_object(request, object_id)
        if event is None or request.method != "GET" or not self.has_view_permission(request, event):
            return super().change_view(request, object_id, form_url, extra_context)
        detail = event.detail or {}
        did = audit_words.said(event.action)
        context = {
            **self.admin_site.each_context(request), "title": f"{did} · {event.target_name}" if event.target_name else did, "opts": self.model._meta, "object": event,
            "event": event, "did": did, "target_type": audit_words.thing(event.target_type), "changes": _changes(event.target_type, detail),
            "rows": [(f"{audit_words.thing(row['kind'])} {row['row']}: {audit_words.deed(row['did'])}", _changes(row["kind"], row)) for row in detail.get("rows", ())],
            "facts": [(audit_words.field("", name), _said(value)) for name, value in detail.items() if name not in _PARTS and value not in (None, "")],
        }  # fmt: skip
        return render(request, "admin/accounts/auditevent/event.html", context)
