"""The token that a batch is charged to can end before its lines do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from openai import OpenAI

from portal.lib import clock
from tests.endpoints.batches.jobs import lines, results, wait_for
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"expires_at": True}, "token_expired", "has expired"),
        ({"enabled": False}, "token_disabled", "is disabled"),
    ],
)
def test_lines_say_what_became_of_their_token(
    live: Portal, server: Server, change: dict[str, Any], code: str, words: str
) -> None:
    from relay.models import Token
    from relay.models.token import digest_of
    from relay.storage import batches

    model, user = live.model(hello), live.user()
    first, second = live.token(user), live.token(user)
    server.catch_up()
    with OpenAI(base_url=server.url + "/v1", api_key=second, max_retries=0) as other:
        file = other.files.create(file=("b.jsonl", lines(model, 2)), purpose="batch")
    token = Token.objects.get(digest=digest_of(first))
    change = {"expires_at": clock.now() - timedelta(seconds=1)} if "expires_at" in change else change
    Token.objects.filter(pk=token.pk).update(**change)
    made = batches.create_batch(user.pk, token.pk, "/v1/chat/completions", file.id, None, None)
    with OpenAI(base_url=server.url + "/v1", api_key=second, max_retries=0) as other:
        done = wait_for(other, made.batch_id)
        found = [entry["response"] for entry in results(other, done.error_file_id)]
    assert [answer["status_code"] for answer in found] == [401, 401]
    for answer in found:
        error = answer["body"]["error"]
        assert error["code"] == code and words in error["message"]
    assert live.upstream.count(model) == 0
