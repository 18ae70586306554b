from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from accounts.models.change import Change, ChangeTrackedQuerySet, announce
from accounts.models.limits import Limited
from accounts.rights import may_act_as_staff

_LONGEST_ADDRESS: Final = 254  # characters; names are shorter

if TYPE_CHECKING:
    from accounts.models.staff_key import StaffKey

    _Manager = DjangoUserManager["User"]
else:
    _Manager = DjangoUserManager.from_queryset(ChangeTrackedQuerySet)


def language_choices() -> list[tuple[str, str]]:
    """Return the choices of languages. A function, so that a new language needs no migration."""
    return list(settings.LANGUAGES)


class UserManager(_Manager):
    def named(self, text: str, by_address: bool = True) -> User | None:
        """Return whom a typed user name or, for those who may see addresses, e-mail address means; None: nobody.

        An exact name goes before other letter cases, a name before an address. Two people are nobody.
        """
        typed = text.strip()
        if not typed or len(typed) > _LONGEST_ADDRESS or not typed.isprintable():
            return None
        exact = self.filter(username=typed).first()
        if exact is not None:
            return exact
        alike = [{"username__iexact": typed}, *([{"email__iexact": typed}] if by_address and "@" in typed else [])]
        for condition in alike:
            found = list(self.filter(**condition)[:2])
            if found:
                return found[0] if len(found) == 1 else None
        return None


class User(AbstractUser, Limited):
    """A user, who signs in, owns tokens and is charged. Disabling a user disables all of the user's tokens at once."""

    change_topic = Change.USER
    acts_by: StaffKey | None = None  # the key with which this user acts in a request to the management API

    email = models.EmailField("e-mail address", blank=True)
    notes = models.TextField(_("notes"), blank=True, help_text=_("Seen by staff only."))
    language = models.CharField(
        _("language"), max_length=12, choices=language_choices, blank=True, help_text=_("Empty: as the browser asks.")
    )
    time_zone = models.CharField(
        _("time zone"), max_length=40, blank=True, help_text=_("Such as Europe/Berlin. Empty: the browser's.")
    )
    signed_up = models.BooleanField(
        _("signed up"),
        default=False,
        editable=False,
        help_text=_("Made the account by themselves, so the e-mail address must be confirmed."),
    )

    invitation = models.ForeignKey(
        "accounts.Invitation",
        null=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="With which the account was made; counted as used when the e-mail address is confirmed.",
    )

    objects: ClassVar[UserManager] = UserManager()

    class Meta(AbstractUser.Meta):
        verbose_name = _("user")  # type: ignore[assignment]  # AbstractUser's stubs know no lazy texts
        verbose_name_plural = _("users")  # type: ignore[assignment]
        permissions = [
            ("view_as", "Can look at the portal as a user sees it, without changing anything"),
            ("help_sign_in", "Can help to sign in"),
        ]

    def change_key(self) -> str:
        return str(self.pk)

    # Every power of staff is asked for by these methods, in Django's admin as well, so that all doors have one lock.

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Whether the user has a power of staff now: active, staff, with the second factor that is required."""
        return may_act_as_staff(self) and super().has_perm(perm, obj)

    def has_module_perms(self, app_label: str) -> bool:
        return may_act_as_staff(self) and super().has_module_perms(app_label)

    async def ahas_perm(self, perm: str, obj: Any = None) -> bool:
        return await sync_to_async(self.has_perm)(perm, obj)

    async def ahas_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        return await sync_to_async(self.has_perms)(perm_list, obj)

    async def ahas_module_perms(self, app_label: str) -> bool:
        return await sync_to_async(self.has_module_perms)(app_label)

    def save(self, *args: Any, **kwargs: Any) -> None:
        only = kwargs.get("update_fields")
        with transaction.atomic():
            super().save(*args, **kwargs)
            if only is None or set(only) - {"last_login", "password"}:  # signing in changes nothing that workers cache
                announce(Change.USER, [str(self.pk)])

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            announce(Change.USER, [str(self.pk)])
            return super().delete(*args, **kwargs)
