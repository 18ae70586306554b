"""The change feed: announces to all workers which of their cached data has changed.

A row is written in the same transaction as the change that it announces, so that no change takes effect without being
announced, and none is announced without taking effect. Workers poll the table (`relay.gateway.snapshot.change_feed`);
rows older than a day are deleted by the poller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import models, transaction

Listener = Callable[[str, str], None]
_listeners: list[Listener] = []


class Change(models.Model):
    """One announcement of a change."""

    CATALOG = "catalog"  # channels, keys, models, permissions, groups: the snapshot is read again
    TOKEN = "token"  # noqa: S105  # key: digest of a relay token
    USER = "user"  # key: id of a user, whose tokens are read again
    ADDRESS = "address"  # key: an address that was blocked or unblocked
    COOLDOWN = "cooldown"  # key: the place of a circuit that was opened or closed
    WATCH = "watch"  # staff are viewing the running requests, so workers write theirs down
    END = "end"  # key: id of a request that is to be ended
    CANCEL = "cancel"  # the same, by its user: as if its client had left
    DELETE = "delete"  # key: user and id of a response that is not to be stored when it ends
    DELETED = "deleted"  # the same, by the worker that runs it: it will not be stored

    topic = models.CharField(max_length=12)  # what kind of data has changed
    # Which row of it, see the topics above; empty: all.
    key = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "change"
        indexes = [models.Index(fields=["created_at"], name="change_created")]

    def __str__(self) -> str:
        return f"{self.topic} {self.key}".strip()


def listen(listener: Listener) -> None:
    """Call `listener(topic, key)` in this process as soon as a change made here is committed."""
    if listener not in _listeners:
        _listeners.append(listener)


@dataclass(frozen=True, slots=True)
class _Notify:
    """A commit hook that calls the listeners of this process."""

    topic: str
    key: str

    def __call__(self) -> None:
        for listener in _listeners:
            listener(self.topic, self.key)


def announce(topic: str, keys: Iterable[str] = ("",)) -> None:
    """Write to the feed inside the current transaction, and call this process's listeners when it commits.

    The same announcement is written once a transaction: a page that saves 200 rows makes one.
    """
    connection = transaction.get_connection()
    # A hook that is still here is sure to run if this transaction commits. It was registered in a savepoint that is
    # open, so also around this call, or that was released, and so belongs to one that is; with a savepoint that is
    # rolled back, Django drops the hooks that were registered in it, and the database their rows.
    queued = {hook for _savepoints, hook, *_ in connection.run_on_commit if isinstance(hook, _Notify)}
    fresh = [notify for notify in dict.fromkeys(_Notify(topic, key) for key in keys) if notify not in queued]
    if not fresh:
        return
    with transaction.atomic():
        Change.objects.bulk_create(Change(topic=notify.topic, key=notify.key) for notify in fresh)
        for notify in fresh:
            transaction.on_commit(notify, robust=True)


if TYPE_CHECKING:
    _Base = models.QuerySet[Any]
else:
    _Base = models.QuerySet


class ChangeTrackedQuerySet(_Base):
    """A queryset that announces bulk writes, too."""

    def update(self, **kwargs: Any) -> int:
        with transaction.atomic(using=self.db):
            touched = self._touched()
            count = super().update(**kwargs)
            self._announce(touched)
        return count

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=self.db):
            self._announce(self._touched())
            return super().delete()

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic(using=self.db):
            created = super().bulk_create(objs, *args, **kwargs)
            self._announce(created)
        return created

    def bulk_update(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> int:
        rows = list(objs)
        with transaction.atomic(using=self.db):
            count = super().bulk_update(rows, *args, **kwargs)
            self._announce(rows)
        return count

    def _touched(self) -> Sequence[Any]:
        model: type[ChangeTracked] = self.model
        if not hasattr(model, "change_key"):  # a historical model inside a migration: nothing is announced
            return []
        return [] if model.change_key is ChangeTracked.change_key else list(self)

    def _announce(self, rows: Sequence[Any]) -> None:
        model: type[ChangeTracked] = self.model
        if not hasattr(model, "change_key"):
            return
        keys = [""] if model.change_key is ChangeTracked.change_key else [row.change_key() for row in rows]
        announce(model.change_topic, keys)


class ChangeTracked(models.Model):
    """Base of models that workers cache: saving or deleting a row announces it in the same transaction."""

    change_topic = Change.CATALOG

    objects = models.Manager.from_queryset(ChangeTrackedQuerySet)()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            announce(self.change_topic, [self.change_key()])

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            announce(self.change_topic, [self.change_key()])
            return super().delete(*args, **kwargs)

    def change_key(self) -> str:
        """Return the key under which this row is announced. The base implementation means all rows of the topic."""
        return ""
