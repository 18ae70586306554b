from __future__ import annotations

from django.contrib import admin
from django.utils import formats, timezone
from unfold.decorators import display

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator
from relay.models import UsageRecord


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    """One row per request that reached routing. Written by the relay, changed by nobody."""

    list_display = ("at", "user", "token", "model", "channel", "outcome", "tokens", "latency", "first_token", "attempts", "request_id")
    list_filter = ("end_reason", "streamed", "usage_source", "channel")
    list_select_related = ("user", "token", "channel")
    search_fields = ("=request_id", "=model")
    search_help_text = "A whole request id (x-request-id of the answer) or a model name."
    paginator = UncountedPaginator
    ordering = ("-id",)

    @display(
        description="outcome",
        label={
            "completed": "success", "client_error": "info", "client_gone": "info", "no_channel": "danger", "upstream_error": "danger",
            "timeout": "danger", "truncated": "danger", "ended": "warning", "shutdown": "warning", "internal_error": "danger",
        },
    )  # fmt: skip
    def outcome(self, record: UsageRecord) -> tuple[str, str]:
        return record.end_reason, f"{record.get_end_reason_display()} ({record.status})"

    @display(description="time", ordering="started_at")
    def at(self, record: UsageRecord) -> str:
        return formats.date_format(timezone.localtime(record.started_at), "j M H:i:s")

    @display(description="tokens in + out")
    def tokens(self, record: UsageRecord) -> str:
        mark = "≈ " if record.usage_source == "estimated" else ""
        return f"{mark}{record.input_tokens} + {record.output_tokens}"

    @display(description="took", ordering="latency_ms")
    def latency(self, record: UsageRecord) -> str:
        return f"{record.latency_ms} ms"

    @display(description="first token")
    def first_token(self, record: UsageRecord) -> str:
        return f"{record.first_token_ms} ms" if record.first_token_ms is not None else "—"
