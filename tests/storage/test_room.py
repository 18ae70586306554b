"""The bytes that are stored for a user: whatever writes them, and only theirs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal import limits
from portal.lib import clock
from relay.errors import RequestTooLarge
from relay.models import (
    Batch,
    BatchLine,
    ClientSecret,
    Conversation,
    ConversationItem,
    StoredResponse,
    Upload,
    UploadSession,
)
from relay.storage import batch_results, batches, conversations, files, uploads
from relay.storage.room import check_room, room_left, used_bytes
from relay.tokens.lifecycle import create_token
from tests.support.portal import People, stored_for

pytestmark = pytest.mark.shared
_DAY = timedelta(days=1)


def _conversation(user: Any, text: str) -> Conversation:
    return conversations.create_conversation(user.pk, [{"role": "user", "content": text}], {}, _DAY)


def test_everything_counts_in_bytes(people: People) -> None:
    user, used = people.owner.pk, 0
    token = create_token(people.owner, "batches", actor=people.owner)[0].pk

    def added() -> int:
        nonlocal used
        before, used = used, used_bytes(user)
        return used - before

    assert added() == 0
    stored_for(people.owner)
    assert added() == 3 + limits.ROW_BYTES
    row = _conversation(people.owner, "é" * 1000)
    assert 2000 < added() - 2 * limits.ROW_BYTES < 2300
    now = clock.now()
    StoredResponse.objects.create(
        user=people.owner, response_id="resp_1", model="m", status="completed", input="中" * 100, output="ab",
        body="{}", created_at=now, expires_at=now + _DAY,
    )  # fmt: skip
    assert added() == 304 + limits.ROW_BYTES
    StoredResponse.objects.update(body="", output=None)
    assert added() == -4
    batch = batches.create_batch(user, token, "/v1/embeddings", "file-1", None, None)
    assert added() == len("null") + limits.ROW_BYTES
    batches.write_failures(batch, [(1, "x" * 1000)])
    assert added() == 1000 + limits.ROW_BYTES
    uploads.create_session(user, 5, "a", "user_data", "text/plain", None)
    assert added() == limits.ROW_BYTES
    assert used_bytes(people.other.pk) == 0
    conversations.delete_conversation(row)
    for table in (StoredResponse, Batch, UploadSession):
        table.objects.all().delete()
    assert used_bytes(user) == 3 + limits.ROW_BYTES
    assert not BatchLine.objects.exists() and not ConversationItem.objects.exists()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL keeps long texts apart, and plans by its counts")
def test_texts_are_not_read_to_count_their_bytes(people: People) -> None:
    with CaptureQueriesContext(connection) as asked:
        used_bytes(people.owner.pk)
    with connection.cursor() as cursor:
        plans = ""
        for query in asked:
            plans += str(cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}").fetchall())
    for table in (BatchLine, ConversationItem, StoredResponse, ClientSecret):
        name = next(index.name for index in table._meta.indexes if index.fields[-1] == "size")
        assert re.search(rf"INDEX {name} \(\w+=\? AND size>\?\)", plans)


def test_who_has_no_room_left_stores_nothing(people: People, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_stored_bytes": 10_000})
    user = people.owner.pk
    row = _conversation(people.owner, "x" * 5000)
    with pytest.raises(RequestTooLarge) as refused:
        conversations.add_items(row, [{"role": "user", "content": "y" * 5000}], _DAY)
    assert refused.value.public_code == "storage_quota_exceeded" and "10,000 bytes" in refused.value.message
    with pytest.raises(RequestTooLarge):
        files.reserve_upload(user, 5000, "me")
    conversations.add_items(row, [{"role": "user", "content": "y" * 1000}], _DAY)
    with pytest.raises(RequestTooLarge):
        check_room(user, room_left(user) + 1)
    check_room(user, room_left(user))
    check_room(people.other.pk, 10_000)


def test_results_of_a_batch_fit_where_their_lines_were(people: People, settings: Any) -> None:
    token, _ = create_token(people.owner, "a", actor=None)
    batch = batches.create_batch(people.owner.pk, token.pk, "/v1/embeddings", "file-1", None, None)
    for number in range(4):
        BatchLine.objects.create(batch=batch, number=number, ok=True, body="x" * (1 << 20))
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_stored_bytes": (5 << 20)})
    assert batch_results.finish(batch, (), Batch.Status.COMPLETED, "me") is None
    batch.refresh_from_db()
    assert batch.status == Batch.Status.COMPLETED and not batch.lines.exists()
    assert 4 << 20 < used_bytes(people.owner.pk) < 5 << 20
    files.remove(Upload.objects.get(file_id=batch.output_file_id))


def test_a_conversation_has_so_many_items_and_a_page_so_many_bytes(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = _conversation(people.owner, "one")
    items: list[dict[str, object]] = [{"role": "user", "content": "x" * 100} for _ in range(4)]
    conversations.add_items(row, items, _DAY)
    ids = conversations.item_ids(row)
    assert len(ids) == 5
    monkeypatch.setattr(conversations, "MAX_CHARACTERS", 500)
    assert 1 <= len(conversations.read_items(row, ids)) < 5
    monkeypatch.setattr(conversations, "MAX_ITEMS", 6)
    with pytest.raises(conversations.TooManyItems):
        conversations.add_items(row, items[:2], _DAY)
