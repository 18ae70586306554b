"""What belongs to a user: the one place where the pages' queries are narrowed."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from accounts.models import User
from portal.lib import clock
from relay.models import Model, Token, UsageRecord


def tokens_of(user: User) -> QuerySet[Token]:
    return Token.objects.filter(user=user, revoked_at__isnull=True)


def models_of(user: User) -> QuerySet[Model]:
    """Enabled models that the user may use: open ones, and those permitted to the user or a group of the user."""
    valid = Q(permissions__expires_at__isnull=True) | Q(permissions__expires_at__gt=clock.now())
    mine = Q(permissions__user=user) | Q(permissions__group__in=user.groups.all())
    return Model.objects.filter(Q(is_open=True) | (mine & valid), enabled=True).distinct().order_by("name")


def usage_of(user: User) -> QuerySet[UsageRecord]:
    return UsageRecord.objects.filter(user=user)
