from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator, display, moment
from accounts.models import AuditEvent

_RECENT = 2000


class ActionFilter(admin.SimpleListFilter):
    """What was done lately: the choices are not looked for in the whole log, which only grows."""

    title = _("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        recent = AuditEvent.objects.order_by("-pk").values_list("action", flat=True)[:_RECENT]
        return [(action, action) for action in sorted({*recent, *filter(None, [request.GET.get("action")])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who did what, from where, and what it was before."""

    list_display = ("when", "actor_name", "action", "target_name", "what", "ip")
    list_filter = (ActionFilter,)
    search_fields = ("=actor_name", "=target_name", "=target_id", "=ip")
    search_help_text = _("A whole name, id or address.")
    paginator = UncountedPaginator
    ordering = ("-id",)

    @display(description=_("time"), ordering="id")
    def when(self, event: AuditEvent) -> str:
        return moment(event.at)

    @display(description=_("what changed"))
    def what(self, event: AuditEvent) -> str:
        detail = event.detail or {}
        names = [*detail.get("changes", {}), *(row["row"] for row in detail.get("rows", ()))]
        text = ", ".join(names) if names else ", ".join(f"{name}: {value}" for name, value in detail.items() if value not in (None, "", []))
        return text if len(text) <= 90 else text[:89] + "…"

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Before and after, side by side."""
        event = self.get_object(request, object_id)
        if event is None or request.method != "GET" or not self.has_view_permission(request, event):
            return super().change_view(request, object_id, form_url, extra_context)
        detail = event.detail or {}
        context = {
            **self.admin_site.each_context(request), "title": str(event), "opts": self.model._meta, "object": event, "event": event,
            "changes": detail.get("changes", {}).items(), "rows": [(row, row.get("changes", {}).items()) for row in detail.get("rows", ())],
            "facts": [(name, value) for name, value in detail.items() if name not in {"changes", "rows"} and value not in (None, "")],
        }  # fmt: skip
        return render(request, "admin/accounts/auditevent/event.html", context)
