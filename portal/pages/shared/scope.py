"""Querysets of what belongs to a user, so that all pages filter in one place."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import User
from relay.models import (
    Batch,
    Conversation,
    LedgerEntry,
    Notice,
    RefusedRequest,
    SessionSum,
    StoredResponse,
    Token,
    Upload,
    UsageRecord,
)
from relay.storage import files

_MOVEMENTS = ("starting", "top_up", "deduct", "redeem")


def signed_in_user(request: HttpRequest) -> User:
    """The user of a request whose view requires login."""
    assert isinstance(request.user, User)  # noqa: S101
    return request.user


def tokens_of(user: User) -> QuerySet[Token]:
    return Token.objects.filter(user=user, revoked_at__isnull=True)


def entries_of(user: User) -> QuerySet[LedgerEntry]:
    """Ledger entries of the user's wallet other than charges for requests, newest first."""
    # Entries without a token have an index of their own.
    return LedgerEntry.objects.filter(user=user, token=None, kind__in=_MOVEMENTS).order_by("-pk")


def notices_of(user: User) -> QuerySet[Notice]:
    return Notice.objects.filter(user=user).order_by("-pk")


def usage_of(user: User) -> QuerySet[UsageRecord]:
    return UsageRecord.objects.filter(user=user)


def sessions_of(user: User) -> QuerySet[SessionSum]:
    return SessionSum.objects.filter(user=user)


def refusals_of(user: User) -> QuerySet[RefusedRequest]:
    return RefusedRequest.objects.filter(user=user)


def files_of(user: User) -> QuerySet[Upload]:
    return Upload.objects.filter(files.stored(user.pk)).order_by("-pk")


def batches_of(user: User) -> QuerySet[Batch]:
    return Batch.objects.filter(user=user).order_by("-pk")


def responses_of(user: User) -> QuerySet[StoredResponse]:
    return StoredResponse.objects.filter(user=user)


def conversations_of(user: User) -> QuerySet[Conversation]:
    return Conversation.objects.filter(user=user)
