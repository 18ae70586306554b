from __future__ import annotations

from django.contrib import admin

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator
from accounts.models import AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who revealed, rotated, revoked, tested or signed in, and from where."""

    list_display = ("at", "actor_name", "action", "target_name", "ip")
    list_filter = ("action",)
    search_fields = ("actor_name", "target_name", "ip")
    paginator = UncountedPaginator
