"""Rows of the ledger cannot be changed, and figures cannot be negative."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.pending import PendingRecord
from relay.billing.ledger.rows import insert
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.writer import UsageWriter
from relay.models import Conversation, ConversationItem, LedgerEntry, UsageRecord
from relay.models.ledger import Immutable
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
