"""Requests that are refused before routing can be found by their owner and by staff, and by nobody else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import websockets
from websockets.sync.client import connect

from portal.lib import clock
from portal.lib.json import encode
from portal.lib.money import NANO
from relay.models import RefusedRequest, Token, UsageRecord
from relay.models.token import digest_of
from relay.usage.refusals import refusal_sums
from relay.usage.retention.refused import delete_expired
from tests.support.asserts import until
from tests.support.money import PRICE
from tests.support.portal import People, Portal, ask
from tests.support.server import Server
from tests.support.sessions import with_config

pytestmark = pytest.mark.shared


def kept(response: Any) -> RefusedRequest:
    request_id = response.headers["x-request-id"]
    found: RefusedRequest = until(lambda: RefusedRequest.objects.filter(request_id=request_id).first())
    return found


def test_every_refusal_before_routing_is_kept_with_its_reason(live: Portal, server: Server) -> None:
    user, poor = live.user(balance=NANO), live.user(balance=1)
    secret = live.token(user)
    model, closed = live.model(price=PRICE), live.model(price=PRICE, is_open=False)
    images, limited = live.token(user, purpose="images"), live.token(user)
    expired = live.token(user)
    Token.objects.filter(digest=digest_of(limited)).update(max_rpm=1)
    Token.objects.filter(digest=digest_of(expired)).update(expires_at=clock.now() - timedelta(hours=1))
    server.post(limited, ask(model))
    refusals = {
        "insufficient_quota": server.post(live.token(poor), ask(model)),
        "model_not_found": server.post(secret, ask("no-such-model")),
        "model_not_allowed": server.post(secret, ask(closed)),
        "model_not_priced": server.post(secret, ask(live.model(price=None))),
        "purpose_not_allowed": server.post(images, ask(model)),
        "rate_limit_exceeded": server.post(limited, ask(model)),
        "token_expired": server.post(expired, ask(model)),
        "invalid_value": server.post(secret, ask(model, stream="many")),
        "invalid_json": server.post(secret, b"{"),
        "not_found": server.get(secret, "/v1/files/file-none"),
        "method_not_allowed": server.get(secret, "/v1/chat/completions"),
        "not_implemented": server.post(secret, {}, "/v1/fine_tuning/jobs"),
        "unknown_url": server.get(secret, "/v1/nothing"),
    }
    for code, response in refusals.items():
        row = kept(response)
        assert row.error_code == code == response.json()["error"]["code"], response.text
        assert row.status == response.status_code and row.user_id in {user.pk, poor.pk} and row.token_id
        assert row.error_message in response.json()["error"]["message"] and row.client_ip == "127.0.0.1"
        assert not UsageRecord.objects.filter(request_id=row.request_id).exists()
    assert kept(refusals["model_not_found"]).model == "no-such-model"
    assert kept(refusals["not_found"]).endpoint == "GET /v1/files/file-none"


def test_a_request_with_a_usage_record_is_not_kept_twice(live: Portal, server: Server) -> None:
    secret = live.token(live.user(balance=NANO))
    served, failed = server.post(secret, ask(live.model())), server.post(secret, ask(live.model(channels=[])))
    assert failed.status_code == 503
    live.record(served), live.record(failed)
    kept(server.post(secret, ask("no-such-model")))  # written after what came before
    assert not RefusedRequest.objects.filter(
        request_id__in=[one.headers["x-request-id"] for one in (served, failed)]
    ).exists()


def test_its_receipt_is_its_owners_and_staffs(live: Portal, server: Server) -> None:
    user = live.user(balance=NANO)
    row = kept(server.post(live.token(user), ask("no-such-model")))
    path = f"/v1/usage/{row.request_id}"
    found = server.get(live.token(user), path).json()
    assert found["end_reason"] == "refused" and found["charged_usd"] == "0" and found["status"] == 404
    assert found["error"]["code"] == "model_not_found" and found["error"]["param"] == "model"
    assert server.get(live.token(), path).status_code == 404
    assert server.get(live.token(live.user(is_staff=True)), path).status_code == 404, "without the right"
    assert server.get(live.token(live.user(is_staff=True, is_superuser=True)), path).json() == found


def test_a_refused_websocket_and_a_refused_batch_line_are_kept(live: Portal, server: Server) -> None:
    secret = live.token(live.user(balance=NANO))
    token = Token.objects.get(digest=digest_of(secret))
    with pytest.raises(websockets.InvalidStatus):
        connect(
            f"ws{server.url.removeprefix('http')}/v1/realtime?model=no-such-model",
            additional_headers={"Authorization": f"Bearer {secret}"},
            proxy=None,
        )
    row = until(lambda: RefusedRequest.objects.filter(token=token).first())
    assert row.error_code == "model_not_found" and row.endpoint == "GET /v1/realtime"
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": ask(live.model(is_open=False))}
    poor = live.token()
    content = b"".join(encode(line | {"custom_id": str(number)}) + b"\n" for number in range(3))
    upload = server.request(
        "POST", poor, "/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", content)}
    ).json()
    batch = server.post(
        poor, {"input_file_id": upload["id"], "endpoint": line["url"], "completion_window": "24h"}, "/v1/batches"
    ).json()
    rows = until(
        lambda: (
            found if len(found := RefusedRequest.objects.filter(token__digest=digest_of(poor)).order_by("pk")) else None
        )
    )
    assert rows[0].error_code == "model_not_allowed" and batch["id"] in rows[0].endpoint


def test_sums_by_code_and_deletion_by_age(people: People, settings: Any) -> None:
    RefusedRequest.objects.all().delete()
    now = clock.now()

    def row(code: str, user: Any, age: int = 0, requests: int = 1) -> None:
        RefusedRequest.objects.create(
            request_id=f"req_{code}_{age}",
            started_at=now - timedelta(days=age),
            user=user,
            endpoint="POST /v1/chat/completions",
            status=429,
            error_code=code,
            requests=requests,
        )

    row("insufficient_quota", people.owner, requests=40)
    row("insufficient_quota", people.other)
    row("model_not_found", people.owner)
    row("model_not_found", people.owner, age=31)
    day = now - timedelta(days=1)
    assert [(one.code, one.requests, one.users) for one in refusal_sums(day)] == [
        ("insufficient_quota", 41, 2),
        ("model_not_found", 1, 1),
    ]
    assert [(one.code, one.requests) for one in refusal_sums(day, people.other.pk)] == [("insufficient_quota", 1)]
    assert delete_expired() == 1 and RefusedRequest.objects.count() == 3
    with_config(settings, refused_keep_days=0)
    assert delete_expired() == 3 and delete_expired() == 0
