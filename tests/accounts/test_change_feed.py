"""Announcements of changes: one for a transaction, and none for what was rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from accounts.models import Change
from accounts.models.change import _listeners, announce, listen
from relay.models import Channel, ChannelModel, Model
from tests.support.portal import Portal

pytestmark = pytest.mark.shared


@pytest.fixture
def heard(live: Portal) -> Iterator[list[tuple[str, str]]]:
    """What this process was told by its own commits."""
    found: list[tuple[str, str]] = []

    def listener(topic: str, key: str) -> None:
        found.append((topic, key))

    listen(listener)
    yield found
    _listeners.remove(listener)


def written(after: int) -> list[tuple[str, str]]:
    return list(Change.objects.filter(pk__gt=after).order_by("pk").values_list("topic", "key"))


def newest() -> int:
    return Change.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def test_a_page_that_saves_many_rows_makes_one_announcement(live: Portal, heard: list[tuple[str, str]]) -> None:
    channel, start = live.channel(), newest()
    heard.clear()
    with transaction.atomic():
        for _number in range(20):
            model = Model.objects.create(name=live.name("model"))
            ChannelModel.objects.create(channel=channel, model=model)
            with transaction.atomic(), transaction.atomic():
                model.save()
        Channel.objects.filter(pk=channel.pk).update(weight=2)
        channel.served.all().delete()
        assert heard == [], "nothing is told before it is true"
    assert written(start) == heard == [("catalog", "")]
    channel.save()
    assert written(start) == heard == [("catalog", ""), ("catalog", "")], "the next transaction makes its own"


def test_what_was_rolled_back_is_announced_again_when_it_is_done_again(
    live: Portal, heard: list[tuple[str, str]]
) -> None:
    class Oops(Exception):
        pass

    start = newest()
    heard.clear()
    with transaction.atomic():
        for depth in (1, 2):
            with pytest.raises(Oops), transaction.atomic():
                with transaction.atomic(savepoint=depth == 1):
                    announce("token", ["a"])
                raise Oops
            assert written(start) == []
        with transaction.atomic():
            announce("token", ["a", "b"])
            with pytest.raises(Oops), transaction.atomic():
                announce("token", ["a", "c"])
                raise Oops
        with transaction.atomic(savepoint=False):
            announce("token", ["a", "c", "c"])
    assert written(start) == [("token", "a"), ("token", "b"), ("token", "c")] == heard
    with pytest.raises(Oops), transaction.atomic():
        announce("token", ["d"])
        raise Oops
    assert len(heard) == 3 and len(written(start)) == 3 and not connection.run_on_commit
