"""Which batch a worker claims next."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accounts.models import User
from portal.lib import clock
from relay.models import Batch
from relay.storage import batch_claims, batch_results, batches
from relay.tokens.lifecycle import create_token
from tests.support.portal import People

pytestmark = pytest.mark.shared


def _batch(user: int, minutes: int) -> Batch:
    """A batch that was made so many minutes ago."""
    owner = User.objects.get(pk=user)
    token = create_token(owner, "batches", actor=owner)[0].pk
    batch = batches.create_batch(user, token, "/v1/embeddings", "file-1", None, None)
    Batch.objects.filter(pk=batch.pk).update(created_at=clock.now() - timedelta(minutes=minutes), token=None)
    return batch


def test_users_and_their_batches_take_turns(people: People) -> None:
    ada, bob = people.owner.pk, people.other.pk
    first, second, other = _batch(ada, 30), _batch(ada, 20), _batch(bob, 10)
    assert batch_claims.waiting_users([]) == [ada, bob]
    claimed = batch_claims.claim("me", ada, [])
    assert claimed is not None and claimed.pk == first.pk
    assert batch_claims.waiting_users([first.pk]) == [ada, bob]
    batch_claims.put_back(first, "me", 0.0)
    assert batch_claims.waiting_users([]) == [bob, ada], "who had a turn, however long another of theirs has waited"
    turns = []
    for _ in range(3):
        claimed = batch_claims.claim("me", ada, [])
        assert claimed is not None
        turns.append(claimed.pk)
        batch_claims.put_back(claimed, "me", 0.0)
    assert turns == [second.pk, first.pk, second.pk]
    assert batch_claims.claim("me", bob, [other.pk]) is None


def test_a_batch_that_waits_is_looked_at_when_its_time_is_over(people: People) -> None:
    batch = _batch(people.owner.pk, 1)
    batch_claims.claim("me", people.owner.pk, [])
    batch_claims.put_back(batch, "me", 7 * 86_400.0, "room")
    batch.refresh_from_db()
    assert batch.lease_until == batch.expires_at and batch.waits_for == "room"
    assert batch.waits_until is None, "nobody knows when there is room"
    Batch.objects.filter(pk=batch.pk).update(lease_until=clock.now(), waits_until=clock.now())
    assert batch_claims.waiting_users([]) == [people.owner.pk]
    assert batch_claims.renew("me", [batch.pk]) == {}


def test_the_lines_of_ended_batches_are_deleted(people: People) -> None:
    ended, running = _batch(people.owner.pk, 2), _batch(people.owner.pk, 1)
    for batch in (ended, running):
        batches.write_failures(batch, [(number, "{}") for number in range(1, 1501)])
        batches.write_failures(batch, [(1, "other")])
    Batch.objects.filter(pk=ended.pk).update(status="completed")
    batch_results.delete_lines()
    assert (ended.lines.count(), running.lines.count()) == (0, 1500)
    batch_results.delete_lines(running.pk)
    assert running.lines.count() == 1500, "it has not ended"


def test_a_claim_that_succeeds_after_it_was_given_up_is_given_back(people: People) -> None:
    ada = people.owner.pk
    batch = _batch(ada, 30)
    claiming = batch_claims.Claiming("me")
    assert claiming.give_up() is None
    assert claiming.claim(ada, []) is None
    batch.refresh_from_db()
    assert batch.owner == "" and batch_claims.waiting_users([]) == [ada], "any worker may run it at once"


def test_a_claim_that_succeeds_at_the_moment_when_it_is_given_up_is_used(people: People) -> None:
    ada = people.owner.pk
    batch = _batch(ada, 30)
    claiming = batch_claims.Claiming("me")
    assert claiming.claim(ada, []) == batch
    assert claiming.give_up() == batch
    batch.refresh_from_db()
    assert batch.owner == "me" and batch_claims.waiting_users([batch.pk]) == []
