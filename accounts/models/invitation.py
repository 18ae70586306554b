from __future__ import annotations

import secrets

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from accounts.models.fields import MomentField
from portal.lib import clock
from portal.lib.crypto import keyed_digest


class Invitation(models.Model):
    """A link with which people can sign up. It is shown once; only a digest of its code is stored."""

    digest = models.CharField(max_length=64, unique=True, editable=False)
    note = models.CharField(_("for whom"), max_length=120, help_text=_("For you: who gets the link."))
    email = models.EmailField(
        _("e-mail address"), blank=True, help_text=_("Only for an account with this address. Empty: for any.")
    )
    groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="+",
        verbose_name=_("groups"),
        help_text=_("Who signs up with it is put into these."),
    )
    uses = models.PositiveIntegerField(
        _("accounts"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(10_000)],
        help_text=_("How many may be made with it."),
    )
    used = models.PositiveIntegerField(_("made so far"), default=0, editable=False)
    expires_at = MomentField(_("valid until"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )

    class Meta:
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.note

    def new_code(self) -> str:
        """Set a new code and return it, since it is not stored in clear. Does not save."""
        code = secrets.token_urlsafe(18)
        self.digest = _digest(code)
        return code

    def open(self) -> bool:
        """Whether it can still be used."""
        return self.used < self.uses and (self.expires_at is None or self.expires_at > clock.now())

    def take(self) -> bool:
        """Count one use. False when it was used up meanwhile."""
        return Invitation.objects.filter(pk=self.pk, used__lt=F("uses")).update(used=F("used") + 1) == 1

    @classmethod
    def find(cls, code: str) -> Invitation | None:
        """Return the invitation with this code, open or not."""
        return cls.objects.filter(digest=_digest(code)).first() if code else None


def _digest(code: str) -> str:
    return keyed_digest(settings.TOKEN_KEY, b"invitation:" + code.encode("utf-8", "surrogateescape"))
