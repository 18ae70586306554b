from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, display, request_ip
from accounts.models import AuditEvent
from relay.models import Upload
from relay.models.upload import UploadState
from relay.storage import files


@admin.register(Upload)
class UploadAdmin(BaseAdmin):
    """Files that users have uploaded through the API. They can be deleted here, but their content is not shown."""

    list_display = ("filename", "user", "purpose", "bytes_shown", "created_at", "expires_at", "file_id")
    list_filter = ("purpose",)
    list_select_related = ("user",)
    search_fields = ("filename", "=file_id", "user__username")
    list_display_links = None
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upload]:
        rows: QuerySet[Upload] = super().get_queryset(request)
        return rows.filter(state=UploadState.STORED)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description=_("size"), ordering="size")
    def bytes_shown(self, upload: Upload) -> str:
        return str(filesizeformat(upload.size))

    def delete_model(self, request: HttpRequest, obj: Upload) -> None:
        AuditEvent.write(
            "upload.delete",
            request.user,
            None,
            request_ip(request),
            file=obj.file_id,
            name=obj.filename,
            user=obj.user.username,
        )
        files.remove(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        for upload in queryset.select_related("user"):
            self.delete_model(request, upload)
