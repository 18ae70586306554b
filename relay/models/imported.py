"""What was imported from other programs: which row here came from which row there, and usage of the time before."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.rollup import UsageSums


class Installation(models.Model):
    """An installation of another program from which something was imported."""

    name = models.CharField(max_length=40, unique=True, help_text="By which it is called in commands.")
    program = models.CharField(max_length=20)
    created_at = models.DateTimeField(auto_now_add=True)
    imported_at = models.DateTimeField(null=True)
    # The mark of the log up to which usage was carried over.
    usage_mark = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "imported installation"
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class ImportedRow(models.Model):
    """That a row here was made of a row there, or belongs to it."""

    installation = models.ForeignKey(Installation, on_delete=models.CASCADE, related_name="rows")
    kind = models.CharField(max_length=12)  # a word of `relay.importers.report.KINDS`
    source_id = models.CharField(max_length=190)
    object_id = models.BigIntegerField()  # of the row here
    # Whether the import made the row. What was here before is never changed or removed.
    made = models.BooleanField(default=True)
    # Taken back: the row here is disabled, since the books still name it. The next import brings it back.
    undone = models.BooleanField(default=False)
    # By field: what the source had when it was last carried over. Secrets as digests.
    seen = models.JSONField(default=dict)
    # Nano-USD of the source that have become entries of the ledger so far, of users and tokens.
    amount = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "imported row"
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["installation", "kind", "source_id"], name="imported_row_once")]
        indexes = [models.Index(fields=["kind", "object_id"], name="imported_row_here")]

    def __str__(self) -> str:
        return f"{self.kind} {self.source_id}"


class ImportedDay(UsageSums):
    """Usage of a day in the time before an import. Part of the sums by day and month, which can be rebuilt from it."""

    installation = models.ForeignKey(Installation, on_delete=models.CASCADE, related_name="days")
    day = models.IntegerField()
    # Ids of rows here; 0: none, or none that was carried over.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    token = models.BigIntegerField()
    channel = models.BigIntegerField()
    model = models.CharField(max_length=120)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["installation", "day", "user", "token", "channel", "model"], name="one_imported_sum"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.user_id} {self.model}"
