"""Failover as clients see it: a real server, real upstreams on real ports, one of them always in trouble."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.asserts import check
from tests.support.portal import Portal, ask, two
from tests.support.server import Server, serving
from tests.support.upstream import Call, Upstream, chunk, completion, failing, keys_used

pytestmark = pytest.mark.shared


async def refuse_key(call: Call) -> None:
    await call.error(
        401, "Incorrect API key provided: sk-upst***4321. See https://vendor.example.com/keys", "invalid_api_key"
    )


def test_failed_key_is_followed_by_another_and_the_client_sees_nothing(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        if "first" in call.headers["authorization"]:
            await refuse_key(call)
        else:
            await call.reply(200, completion())

    model, token = live.model(script, keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab")), live.token()
    attempts = {server.post(token, ask(model)).headers["x-relay-attempts"] for _ in range(12)}
    assert attempts <= {"1", "2"} and "2" in attempts


def test_siblings_come_before_a_lower_priority(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        if call.headers["authorization"].endswith("good"):
            await call.reply(200, completion())
        else:
            await call.error(500)

    low = live.channel(keys=("sk-low-0123456789-good",), priority=-5)
    siblings = [
        live.channel(keys=("sk-bad-0123456789-bad0",), priority=5),
        live.channel(keys=("sk-sib-0123456789-good",), priority=5),
    ]
    model, token = live.model(script, channels=[low, *siblings]), live.token()
    for _ in range(6):
        assert server.post(token, ask(model)).headers["x-relay-channel"] == str(siblings[1].pk)


@pytest.mark.parametrize(
    ("headers", "seconds", "milliseconds"),
    [
        ({"retry-after": "7"}, "7", None),
        ({"retry-after-ms": "1500"}, "2", "1500"),
        ({"retry-after-ms": "60"}, "1", "60"),
        ({}, None, None),
    ],
)
def test_rate_limit_of_every_upstream_is_a_429_with_its_own_wait_and_no_guess(
    server: Server, live: Portal, headers: dict[str, str], seconds: str | None, milliseconds: str | None
) -> None:
    async def script(call: Call) -> None:
        await call.error(429, "slow down", "rate_limit_exceeded", headers)

    response = server.post(live.token(), ask(live.model(script)))
    check(response, 429, "rate_limit_error", "rate_limit_exceeded")
    found = response.headers.get("retry-after"), response.headers.get("retry-after-ms")
    assert found == (seconds, milliseconds)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wait", ["3", None])
@pytest.mark.parametrize("status", [503, 529])
def test_overloaded_upstream_is_a_503_with_retry_after_if_the_upstream_says_when(
    server: Server, live: Portal, status: int, wait: str | None, stream: bool
) -> None:
    model = live.model(failing(status, None, {"retry-after": wait} if wait else {}))
    response = server.post(live.token(), ask(model, stream=stream))
    check(response, 503, "server_error", "no_available_channel")
    assert response.headers.get("retry-after") == wait


@pytest.mark.parametrize("advice", ["true", "false"])
@pytest.mark.parametrize("status", [400, 409, 429, 500, 503])
def test_an_upstreams_advice_about_retrying_reaches_the_client(
    server: Server, live: Portal, status: int, advice: str
) -> None:
    """OpenAI's and Anthropic's SDKs obey the header whatever the status is."""
    model = live.model(failing(status, None, {"x-should-retry": advice, "retry-after-ms": "250"}))
    headers = server.post(live.token(), ask(model)).headers
    assert (headers["x-should-retry"], headers["retry-after"], headers["retry-after-ms"]) == (advice, "1", "250")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "invalid_api_key"),
        (402, "x"),
        (403, "forbidden"),
        (404, "model_not_found"),
        (429, "slow"),
        (500, "x"),
        (503, "x"),
        (529, "x"),
    ],
)
def test_another_channel_answers_and_the_record_says_why(
    live: Portal, server: Server, second: Upstream, status: int, code: str, stream: bool
) -> None:
    model, first, spare = two(live, second, failing(status, code))
    response = server.post(live.token(), ask(model, stream=stream))
    assert (
        response.status_code == 200
        and response.headers["x-relay-attempts"] == "2"
        and response.headers["x-relay-channel"] == str(spare.pk)
    )
    record = live.record(response)
    assert record.end_reason == "completed" and record.channel_id == spare.pk and record.attempts == 2
    bad, good = record.attempt_log
    assert (
        (bad["channel"], bad["status"]) == (first.pk, status)
        and bad["outcome"] not in {"ok", ""}
        and "mock error" in bad["detail"]
    )
    assert (good["channel"], good["outcome"]) == (spare.pk, "ok")


@pytest.mark.parametrize(
    ("status", "code"), [(400, "context_length_exceeded"), (400, "content_filter"), (422, "x"), (413, "x")]
)
def test_a_request_at_fault_is_not_tried_elsewhere_nor_held_against_the_channel(
    live: Portal, server: Server, second: Upstream, status: int, code: str
) -> None:
    model, _first, _ = two(live, second, failing(status, code))
    token = live.token()
    for _ in range(8):
        response = server.post(token, ask(model))
        assert (
            response.status_code == status
            and response.json()["error"]["code"] == code
            and response.headers["x-relay-attempts"] == "1"
        )
    assert second.count(model) == 0
    assert live.upstream.count(model) == 8, "its circuit stays closed"


def test_no_pair_is_tried_twice_and_attempts_are_bounded(live: Portal, server: Server) -> None:
    model = live.model(failing(500), keys=tuple(f"sk-key-number-{index}-0123456789" for index in range(5)))
    response = server.post(live.token(), ask(model))
    check(response, 502, "server_error", "upstream_error")
    assert response.headers["x-relay-attempts"] == "3"
    used = keys_used(live.upstream, model)
    record = live.record(response)
    assert len({entry["key"] for entry in record.attempt_log}) == 3 == len(used)


def test_no_other_try_is_begun_when_the_time_for_tries_is_over(live: Portal, tmp_path: Path) -> None:
    async def slowly(call: Call) -> None:
        await asyncio.sleep(0.6)
        await call.error(500)

    model = live.model(slowly, keys=tuple(f"sk-key-number-{index}-0123456789" for index in range(5)))
    with serving(tmp_path / "log", env={"AIRELAYS_RETRY_SECONDS": "0.5", "AIRELAYS_MAX_ATTEMPTS": "5"}) as own:
        response = own.post(live.token(), ask(model))
    check(response, 502, "server_error", "upstream_error")
    assert live.upstream.count(model) == 1


def test_nothing_is_switched_after_the_first_byte(live: Portal, server: Server, second: Upstream) -> None:
    async def cut(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        call.cut()

    model, _, _ = two(live, second, cut)
    response = server.post(live.token(), ask(model, stream=True))
    assert response.status_code == 200 and "upstream_truncated" in response.text and "[DONE]" not in response.text
    assert second.count(model) == 0


@pytest.mark.parametrize(
    ("policy", "broken", "slow"), [("never", 502, 504), ("broken", 200, 504), ("always", 200, 200)]
)
def test_what_may_have_been_billed_is_tried_elsewhere_only_where_the_channel_allows(
    live: Portal, server: Server, second: Upstream, policy: str, broken: int, slow: int
) -> None:
    async def cut(call: Call) -> None:
        call.cut()

    async def silent(call: Call) -> None:
        await call.closed_event()

    model, _, _ = two(live, second, cut, retry_unanswered=policy)
    assert server.post(live.token(), ask(model)).status_code == broken
    model, _, _ = two(live, second, silent, retry_unanswered=policy, first_byte_timeout=1)
    response = server.post(live.token(), ask(model))
    assert response.status_code == slow
    assert live.record(response).attempt_log[0]["outcome"] == "timeout"


def test_a_conversation_stays_on_its_channel(live: Portal, server: Server, second: Upstream) -> None:
    model = live.model(channels=[live.channel(), live.channel(second.base_url)])
    token = live.token()
    homes: dict[str, set[str]] = {}
    for talk in range(12):
        for _ in range(3):
            response = server.post(token, ask(model, prompt_cache_key=f"talk-{talk}"))
            homes.setdefault(f"talk-{talk}", set()).add(response.headers["x-relay-channel"])
    assert all(len(channels) == 1 for channels in homes.values())
    assert len(set.union(*homes.values())) == 2, "different ones go to different channels"


def test_staff_pin_a_channel_and_nobody_else_does(live: Portal, server: Server, second: Upstream) -> None:
    first, spare = live.channel(priority=5), live.channel(second.base_url)
    model = live.model(channels=[first, spare])
    closed = live.model(channels=[spare], is_open=False)
    staff = live.token(live.user(is_staff=True, is_superuser=True))  # who may view channels
    assert server.post(f"{staff}-{spare.pk}", ask(model)).headers["x-relay-channel"] == str(spare.pk)
    assert server.post(staff, ask(model)).headers["x-relay-channel"] == str(first.pk)
    check(server.post(f"{staff}-{spare.pk}", ask(closed)), 403, "permission_error", "model_not_allowed", "model")
    check(server.post(f"{staff}-999999", ask(model)), 400, "invalid_request_error", "channel_not_found")
    check(server.post(f"{live.token()}-{spare.pk}", ask(model)), 403, "permission_error", "channel_pin_not_allowed")
    check(server.post(f"{staff}-x", ask(model)), 401, "authentication_error", "invalid_api_key")


def test_rules_of_the_administrator_are_obeyed_at_once(live: Portal, server: Server, second: Upstream) -> None:
    from relay.models import FailureRule

    async def odd(call: Call) -> None:
        await call.error(400, "Our cluster naps until tomorrow", "nap_time")

    model, _first, spare = two(live, second, odd)
    token = live.token()
    assert server.post(token, ask(model)).status_code == 400
    FailureRule.objects.create(status=400, word="nap_time", failure_class="overload", cooldown=600)
    response = server.post(token, ask(model))
    assert response.status_code == 200 and response.headers["x-relay-channel"] == str(spare.pk)
    assert server.post(token, ask(model)).headers["x-relay-attempts"] == "1"
