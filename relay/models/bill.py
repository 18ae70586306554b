"""What upstreams say that they billed: the keys to ask them with, the balances they told, and the days compared."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.lib.crypto import mask
from relay.models.channel import ApiKey, Channel, KeyGivenElsewhere
from relay.models.fields import box


class BillingKey(models.Model):
    """A key of an upstream's administrators that may read what an account was billed. Stored encrypted."""

    PURPOSE: ClassVar[str] = "billing-key"

    channel = models.OneToOneField(Channel, on_delete=models.CASCADE, related_name="billing_key")
    # An empty list adds nothing: the channel alone is compared.
    also = models.ManyToManyField(
        Channel,
        blank=True,
        related_name="+",
        verbose_name="further channels of the account",
        help_text="What these channels recorded is on the same bill.",
    )
    scope = models.CharField(
        "limited to",
        max_length=120,
        blank=True,
        help_text=(
            "A project (OpenAI), a workspace or “default” (Anthropic), the hash of a key (OpenRouter), if the account "
            "is used for other things, too. Empty: the whole account."
        ),
    )
    sealed = models.TextField(editable=False)
    hint = models.CharField("key", max_length=24, editable=False)
    # `Channel.key_destination` when the secret was typed. Whoever changes the channel's address does not get the key.
    given_for = models.CharField(max_length=700, default="", editable=False)
    asked_at = models.DateTimeField(null=True, editable=False)
    fault = models.CharField("last fault", max_length=300, blank=True, editable=False)

    class Meta:
        verbose_name = "billing key"
        ordering = ["channel__name"]

    def __str__(self) -> str:
        return str(self.channel)

    def set_secret(self, secret: str, channel: Channel) -> None:
        """Encrypt and set the secret, for the address that a channel has now. Does not save."""
        self.sealed, self.hint = box(self.PURPOSE).seal(secret), mask(secret)
        self.given_for = channel.key_destination()

    def secret_for(self, channel: Channel) -> str:
        """Return the secret in clear, to be sent to a channel's address.

        Raises KeyGivenElsewhere, portal.lib.crypto.Undecryptable.
        """
        if not self.given_for or self.given_for != channel.key_destination():
            raise KeyGivenElsewhere
        return box(self.PURPOSE).open(self.sealed)


class BalanceReading(models.Model):
    """What an upstream said is left on the account of a key. Kept for some weeks, for `UpstreamBill`."""

    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="readings", db_index=False)
    at = models.DateTimeField(db_index=True)
    amount = models.DecimalField(max_digits=18, decimal_places=6, editable=False)  # in any currency
    currency = models.CharField(max_length=8)

    class Meta:
        indexes = [models.Index(fields=["api_key", "at"], name="reading_key_time")]

    def __str__(self) -> str:
        return f"{self.api_key_id} {self.at:%Y-%m-%d %H:%M}"


class BillSourceKind(models.TextChoices):
    """How it is known what an upstream billed."""

    REPORT = "report", _("its report of costs")
    BALANCE = "balance", _("its balance, before and after")


class UpstreamBill(models.Model):
    """What an upstream billed on a day of UTC, beside what was recorded here for the same time."""

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="bills", db_index=False)
    source = models.CharField(max_length=8, choices=BillSourceKind.choices)
    day = models.DateField(db_index=True)
    begins_at = models.DateTimeField("from")
    ends_at = models.DateTimeField("to")
    # In billionths of its currency. Null: it cannot be told, since money was added meanwhile.
    reported = models.BigIntegerField("billed by the upstream", null=True)
    currency = models.CharField(max_length=8, default="USD")
    recorded = models.BigIntegerField("recorded here", help_text="Nano-USD, as usage records have the upstream's cost.")
    requests = models.BigIntegerField(default=0)
    # Times between two balances of which nothing can be told, and which count on neither side.
    gaps = models.PositiveIntegerField("times left out", default=0)
    complete = models.BooleanField("the day is over", default=False)
    drifts = models.BooleanField("differs", default=False)
    compared_at = models.DateTimeField()

    class Meta:
        verbose_name = "upstream bill"
        ordering = ["-day", "channel__name", "source"]
        constraints = [models.UniqueConstraint(fields=["channel", "source", "day"], name="one_bill_of_a_day")]

    def __str__(self) -> str:
        return f"{self.channel}, {self.day}"

    @property
    def difference(self) -> int | None:
        """Nano-USD that the upstream billed beyond what was recorded. None where that cannot be told."""
        if self.reported is None or self.currency != "USD":
            return None
        return self.reported - self.recorded

    @property
    def percent(self) -> float | None:
        """The difference in percent of what was recorded. None where that cannot be told."""
        difference = self.difference
        return None if difference is None or not self.recorded else 100 * difference / self.recorded
