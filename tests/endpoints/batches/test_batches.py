"""Batches: worked off, charged line by line, gone on with after a kill, cancelled, expired."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.endpoints.batches.jobs import lines, results, submit, wait_for
from tests.support.asserts import until
from tests.support.environment import OwnDatabase
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving
from tests.support.upstream import Call, completion, hello

pytestmark = pytest.mark.shared


def test_worked_off_with_an_output_and_an_error_file(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import UsageRecord

    model = live.model(hello, price={"input": 1, "output": 1})
    server.catch_up()
    wrong = [
        lines("no-such-model", 1).replace(b"r0", b"bad"),
        lines(model, 1, stream=True).replace(b"r0", b"streamed"),
        lines(model, 1).replace(b"r0", b"broken").replace(b"}]", b"}],"),
    ]
    batch = submit(sdk, b"\n".join((lines(model, 12), *wrong)) + b"\n\n")
    assert batch.status == "validating" and batch.object == "batch" and batch.expires_at - batch.created_at == 24 * 3600
    done = wait_for(sdk, batch.id)
    assert done.status == "completed" and (
        done.request_counts.total,
        done.request_counts.completed,
        done.request_counts.failed,
    ) == (15, 12, 3)
    found = results(sdk, done.output_file_id)
    assert [entry["custom_id"] for entry in found] == [f"r{number}" for number in range(12)]
    assert (
        found[0]["response"]["status_code"] == 200
        and found[0]["response"]["body"]["choices"][0]["message"]["content"] == "Hello there."
        and found[0]["error"] is None
    )
    bad = results(sdk, done.error_file_id)
    assert {entry["custom_id"]: entry["response"]["body"]["error"]["code"] for entry in bad} == {
        "bad": "model_not_found",
        "streamed": "unsupported_parameter",
        "broken": "invalid_json",
    }
    records = UsageRecord.objects.filter(request_id__in=[entry["response"]["request_id"] for entry in found])
    assert records.count() == 12 and {record.cost for record in records} == {16_000}
    assert sdk.files.retrieve(done.output_file_id).purpose == "batch_output"
    assert batch.id in [entry.id for entry in sdk.batches.list()]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/responses", {"input": "a"}),
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/moderations", {"input": "a"}),
        ("/v1/images/generations", {"prompt": "a"}),
    ],
)
def test_other_endpoints(sdk: OpenAI, live: Portal, server: Server, endpoint: str, body: dict[str, Any]) -> None:
    async def script(call: Call) -> None:
        assert call.path == endpoint
        await call.reply(
            200,
            {
                "id": "x",
                "object": "response",
                "created_at": 1,
                "status": "completed",
                "output": [{"type": "message", "role": "assistant", "content": []}],
                "data": [{"embedding": [0.5]}],
                "results": [{"flagged": False}],
                "choices": [{"index": 0, "text": "b", "finish_reason": "stop"}],
                "tools": [],
                "metadata": {},
                "parallel_tool_calls": True,
            },
        )

    model = live.model(script)
    server.catch_up()
    line = json.dumps({"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": model, **body}}).encode()
    done = wait_for(sdk, submit(sdk, line, endpoint).id)
    assert done.request_counts.completed == 1, results(sdk, done.error_file_id)


def test_requests_that_fail_for_a_moment_are_made_again(sdk: OpenAI, live: Portal, server: Server) -> None:
    seen: list[int] = []

    async def script(call: Call) -> None:
        seen.append(1)
        if len(seen) <= 2:
            await call.error(429, "slow down", "rate_limit_exceeded", {"retry-after-ms": "50"})
        else:
            await hello(call)

    model = live.model(script)
    server.catch_up()
    assert wait_for(sdk, submit(sdk, lines(model, 1)).id).request_counts.completed == 1


def test_the_batch_price(live: Portal, own_database: OwnDatabase, tmp_path: Path) -> None:
    from relay.models import UsageRecord

    model, token = live.model(hello, price={"input": 1, "output": 1}), live.token()
    env = {**own_database.env, "AIRELAYS_BATCH_PRICE": "0.5", "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    with (
        serving(tmp_path / "log", env=env) as running,
        OpenAI(base_url=running.url + "/v1", api_key=token, max_retries=0) as sdk,
    ):
        done = wait_for(sdk, submit(sdk, lines(model, 1)).id)
        request_id = results(sdk, done.output_file_id)[0]["response"]["request_id"]
    record = UsageRecord.objects.get(request_id=request_id)
    assert record.cost == 8_000 and record.price_multiplier == 500_000


def test_cancelled_in_the_middle(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Batch

    admission, seen = asyncio.Event(), list[int]()

    async def script(call: Call) -> None:
        seen.append(1)
        if len(seen) > 3:
            await admission.wait()
        await call.reply(200, completion())

    model = live.model(script)
    server.catch_up()
    batch = submit(sdk, lines(model, 40))
    until(lambda: live.upstream.count(model) >= 5)
    assert sdk.batches.cancel(batch.id).status == "cancelling"
    for _ in range(2):  # each renewal of the lease is a look at the status
        before = Batch.objects.get(batch_id=batch.id).lease_until
        until(lambda: Batch.objects.get(batch_id=batch.id).lease_until != before)  # noqa: B023  # called before the next round
    live.upstream.set(admission)
    done = wait_for(sdk, batch.id)
    assert done.status == "cancelled" and 3 <= done.request_counts.completed < 20
    assert done.request_counts.completed + done.request_counts.failed == 40
    assert {entry["error"]["code"] for entry in results(sdk, done.error_file_id)} == {"batch_cancelled"}
    with pytest.raises(openai.BadRequestError):
        sdk.batches.cancel(batch.id)


def test_a_batch_that_takes_too_long_expires(sdk: OpenAI, live: Portal, server: Server) -> None:
    from portal.lib import clock
    from relay.models import Batch

    async def script(call: Call) -> None:
        await asyncio.sleep(0.2)
        await call.reply(200, completion())

    model = live.model(script)
    server.catch_up()
    batch = submit(sdk, lines(model, 60))
    until(lambda: live.upstream.count(model) >= 2)
    # The worker keeps what it has read, so the moment is moved by the time that a restart would read it at.
    Batch.objects.filter(batch_id=batch.id).update(owner="", lease_until=None)
    Batch.objects.filter(batch_id=batch.id).update(expires_at=clock.now() + timedelta(seconds=1))
    done = wait_for(sdk, batch.id)
    assert done.status == "expired" and done.request_counts.total == 60
    assert {entry["error"]["code"] for entry in results(sdk, done.error_file_id)} == {"batch_expired"}


def test_goes_on_after_a_kill_and_charges_nothing_twice(
    live: Portal, own_database: OwnDatabase, tmp_path: Path
) -> None:
    from relay.models import UsageRecord

    async def script(call: Call) -> None:
        await asyncio.sleep(0.05)
        await call.reply(200, completion())

    model = live.model(script, price={"input": 1, "output": 1})
    user = live.user(balance=10**12)
    token = live.token(user)
    env = {**own_database.env, "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    with (
        serving(tmp_path / "log", env=env) as running,
        OpenAI(base_url=running.url + "/v1", api_key=token, max_retries=0) as sdk,
    ):
        batch = submit(sdk, lines(model, 60))
        until(lambda: live.upstream.count(model) >= 15)
        running.kill()
    with (
        serving(tmp_path / "log2", env=env) as running,
        OpenAI(base_url=running.url + "/v1", api_key=token, max_retries=0) as sdk,
    ):
        done = wait_for(sdk, batch.id)
        assert done.status == "completed" and done.request_counts.completed == 60
        found = results(sdk, done.output_file_id)
    assert len({entry["custom_id"] for entry in found}) == 60
    charged = UsageRecord.objects.filter(user=user, end_reason="completed")
    assert {entry["response"]["request_id"] for entry in found} == set(charged.values_list("request_id", flat=True))


def test_a_bad_file_fails_the_batch_and_says_where(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    server.catch_up()
    done = wait_for(sdk, submit(sdk, lines(model, 2) + b"\nnonsense\n" + lines(model, 1)).id)
    assert done.status == "failed" and [(entry.code, entry.line) for entry in done.errors.data] == [
        ("invalid_json_line", 3),
        ("duplicate_custom_id", 4),
    ]
    assert live.upstream.count(model) == 0
    missing = wait_for(
        sdk, sdk.batches.create(input_file_id="file-nope", endpoint="/v1/chat/completions", completion_window="24h").id
    )
    assert missing.status == "failed" and missing.errors.data[0].code == "file_not_found"
    other = sdk.files.create(file=("a", b"x"), purpose="user_data")
    wrong = wait_for(
        sdk, sdk.batches.create(input_file_id=other.id, endpoint="/v1/chat/completions", completion_window="24h").id
    )
    assert wrong.errors.data[0].code == "invalid_purpose"


def test_a_revoked_token_pays_for_nothing_more(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Token
    from relay.models.token import digest_of

    model = live.model(hello)
    owner = Token.objects.get(digest=digest_of(sdk.api_key)).user
    second = live.token(owner)
    server.catch_up()
    file = sdk.files.create(file=("b.jsonl", lines(model, 2)), purpose="batch")
    token = Token.objects.get(digest=digest_of(second))
    with OpenAI(base_url=server.url + "/v1", api_key=second, max_retries=0) as other:
        batch = other.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        token.enabled = False
        token.save()
    done = wait_for(sdk, batch.id)
    assert done.request_counts.completed + done.request_counts.failed == 2
    for entry in results(sdk, done.error_file_id):
        assert entry["response"]["body"]["error"]["code"] in {"token_disabled", "request_ended"}, (
            "before it began, or while it ran"
        )


def test_nobody_else_sees_a_batch(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    server.catch_up()
    batch = submit(sdk, lines(model, 1))
    for stranger in (live.token(), live.token(live.user(is_staff=True, is_superuser=True))):
        assert server.get(stranger, f"/v1/batches/{batch.id}").status_code == 404
        assert server.request("POST", stranger, f"/v1/batches/{batch.id}/cancel").status_code == 404
        assert batch.id not in server.get(stranger, "/v1/batches").text
    wait_for(sdk, batch.id)


def _other(live: Portal, server: Server) -> OpenAI:
    client = OpenAI(base_url=server.url + "/v1", api_key=live.token(), max_retries=0, timeout=30)
    server.catch_up()
    return client


def test_an_upstream_that_hangs_keeps_no_other_user_waiting(sdk: OpenAI, live: Portal, server: Server) -> None:
    gate = asyncio.Event()

    async def hang(call: Call) -> None:
        await gate.wait()
        await call.reply(200, completion())

    async def busy(call: Call) -> None:
        await call.error(503, "busy", "overloaded", {"retry-after": "30"})

    hanging, failing, quick = live.model(hang), live.model(busy), live.model(hello)
    server.catch_up()
    stuck = [submit(sdk, lines(model, 12)) for model in (hanging, failing, hanging, hanging)]
    until(lambda: live.upstream.count(hanging) >= 4)
    with _other(live, server) as other:
        assert wait_for(other, submit(other, lines(quick, 6)).id).request_counts.completed == 6
    for batch in stuck:
        assert sdk.batches.cancel(batch.id).status == "cancelling"
    assert wait_for(sdk, stuck[1].id).status == "cancelled"  # its pauses end, and nothing of it is in flight
    assert wait_for(sdk, submit(sdk, lines(quick, 6)).id).request_counts.completed == 6
    live.upstream.set(gate)
    done = [wait_for(sdk, batch.id) for batch in stuck]
    assert {batch.status for batch in done} == {"cancelled"}
    assert sum(batch.request_counts.completed for batch in done) == live.upstream.count(hanging)


def test_eight_users_whose_upstream_hangs_shut_nobody_out(live: Portal, server: Server) -> None:
    gate = asyncio.Event()

    async def hang(call: Call) -> None:
        await gate.wait()
        await call.reply(200, completion())

    hanging, quick = live.model(hang), live.model(hello)
    clients = [OpenAI(base_url=server.url + "/v1", api_key=live.token(), max_retries=0, timeout=30) for _ in range(9)]
    server.catch_up()
    stuck = [(client, submit(client, lines(hanging, 6)).id) for client in clients[:8]]
    until(lambda: live.upstream.count(hanging) >= 8)
    bob = clients[8]
    done = wait_for(bob, submit(bob, lines(quick, 3)).id)
    assert done.status == "completed" and done.request_counts.completed == 3
    assert not gate.is_set()
    for client, batch_id in stuck:
        client.batches.cancel(batch_id)
    live.upstream.set(gate)
    for client, batch_id in stuck:
        assert wait_for(client, batch_id).status == "cancelled"
    for client in clients:
        client.close()


def test_batches_that_wait_for_room_keep_nobody_waiting(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Batch, Token, Upload
    from relay.models.token import digest_of
    from relay.models.upload import UploadState
    from relay.storage import files

    quick = live.model(hello)
    server.catch_up()
    owner = Token.objects.get(digest=digest_of(sdk.api_key)).user
    inputs = [sdk.files.create(file=("b.jsonl", lines(quick, 1)), purpose="batch") for _ in range(6)]
    # As if the files of this user took up all that they may.
    full = files.reserve_upload(owner.pk, 0, "nobody")
    Upload.objects.filter(pk=full.pk).update(state=UploadState.PART, size=files.storage_limits().user)
    try:
        waiting = [
            sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
            for file in inputs
        ]
        rows = Batch.objects.filter(batch_id__in=[batch.id for batch in waiting])
        until(lambda: rows.filter(status="finalizing", owner="", lease_until__isnull=False).count() == 6)
        assert "wait for room" in rows.values_list("errors", flat=True)[0]
        with _other(live, server) as other:
            assert wait_for(other, submit(other, lines(quick, 1)).id).status == "completed"
        sdk.files.delete(inputs[0].id)  # all requests have been made: it is not needed any more
    finally:
        files.remove(Upload.objects.get(pk=full.pk))
    rows.update(lease_until=None)
    done = [wait_for(sdk, batch.id) for batch in waiting]
    assert {batch.status for batch in done} == {"completed"}
    assert [len(results(sdk, batch.output_file_id)) for batch in done] == [1] * 6, [
        results(sdk, batch.error_file_id) for batch in done
    ]


def test_a_batch_that_was_put_back_is_cancelled_at_once(live: Portal) -> None:
    from relay.models import Batch
    from relay.storage import batch_claims, batches
    from relay.tokens.lifecycle import create_token

    users = [live.user(), live.user()]
    made = []
    for user in users:
        token = create_token(user, "a", actor=None)[0]
        made.append(batches.create_batch(user.pk, token.pk, "/v1/embeddings", "file-none", None, None))
    try:
        first, second = made
        # The server of these tests looks for batches, too: it must not find these.
        Batch.objects.filter(pk__in=[first.pk, second.pk]).update(owner="me", lease_until=first.expires_at)
        batch_claims.put_back(first, "me", 3600.0)
        assert not set(batch_claims.waiting_users([])) & {user.pk for user in users}
        assert batch_claims.claim("me", users[0].pk, []) is None
        batch_claims.put_back(first, "somebody else", 0.0)
        assert batch_claims.renew("me", [first.pk, second.pk]) == {second.pk: "validating"}
        batches.cancel_batch(first)
        assert first.status == "cancelling" and first.lease_until is None
    finally:
        Batch.objects.filter(pk__in=[batch.pk for batch in made]).delete()


def _batch_of(
    live: Portal, server: Server, content: bytes, endpoint: Any = "/v1/chat/completions", **limits: Any
) -> Any:
    """A finished batch of a user of its own, whose token has these limits; with its user."""
    from relay.models import Token
    from relay.models.token import digest_of

    user = live.user(balance=limits.pop("balance", None))
    secret = live.token(user)
    if limits:
        token = Token.objects.get(digest=digest_of(secret))
        for name, value in limits.items():
            setattr(token, name, value)
        token.save()
    server.catch_up()
    with OpenAI(base_url=server.url + "/v1", api_key=secret, max_retries=0, timeout=30) as sdk:
        done = wait_for(sdk, submit(sdk, content, endpoint).id)  # whose lines have all places
        return done, results(sdk, done.output_file_id), results(sdk, done.error_file_id), user


def test_the_limits_of_its_token_lose_no_line(live: Portal, server: Server) -> None:
    from relay.models import RefusedRequest

    running = most = 0

    async def script(call: Call) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        await call.reply(200, completion())

    model = live.model(script)
    done, found, lost, user = _batch_of(live, server, lines(model, 8), max_concurrency=1)
    assert (done.status, len(found), lost, most) == ("completed", 8, [], 1)
    assert not RefusedRequest.objects.filter(user=user).exists(), "a line that waits is no refused request"


def test_money_that_other_lines_hold_is_waited_for(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await asyncio.sleep(0.05)
        await call.reply(200, completion())

    # Each line may cost a cent, and there are three at first.
    model = live.model(script, price={"input": 0, "output": 10}, max_output_tokens=1_000)
    done, found, lost, _ = _batch_of(live, server, lines(model, 12, max_tokens=1_000), balance=3 * 10**7)
    assert (done.status, len(found), lost) == ("completed", 12, [])


def test_a_batch_says_what_it_waits_for(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import Batch

    async def script(call: Call) -> None:
        await call.error(429, "slow down", "rate_limit_exceeded", {"retry-after": "3000"})

    model = live.model(script)
    server.catch_up()
    batch = submit(sdk, lines(model, 20))
    row = until(lambda: Batch.objects.filter(batch_id=batch.id, waits_for="upstream").first())
    assert (row.waits_until - row.waits_since).total_seconds() > 2_900, "as the upstream said"
    shown: Any = sdk.batches.retrieve(batch.id)
    assert shown.waiting_for == "upstream" and shown.status == "in_progress"
    assert shown.waiting_until - shown.created_at > 2_900
    assert live.upstream.count(model) < 5, "its key is left alone"
    sdk.batches.cancel(batch.id)
    done: Any = wait_for(sdk, batch.id)
    assert done.status == "cancelled" and not hasattr(done, "waiting_for") and done.request_counts.failed == 20


def test_lines_wait_an_hour_for_a_top_up_and_then_say_why_they_failed(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
    from portal.lib import clock
    from relay.models import Batch

    model = live.model(hello, price={"input": 1000, "output": 1000})
    user = live.user(balance=1_000)
    with OpenAI(base_url=server.url + "/v1", api_key=live.token(user), max_retries=0, timeout=30) as poor:
        server.catch_up()
        batch = submit(poor, lines(model, 30))
        row = until(lambda: Batch.objects.filter(batch_id=batch.id, waits_for="money").first())
        assert row.waits_since is not None and not live.upstream.count(model)
        # As if a worker that has waited for an hour had stopped.
        since = clock.now() - timedelta(hours=1)
        until(
            lambda: (
                Batch.objects.filter(pk=row.pk, owner="").update(waits_for="money", waits_since=since)
                or not Batch.objects.filter(pk=row.pk).update(owner="", lease_until=None)
            )
        )
        done = wait_for(poor, batch.id)
        assert done.status == "completed" and done.request_counts.failed == 30
        assert [entry.code for entry in done.errors.data] == ["insufficient_quota"]
        lost = results(poor, done.error_file_id)
        assert {entry["response"]["body"]["error"]["code"] for entry in lost} == {"insufficient_quota"}
    assert live.upstream.count(model) == 0


def test_a_line_is_kept_though_its_conversation_was_deleted_meanwhile(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
    talk = sdk.conversations.create()

    async def script(call: Call) -> None:
        await asyncio.to_thread(sdk.conversations.delete, talk.id)
        await call.reply(200, completion())

    model = live.model(script, text_api="chat", price={"input": 1, "output": 1})
    server.catch_up()
    body = {"model": model, "input": "a", "conversation": talk.id}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}).encode()
    done = wait_for(sdk, submit(sdk, line, "/v1/responses").id)
    assert done.status == "completed" and done.request_counts.completed == 1
    (found,) = results(sdk, done.output_file_id)
    assert sdk.responses.retrieve(found["response"]["body"]["id"]).status == "completed"


@pytest.mark.skipif("TEST_DATABASE_URL" in os.environ, reason="locks the file of SQLite")
def test_an_answer_that_waits_for_the_database_is_not_made_again(sdk: OpenAI, live: Portal, server: Server) -> None:
    from relay.models import UsageRecord

    gate = asyncio.Event()

    async def script(call: Call) -> None:
        await gate.wait()
        await call.reply(200, completion())

    model = live.model(script, price={"input": 1, "output": 1})
    server.catch_up()
    batch = submit(sdk, lines(model, 2))
    until(lambda: live.upstream.count(model) == 2)
    with closing(sqlite3.connect(server.database, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        live.upstream.set(gate)
        assert server.post(sdk.api_key, ask(model)).status_code == 503  # and so were the lines, which were before it
        holder.execute("ROLLBACK")
    done = wait_for(sdk, batch.id)
    assert done.status == "completed" and done.request_counts.completed == 2
    assert live.upstream.count(model) == 3
    found = UsageRecord.objects.filter(model=model)
    assert found.filter(end_reason="completed", cost__gt=0).count() == 2, "the lines"
    assert found.exclude(end_reason="completed").get().cost == 0, "what was refused"
