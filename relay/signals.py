"""Signal handlers: announce many-to-many changes, which bypass save(), and open the accounts of the ledger."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from accounts.models import Change, User
from accounts.models.change import announce
from relay.billing.ledger import movements
from relay.models import Budget, Channel, ChatGPTAccount, Incident, Token, Upload
from relay.storage import files

_WRITES = {"post_add", "post_remove", "post_clear"}
# Lists that limit something, and the flag on it that says so. The flag stays when a list becomes empty by itself.
LIMITING_LISTS: Final[dict[type[Model], str]] = {
    Token.models_allowed.through: "models_limited",
    Channel.groups.through: "groups_limited",
    Incident.affected.through: "models_limited",
}


def connect_signals() -> None:
    m2m_changed.connect(_channel_groups, sender=Channel.groups.through, dispatch_uid="relay.channel.groups")
    m2m_changed.connect(_token_models, sender=Token.models_allowed.through, dispatch_uid="relay.token.models")
    for sender, flag in LIMITING_LISTS.items():
        m2m_changed.connect(
            partial(_limit, flag), sender=sender, weak=False, dispatch_uid=f"{sender._meta.label}.limit"
        )
    post_save.connect(_user, sender=User, dispatch_uid="relay.user.wallet")
    post_save.connect(_token, sender=Token, dispatch_uid="relay.token.quota")
    post_save.connect(_budget, sender=Budget, dispatch_uid="relay.budget.set")
    post_delete.connect(_upload_deleted, sender=Upload, dispatch_uid="relay.upload.deleted")
    pre_delete.connect(_budget_lifted, sender=Budget, dispatch_uid="relay.budget.lifted")


def _user(instance: User, created: bool, raw: bool, **_: Any) -> None:
    if created and not raw:
        movements.open_wallet(instance)
    elif not raw and ChatGPTAccount.objects.filter(user=instance, enabled_at__isnull=False).exists():
        announce(Change.CATALOG)  # whether the user may use a plan


def _token(instance: Token, created: bool, raw: bool, **_: Any) -> None:
    if created and not raw:
        movements.open_quota(instance)


def _budget(instance: Budget, raw: bool, **_: Any) -> None:
    if not raw:
        with transaction.atomic():
            movements.set_budget(instance)
            announce(Change.USER, [str(instance.owner_id)])


def _budget_lifted(instance: Budget, **_: Any) -> None:
    with transaction.atomic():
        movements.lift_budget(instance)
        announce(Change.USER, [str(instance.owner_id)])


def _upload_deleted(instance: Upload, **_: Any) -> None:
    """Delete the bytes of an upload, also when its row is deleted together with its user."""
    transaction.on_commit(partial(files.unlink, instance.storage_name), robust=True)


def _limit(flag: str, instance: Any, action: str, reverse: bool, model: Any, pk_set: set[int] | None, **_: Any) -> None:
    """What gets a first entry in its list is limited from then on, until somebody lifts the limit."""
    if action != "post_add" or not pk_set:
        return
    owner, ids = (model, pk_set) if reverse else (type(instance), [instance.pk])
    owner._default_manager.filter(pk__in=ids, **{flag: False}).update(**{flag: True})
    if not reverse:
        setattr(instance, flag, True)  # it may be saved again


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
