from __future__ import annotations

from decimal import Decimal

from django.contrib.auth.models import Group, Permission
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from accounts.models.change import ChangeTracked
from accounts.models.limits import Limited


class GroupSettings(ChangeTracked, Limited):
    """Settings of a group of users beside Django's Group. Models and channels can be reserved for a group."""

    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="settings")
    description = models.CharField(max_length=200, blank=True)
    price_multiplier = models.DecimalField(
        max_digits=9,
        decimal_places=6,
        default=Decimal(1),
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(100))],
        help_text=(
            "What members pay, times the price of a model. 1: the price itself. A member of several groups pays the "
            "lowest."
        ),
    )
    member_rpm = models.PositiveIntegerField(
        "requests a minute of each member", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    member_tpm = models.PositiveIntegerField(
        "tokens a minute of each member", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    member_rpd = models.PositiveIntegerField(
        "requests a day of each member", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    member_concurrency = models.PositiveIntegerField(
        "requests at once of each member", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    is_default = models.BooleanField(
        "join new users", default=False, help_text="Users created from now on are put into this group."
    )

    class Meta:
        verbose_name = verbose_name_plural = "group settings"

    def __str__(self) -> str:
        return self.group.name


class Role(models.Model):
    """A group that the portal made as a role, whatever it is called by now, and the rights that it was given once.

    A right that an administrator takes away from the group is not given again.
    """

    key = models.CharField(max_length=20, unique=True)
    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="role")
    given = models.ManyToManyField(Permission, related_name="+")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.key
