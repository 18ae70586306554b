from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import models


class Unchangeable(Exception):
    """A row of the audit log would be changed or deleted."""

    def __init__(self) -> None:
        super().__init__("Rows of the audit log are never changed or deleted.")


class _AppendOnly(models.QuerySet["AuditEvent"]):
    """A queryset that refuses to change or delete rows. Raises Unchangeable."""

    def update(self, **kwargs: Any) -> int:
        if kwargs == {"actor": None}:  # the user is deleted; the name stays
            return super().update(**kwargs)
        raise Unchangeable

    def delete(self) -> NoReturn:
        raise Unchangeable

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Unchangeable


class AuditEvent(models.Model):
    """One entry of the append-only audit log: who did what to which object. `detail` never contains secrets."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150, blank=True, help_text="Kept when the user is deleted.")
    action = models.CharField(max_length=40, help_text="Such as token.reveal.")
    target_type = models.CharField(max_length=40, blank=True)
    target_id = models.CharField(max_length=40, blank=True)
    target_name = models.CharField(max_length=200, blank=True)
    ip = models.GenericIPAddressField(null=True, blank=True)
    detail = models.JSONField(default=dict, blank=True)

    objects = models.Manager.from_queryset(_AppendOnly)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = "audit event"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["target_type", "target_id"], name="audit_of_target"),
            models.Index(fields=["actor", "-id"], name="audit_of_actor"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name or 'system'} {self.action} {self.target_name}".strip()

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise Unchangeable
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Unchangeable

    @classmethod
    def write(
        cls, action: str, actor: Any, target: models.Model | None = None, ip: str | None = None, **detail: object
    ) -> AuditEvent:
        """Write an entry inside the current transaction. `actor`: a user, or None for the portal itself."""
        event = cls.entry(action, actor, target, ip, **detail)
        event.save()
        return event

    @classmethod
    def entry(
        cls, action: str, actor: Any, target: models.Model | None = None, ip: str | None = None, **detail: object
    ) -> AuditEvent:
        """Return an entry that is not written yet, for those who write many at once.

        Of what somebody does with a staff key, it says which one.
        """
        person = actor if getattr(actor, "pk", None) else None
        if (key := getattr(actor, "acts_by", None)) is not None:
            detail["staff_key"] = f"{key.name} ({key.hint})"
        return cls(
            actor=person,
            actor_name=person.get_username() if person else "",
            action=action,
            target_type=target._meta.model_name or "" if target is not None else "",
            target_id=str(target.pk) if target is not None else "",
            target_name=str(target)[:200] if target is not None else "",
            ip=ip or None,
            detail=detail,
        )
