"""Many-to-many changes, which Django does not route through save()."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import m2m_changed

from accounts.models import Change
from accounts.models.change import announce
from relay.models import Channel, Token

_WRITES = {"post_add", "post_remove", "post_clear"}


def connect() -> None:
    m2m_changed.connect(_channel_groups, sender=Channel.groups.through, dispatch_uid="relay.channel.groups")
    m2m_changed.connect(_token_models, sender=Token.models_allowed.through, dispatch_uid="relay.token.models")


def _channel_groups(action: str, **_: Any) -> None:
    if action in _WRITES:
        announce(Change.CATALOG)


def _token_models(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **_: Any) -> None:
    if action not in _WRITES and action != "pre_clear":
        return
    if not reverse:
        announce(Change.TOKEN, [instance.digest])
    else:  # model.tokens.add(…)
        tokens = Token.objects.filter(pk__in=pk_set) if pk_set is not None else instance.tokens.all()
        announce(Change.TOKEN, [token.digest for token in tokens])
