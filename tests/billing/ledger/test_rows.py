"""Rows of the ledger cannot be changed, and figures cannot be negative."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from portal.lib.money import NANO
from relay.billing.ledger.lines import SpendScope
from relay.models import LedgerEntry
from relay.models.ledger import Immutable

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
