"""Tokens for a purpose, families of models, and the playground's short-lived keys, as apps meet them."""

from __future__ import annotations

import time

import pytest

from accounts.models import AuditEvent
from relay.gateway.access.short_lived_keys import SECONDS, digest_in, make_pass
from relay.models import Model, ModelPermission, Token, UsageRecord
from relay.models.token import digest_of
from relay.tokens.lifecycle import revoke_token, rotate_token
from tests.conftest import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, completion


@pytest.mark.parametrize(
    ("purpose", "path", "allowed"),
    [
        ("chat", "/v1/chat/completions", True), ("chat", "/v1/embeddings", True), ("chat", "/v1/images/generations", False), ("images", "/v1/chat/completions", False),
        ("audio", "/v1/audio/speech", True), ("audio", "/v1/chat/completions", False), ("tasks", "/v1/chat/completions", False), ("", "/v1/chat/completions", True),
    ],
)  # fmt: skip
def test_a_token_opens_what_it_is_for(live: Portal, server: Server, purpose: str, path: str, allowed: bool) -> None:
    model, token = live.model(), live.token(purpose=purpose)
    body = {"model": model, "input": "x", "prompt": "x", "voice": "alloy", "messages": [{"role": "user", "content": "x"}]}
    answer = server.post(token, body, path)
    code = answer.json().get("error", {}).get("code") if answer.headers["content-type"].startswith("application/json") else None
    assert (code != "purpose_not_allowed") is allowed, answer.text
    if not allowed:
        assert answer.status_code == 403 and answer.json()["error"]["type"] == "permission_error"
    assert server.get(token, "/v1/models").status_code == 200 and server.get(token, "/v1/usage").status_code == 200


def test_a_family_of_models_serves_every_name_that_fits(live: Portal, server: Server) -> None:
    seen: list[str] = []

    async def say(call: Call) -> None:
        seen.append(call.json["model"])
        await call.reply(200, completion())

    prefix = live.name("gpt-4-gizmo-family") + "-"
    channel = live.channel()
    model = Model.objects.get(name=live.model(channels=[channel], price={"input": 1, "output": 2}))
    model.name = prefix + "*"
    model.save()
    live.upstream.script(f"{prefix}g-abc", say)
    token = live.token()
    answer = server.post(token, ask(f"{prefix}g-abc"))
    assert answer.status_code == 200 and seen == [f"{prefix}g-abc"], answer.text
    record = live.record(answer)
    assert record.model == f"{prefix}g-abc" and record.cost > 0, "at the family's price, under the name that was asked for"
    assert prefix + "*" not in [entry["id"] for entry in server.get(token, "/v1/models").json()["data"]]
    assert server.post(token, ask(prefix)).status_code == 404 and server.post(token, ask("other-" + prefix + "x")).status_code == 404
    model.is_open = False
    model.save()
    assert server.post(token, ask(f"{prefix}g-abc")).status_code == 403
    ModelPermission.objects.create(model=model, user=Token.objects.get(digest=digest_of(token)).user)
    assert server.post(token, ask(f"{prefix}g-abc")).status_code == 200


def test_a_gpt_is_found_by_its_id_alone(live: Portal, server: Server) -> None:
    gpt = live.name("g-Gpt").replace("-", "x", 2).replace("gx", "g-", 1)
    model = Model.objects.get(name=live.model())
    model.name = f"gpt-4-gizmo-{gpt}"
    model.save()
    answer = server.post(live.token(), ask(gpt))
    assert answer.status_code == 200 and live.record(answer).model == f"gpt-4-gizmo-{gpt}"


def test_a_playground_key_stands_for_its_token_and_ends_with_it(live: Portal, server: Server) -> None:
    model, user = live.model(), live.user()
    token = Token.objects.get(digest=digest_of(live.token(user)))
    key, until = make_pass(token.digest, time.time())
    assert abs(until - time.time() - SECONDS) < 5 and token.digest not in key
    answer = server.post(key, ask(model))
    assert answer.status_code == 200 and live.record(answer).token_id == token.pk
    assert UsageRecord.objects.filter(token=token).count() == 1
    rotate_token(token, actor=None)
    assert server.post(key, ask(model)).status_code == 401, "the secret it stood for is gone"
    other, _ = make_pass(Token.objects.get(pk=token.pk).digest, time.time())
    assert server.post(other, ask(model)).status_code == 200
    revoke_token(Token.objects.get(pk=token.pk), actor=None)
    assert server.post(other, ask(model)).status_code == 401
    assert AuditEvent.objects.filter(action="token.revoke", target_id=str(token.pk)).exists()


def test_an_old_or_forged_playground_key_opens_nothing() -> None:
    key, until = make_pass("d" * 64, 1000.0)
    assert digest_in(key, until - 1) == "d" * 64 and digest_in(key, until) == ""
    assert digest_in(key[:-3] + "abc", 1001.0) == "" and digest_in("pg_", 1001.0) == "" and digest_in("pg_" + "x" * 400, 1001.0) == ""
