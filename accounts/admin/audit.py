from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts import audit_words
from accounts.admin.base import BaseAdmin, ReadOnlyAdmin, UncountedPaginator, display, format_time
from accounts.admin.rights import sentences
from accounts.models import AuditEvent

_RECENT = 2000  # entries whose actions can be chosen as a filter
_MAX_SUMMARY = 120  # characters
_PARTS = frozenset(("changes", "rows"))


def _show_value(value: Any) -> Any:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return ", ".join(map(str, value)) if isinstance(value, list) else "—" if value in (None, "") else value


def _show_change(name: str, before: Any, after: Any) -> str:
    return name if before == after else f"{name}: {_show_value(before)} → {_show_value(after)}"


def _changed(detail: Mapping[str, Any]) -> dict[str, Any]:
    changes = detail.get("changes")
    return changes if isinstance(changes, dict) else {}  # of list prices: lines


def _changes(kind: str, detail: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    return [
        (audit_words.field_label(kind, name), [_show_value(value) for value in _rights(name, pair)])
        for name, pair in _changed(detail).items()
    ]


def _rights(name: str, pair: list[Any]) -> list[Any]:
    """Of rights, return those that were taken away and those that were given, in sentences."""
    if name not in {"permissions", "user_permissions"}:
        return pair
    words, (before, after) = sentences(admin.site), (set(side or ()) for side in pair)
    return [sorted(words.get(right, right) for right in side) for side in (before - after, after - before)]


def _facts(detail: Mapping[str, Any]) -> list[tuple[str, Any]]:
    facts = [
        (audit_words.field_label("", name), _show_value(value))
        for name, value in detail.items()
        if name not in _PARTS and value not in (None, "", [])
    ]
    lines = detail.get("changes")
    return [*facts, (str(_("what changed")), _show_value(lines))] if lines and isinstance(lines, list) else facts


def _conceal(detail: Mapping[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """Return an entry's details with the values of hidden fields replaced; that they changed may be known."""
    found = {name: _("not shown") if name in hidden else value for name, value in detail.items()}
    if changes := _changed(detail):
        found["changes"] = {name: [_("not shown")] * 2 if name in hidden else pair for name, pair in changes.items()}
    return found


class ActionFilter(admin.SimpleListFilter):
    """Filters by action. The choices are the recent actions, since the whole log only grows."""

    title = _("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        recent = AuditEvent.objects.order_by("-pk").values_list("action", flat=True)[:_RECENT]
        found = {*recent, *filter(None, [request.GET.get("action")])}
        return sorted(((action, audit_words.action_label(action)) for action in found), key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """The audit log: who did what, from where, and what it was before."""

    list_display = ("when", "who", "did", "target", "what", "where")
    list_filter = (ActionFilter,)
    search_fields = ("=actor_name", "=target_name", "=target_id", "=ip")
    search_help_text = _("A whole name, id or address.")
    paginator = UncountedPaginator
    ordering = ("-id",)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changes = super().get_changelist_instance(request)
        self._conceal_values(request, changes.result_list)
        return changes

    def _conceal_values(self, request: HttpRequest, events: Iterable[AuditEvent]) -> None:
        """Take from entries what the pages of their rows would not show this person either. Entries are not saved."""
        by_kind: dict[str, list[AuditEvent]] = {}
        for event in events:
            by_kind.setdefault(event.target_type, []).append(event)
        for kind, found in by_kind.items():
            hidden = self._hidden_in(request, kind, {event.target_id for event in found})
            for event in found:
                detail = _conceal(event.detail or {}, hidden.get(event.target_id, ()))
                if rows := detail.get("rows"):
                    detail["rows"] = [
                        _conceal(row, self._hidden_in(request, row["kind"], [""]).get("", ())) for row in rows
                    ]
                event.detail = detail

    def _hidden_in(self, request: HttpRequest, kind: str, ids: Collection[str]) -> Mapping[str, Collection[str]]:
        pages = self.admin_site._registry.items()
        page = next((page for model, page in pages if model._meta.model_name == kind), None)
        return page.concealed_in_log(request, ids) if isinstance(page, BaseAdmin) else {}

    @display(description=_("time"), ordering="id")
    def when(self, event: AuditEvent) -> str:
        return format_time(event.at)

    @display(description=_("who"))
    def who(self, event: AuditEvent) -> str:
        """Who acted, and with which staff key if it was a script."""
        key = (event.detail or {}).get("staff_key")
        return " · ".join(filter(None, (event.actor_name or str(_("the portal itself")), key)))

    @display(description=_("did"))
    def did(self, event: AuditEvent) -> str:
        return format_html('<span title="{}">{}</span>', event.action, audit_words.action_label(event.action))

    @display(description=_("to"))
    def target(self, event: AuditEvent) -> str:
        return event.target_name or ""

    @display(description=_("what changed"))
    def what(self, event: AuditEvent) -> str:
        detail = event.detail or {}
        parts = [
            _show_change(audit_words.field_label(event.target_type, name), *_rights(name, pair))
            for name, pair in _changed(detail).items()
        ]
        parts += [
            f"{audit_words.target_label(row['kind'])} {row['row']}: {audit_words.verb_label(row['did'])}"
            for row in detail.get("rows", ())
        ]
        beside = {name: value for name, value in detail.items() if name != "staff_key"}  # beside who acted
        parts += [f"{name}: {value}" for name, value in _facts(beside)]
        text = ", ".join(parts)
        return text if len(text) <= _MAX_SUMMARY else text[: _MAX_SUMMARY - 1] + "…"

    @display(description=_("IP address"))
    def where(self, event: AuditEvent) -> str:
        return event.ip or ""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one entry, with before and after side by side."""
        event = self.get_object(request, object_id)
        if event is None or request.method != "GET" or not self.has_view_permission(request, event):
            return super().change_view(request, object_id, form_url, extra_context)
        self._conceal_values(request, [event])
        detail = event.detail or {}
        did = audit_words.action_label(event.action)
        context = {
            **self.admin_site.each_context(request),
            "title": f"{did} · {event.target_name}" if event.target_name else did,
            "opts": self.model._meta,
            "object": event,
            "event": event,
            "did": did,
            "target_type": audit_words.target_label(event.target_type),
            "changes": _changes(event.target_type, detail),
            "rows": [
                (
                    f"{audit_words.target_label(row['kind'])} {row['row']}: {audit_words.verb_label(row['did'])}",
                    _changes(row["kind"], row),
                )
                for row in detail.get("rows", ())
            ],
            "facts": _facts(detail),
        }
        return render(request, "admin/accounts/auditevent/event.html", context)
