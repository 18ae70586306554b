"""The books: who has how much, and every movement that made it so. Written by `relay.billing.ledger.requests` alone."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext, gettext_noop

from relay.models.token import Token


class Immutable(Exception):
    """Somebody tried to change what must stay as it was written."""

    def __init__(self) -> None:
        super().__init__("Rows of the ledger are never changed or deleted. Write an opposite entry instead.")


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Refuses what would change history."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise Immutable

    def delete(self) -> NoReturn:
        raise Immutable

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Immutable

    def update_or_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Immutable


class AccountKind(models.TextChoices):
    WALLET = "wallet", "wallet"
    QUOTA = "quota", "quota of a token"
    BUDGET = "budget", "budget of a period"


class Period(models.TextChoices):
    DAY = "day", "day"
    WEEK = "week", "week"
    MONTH = "month", "month"


class LedgerAccount(models.Model):
    """What requests are paid from or counted against. Amounts in nano-USD; what is free is `granted - used - reserved`.

    The three figures are sums over the entries, kept here so that a reservation is one conditional update. Days are ordinals of the
    proleptic Gregorian calendar in the portal's time zone; wallets and quotas have no end.
    """

    FOR_EVER = 10_000_000

    key = models.CharField(max_length=80, unique=True, help_text="wallet:<user>, quota:<token>, budget:<user|token>:<id>:<period>:<first day>")
    kind = models.CharField(max_length=6, choices=AccountKind.choices)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="ledger_accounts", db_index=False)
    token = models.ForeignKey(Token, null=True, on_delete=models.PROTECT, related_name="ledger_accounts", db_index=False)
    period = models.CharField(max_length=5, choices=Period.choices, blank=True)
    first_day = models.IntegerField(default=0)
    last_day = models.IntegerField(default=FOR_EVER)
    limited = models.BooleanField(default=True)
    granted = models.BigIntegerField(default=0)
    used = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "account"
        ordering = ["user", "id"]
        indexes = [models.Index(fields=["user", "last_day"], name="account_of_user")]
        constraints = [
            models.CheckConstraint(condition=Q(used__gte=0, reserved__gte=0), name="account_not_negative"),
            models.CheckConstraint(condition=~Q(kind="wallet") | Q(granted__gte=F("used")), name="wallet_not_overdrawn"),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def balance(self) -> int:
        """What is left, reservations of running requests included."""
        return self.granted - self.used

    @property
    def free(self) -> int:
        return self.granted - self.used - self.reserved


class EntryKind(models.TextChoices):
    """Every kind of movement, with where the money comes from and goes to."""

    STARTING = "starting", "starting balance"  # house → wallet
    TOP_UP = "top_up", "top-up"  # funding → wallet
    DEDUCT = "deduct", "deduction"  # wallet → funding
    REDEEM = "redeem", "code redeemed"  # codes → wallet
    RESERVE = "reserve", "reserved"  # wallet → held
    RELEASE = "release", "released"  # held → wallet
    USAGE = "usage", "usage"  # held, wallet or house → revenue
    SHORTFALL = "shortfall", "not covered"  # house → revenue


SIDES = (gettext_noop("wallet"), gettext_noop("held"), gettext_noop("house"), gettext_noop("revenue"), gettext_noop("funding"), gettext_noop("codes"))
"""What money is moved between."""


class LedgerEntry(models.Model):
    """One movement of `amount` nano-USD from the account `debit` to the account `credit`: double entry in one row, which always balances.

    `held`: how much of a reservation a usage entry used up. Relations carry no database constraint: an entry outlives what it names.
    """

    at = models.DateTimeField()
    kind = models.CharField(max_length=9, choices=EntryKind.choices)
    debit = models.CharField(max_length=8)
    credit = models.CharField(max_length=8)
    amount = models.BigIntegerField()
    held = models.BigIntegerField(default=0)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    token = models.ForeignKey(Token, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    day = models.IntegerField()
    request_id = models.CharField(max_length=36, blank=True)
    reservation = models.CharField(max_length=32, blank=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    reason = models.CharField(max_length=200, blank=True)

    objects = models.Manager.from_queryset(AppendOnlyQuerySet)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = "ledger entry"
        verbose_name_plural = "ledger entries"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "day", "request_id"], name="entry_of_user"),
            models.Index(fields=["user", "id"], name="movement_of_user", condition=Q(token__isnull=True)),  # what people move; requests do not touch it
        ]
        constraints = [models.CheckConstraint(condition=Q(amount__gte=0, held__gte=0), name="entry_not_negative")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise Immutable
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Immutable

    @property
    def way(self) -> str:
        """From where to where, in the reader's language."""
        return f"{gettext(self.debit)} → {gettext(self.credit)}"


class Reservation(models.Model):
    """What one worker holds back for the requests of one token on one day. `amount` is what is left of it.

    A worker extends `expires_at` (seconds since 1970) while it lives; the sweeper returns what expired.
    """

    id = models.CharField(max_length=32, primary_key=True)
    owner = models.CharField(max_length=80, db_index=True, help_text="host:process:start of the worker.")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    token = models.ForeignKey(Token, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    day = models.IntegerField()
    amount = models.BigIntegerField(default=0)
    expires_at = models.BigIntegerField(db_index=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(amount__gte=0), name="reservation_not_negative")]

    def __str__(self) -> str:
        return self.id
