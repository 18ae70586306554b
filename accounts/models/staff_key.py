"""Keys of staff for the management API, and the answers that are kept for requests that are sent again."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models.audit import AuditEvent
from accounts.models.fields import MomentField
from portal.lib import clock
from portal.lib.crypto import keyed_digest, mask

# What keys are for. The pages of the administration that each stands for are in `relay.manage.resources.resources`.
AREAS: Final[dict[str, Any]] = {
    "channels": _("channels, their keys and models"),
    "models": _("models and permissions"),
    "prices": _("prices"),
    "users": _("users and groups"),
    "tokens": _("tokens"),
    "money": _("balances, movements, budgets and redemption codes"),
    "usage": _("usage and receipts"),
    "routing": _("cooldowns and the explanation of routing"),
}
_READ_ONLY: Final = frozenset(("usage",))
SCOPES: Final = tuple(
    f"{area}:{power}" for area in AREAS for power in (("read",) if area in _READ_ONLY else ("read", "write"))
)
PREFIX: Final = "sk-staff-"  # as of all keys here, so that every tool that finds keys in texts finds these
MOST_DAYS: Final = 366  # that a key may be valid
_SEEN_EVERY: Final = timedelta(minutes=1)


def check_scopes(scopes: Any) -> None:
    """Raise ValidationError for what is no list of scopes. An empty one allows nothing."""
    if not isinstance(scopes, list) or not all(isinstance(one, str) for one in scopes):
        raise ValidationError(_("Choose from the list."))
    for unknown in sorted(set(scopes) - set(SCOPES)):
        raise ValidationError(_("There is no scope “%(scope)s”."), params={"scope": unknown[:40]})


class StaffKey(models.Model):
    """A key with which a member of staff uses the management API from scripts.

    It may do what it is for, and never more than its owner may do at that moment: whether the owner is staff, active,
    with a second factor where one is required, and has the right, is asked with each request. Only a digest is stored.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="staff_keys")
    name = models.CharField(_("name"), max_length=60, help_text=_("What uses it, such as the name of a script."))
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(_("key"), max_length=24, editable=False)
    # No scope: the key may do nothing.
    scopes = models.JSONField(_("scopes"), default=list, validators=[check_scopes])
    expires_at = MomentField(_("valid until"))
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)
    last_ip = models.GenericIPAddressField(_("last address"), null=True, editable=False)
    revoked_at = models.DateTimeField(_("revoked"), null=True, editable=False)

    PURPOSE: ClassVar[str] = "staff-key-answer"

    class Meta:
        verbose_name = _("staff key")
        verbose_name_plural = _("staff keys")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        now = clock.now()
        if self.expires_at is not None and self._state.adding:
            if self.expires_at <= now:
                raise ValidationError({"expires_at": _("This time is past.")})
            if self.expires_at > now + timedelta(days=MOST_DAYS):
                raise ValidationError(
                    {"expires_at": gettext("A key is valid for at most %(days)d days.") % {"days": MOST_DAYS}}
                )

    def new_secret(self) -> str:
        """Give the key a secret and return it: 256 random bits. Does not save."""
        secret = PREFIX + secrets.token_urlsafe(32)
        self.digest, self.hint = digest_of(secret), mask(secret)
        return secret

    def state(self, at: datetime | None = None) -> str:
        """Return "active", "expired" or "revoked"."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at > (at or clock.now()) else "expired"

    def allows(self, area: str, write: bool = False) -> bool:
        """Whether it is for this. Who may write may read."""
        return f"{area}:write" in self.scopes or (not write and f"{area}:read" in self.scopes)

    def revoke(self, actor: Any, ip: str | None = None) -> None:
        """Revoke the key for good, and audit it."""
        if self.revoked_at is None:
            with transaction.atomic():
                self.revoked_at = clock.now()
                self.save(update_fields=["revoked_at"])
                AuditEvent.write("staffkey.revoke", actor, self, ip)

    @classmethod
    def active_of(cls, user: Any) -> models.QuerySet[StaffKey]:
        """The keys of a user that are neither revoked nor expired."""
        return cls.objects.filter(user=user.pk, revoked_at=None, expires_at__gt=clock.now())

    @classmethod
    def revoke_all(cls, user: Any, actor: Any, ip: str | None = None) -> int:
        """Revoke all keys of a user whose password may have been in other hands. Returns how many there were."""
        with transaction.atomic():
            keys = list(cls.active_of(user).select_for_update())
            cls.objects.filter(pk__in=[key.pk for key in keys]).update(revoked_at=clock.now())
            AuditEvent.objects.bulk_create(
                [AuditEvent.entry("staffkey.revoke", actor, key, ip) for key in keys], batch_size=500
            )
        return len(keys)

    def note_use(self, ip: str | None) -> None:
        """Write down that it was used, at most once a minute for the same address."""
        now = clock.now()
        if self.last_used_at is None or now - self.last_used_at >= _SEEN_EVERY or self.last_ip != ip:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now, last_ip=ip)


def digest_of(secret: str) -> str:
    return keyed_digest(settings.TOKEN_KEY, b"staff-key:" + secret.encode("utf-8", "surrogateescape"))


class KeptAnswer(models.Model):
    """The answer to a request with an `Idempotency-Key`, written in the same transaction as what the request did.

    The same request with the same key gets it again, for a day. The body is encrypted: it may show a secret once.
    """

    staff_key = models.ForeignKey(StaffKey, on_delete=models.CASCADE, related_name="answers")
    key = models.CharField(max_length=64)  # a digest of what the client sent
    request = models.CharField(max_length=64)  # a digest of method, path and body
    status = models.PositiveSmallIntegerField(default=0)
    sealed = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["staff_key", "key"], name="answer_of_key")]

    def __str__(self) -> str:
        return self.key
