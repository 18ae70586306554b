from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.byte_count import byte_count
from relay.models.token import Token


class BatchWait(models.TextChoices):
    """What the lines of a batch wait for."""

    LIMIT = "limit", "a limit of requests or tokens"
    MONEY = "money", "a top-up, or a higher quota of its token"
    HELD = "held", "money that other requests hold"
    BUDGET = "budget", "the renewal of a budget"
    ROOM = "room", "room for its results"
    UPSTREAM = "upstream", "the upstream"
    OPERATOR = "operator", "a channel that can serve its model"
    PORTAL = "portal", "the portal itself"
    TURN = "turn", "its turn among other batches"


class Batch(models.Model):
    """A batch of `/v1/batches`, or of `/v1/messages/batches`: the requests of a file, made in the background."""

    class Status(models.TextChoices):
        VALIDATING = "validating"
        FAILED = "failed"
        IN_PROGRESS = "in_progress", "in progress"
        FINALIZING = "finalizing"
        COMPLETED = "completed"
        EXPIRED = "expired"
        CANCELLING = "cancelling"
        CANCELLED = "cancelled"

    ENDED = (Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED)

    batch_id = models.CharField(max_length=40, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="batches")
    token = models.ForeignKey(Token, null=True, on_delete=models.SET_NULL, related_name="+")
    endpoint = models.CharField(max_length=40)
    model = models.CharField(max_length=120, blank=True)
    input_file_id = models.CharField(max_length=64)
    # It has ended, and its lines wait for room to become the output and the error file.
    unwritten = models.BooleanField(default=False, db_default=False, db_index=True, editable=False)
    output_file_id = models.CharField(max_length=40, blank=True)
    error_file_id = models.CharField(max_length=40, blank=True)
    # How long the output files are stored, null: for ever.
    output_keep_seconds = models.PositiveIntegerField(null=True, blank=True)
    completion_window = models.CharField(max_length=8)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.VALIDATING, db_index=True)
    errors = models.TextField(blank=True, help_text="JSON list of what is wrong with the input file.")
    # Of a message batch: what is sent with each request beside its body.
    metadata = models.TextField(default="null")
    total = models.PositiveIntegerField(default=0)
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    # Of those that failed, requests that were not answered before it was cancelled or had expired.
    unanswered = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    # The worker that runs it, and until when it has claimed it.
    owner = models.CharField(max_length=120, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    # Of a batch that is running, as its worker wrote it last: what it waits for, since when, until when at the soonest,
    # and when it will probably be done.
    waits_for = models.CharField(max_length=12, blank=True, choices=BatchWait.choices, default="", db_default="")
    waits_since = models.DateTimeField(null=True)
    waits_until = models.DateTimeField(null=True)
    ends_about = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    in_progress_at = models.DateTimeField(null=True)
    finalizing_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    expired_at = models.DateTimeField(null=True)
    cancelling_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)
    size = byte_count("errors", "metadata")

    class Meta:
        verbose_name_plural = "batches"
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.batch_id


class BatchLine(models.Model):
    """The outcome of one line, written in the commit that charges for it.

    Deleted when the output file has been written.
    """

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="lines")
    number = models.PositiveIntegerField()
    ok = models.BooleanField()
    body = models.TextField(help_text="The line of the output or error file.")
    size = byte_count("body")

    class Meta:
        indexes = [models.Index(fields=["batch", "size"], name="bytes_of_batch_lines")]
        constraints = [models.UniqueConstraint(fields=["batch", "number"], name="batch_line_once")]

    def __str__(self) -> str:
        return f"{self.batch} line {self.number}"
