"""Limits as clients meet them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.stalled import stalled
from tests.support.asserts import until
from tests.support.portal import Portal, ask
from tests.support.server import Server, free_port, serving
from tests.support.upstream import Call, chunk

pytestmark = pytest.mark.shared


def test_headers_and_refusal_on_the_wire(live: Portal, server: Server) -> None:
    token = live.token()
    from relay.models import Token
    from relay.models.token import digest_of

    row = Token.objects.get(digest=digest_of(token))
    row.max_rpm, row.max_tpm = 2, 100_000
    row.save()
    model = live.model()
    first = server.post(token, ask(model))
    assert first.headers["x-ratelimit-limit-requests"] == "2" and first.headers["x-ratelimit-remaining-requests"] == "1"
    assert (
        first.headers["x-ratelimit-limit-tokens"] == "100000"
        and int(first.headers["x-ratelimit-remaining-tokens"]) > 99_000
    )
    assert first.headers["x-ratelimit-reset-requests"] in {"1m0s", "59s"}
    assert server.post(token, ask(model)).status_code == 200
    refused = server.post(token, ask(model))
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
    ) and "2 requests a minute" in error["message"]
    assert 30 <= int(refused.headers["retry-after"]) <= 60 and refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert server.post(live.token(), ask(model)).headers.get("x-ratelimit-limit-requests") is None


@pytest.mark.parametrize("subject", ["user", "group", "member", "model"])
def test_limits_of_everything_that_a_request_passes_through(live: Portal, server: Server, subject: str) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings
    from relay.models import Model

    user, other = live.user(), live.user()
    group = Group.objects.create(name=live.name("group"))
    user.groups.add(group)
    other.groups.add(group)
    model = live.model()
    if subject == "user":
        user.max_rpm = 1
        user.save()
    elif subject == "model":
        row = Model.objects.get(name=model)
        row.max_rpm = 1
        row.save()
    else:
        GroupSettings.objects.create(group=group, **({"max_rpm": 1} if subject == "group" else {"member_rpm": 1}))
    mine, second, theirs = live.token(user), live.token(user), live.token(other)
    assert server.post(mine, ask(model)).status_code == 200
    assert server.post(second, ask(model)).status_code == 429
    assert server.post(theirs, ask(model)).status_code == (429 if subject in {"group", "model"} else 200)


def test_a_stream_holds_its_slot_until_it_ends(live: Portal, server: Server) -> None:
    go = threading.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        await asyncio.to_thread(go.wait)
        await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    user = live.user(max_concurrency=1)
    model = live.model(script)
    token = live.token(user)
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream(
        "POST",
        f"{server.v1}/chat/completions",
        json=ask(model, stream=True),
        headers=headers,
        trust_env=False,
        timeout=60,
    ) as response:
        assert response.status_code == 200
        refused = server.post(token, ask(model))
        assert (
            refused.status_code == 429
            and refused.json()["error"]["code"] == "concurrency_limit_exceeded"
            and refused.headers["retry-after"]
        )
        go.set()
        assert "[DONE]" in response.read().decode()
    assert until(lambda: (status := server.post(token, ask(model, stream=True)).status_code) != 429 and status) == 200


def test_a_channel_at_its_limit_is_passed_over(live: Portal, server: Server) -> None:
    full, open_channel = live.channel(priority=10, max_rpm=1), live.channel()
    model = live.model(channels=[full, open_channel])
    token = live.token()
    assert server.post(token, ask(model)).headers["x-relay-channel"] == str(full.pk)
    assert server.post(token, ask(model)).headers["x-relay-channel"] == str(open_channel.pk)
    alone = live.model(channels=[full])
    refused = server.post(token, ask(alone))
    assert (
        refused.status_code == 429 and "limit" in refused.json()["error"]["message"] and refused.headers["retry-after"]
    )
    assert live.record(refused).end_reason == "upstream_error"


def test_a_long_prompt_counts_before_it_is_sent(live: Portal, server: Server) -> None:
    user = live.user(max_tpm=2000)
    model = live.model()
    token = live.token(user)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "word " * 1500}]}).encode()
    assert server.post(token, body).status_code == 200
    left = server.post(token, ask(model))
    assert left.status_code == 200, "the real usage of 16 tokens has replaced the estimate"


@pytest.fixture(params=["refuses connections", "says nothing"])
def redis_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of a Redis that cannot be used."""
    if request.param == "refuses connections":
        yield free_port()
        return
    with stalled() as server:
        yield server.port


def test_redis_away_on_the_wire_and_on_the_pages(live: Portal, tmp_path: Path, redis_port: int) -> None:
    """Who has limits is told to come back; the others do not notice; sign-in says what is wrong instead of breaking."""
    model, free = live.model(), live.token()
    limited = live.token(live.user(max_rpm=100))
    with serving(tmp_path / "log", env={"AIRELAYS_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}) as server:
        headers = {"content-type": "application/json"}
        body = json.dumps(ask(model)).encode()
        refused = httpx.post(
            f"{server.v1}/chat/completions",
            content=body,
            headers={**headers, "authorization": f"Bearer {limited}"},
            trust_env=False,
            timeout=60,
        )
        assert (
            refused.status_code == 503
            and refused.json()["error"]["code"] == "relay_unavailable"
            and refused.headers["retry-after"]
        )
        assert (
            httpx.post(
                f"{server.v1}/chat/completions",
                content=body,
                headers={**headers, "authorization": f"Bearer {free}"},
                trust_env=False,
                timeout=60,
            ).status_code
            == 200
        )
        ready = httpx.get(f"{server.url}/readyz", trust_env=False, timeout=60)
        assert ready.status_code == 503 and ready.json()["problems"] == ["Redis does not answer"]
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as browser:
            page = browser.get("/accounts/login/")
            form = {
                "login": "x",
                "password": "y",
                "csrfmiddlewaretoken": page.text.split('csrfmiddlewaretoken" value="', 1)[1].split('"', 1)[0],
            }
            answer = browser.post("/accounts/login/", data=form, headers={"referer": f"{server.url}/accounts/login/"})
            chinese = browser.post(
                "/accounts/login/",
                data=form,
                headers={"referer": f"{server.url}/accounts/login/", "accept-language": "zh-CN"},
            )
        assert chinese.status_code == 503 and 'lang="zh-hans"' in chinese.text and "Redis 没有应答" in chinese.text
        assert answer.status_code == 503 and "Redis does not answer" in answer.text and answer.headers["retry-after"]
