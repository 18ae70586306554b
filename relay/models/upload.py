from __future__ import annotations

from django.conf import settings
from django.db import models


class UploadPurpose(models.TextChoices):
    """What a file is for. The values are OpenAI's."""

    ASSISTANTS = "assistants"
    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"
    EVALS = "evals"
    FINE_TUNE = "fine-tune"
    MESSAGE_BATCH = "message_batch"  # the portal's own: requests and results of message batches
    USER_DATA = "user_data"
    VISION = "vision"


class UploadState(models.TextChoices):
    """The state of a file. All but `deleting` count towards the limits; users see only `stored` files."""

    RECEIVING = "receiving", "being received"
    PART = "part", "part of an upload"
    STORED = "stored", "stored"
    DELETING = "deleting", "being deleted"


class UploadSession(models.Model):
    """A file that is uploaded in parts (`/v1/uploads`)."""

    class Status(models.TextChoices):
        PENDING = "pending"
        COMPLETED = "completed"
        CANCELLED = "cancelled"
        EXPIRED = "expired"

    upload_id = models.CharField(max_length=40, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="upload_sessions")
    filename = models.CharField(max_length=255)
    purpose = models.CharField(max_length=30)
    content_type = models.CharField(max_length=120)
    size = models.PositiveBigIntegerField(help_text="Bytes, as announced.")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    file_id = models.CharField(max_length=40, blank=True)
    # How long the file is stored once it is complete, null: for ever.
    keep_seconds = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.upload_id


class Upload(models.Model):
    """A file of a user. The row is written before the bytes, so that no file is without a row."""

    file_id = models.CharField(max_length=40, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="uploads")
    filename = models.CharField(max_length=255)
    purpose = models.CharField(max_length=30)
    content_type = models.CharField(max_length=120)
    size = models.PositiveBigIntegerField(
        help_text="Bytes. While the file is being received: what is held free for it."
    )
    sha256 = models.CharField(max_length=64)
    # Name on disk, see relay.storage.files.path_of.
    storage_name = models.CharField(max_length=120)
    state = models.CharField(max_length=10, choices=UploadState.choices, default=UploadState.STORED)
    owner = models.CharField(max_length=120, blank=True, editable=False, help_text="The worker that receives it.")
    session = models.ForeignKey(
        UploadSession, null=True, on_delete=models.CASCADE, related_name="parts", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "created_at"], name="upload_of_user"),
            models.Index(fields=["expires_at"], name="upload_expires"),
        ]

    def __str__(self) -> str:
        return self.filename
