"""The ledger: accounts, entries and reservations. Only `relay.billing.ledger` writes them."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext, gettext_noop

from relay.models.fields import LooseForeignKey
from relay.models.token import Token


class Immutable(Exception):
    """An entry of the ledger would be changed or deleted."""

    def __init__(self) -> None:
        super().__init__("Rows of the ledger are never changed or deleted. Write an opposite entry instead.")


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """A queryset that refuses to change or delete rows. Raises Immutable."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise Immutable

    def delete(self) -> NoReturn:
        raise Immutable

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Immutable

    def update_or_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Immutable


class AccountKind(models.TextChoices):
    """The kinds of accounts: money of a user, and limits of what may be spent."""

    WALLET = "wallet", "wallet"
    QUOTA = "quota", "quota of a token"
    BUDGET = "budget", "budget of a period"


class Period(models.TextChoices):
    """The periods of budgets."""

    DAY = "day", "day"
    WEEK = "week", "week"
    MONTH = "month", "month"


AMOUNTS: Final = "relay.view_ledgeraccount"  # the right to see what users pay and have


class LedgerAccount(models.Model):
    """A wallet, quota or budget that requests are charged to. What is free is `granted - used - reserved`."""

    FOR_EVER = 10_000_000  # `last_day` of accounts without an end

    key = models.CharField(
        max_length=80,
        unique=True,
        help_text="wallet:<user>, quota:<token>, budget:<user|token>:<id>:<period>:<first day>",
    )
    kind = models.CharField(max_length=6, choices=AccountKind.choices)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="ledger_accounts", db_index=False
    )
    token = models.ForeignKey(
        Token, null=True, on_delete=models.PROTECT, related_name="ledger_accounts", db_index=False
    )
    period = models.CharField(max_length=5, choices=Period.choices, blank=True)
    # Days in the portal's time zone, as ordinals (`date.toordinal()`). Wallets and quotas have no end.
    first_day = models.IntegerField(default=0)
    last_day = models.IntegerField(default=FOR_EVER)
    limited = models.BooleanField(default=True)
    # Nano-USD. Sums over the entries, stored here so that a reservation is one conditional update.
    granted = models.BigIntegerField(default=0)
    used = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "account"
        ordering = ["user", "id"]
        indexes = [models.Index(fields=["user", "last_day"], name="account_of_user")]
        constraints = [
            models.CheckConstraint(condition=Q(used__gte=0, reserved__gte=0), name="account_not_negative"),
            models.CheckConstraint(
                condition=~Q(kind="wallet") | Q(granted__gte=F("used")), name="wallet_not_overdrawn"
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def balance(self) -> int:
        """Nano-USD that are left, including what is reserved for running requests."""
        return self.granted - self.used

    @property
    def free(self) -> int:
        """Nano-USD that are left and not reserved."""
        return self.granted - self.used - self.reserved


class EntryKind(models.TextChoices):
    """The kinds of entries, each with the account that it debits and the one that it credits."""

    STARTING = "starting", "starting balance"  # house → wallet
    TOP_UP = "top_up", "top-up"  # funding → wallet
    DEDUCT = "deduct", "deduction"  # wallet → funding
    REDEEM = "redeem", "code redeemed"  # codes → wallet
    RESERVE = "reserve", "reserved"  # wallet → held
    RELEASE = "release", "released"  # held → wallet
    USAGE = "usage", "usage"  # held, wallet or house → revenue
    SHORTFALL = "shortfall", "not covered"  # house → revenue


# Values of `debit` and `credit`, as msgids.
SIDES = (
    gettext_noop("wallet"),
    gettext_noop("held"),
    gettext_noop("house"),
    gettext_noop("revenue"),
    gettext_noop("funding"),
    gettext_noop("codes"),
)


class LedgerEntry(models.Model):
    """One movement of money: a double entry in one row, which therefore always balances.

    Relations have no database constraint, since an entry outlives what it refers to.
    """

    at = models.DateTimeField()
    kind = models.CharField(max_length=9, choices=EntryKind.choices)
    # One of SIDES each.
    debit = models.CharField(max_length=8)
    credit = models.CharField(max_length=8)
    # Nano-USD moved, and of a usage entry how much of that was reserved.
    amount = models.BigIntegerField()
    held = models.BigIntegerField(default=0)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    token = LooseForeignKey(Token, null=True)
    day = models.IntegerField()
    request_id = models.CharField(max_length=36, blank=True)
    reservation = models.CharField(max_length=32, blank=True)
    actor = LooseForeignKey(settings.AUTH_USER_MODEL, null=True)
    reason = models.CharField(max_length=200, blank=True)

    objects = models.Manager.from_queryset(AppendOnlyQuerySet)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = "ledger entry"
        verbose_name_plural = "ledger entries"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "day", "request_id"], name="entry_of_user"),
            models.Index(
                fields=["user", "id"], name="movement_of_user", condition=Q(token__isnull=True)
            ),  # movements by people, which have no token
            # Begins with the token for MySQL, whose index has all entries.
            models.Index(fields=["token", "day", "id"], name="movement_of_day", condition=Q(token__isnull=True)),
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
        """The accounts that it debits and credits, in the reader's language."""
        return f"{gettext(self.debit)} → {gettext(self.credit)}"


class Reservation(models.Model):
    """Money that one worker has reserved for the requests of one token on one day."""

    id = models.CharField(max_length=32, primary_key=True)
    owner = models.CharField(max_length=80, db_index=True, help_text="host:process:start of the worker.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    token = models.ForeignKey(Token, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    day = models.IntegerField()
    # Nano-USD that are left of it.
    amount = models.BigIntegerField(default=0)
    # Seconds since 1970. Extended by the worker while it lives; an expired reservation is released.
    expires_at = models.BigIntegerField(db_index=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(amount__gte=0), name="reservation_not_negative")]

    def __str__(self) -> str:
        return self.id
