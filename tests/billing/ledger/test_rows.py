"""Rows of the ledger cannot be changed, and figures cannot be negative."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.pending import PendingRecord
from relay.billing.ledger.rows import RowWrite, insert, update
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.writer import UsageWriter
from relay.models import Conversation, ConversationItem, LedgerEntry, StoredResponse, UsageRecord
from relay.models.ledger import Immutable
from tests.billing.ledger.batches.callers import answer
from tests.support.money import usage_row
from tests.support.portal import People, Portal

pytestmark = pytest.mark.shared


def test_rows_cannot_be_changed_or_deleted(scope: SpendScope) -> None:
    entry = LedgerEntry.objects.first()
    assert entry is not None
    entry.amount = 5
    for change in (
        entry.save,
        entry.delete,
        lambda: LedgerEntry.objects.all().delete(),
        lambda: LedgerEntry.objects.update(amount=1),
        lambda: LedgerEntry.objects.bulk_update([entry], ["amount"]),
        lambda: LedgerEntry.objects.update_or_create(pk=entry.pk, amount=1),
    ):
        with pytest.raises(Immutable, match="never changed"):
            change()
    assert LedgerEntry.objects.get(pk=entry.pk).amount == NANO


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE relay_ledgeraccount SET used = granted + 1 WHERE kind = 'wallet'",
        "UPDATE relay_ledgeraccount SET reserved = -1",
        "UPDATE relay_ledgerentry SET amount = -1",
    ],
)
def test_the_database_itself_refuses_negative_figures(scope: SpendScope, sql: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


# -- rows that are written together with a record ----------------------------------------------------------------------


def talk(user: Any) -> Conversation:
    now = clock.now()
    return Conversation.objects.create(conversation_id=f"conv_{user.pk}", user=user, created_at=now, expires_at=now)


def test_a_row_replaces_the_older_one_only_where_it_is_told_to(people: People) -> None:
    db, keys = LedgerSql(), ("conversation_id", "item_id")
    mine, theirs = talk(people.owner).pk, talk(people.other).pk
    for conversation, body, replace in (
        (mine, "one", keys),
        (theirs, "other", keys),
        (mine, "two", keys),
        (mine, "three", ()),
    ):
        insert(ConversationItem, replace, conversation_id=conversation, item_id="msg_1", body=body).run(db)
    assert list(ConversationItem.objects.order_by("pk").values_list("body", flat=True)) == ["other", "two"]


def test_a_record_is_written_although_what_belongs_to_it_cannot_be(
    live: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """One that costs nothing, too; a record that is written with others keeps what belongs to them."""
    user, loop, writer = live.user(), asyncio.new_event_loop(), UsageWriter()
    conversation = talk(user).pk

    def pending(request_id: str, at: int | None) -> PendingRecord:
        row = usage_row(request_id=request_id, started_at=time.time(), user_id=user.pk, attempt_log="[]")
        item = insert(ConversationItem, conversation_id=at, item_id=request_id, body="{}")
        return PendingRecord(row, None, None, loop, (item,))

    bad, good = live.name("req_bad"), live.name("req_good")
    writer._write([pending(bad, 2**60), pending(good, conversation)])
    loop.close()
    assert UsageRecord.objects.filter(request_id__in=(bad, good)).count() == 2
    assert list(ConversationItem.objects.filter(conversation=conversation).values_list("item_id", flat=True)) == [good]
    assert bad in caplog.text


def test_what_lost_its_parent_takes_nothing_else_with_it(live: Portal, caplog: pytest.LogCaptureFixture) -> None:
    user, loop, writer = live.user(), asyncio.new_event_loop(), UsageWriter()
    mine, gone, request_id = talk(user).pk, 2**40, live.name("req_parent")
    row = usage_row(request_id=request_id, started_at=time.time(), user_id=user.pk, attempt_log="[]")
    rows = (
        insert(ConversationItem, conversation_id=gone, item_id="msg_a", body="{}"),
        answer(user, "resp_kept"),
        insert(ConversationItem, conversation_id=gone, item_id="msg_b", body="{}"),
        insert(ConversationItem, conversation_id=mine, item_id="msg_c", body="{}"),
        update(Conversation, gone, metadata="{}"),
    )
    writer._write([PendingRecord(row, None, None, loop, rows)])
    loop.close()
    assert UsageRecord.objects.filter(request_id=request_id).exists()
    assert StoredResponse.objects.filter(user=user, response_id="resp_kept").exists()
    assert list(ConversationItem.objects.filter(conversation=mine).values_list("item_id", flat=True)) == ["msg_c"]
    assert not ConversationItem.objects.filter(conversation=gone).exists() and request_id in caplog.text


def test_a_row_that_was_deleted_on_purpose_does_not_come_back(people: People) -> None:
    row = dataclasses.replace(answer(people.owner, "resp_gone"), only_replaces=True)
    row.run(LedgerSql())
    assert not StoredResponse.objects.filter(response_id="resp_gone").exists()
    answer(people.owner, "resp_gone").run(LedgerSql())
    row.run(LedgerSql())
    assert StoredResponse.objects.filter(response_id="resp_gone").count() == 1


def test_a_row_in_conflict_is_written_otherwise(people: People) -> None:
    mine, db = talk(people.owner).pk, LedgerSql()

    def item(item_id: str, body: str) -> RowWrite:
        return insert(ConversationItem, conversation_id=mine, item_id=item_id, body=body)

    item("msg_0", "one").run(db)
    dataclasses.replace(item("msg_0", "two"), otherwise=lambda: item("msg_own", "two")).run(db)
    assert list(ConversationItem.objects.filter(conversation=mine).values_list("item_id", "body")) == [
        ("msg_0", "one"),
        ("msg_own", "two"),
    ]
