"""Message batches by Anthropic's SDK: run, charged by line, cancelled, expired, deleted, seen by nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from tests.support.asserts import until
from tests.support.money import books_balance
from tests.support.peers import messages
from tests.support.portal import Portal
from tests.support.server import Server, serving
from tests.support.upstream import Call, hello

pytestmark = pytest.mark.shared
PRICE = {"input": 1, "cached_input": "0.5", "cache_write": "1.25", "cache_write_1h": 2, "output": 8}
COST = 9_000 + 4 * 500 + 2 * 1_250 + 4 * 2_000 + 7 * 8_000  # of a mock's answer at that price, in nano-USD


def request(custom_id: str, model: str, **more: Any) -> Any:
    params = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "Say hello."}], **more}
    return {"custom_id": custom_id, "params": params}


def ended(client: Anthropic, batch_id: str) -> Any:
    return until(lambda: (now := client.messages.batches.retrieve(batch_id)).processing_status == "ended" and now)


def results(client: Anthropic, batch_id: str) -> dict[str, Any]:
    return {one.custom_id: one.result for one in client.messages.batches.results(batch_id)}


def counts(batch: Any) -> dict[str, int]:
    return {name: count for name, count in batch.request_counts.to_dict().items() if count}


def claude(live: Portal, script: Any = None, **options: Any) -> str:
    return live.model(script or messages.saying(), provider="anthropic", **options)


@pytest.fixture
def user(live: Portal) -> Any:
    return live.user(balance=10**12)


@pytest.fixture
def client(server: Server, live: Portal, user: Any) -> Iterator[Anthropic]:
    token = live.token(user)
    server.catch_up()
    with Anthropic(base_url=server.url, api_key=token, max_retries=0, timeout=30) as made:
        yield made


def test_every_request_has_its_result_and_is_charged_by_it(
    client: Anthropic, live: Portal, server: Server, user: Any
) -> None:
    from relay.models import Upload, UsageRecord

    async def picky(call: Call) -> None:
        await messages.refuse(call, 400, "invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum")

    good, other = claude(live, price=PRICE, upstream_name="claude-up"), live.model(hello, price=PRICE)
    refusing, closed = claude(live, picky, price=PRICE), claude(live, price=PRICE, is_open=False)
    unpriced = claude(live, price=None)
    server.catch_up()
    batch = client.messages.batches.create(
        requests=[
            *(request(f"good-{number}", good, top_k=3) for number in range(3)),
            request("converted", other),
            request("refused", refusing),
            request("closed", closed),
            request("unknown", "no-such-model"),
            request("unpriced", unpriced),
            request("streamed", good, stream=True),
        ],
        extra_headers={"anthropic-beta": "message-batches-2024-09-24, a-2026-01-01"},
    )
    assert (batch.type, batch.processing_status, batch.results_url) == ("message_batch", "in_progress", None)
    assert counts(batch) == {"processing": 9} and batch.expires_at - batch.created_at == timedelta(hours=24)
    done = ended(client, batch.id)
    assert counts(done) == {"succeeded": 4, "errored": 5} and done.ended_at >= done.created_at
    assert done.results_url == f"{server.url}/v1/messages/batches/{batch.id}/results"
    found = results(client, batch.id)
    assert found["good-1"].message.to_dict() == messages.message()
    assert found["converted"].message.content[0].text == "Hello there."
    errors = {name: one.error.error for name, one in found.items() if one.type == "errored"}
    assert {name: one.type for name, one in errors.items()} == {
        "refused": "invalid_request_error",
        "closed": "permission_error",
        "unknown": "not_found_error",
        "unpriced": "invalid_request_error",
        "streamed": "invalid_request_error",
    }
    assert errors["refused"].message == "prompt is too long: 300000 tokens > 200000 maximum"  # in the upstream's words
    sent = live.upstream.last("claude-up")
    assert (sent.json["top_k"], sent.headers["anthropic-beta"]) == (3, "a-2026-01-01")
    records = UsageRecord.objects.filter(user=user)
    assert sorted(record.cost for record in records.filter(model=good)) == [COST] * 3
    assert {record.endpoint for record in records} == {"messages"} and live.upstream.count(closed) == 0
    assert records.filter(cost__gt=0).count() == 4
    books_balance()
    until(lambda: not Upload.objects.filter(user=user, filename__contains="_requests").exists())  # nobody can read it


def test_the_batch_price_is_a_share_of_the_price(live: Portal, upstream: Any, tmp_path: Path) -> None:
    from relay.models import UsageRecord

    user = live.user(balance=10**12)
    model, token = claude(live, price=PRICE), live.token(user)
    env = {"AIRELAYS_BATCH_PRICE": "0.5", "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    with (
        serving(tmp_path / "log", env=env) as running,
        Anthropic(base_url=running.url, api_key=token, max_retries=0) as client,
    ):

        def at_the_share() -> Any:
            """Other servers of the suite may run a batch as well, at their own price."""
            batch = client.beta.messages.batches.create(
                requests=[request("a", model)], betas=["b-2026-01-01"], extra_query={"beta": "true"}
            )
            assert counts(ended(client, batch.id)) == {"succeeded": 1}
            (line,) = client.beta.messages.batches.results(batch.id)
            assert line.result.type == "succeeded"
            return UsageRecord.objects.filter(user=user, price_multiplier=500_000).first()

        assert until(at_the_share).cost == COST // 2
    sent = live.upstream.last(model)
    assert sent.path == "/v1/messages?beta=true" and sent.headers["anthropic-beta"] == "b-2026-01-01"


def test_an_overloaded_upstream_is_asked_again(client: Anthropic, live: Portal, server: Server) -> None:
    seen: list[int] = []

    async def script(call: Call) -> None:
        seen.append(1)
        if len(seen) <= 2:
            await messages.refuse(call, 529, "overloaded_error", "Overloaded", {"retry-after-ms": "50"})
        else:
            await call.reply(200, messages.message())

    model = claude(live, script)
    server.catch_up()
    batch = client.messages.batches.create(requests=[request("a", model)])
    assert counts(ended(client, batch.id)) == {"succeeded": 1} and len(seen) == 3


def test_results_nobody_fetches_are_charged(client: Anthropic, live: Portal, server: Server, user: Any) -> None:
    from relay.models import UsageRecord

    model = claude(live, price=PRICE)
    server.catch_up()
    client.messages.batches.create(requests=[request(f"r{number}", model) for number in range(5)])
    until(lambda: UsageRecord.objects.filter(user=user, cost=COST).count() == 5)


def test_cancelled_in_the_middle(client: Anthropic, live: Portal, server: Server) -> None:
    gate, seen = asyncio.Event(), list[int]()

    async def script(call: Call) -> None:
        seen.append(1)
        if len(seen) > 3:
            await gate.wait()
        await call.reply(200, messages.message())

    model = claude(live, script)
    server.catch_up()
    batch = client.messages.batches.create(requests=[request(f"r{number}", model) for number in range(40)])
    until(lambda: live.upstream.count(model) >= 5)
    with pytest.raises(anthropic.BadRequestError, match="Cancel it first"):
        client.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.AnthropicError, match="in_progress"):
        results(client, batch.id)
    going = client.messages.batches.cancel(batch.id)
    assert going.processing_status == "canceling" and going.cancel_initiated_at is not None
    assert counts(going) == {"processing": 40}
    live.upstream.set(gate)
    done = ended(client, batch.id)
    found = results(client, batch.id)
    kinds = [one.type for one in found.values()]
    assert counts(done) == {"succeeded": kinds.count("succeeded"), "canceled": kinds.count("canceled")}
    assert len(kinds) == 40 and 3 <= kinds.count("succeeded") < 30
    with pytest.raises(anthropic.BadRequestError, match="ended already"):
        client.messages.batches.cancel(batch.id)


def test_a_batch_that_takes_too_long_expires(client: Anthropic, live: Portal, server: Server) -> None:
    from portal.lib import clock
    from relay.models import Batch

    async def script(call: Call) -> None:
        await asyncio.sleep(0.2)
        await call.reply(200, messages.message())

    model = claude(live, script)
    server.catch_up()
    batch = client.messages.batches.create(requests=[request(f"r{number}", model) for number in range(60)])
    until(lambda: live.upstream.count(model) >= 2)
    # The worker keeps what it has read, so the moment is moved by the time that a restart would read it at.
    Batch.objects.filter(batch_id=batch.id).update(owner="", lease_until=None, expires_at=clock.now())
    done = ended(client, batch.id)
    found = [one.type for one in results(client, batch.id).values()]
    assert len(found) == 60 and set(found) <= {"succeeded", "expired"} and "expired" in found
    assert counts(done)["expired"] == found.count("expired")


def test_listed_paged_and_deleted(client: Anthropic, live: Portal, server: Server, user: Any) -> None:
    from relay.models import Batch, Upload

    model = claude(live)
    server.catch_up()
    made = [client.messages.batches.create(requests=[request("a", model)]).id for _ in range(5)]
    for name in made:
        ended(client, name)
    assert [one.id for one in client.messages.batches.list(limit=2)] == made[::-1]
    page = client.messages.batches.list(limit=2, before_id=made[0])
    assert ([one.id for one in page.data], page.has_more) == ([made[2], made[1]], True)
    page = client.messages.batches.list(limit=3, after_id=made[2])
    assert ([one.id for one in page.data], page.has_more) == ([made[1], made[0]], False)
    gone = client.messages.batches.delete(made[0])
    assert (gone.id, gone.type) == (made[0], "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made[0])
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.list(after_id=made[0])
    assert not Upload.objects.filter(user=user, filename__startswith=made[0]).exists()
    # They are neither files nor batches of OpenAI's API, and take up room all the same.
    token = client.api_key or ""
    assert server.get(token, "/v1/files").json()["data"] == []
    assert server.get(token, "/v1/batches").json()["data"] == []
    assert server.get(token, f"/v1/batches/{made[1]}").status_code == 404
    output = Batch.objects.get(batch_id=made[1]).output_file_id
    assert server.get(token, f"/v1/files/{output}/content").status_code == 404
    assert Upload.objects.get(file_id=output).size > 0


def test_nobody_else_sees_a_batch(client: Anthropic, live: Portal, server: Server) -> None:
    model = claude(live)
    strangers = [live.token(), live.token(live.user(is_staff=True, is_superuser=True))]
    server.catch_up()
    batch = client.messages.batches.create(requests=[request("a", model)])
    ended(client, batch.id)
    path = f"/v1/messages/batches/{batch.id}"
    for stranger in strangers:
        for method, address in (
            ("GET", path),
            ("GET", f"{path}/results"),
            ("POST", f"{path}/cancel"),
            ("DELETE", path),
        ):
            answer = server.request(method, stranger, address)
            assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
        assert batch.id not in server.get(stranger, "/v1/messages/batches").text
        assert server.get(stranger, f"/v1/messages/batches?after_id={batch.id}").status_code == 404
    assert results(client, batch.id)["a"].type == "succeeded"
    for nothing in ("x", "batch_1", "msgbatch_" + "9" * 500):
        assert server.get(client.api_key or "", f"/v1/messages/batches/{nothing}").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": {"custom_id": "a"}}, "requests"),
        ({"requests": ["a"]}, "requests[0]"),
        ({"requests": [{"params": {}}]}, "requests[0].custom_id"),
        ({"requests": [{"custom_id": "a b", "params": {}}]}, "requests[0].custom_id"),
        ({"requests": [{"custom_id": "a" * 65, "params": {}}]}, "requests[0].custom_id"),
        ({"requests": [{"custom_id": "a", "params": []}]}, "requests[0].params"),
        ({"requests": [{"custom_id": "a", "params": {}}, {"custom_id": "a", "params": {}}]}, "requests[1].custom_id"),
        ({"requests": [{"custom_id": "a", "params": {}, "url": "/x"}]}, "requests[0].url"),
        ({"requests": [{"custom_id": "a", "params": {}}], "model": "m"}, "model"),
        ({"requests": [{"custom_id": "a", "params": {"container": "container_1"}}]}, "requests[0].params.container"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_what_is_no_batch_is_refused_and_named(
    client: Anthropic, server: Server, user: Any, body: dict[str, Any], param: str
) -> None:
    from relay.models import Batch, Upload

    answer = server.post(client.api_key or "", body, path="/v1/messages/batches")
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["details"]["param"] == param
    assert not Batch.objects.filter(user=user).exists() and not Upload.objects.filter(user=user).exists()


def test_results_that_are_kept_no_longer(client: Anthropic, live: Portal, server: Server) -> None:
    from portal.lib import clock
    from relay.models import Batch, Upload

    model = claude(live)
    server.catch_up()
    batch = client.messages.batches.create(requests=[request("a", model)])
    done = ended(client, batch.id)
    row = Batch.objects.get(batch_id=batch.id)
    output = Upload.objects.get(file_id=row.output_file_id)
    assert output.expires_at == row.created_at + timedelta(days=29)
    Batch.objects.filter(pk=row.pk).update(created_at=row.created_at - timedelta(days=30))
    Upload.objects.filter(pk=output.pk).update(expires_at=clock.now())
    found = client.messages.batches.retrieve(batch.id)
    assert (found.results_url, found.processing_status) == (None, "ended") and found.archived_at is not None
    path = str(done.results_url).removeprefix(server.url)
    assert server.get(client.api_key or "", path).status_code == 404


def test_without_room_it_has_not_ended(client: Anthropic, live: Portal, server: Server) -> None:
    from relay.models import Batch

    model = claude(live)
    server.catch_up()
    batch = client.messages.batches.create(requests=[request("a", model)])
    ended(client, batch.id)
    Batch.objects.filter(batch_id=batch.id).update(unwritten=True, lease_until="2999-01-01T00:00Z")
    found = client.messages.batches.retrieve(batch.id)
    assert (found.processing_status, found.results_url, counts(found)) == ("in_progress", None, {"processing": 1})
    path = f"/v1/messages/batches/{batch.id}"
    answer = server.get(client.api_key or "", f"{path}/results")
    assert (answer.status_code, answer.json()["error"]["details"]["error_code"]) == (400, "batch_not_ended")
    assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
