"""Sums of usage records by day and month, so that no page adds up millions of rows.

Written by `relay.usage.rollup` alone, which can also rebuild them from the records.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.channel import ApiKey, Channel
from relay.models.token import Token


class UsageSums(models.Model):
    """Base of the tables of sums."""

    requests = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)  # all that did not complete
    faults = models.BigIntegerField(default=0)  # of those, the ones that the portal or an upstream caused
    input = models.BigIntegerField(default=0)  # tokens
    cached = models.BigIntegerField(default=0)  # tokens of the input
    output = models.BigIntegerField(default=0)  # tokens
    charged = models.BigIntegerField(default=0)  # nano-USD charged to users
    upstream_cost = models.BigIntegerField(default=0)  # nano-USD charged by upstreams

    class Meta:
        abstract = True


class UserDay(UsageSums):
    """The usage of a model by a token on a day. Days are ordinals (`date.toordinal()`) in the portal's time zone."""

    day = models.IntegerField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    token = models.ForeignKey(Token, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    model = models.CharField(max_length=120)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "day", "token", "model"], name="one_sum_of_a_token_and_day")
        ]
        indexes = [models.Index(fields=["day"], name="user_day_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.user_id} {self.token_id} {self.model}"


class ChannelDay(UsageSums):
    """The usage of a model through a channel (0: none) on a day."""

    day = models.IntegerField()
    channel = models.ForeignKey(
        Channel, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    model = models.CharField(max_length=120)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "channel", "model"], name="one_sum_of_a_channel_and_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.channel_id} {self.model}"


class KeyDay(UsageSums):
    """The usage through an upstream key on a day."""

    day = models.IntegerField()
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "api_key"], name="one_sum_of_a_key_and_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.api_key_id}"


class MonthSum(UsageSums):
    """The usage of a user or a token in a month, numbered `year * 12 + month - 1`.

    An index finds those that were charged most among tens of thousands.
    """

    kind = models.CharField(max_length=5, help_text="user or token")
    month = models.IntegerField()
    subject = models.BigIntegerField(help_text="Id of the user or token.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "month", "subject"], name="one_sum_of_a_month")]
        indexes = [models.Index(fields=["kind", "month", "-charged"], name="month_dearest")]

    def __str__(self) -> str:
        return f"{self.month} {self.kind} {self.subject}"


class TallyDay(models.Model):
    """How often a value occurred on a day."""

    day = models.IntegerField()
    # "error": the value is end reason and error code; "first": a class of first-token times.
    kind = models.CharField(max_length=5)
    channel = models.ForeignKey(
        Channel, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    model = models.CharField(max_length=120)
    value = models.CharField(max_length=90)
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "day", "channel", "model", "value"], name="one_tally_of_a_value_and_day"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.kind} {self.value}"


class RollupMark(models.Model):
    """How far usage records have been rolled up."""

    last_id = models.BigIntegerField(default=0)
    # Ids below `last_id` that did not exist yet, as [first, last, seconds since 1970 when they were missed].
    gaps = models.JSONField(default=list)
    # The first day (an ordinal) that has all of its records: those of days before have been deleted. 0: none has.
    kept_from = models.IntegerField(default=0)

    def __str__(self) -> str:
        return str(self.last_id)


class RemovedUsage(models.Model):
    """What usage records of a user (0: of none) had charged that have been deleted, for proofs of the ledger."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    records = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)  # nano-USD, as in the records
    shortfall = models.BigIntegerField(default=0)  # nano-USD of it that nothing covered

    def __str__(self) -> str:
        return f"{self.user_id} {self.records}"
