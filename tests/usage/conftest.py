"""A portal without requests."""

from __future__ import annotations

import pytest

from relay.models import UsageRecord
from relay.usage import rollup


@pytest.fixture
def alone(db: None) -> None:
    """No request but those of this test: what other tests have left is put aside until this one is rolled back."""
    UsageRecord.objects.all().delete()
    rollup.rebuild()
