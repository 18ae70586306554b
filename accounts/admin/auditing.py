"""Writes every change made in the admin into the audit log: who, what, before and after. Secrets are masked.

Rows are compared as the database holds them before and after, not by what the browser sent. Rows that are edited inline
are written into the entry of their page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.contrib.auth.models import Permission
from django.db.models import ForeignKey, Model
from django.http import HttpRequest

from accounts.models import AuditEvent

SECRET_FIELDS: Final = frozenset(("sealed", "sealed_secret", "secret", "password", "digest"))
_MASK: Final = "••••••"
_IGNORED_FIELDS: Final = frozenset(("id", "created_at", "updated_at", "last_login", "date_joined"))
_MAX_LENGTH: Final = 500  # characters of a value
_MOST_RELATED: Final = 500  # rows of a many-to-many field
Changes = dict[str, list[Any]]  # [before, after] by field


def field_values(row: Model, many: bool = True) -> dict[str, Any]:
    """Return the fields of a row as text, numbers or lists of names. Secrets are as stored, and must not be shown.

    `many`: include many-to-many fields.
    """
    found: dict[str, Any] = {}
    for field in row._meta.concrete_fields:
        if field.name in _IGNORED_FIELDS or field.primary_key:
            continue
        if field.name in SECRET_FIELDS:
            found[field.name] = getattr(row, field.attname)
        elif isinstance(field, ForeignKey):
            related = getattr(row, field.name, None) if getattr(row, field.attname) is not None else None
            found[field.name] = None if related is None else str(related)[:_MAX_LENGTH]
        else:
            found[field.name] = _plain(getattr(row, field.attname))
    if many:
        for field in row._meta.many_to_many:
            through: Any = field.remote_field.through
            if through._meta.auto_created:
                rows = getattr(row, field.name).all()
                if field.related_model is Permission:
                    rows = rows.select_related("content_type")
                found[field.name] = sorted(map(_name, rows[:_MOST_RELATED]))
    return found


def _name(row: Model) -> str:
    if isinstance(row, Permission):  # as code asks for it: its own name is in the language of whoever saves
        return f"{row.content_type.app_label}.{row.codename}"
    return str(row)


def difference(before: dict[str, Any], after: dict[str, Any]) -> Changes:
    """Return the fields that differ, with secrets masked."""
    found: Changes = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new and not (old in (None, "", []) and new in (None, "", [])):
            found[name] = [_MASK if old else None, _MASK if new else None] if name in SECRET_FIELDS else [old, new]
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, dict)):
        return value if len(str(value)) <= _MAX_LENGTH else str(value)[:_MAX_LENGTH] + "…"
    text = str(value)
    return text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…"


class AuditedAdmin:
    """Mixin of admin pages that audits what is added, changed and deleted."""

    model: Any

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        request.audit_before = {}  # type: ignore[attr-defined]
        request.audit_rows = []  # type: ignore[attr-defined]
        if change:
            row = self.model._default_manager.filter(pk=form.instance.pk).first()
            request.audit_before = field_values(row) if row is not None else {}  # type: ignore[attr-defined]
        return super().save_form(request, form, change)  # type: ignore[misc]

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        before = {row.pk: field_values(row) for row in self._touched(formset)}
        super().save_formset(request, form, formset, change)  # type: ignore[misc]
        rows: list[dict[str, Any]] = getattr(request, "audit_rows", [])
        kind = formset.model._meta.model_name
        for row in getattr(formset, "new_objects", ()):
            rows.append(
                {"kind": kind, "row": str(row)[:200], "did": "add", "changes": difference({}, field_values(row))}
            )
        for row, _ in getattr(formset, "changed_objects", ()):
            changes = difference(before.get(row.pk, {}), field_values(type(row)._default_manager.get(pk=row.pk)))
            if changes:
                rows.append({"kind": kind, "row": str(row)[:200], "did": "change", "changes": changes})
        for row in getattr(formset, "deleted_objects", ()):
            rows.append({"kind": kind, "row": str(row)[:200], "did": "delete"})

    @staticmethod
    def _touched(formset: Any) -> Iterable[Model]:
        ids = [form.instance.pk for form in formset.initial_forms if form.has_changed() and form.instance.pk]
        return list(formset.model._default_manager.filter(pk__in=ids)) if ids else []

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self._write(request, "add", obj, difference({}, field_values(obj)))
        return super().log_addition(request, obj, message)  # type: ignore[misc]

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        before = getattr(request, "audit_before", {})
        fresh = self.model._default_manager.filter(pk=obj.pk).first()
        self._write(
            request, "change", obj, difference(before, field_values(fresh)) if fresh is not None and before else {}
        )
        return super().log_change(request, obj, message)  # type: ignore[misc]

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        ip = request.META.get("REMOTE_ADDR") or None
        AuditEvent.objects.bulk_create(
            [AuditEvent.entry(f"{row._meta.model_name}.delete", request.user, row, ip) for row in queryset],
            batch_size=500,
        )
        return super().log_deletions(request, queryset)  # type: ignore[misc]

    def _write(self, request: HttpRequest, did: str, row: Model, changes: Changes) -> None:
        rows = getattr(request, "audit_rows", [])
        if did == "change" and not changes and not rows and getattr(request, "audit_before", None):
            return  # nothing was changed
        detail: dict[str, Any] = {"changes": changes} if changes else {}
        if rows:
            detail["rows"] = list(rows)
            rows.clear()
        AuditEvent.write(
            f"{row._meta.model_name}.{did}", request.user, row, request.META.get("REMOTE_ADDR") or None, **detail
        )
