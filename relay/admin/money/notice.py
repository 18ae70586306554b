"""The admin page of notices."""

from __future__ import annotations

from django.contrib import admin

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator
from relay.models import Notice


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    """Notices that were sent to users, and whether they were delivered."""

    list_display = ("created_at", "user", "kind", "subject", "email_state", "webhook_state", "done")
    list_filter = ("kind", "done")
    list_select_related = ("user",)
    search_fields = ("user__username", "subject")
    paginator = UncountedPaginator
