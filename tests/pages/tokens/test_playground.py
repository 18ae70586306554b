"""The page of the playground: the tokens that it offers, and which of them it begins with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from portal.lib import clock
from relay.billing.ledger import movements
from relay.models import Token
from relay.tokens.lifecycle import create_token, revoke_token
from relay.tokens.open_relay import MARK, open_relay_token
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def offered(people: People) -> list[str]:
    return [token.name for token in signed_in(people.owner).get("/playground/").context["tokens"]]


@pytest.fixture
def alone(people: People) -> People:
    """The owner has no token yet."""
    Token.objects.filter(user=people.owner).delete()
    return people


def test_it_begins_with_a_token_that_has_a_secret(alone: People) -> None:
    create_token(alone.owner, "mine", actor=None)
    alone.owner.is_superuser = True
    alone.owner.save()
    made = open_relay_token()
    assert made is not None and made.user == alone.owner and made.built_in == MARK
    assert offered(alone) == ["mine", made.name]
    page = signed_in(alone.owner).get("/playground/").content.decode()
    assert "sk-…)" not in page, "it has no secret to be known by"
    revoke_token(Token.objects.get(name="mine"), actor=None)
    assert offered(alone) == [made.name], "where there is no other, it answers too"


def test_tokens_that_are_sure_to_answer_come_first(alone: People) -> None:
    owner = alone.owner
    create_token(owner, "any model", actor=None)
    create_token(owner, "from one address", actor=None, allowed_ips=["203.0.113.7"])
    limited: Any = create_token(owner, "one model", actor=None)[0]
    Token.objects.filter(pk=limited.pk).update(models_limited=True)
    create_token(owner, "pictures", actor=None, purpose="images")
    assert offered(alone) == ["any model", "from one address", "one model", "pictures"]


def test_tokens_that_cannot_be_used_are_not_offered(alone: People) -> None:
    owner = alone.owner
    spent = create_token(owner, "used up", actor=None)[0]
    movements.set_quota(spent, 0)
    create_token(owner, "over", actor=None, expires_at=clock.now() - timedelta(seconds=1))
    create_token(owner, "sounds", actor=None, purpose="audio")
    off = create_token(owner, "off", actor=None)[0]
    Token.objects.filter(pk=off.pk).update(enabled=False)
    assert offered(alone) == []
    movements.set_quota(spent, 1)
    assert offered(alone) == ["used up"]
