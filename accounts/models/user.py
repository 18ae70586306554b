from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models, transaction

from accounts.models.change import Change, ChangeTrackedQuerySet, announce
from accounts.models.limits import Limited

if TYPE_CHECKING:
    _Manager = DjangoUserManager["User"]
else:
    _Manager = DjangoUserManager.from_queryset(ChangeTrackedQuerySet)


class UserManager(_Manager):
    pass


class User(AbstractUser, Limited):
    """Somebody who signs in, owns tokens and is billed. Disabling one disables all of their tokens at once."""

    change_topic = Change.USER

    email = models.EmailField("e-mail address", blank=True)
    notes = models.TextField(blank=True, help_text="Seen by staff only.")

    objects: ClassVar[UserManager] = UserManager()

    class Meta(AbstractUser.Meta):
        verbose_name = "user"

    def change_key(self) -> str:
        return str(self.pk)

    def save(self, *args: Any, **kwargs: Any) -> None:
        only = kwargs.get("update_fields")
        with transaction.atomic():
            super().save(*args, **kwargs)
            if only is None or set(only) - {"last_login", "password"}:  # signing in changes nothing the relay knows
                announce(Change.USER, [str(self.pk)])

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            announce(Change.USER, [str(self.pk)])
            return super().delete(*args, **kwargs)
