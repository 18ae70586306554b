"""The change feed: what every worker must forget or read again.

A row is written in the same transaction as the change it tells of, so that a change is never in force without being announced and
never announced without being in force. Workers poll the table (`relay.gateway.snapshot.change_feed`); rows older than a day are deleted by the poller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import models, transaction

Listener = Callable[[str, str], None]
_listeners: list[Listener] = []


class Change(models.Model):
    """One announcement. `topic` says what kind of thing changed, `key` which one (empty: all of the kind)."""

    CATALOG = "catalog"  # channels, keys, models, permissions, groups: the snapshot is read again
    TOKEN = "token"  # noqa: S105  # key: digest of a relay token
    USER = "user"  # key: id of a user, whose tokens are read again
    ADDRESS = "address"  # key: an address that was blocked or unblocked
    COOLDOWN = "cooldown"  # key: a place whose circuit was opened or closed
    WATCH = "watch"  # somebody looks at the running requests
    END = "end"  # key: id of a request that shall end

    topic = models.CharField(max_length=12)
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
class _Tell:
    """Commit hook: tell the listeners of this process."""

    topic: str
    key: str

    def __call__(self) -> None:
        for listener in _listeners:
            listener(self.topic, self.key)


def announce(topic: str, keys: Iterable[str] = ("",)) -> None:
    """Write to the feed inside the current transaction, and tell this process when it commits.

    Saying the same twice in one transaction costs nothing: a page that saves 200 rows makes one announcement.
    """
    connection = transaction.get_connection()
    here = set(connection.savepoint_ids)
    # Hooks of savepoints that are no part of the current stack may still be rolled back without us; they do not count.
    queued = {hook for savepoints, hook, *_ in connection.run_on_commit if isinstance(hook, _Tell) and savepoints <= here}
    fresh = [tell for tell in dict.fromkeys(_Tell(topic, key) for key in keys) if tell not in queued]
    if not fresh:
        return
    with transaction.atomic():
        Change.objects.bulk_create(Change(topic=tell.topic, key=tell.key) for tell in fresh)
        for tell in fresh:
            transaction.on_commit(tell, robust=True)


if TYPE_CHECKING:
    _Base = models.QuerySet[Any]
else:
    _Base = models.QuerySet


class ChangeTrackedQuerySet(_Base):
    """A queryset whose bulk writes are announced as well."""

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
        if not hasattr(model, "change_key"):  # the model as a migration sees it; while tables change nothing is announced
            return []
        return [] if model.change_key is ChangeTracked.change_key else list(self)

    def _announce(self, rows: Sequence[Any]) -> None:
        model: type[ChangeTracked] = self.model
        if not hasattr(model, "change_key"):
            return
        keys = [""] if model.change_key is ChangeTracked.change_key else [row.change_key() for row in rows]
        announce(model.change_topic, keys)


class ChangeTracked(models.Model):
    """Base of models that the relay keeps in memory: saving or deleting one writes to the feed in the same transaction."""

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
        """What the feed says of this row; the base form means all rows of the topic."""
        return ""
