"""The playground's short-lived keys."""

from __future__ import annotations

import time

import pytest

from accounts.models import AuditEvent
from relay.gateway.access.short_lived_keys import PLAYGROUND_SECONDS, digest_of_key, make_playground_key
from relay.models import Token, UsageRecord
from relay.models.token import digest_of
from relay.tokens.lifecycle import revoke_token, rotate_token
from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = pytest.mark.shared


def test_a_playground_key_stands_for_its_token_and_ends_with_it(live: Portal, server: Server) -> None:
    model, user = live.model(), live.user()
    token = Token.objects.get(digest=digest_of(live.token(user)))
    key, until = make_playground_key(token.digest, time.time())
    assert abs(until - time.time() - PLAYGROUND_SECONDS) < 5 and token.digest not in key
    answer = server.post(key, ask(model))
    assert answer.status_code == 200 and live.record(answer).token_id == token.pk
    assert UsageRecord.objects.filter(token=token).count() == 1
    rotate_token(token, actor=None)
    assert server.post(key, ask(model)).status_code == 401, "the secret it stood for is gone"
    other, _ = make_playground_key(Token.objects.get(pk=token.pk).digest, time.time())
    assert server.post(other, ask(model)).status_code == 200
    revoke_token(Token.objects.get(pk=token.pk), actor=None)
    assert server.post(other, ask(model)).status_code == 401
    assert AuditEvent.objects.filter(action="token.revoke", target_id=str(token.pk)).exists()


def test_an_old_or_forged_playground_key_opens_nothing() -> None:
    key, until = make_playground_key("d" * 64, 1000.0)
    assert digest_of_key(key, until - 1) == "d" * 64 and digest_of_key(key, until) == ""
    assert (
        digest_of_key(key[:-3] + "abc", 1001.0) == ""
        and digest_of_key("pg_", 1001.0) == ""
        and digest_of_key("pg_" + "x" * 400, 1001.0) == ""
    )
