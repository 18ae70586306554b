"""Failover as clients see it: a real server, real upstreams on real ports, one of them always in trouble."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.gateway.routing.circuit_breaker import OF_THE_LAST
from tests.conftest import Portal, ask
from tests.support.asserts import check
from tests.support.server import Server, free_port, serving
from tests.support.upstream import Call, Script, Upstream, chunk, completion, hello


@pytest.fixture(scope="module")
def second() -> Iterator[Upstream]:
    running = Upstream()
    yield running
    running.stop()


def failing(status: int, code: object = "mock_code", headers: dict[str, str] | None = None) -> Script:
    async def script(call: Call) -> None:
        await call.error(status, "mock error", code, headers)

    return script


def two(live: Portal, second: Upstream, script: Script, **options: Any) -> tuple[str, Any, Any]:
    """A model on two channels: the first, of higher priority, does as the script says; the second is well."""
    first, spare = live.channel(priority=5, **options), live.channel(second.base_url)
    return live.model(script, channels=[first, spare]), first, spare


def keys_used(upstream: Upstream, model: str) -> list[str]:
    return [call.headers["authorization"][-10:] for call in upstream.calls if call.body and call.json.get("model") == model]


# -- failing over ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (402, "x"), (403, "forbidden"), (404, "model_not_found"), (429, "slow"), (500, "x"), (503, "x"), (529, "x")]
)
def test_another_channel_answers_and_the_record_says_why(live: Portal, server: Server, second: Upstream, status: int, code: str, stream: bool) -> None:
    model, first, spare = two(live, second, failing(status, code))
    response = server.post(live.token(), ask(model, stream=stream))
    assert response.status_code == 200 and response.headers["x-relay-attempts"] == "2" and response.headers["x-relay-channel"] == str(spare.pk)
    record = live.record(response)
    assert record.end_reason == "completed" and record.channel_id == spare.pk and record.attempts == 2
    bad, good = record.attempt_log
    assert (bad["channel"], bad["status"]) == (first.pk, status) and bad["outcome"] not in {"ok", ""} and "mock error" in bad["detail"]
    assert (good["channel"], good["outcome"]) == (spare.pk, "ok")


@pytest.mark.parametrize(("status", "code"), [(400, "context_length_exceeded"), (400, "content_filter"), (422, "x"), (413, "x")])
def test_a_request_at_fault_is_not_tried_elsewhere_nor_held_against_the_channel(live: Portal, server: Server, second: Upstream, status: int, code: str) -> None:
    model, _first, _ = two(live, second, failing(status, code))
    token = live.token()
    for _ in range(8):
        response = server.post(token, ask(model))
        assert response.status_code == status and response.json()["error"]["code"] == code and response.headers["x-relay-attempts"] == "1"
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


def test_a_channel_that_breaks_its_streams_is_left_alone_too(live: Portal, server: Server, second: Upstream) -> None:
    async def cut(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        call.cut()

    model, _, spare = two(live, second, cut)
    token = live.token()
    found = [server.post(token, ask(model, stream=True)) for _ in range(OF_THE_LAST[0] + 1)]
    assert ["upstream_truncated" in response.text for response in found] == [True] * OF_THE_LAST[0] + [False]
    assert found[-1].headers["x-relay-channel"] == str(spare.pk) and found[-1].headers["x-relay-attempts"] == "1"


@pytest.mark.parametrize(("policy", "broken", "slow"), [("never", 502, 504), ("broken", 200, 504), ("always", 200, 200)])
def test_what_may_have_been_billed_is_tried_elsewhere_only_where_the_channel_allows(live: Portal, server: Server, second: Upstream, policy: str, broken: int, slow: int) -> None:
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


def test_a_dead_address_is_left_alone_and_tried_again_by_one_probe(live: Portal, server: Server, second: Upstream) -> None:
    dead = live.channel(f"http://127.0.0.1:{free_port()}/v1", priority=5)
    model = live.model(channels=[dead, live.channel(second.base_url)])
    token = live.token()
    attempts = [int(server.post(token, ask(model)).headers["x-relay-attempts"]) for _ in range(12)]
    assert attempts[0] == 2 and sum(attempts) - len(attempts) <= 2, attempts


def test_three_channels_one_dead_one_flapping_one_well(live: Portal, server: Server, second: Upstream) -> None:
    """No client notices anything, and the dead channel is asked by hardly anybody."""
    chance = iter(range(10_000_000))

    async def flapping(call: Call) -> None:
        if next(chance) % 10 < 3:
            await call.error(500)
        else:
            await call.reply(200, completion())

    closed: list[float] = []

    async def listen() -> asyncio.Server:
        async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            closed.append(time.monotonic())
            writer.transport.abort()

        return await asyncio.start_server(refuse, "127.0.0.1", 0)

    loop = second._loop
    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(5)
    dead = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    flaky = Upstream()
    try:
        model = live.model(channels=[live.channel(dead), live.channel(flaky.base_url), live.channel(second.base_url)])
        flaky.script(model, flapping)
        token = live.token()
        server.catch_up()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False, limits=httpx.Limits(max_connections=50)) as client, ThreadPoolExecutor(50) as pool:
            found = list(pool.map(lambda _: client.post("/v1/chat/completions", json=ask(model)), range(1500)))
        assert Counter(response.status_code for response in found) == {200: 1500}
        assert len(closed) <= 50 + 12, "those that were under way when its circuit opened, and the probes"
    finally:
        listener.close()
        flaky.stop()


# -- keys --------------------------------------------------------------------------------------------------------------


def test_an_exhausted_key_among_five_is_seen_by_no_client_and_staff_are_told_once(live: Portal, server: Server) -> None:
    from accounts.models import AuditEvent
    from relay.models import ApiKey, Notice

    live.user(is_staff=True, is_superuser=True)
    keys = tuple(f"sk-key-number-{index}-0123456789" for index in range(5))

    async def script(call: Call) -> None:
        if "number-3" in call.headers["authorization"]:
            await call.error(429, "You exceeded your current quota.", "insufficient_quota")
        else:
            await call.reply(200, completion())

    model = live.model(script, keys=keys)
    token = live.token()
    server.catch_up()
    with ThreadPoolExecutor(20) as pool:
        found = list(
            pool.map(lambda _: httpx.post(server.url + "/v1/chat/completions", json=ask(model), headers={"authorization": f"Bearer {token}"}, trust_env=False), range(200))
        )
    assert {response.status_code for response in found} == {200}
    out = _until(lambda: ApiKey.objects.filter(channel__served__model__name=model).exclude(auto_disabled="").first())
    assert out.auto_disabled == "billing" and "exceeded your current quota" in out.auto_disabled_reason and out.next_test_at > out.auto_disabled_at
    told = Notice.objects.filter(kind="key_disabled", data__channel=out.channel.name)
    people = {notice.user_id for notice in told}
    assert people and told.count() == len(people), "each once"
    assert AuditEvent.objects.filter(action="key.auto-disable", target_id=str(out.pk)).count() == 1
    before = live.upstream.count(model)
    for _ in range(10):
        assert server.post(token, ask(model)).headers["x-relay-attempts"] == "1"
    assert live.upstream.count(model) == before + 10, "it is not asked any more"


def test_a_dead_key_comes_back_only_after_a_passing_test(live: Portal, server: Server) -> None:
    from portal.lib import clock
    from relay import jobs
    from relay.models import ApiKey, Channel, Lease, Notice

    live.user(is_staff=True, is_superuser=True)
    Channel.objects.update(test_every=0, listed_at="2100-01-01T00:00Z")  # those of other tests
    ApiKey.objects.update(next_test_at=None)
    well = threading.Event()

    async def script(call: Call) -> None:
        if well.is_set():
            await hello(call)
        else:
            await call.error(401, "Incorrect API key provided", "invalid_api_key")

    model = live.model(script)
    token = live.token()
    check(server.post(token, ask(model)), 502, "server_error", "upstream_credentials_exhausted")
    key = _until(lambda: ApiKey.objects.filter(channel__served__model__name=model).exclude(auto_disabled="").first())
    assert key.auto_disabled == "key_dead"
    for _ in range(3):
        check(server.post(token, ask(model)), 502, "server_error", "upstream_credentials_exhausted")
    assert live.upstream.count(model) == 1, "it is not even asked"

    def test_now() -> None:
        Lease.objects.all().delete()
        Channel.objects.filter(pk=key.channel_id).update(listed_at="2100-01-01T00:00Z")
        ApiKey.objects.filter(pk=key.pk).update(next_test_at=clock.now())
        jobs.run()
        key.refresh_from_db()

    test_now()
    assert key.auto_disabled == "key_dead" and key.failed_tests == 1
    assert (key.next_test_at - clock.now()).total_seconds() > 3000
    well.set()
    test_now()
    assert key.auto_disabled == "" and key.next_test_at is None
    assert server.post(token, ask(model)).status_code == 200
    assert Notice.objects.filter(kind="key_enabled", data__channel=key.channel.name).exists()


def test_a_bare_401_takes_a_key_out_only_when_it_comes_again(live: Portal, server: Server, second: Upstream) -> None:
    from relay.models import ApiKey, Cooldown

    async def script(call: Call) -> None:
        await asyncio.sleep(0.2)  # so that several are under way at the first refusal
        await call.reply(401, b"nope")

    model, first, _ = two(live, second, script)
    token = live.token()
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: httpx.post(server.url + "/v1/chat/completions", json=ask(model), headers=headers, trust_env=False), range(8)))
    assert {response.status_code for response in found} == {200}
    row = _until(lambda: Cooldown.objects.filter(channel=first).first())
    assert row.kind == "key_dead" and ApiKey.objects.get(channel=first).auto_disabled == ""
    from relay.channels import cooldowns

    cooldowns.end([row], None, None)
    assert server.post(token, ask(model)).status_code == 200
    _until(lambda: ApiKey.objects.get(channel=first).auto_disabled == "key_dead")


def test_keys_have_limits_of_their_own(live: Portal, server: Server) -> None:
    from relay.models import ApiKey

    model = live.model(keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab"))
    ApiKey.objects.filter(channel__served__model__name=model).update(max_rpm=2)
    token = live.token()
    found = [server.post(token, ask(model)) for _ in range(5)]
    assert [response.status_code for response in found] == [200, 200, 200, 200, 429]
    assert Counter(keys_used(live.upstream, model)).most_common(1)[0][1] == 2
    assert int(found[-1].headers["retry-after"]) > 1


def test_keys_take_turns(live: Portal, server: Server) -> None:
    model = live.model(keys=tuple(f"sk-key-number-{index}-0123456789" for index in range(3)), key_strategy="round_robin")
    token = live.token()
    for _ in range(9):
        server.post(token, ask(model))
    assert sorted(Counter(call.headers["authorization"] for call in live.upstream.calls if call.body and call.json.get("model") == model).values()) == [3, 3, 3]


# -- conversations and pins --------------------------------------------------------------------------------------------


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
    staff = live.token(live.user(is_staff=True))
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


# -- what the client hears while everything cools down -----------------------------------------------------------------


def test_retry_after_is_the_earliest_return(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.error(429, "x", "rate_limit_exceeded", {"retry-after": "40" if "first" in call.headers["authorization"] else "9"})

    model = live.model(script, keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab"))
    token = live.token()
    first = server.post(token, ask(model))
    check(first, 429, "rate_limit_error", "rate_limit_exceeded")
    assert first.headers["retry-after"] == "9"
    again = server.post(token, ask(model))
    check(again, 429, "rate_limit_error", "rate_limit_exceeded")
    assert 7 <= int(again.headers["retry-after"]) <= 9 and live.upstream.count(model) == 2
    assert live.record(again).end_reason == "upstream_error" and live.record(again).attempts == 0


def test_a_failing_channel_without_a_sibling_is_a_503_with_a_time(live: Portal, server: Server) -> None:
    model = live.model(failing(500))
    token = live.token()
    found = [server.post(token, ask(model)) for _ in range(OF_THE_LAST[1] + 1)]
    assert [response.status_code for response in found] == [502] * OF_THE_LAST[1] + [503]
    check(found[-1], 503, "server_error", "no_available_channel")
    assert 1 <= int(found[-1].headers["retry-after"]) <= 3


@pytest.mark.parametrize(("status", "code"), [(401, None), (403, None), (429, "rate_limit_exceeded"), (500, None), (503, None), (529, "overloaded_error")])
def test_the_only_channel_is_asked_again_when_it_named_no_time(live: Portal, server: Server, status: int, code: str | None) -> None:
    """A guess of ours keeps nobody from the one upstream that there is."""
    calls = 0

    async def once(call: Call) -> None:
        nonlocal calls
        calls += 1
        await (call.error(status, "mock error", code) if calls == 1 else hello(call))

    model, token = live.model(once), live.token()
    assert server.post(token, ask(model)).status_code >= 400
    assert server.post(token, ask(model)).status_code == 200


# -- workers -----------------------------------------------------------------------------------------------------------


def test_what_one_worker_learns_the_others_know_within_a_second(live: Portal, server: Server, second: Upstream, tmp_path: Path) -> None:
    from relay.models import Cooldown

    model, first, _spare = two(live, second, failing(429, "rate_limit_exceeded", {"retry-after": "60"}))
    token = live.token()
    with serving(tmp_path / "log") as other:
        assert server.post(token, ask(model)).headers["x-relay-attempts"] == "2"
        _until(lambda: Cooldown.objects.filter(channel=first).exists())
        assert other.post(token, ask(model)).headers["x-relay-attempts"] == "1"
    with serving(tmp_path / "log") as restarted:
        assert restarted.post(token, ask(model)).headers["x-relay-attempts"] == "1", "a restart forgets nothing"
        row = Cooldown.objects.get(channel=first)
        from relay.channels import cooldowns

        cooldowns.end([row], None, None)
        assert restarted.post(token, ask(model)).headers["x-relay-attempts"] == "2"


def _until(found: Any, seconds: float = 10.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
    return value
