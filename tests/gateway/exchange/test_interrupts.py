"""Requests that are ended by what their user does elsewhere: read on for their usage and charged, like left ones."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from relay.models import Token, UsageRecord
from relay.models.token import digest_of
from relay.tokens.lifecycle import revoke_token, rotate_token
from relay.usage.running import running_requests
from tests.support.asserts import until
from tests.support.money import settled
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in
from tests.support.streams import raw_stream, read_until
from tests.support.upstream import Call, Script, chunk, completion, two_words

pytestmark = pytest.mark.shared

USAGE = {"prompt_tokens": 1000, "completion_tokens": 5000}
PRICE = {"input": 1, "output": 10}
COST = 1000 * 1000 + 5000 * 10_000


def upstream(go_on: threading.Event, stream: bool) -> Script:
    """Begins an answer, and ends it with its usage once it may."""

    async def script(call: Call) -> None:
        if stream:
            await two_words(call)
        await asyncio.to_thread(go_on.wait, 20)
        if not stream:
            await call.reply(200, completion("Hello there", usage=USAGE))
            return
        await call.event({**chunk("never sent", "stop"), "usage": USAGE})
        await call.event("[DONE]")
        await call.end()

    return script


def end(how: str, user: Any) -> None:
    """Do what ends the running requests of a user who has one token."""
    token = Token.objects.get(user=user)
    if how == "revoke":
        revoke_token(token, actor=user)
    elif how == "rotate":
        rotate_token(token, actor=user)
    elif how == "disable":
        assert signed_in(user).post(f"/tokens/{token.pk}/enabled/", {"enabled": "0"}).status_code == 302
    elif how == "administrator":
        revoke_token(token, actor=None)
    else:
        user.is_active = False
        user.save()


SAID = {
    "revoke": "owner of its token",
    "rotate": "owner of its token",
    "disable": "owner of its token",
    "administrator": "its token was revoked",
    "account": "account of its token",
}


def has_ended_it(server: Server, live: Portal) -> None:
    """The worker has taken over every change, and what it looked up for them in its threads."""
    token = live.token()
    for _ in range(3):
        assert server.get(token, "/v1/usage").status_code == 200


@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_charged_although_its_token_ended(server: Server, live: Portal, stream: bool, how: str) -> None:
    go_on = threading.Event()
    user = live.user(balance=10**9)
    model, secret = live.model(upstream(go_on, stream), price=PRICE), live.token(user)
    if stream:
        with raw_stream(server, secret, ask(model, stream=True)) as connection:
            read_until(connection, b" there")
            end(how, user)
            said = read_until(connection, b'"code":"request_ended"').decode()  # at once
            assert "never sent" not in said
            go_on.set()
            rest = read_until(connection, b"0\r\n\r\n").decode()
            assert "never sent" not in rest and "[DONE]" not in rest
    else:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server.post, secret, ask(model))
            until(lambda: live.upstream.count(model))
            end(how, user)
            has_ended_it(server, live)
            go_on.set()
            answer = asked.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "request_ended")
        said = answer.json()["error"]["message"]
    assert SAID[how] in said
    record = until(lambda: UsageRecord.objects.filter(model=model).first())
    assert (record.end_reason, record.status, record.error_code) == (
        "client_gone",
        200 if stream else 403,
        "request_ended",
    )
    assert SAID[how] in record.error_message
    assert (record.usage_source, record.billing, record.cost) == ("reported", "usage", COST)
    assert settled(user).used == COST


def test_a_background_response_is_charged_although_it_was_cancelled(server: Server, live: Portal) -> None:
    go_on = threading.Event()
    user = live.user(balance=10**9)
    model, secret = live.model(upstream(go_on, False), price=PRICE, text_api="chat"), live.token(user)
    begun = server.post(secret, {"model": model, "input": "Hello", "background": True}, "/v1/responses").json()
    until(lambda: live.upstream.count(model))
    cancelled = server.request("POST", secret, f"/v1/responses/{begun['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    has_ended_it(server, live)
    go_on.set()
    record = until(lambda: UsageRecord.objects.filter(model=model).first())
    assert (record.end_reason, record.status, record.error_code) == ("client_gone", 499, "request_ended")
    assert "cancelled by its user" in record.error_message
    assert (record.usage_source, record.billing, record.cost) == ("reported", "usage", COST)
    assert settled(user).used == COST
    shown = server.get(secret, f"/v1/responses/{begun['id']}").json()
    assert shown["status"] == "cancelled" and not shown["output"]


def test_a_line_of_a_batch_is_charged_although_its_token_ended(server: Server, live: Portal) -> None:
    go_on = threading.Event()
    user = live.user(balance=10**9)
    model, secret, other = live.model(upstream(go_on, False), price=PRICE), live.token(user), live.token(user)
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": ask(model)}
    form = {"files": {"file": ("b.jsonl", json.dumps(line).encode())}, "data": {"purpose": "batch"}}
    file = server.request("POST", secret, "/v1/files", **form).json()
    wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = server.post(secret, wanted, "/v1/batches").json()
    until(lambda: live.upstream.count(model))
    revoke_token(Token.objects.get(digest=digest_of(secret)), actor=user)
    has_ended_it(server, live)
    go_on.set()
    done = until(
        lambda: (
            found
            if (found := server.get(other, f"/v1/batches/{batch['id']}").json())["status"] == "completed"
            else None
        )
    )
    assert done["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    said = json.loads(server.get(other, f"/v1/files/{done['output_file_id']}/content").text)
    assert said["response"]["body"]["choices"], "what is charged is there"
    record = UsageRecord.objects.get(model=model)
    assert (record.end_reason, record.usage_source) == ("client_gone", "reported")
    assert record.cost == settled(user).used > COST // 4


def test_staff_who_end_their_own_request_pay_for_it(server: Server, live: Portal) -> None:
    go_on = threading.Event()
    boss = live.user(balance=10**9, is_staff=True, is_superuser=True)
    model, secret = live.model(upstream(go_on, False), price=PRICE), live.token(boss)
    server.catch_up()
    page = signed_in(boss)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, secret, ask(model))
        until(lambda: live.upstream.count(model))
        page.get("/admin/running/")
        row = until(lambda: next((one for one in running_requests().rows if one["model"] == model), None))
        assert page.post(f"/admin/running/{row['id']}/end/").status_code == 302
        has_ended_it(server, live)
        go_on.set()
        assert asked.result().status_code == 403
    record = until(lambda: UsageRecord.objects.filter(model=model).first())
    assert (record.end_reason, record.cost) == ("client_gone", COST)
