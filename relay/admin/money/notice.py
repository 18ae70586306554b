"""What users were told."""

from __future__ import annotations

from django.contrib import admin

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator
from relay.models import Notice


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    """What users were told about their money, and whether it reached them."""

    list_display = ("created_at", "user", "kind", "subject", "email_state", "webhook_state", "done")
    list_filter = ("kind", "done")
    list_select_related = ("user",)
    search_fields = ("user__username", "subject")
    paginator = UncountedPaginator
