"""A token with a balance, and whose money it spends."""

from __future__ import annotations

import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.lines import SpendScope
from relay.models import Token
from relay.tokens.lifecycle import create_token
from tests.support.portal import People


@pytest.fixture
def token(people: People) -> Token:
    movements.top_up(people.owner, NANO, actor=people.staff, reason="test")
    return create_token(people.owner, "laptop", actor=None)[0]


@pytest.fixture
def scope(token: Token) -> SpendScope:
    return SpendScope(token.user_id, token.pk, movements.today())
