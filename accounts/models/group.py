from __future__ import annotations

from django.contrib.auth.models import Group
from django.db import models

from accounts.models.change import ChangeTracked


class GroupSettings(ChangeTracked):
    """What this portal adds to Django's Group: a class of users that models and channels can be reserved for."""

    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="settings")
    description = models.CharField(max_length=200, blank=True)
    is_default = models.BooleanField("join new users", default=False, help_text="Users created from now on are put into this group.")

    class Meta:
        verbose_name = verbose_name_plural = "group settings"

    def __str__(self) -> str:
        return self.group.name
