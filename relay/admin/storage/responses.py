"""Admin pages of stored responses, conversations and batches. Their content is not shown."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import BaseAdmin, ReadOnlyAdmin, UncountedPaginator, display, request_ip
from accounts.models import AuditEvent
from accounts.rights import may
from portal import limits
from relay.models import Batch, Conversation, StoredResponse
from relay.storage import batches
from relay.storage.room import show_bytes


class _StoredAdmin(BaseAdmin):
    """Rows that can be viewed and deleted, but not changed."""

    paginator = UncountedPaginator
    list_display_links = None
    list_select_related: ClassVar[Any] = ("user",)
    ordering = ("-pk",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        AuditEvent.write(
            f"{obj._meta.model_name}.delete",
            request.user,
            None,
            request_ip(request),
            id=str(obj),
            user=obj.user.username,
        )
        obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset.select_related("user"):
            self.delete_model(request, row)


@admin.register(StoredResponse)
class StoredResponseAdmin(_StoredAdmin):
    """Stored responses, which apps can fetch and continue."""

    list_display = ("response_id", "user", "model", "channel", "status", "room", "created_at", "expires_at")
    list_filter = ("status", "channel")
    list_select_related = ("user", "channel")
    search_fields = ("=response_id", "=request_id", "user__username")
    exclude = ("input", "output", "body")

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredResponse]:
        rows: QuerySet[StoredResponse] = super().get_queryset(request)
        return rows.defer(*self.exclude)

    @display(description=_("size"), ordering="size")
    def room(self, response: StoredResponse) -> str:
        return show_bytes(response.size + limits.ROW_BYTES)


@admin.register(Conversation)
class ConversationAdmin(_StoredAdmin):
    """Conversations of /v1/conversations."""

    list_display = ("conversation_id", "user", "item_count", "room", "created_at", "expires_at")
    search_fields = ("=conversation_id", "user__username")
    exclude = ("metadata",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super().get_queryset(request)
        return rows.annotate(item_count=Count("items"), item_bytes=Sum("items__size"))

    @display(description=_("items"))
    def item_count(self, conversation: Any) -> int:
        return int(conversation.item_count)

    @display(description=_("size"), ordering="item_bytes")
    def room(self, conversation: Any) -> str:
        rows = 1 + conversation.item_count
        return show_bytes(conversation.size + (conversation.item_bytes or 0) + rows * limits.ROW_BYTES)


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    """Batches of requests that are made in the background."""

    list_display = ("batch_id", "user", "state", "progress", "waits", "why", "model", "endpoint", "created_at")
    list_filter = ("status", "waits_for", "endpoint")
    list_select_related = ("user",)
    search_fields = ("=batch_id", "=input_file_id", "user__username")
    actions = ("cancel_batches",)
    rights_words: ClassVar[Any] = {"change_batch": _("Cancel batches")}
    ordering = ("-pk",)

    @display(
        description=_("state"),
        label={
            "completed": "success",
            "failed": "danger",
            "expired": "warning",
            "cancelled": "",
            "validating": "info",
            "in_progress": "info",
            "finalizing": "info",
            "cancelling": "warning",
        },
    )
    def state(self, batch: Batch) -> tuple[str, str]:
        return batch.status, batch.get_status_display()

    @display(description=_("answered + failed of all"))
    def progress(self, batch: Batch) -> str:
        ok, bad = batches.counts_of(batch)
        return str(_("%(ok)d + %(bad)d of %(all)d")) % {"ok": ok, "bad": bad, "all": batch.total}

    @display(description=_("waits for, and probably done"))
    def waits(self, batch: Batch) -> str:
        waits, until = batches.wait_of(batch)
        found = [f"{waits} ({date_format(localtime(until), 'DATETIME_FORMAT')})" if until else waits] if waits else []
        if batch.ends_about is not None:
            found.append(f"≈ {date_format(localtime(batch.ends_about), 'DATETIME_FORMAT')}")
        return "; ".join(found) or "—"

    @display(description=_("what is wrong"))
    def why(self, batch: Batch) -> str:
        summary = batches.error_summary(batch)
        if summary or not batch.failed:
            return summary or "—"
        return str(_("%(n)d line(s) failed: the error file says why.")) % {"n": batch.failed}

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return may(request.user, "relay.change_batch")

    @admin.action(description=_("Cancel"), permissions=["cancel"])
    def cancel_batches(self, request: HttpRequest, rows: QuerySet[Batch]) -> None:
        """Cancel batches. Running requests are finished first, and answers stay available."""
        count = 0
        for batch in rows.exclude(status__in=[*Batch.ENDED, Batch.Status.CANCELLING]):
            batches.cancel_batch(batch)
            AuditEvent.write("batch.cancel", request.user, None, request_ip(request), id=batch.batch_id)
            count += 1
        self.message_user(request, _("%(count)s batch(es) will end.") % {"count": count}, messages.SUCCESS)
