"""Sums of usage records by day, so that no page adds up millions of rows. Written by `relay.usage.rollup` alone; all of it can be made again."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.channel import Channel
from relay.models.token import Token


class UsageSums(models.Model):
    """Amounts in nano-USD. `failed`: ended otherwise than well, `faults`: of these, what was the portal's or an upstream's doing."""

    requests = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    faults = models.BigIntegerField(default=0)
    input = models.BigIntegerField(default=0)
    cached = models.BigIntegerField(default=0)
    output = models.BigIntegerField(default=0)
    charged = models.BigIntegerField(default=0)
    upstream_cost = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class UserDay(UsageSums):
    """What a token used of a model on a day of the portal's time zone (an ordinal, `date.toordinal()`)."""

    day = models.IntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    token = models.ForeignKey(Token, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    model = models.CharField(max_length=120)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "day", "token", "model"], name="one_sum_of_a_token_and_day")]
        indexes = [models.Index(fields=["day"], name="user_day_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.user_id} {self.token_id} {self.model}"


class ChannelDay(UsageSums):
    """What a channel (0: none) served of a model on a day."""

    day = models.IntegerField()
    channel = models.ForeignKey(Channel, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    model = models.CharField(max_length=120)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "channel", "model"], name="one_sum_of_a_channel_and_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.channel_id} {self.model}"


class MonthSum(UsageSums):
    """What a user or a token used in a month (`year * 12 + month - 1`), so that the dearest of tens of thousands are found by an index."""

    kind = models.CharField(max_length=5, help_text="user or token")
    month = models.IntegerField()
    subject = models.BigIntegerField(help_text="Id of the user or token.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "month", "subject"], name="one_sum_of_a_month")]
        indexes = [models.Index(fields=["kind", "month", "-charged"], name="month_dearest")]

    def __str__(self) -> str:
        return f"{self.month} {self.kind} {self.subject}"


class TallyDay(models.Model):
    """How often something was seen on a day: `kind` "error" (`value` end reason and code), "first" (a class of first-token times)."""

    day = models.IntegerField()
    kind = models.CharField(max_length=5)
    channel = models.ForeignKey(Channel, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    model = models.CharField(max_length=120)
    value = models.CharField(max_length=90)
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "day", "channel", "model", "value"], name="one_tally_of_a_value_and_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.kind} {self.value}"


class RollupMark(models.Model):
    """How far records have been added up. `gaps`: ids below `last_id` that were not there yet, as [first, last, seconds since 1970]."""

    last_id = models.BigIntegerField(default=0)
    gaps = models.JSONField(default=list)

    def __str__(self) -> str:
        return str(self.last_id)
