from __future__ import annotations

from django.contrib import admin

from accounts.admin.base import ReadOnlyAdmin
from relay.models import Upload


@admin.register(Upload)
class UploadAdmin(ReadOnlyAdmin):
    """Files that users have stored through the API."""

    list_display = ("filename", "user", "purpose", "size", "created_at", "expires_at")
    list_filter = ("purpose",)
    list_select_related = ("user",)
    search_fields = ("filename", "file_id", "user__username")
