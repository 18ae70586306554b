"""Made-up use for an empty portal."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from relay.billing.ledger.verify import verify
from relay.models import ChannelDay, TallyDay, UsageRecord
from relay.usage import rollup

pytestmark = pytest.mark.shared


def test_seeding_refuses_a_portal_in_use_and_fills_an_empty_one(alone: None) -> None:
    UsageRecord.objects.all().delete()
    User.objects.create_user("somebody")
    with pytest.raises(CommandError, match="has users"):
        call_command("seed", requests=10)
    User.objects.update(is_superuser=True)  # administrators may be there
    call_command("seed", users=5, tokens=9, requests=300, days=3)
    books = verify()
    assert books.clean and books.entries > 250 and books.accounts >= 14, books.differences
    assert UsageRecord.objects.count() == 300 and ChannelDay.objects.exists() and TallyDay.objects.exists()
    assert rollup.differences() == []
