"""Keys of channels: tried in turn, taken out of service, tested, put back."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.asserts import check, until
from tests.support.portal import People, Portal, ask
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import Call, completion, failing, hello, keys_used

pytestmark = pytest.mark.shared


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
            pool.map(
                lambda _: httpx.post(
                    server.url + "/v1/chat/completions",
                    json=ask(model),
                    headers={"authorization": f"Bearer {token}"},
                    trust_env=False,
                    verify=NO_CERTIFICATES,
                    timeout=60,
                ),
                range(200),
            )
        )
    assert {response.status_code for response in found} == {200}
    out = until(lambda: ApiKey.objects.filter(channel__served__model__name=model).exclude(auto_disabled="").first())
    assert (
        out.auto_disabled == "billing"
        and "exceeded your current quota" in out.auto_disabled_reason
        and out.next_test_at > out.auto_disabled_at
    )
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
    key = until(lambda: ApiKey.objects.filter(channel__served__model__name=model).exclude(auto_disabled="").first())
    assert key.auto_disabled == "key_dead"
    for _ in range(3):
        check(server.post(token, ask(model)), 502, "server_error", "upstream_credentials_exhausted")
    assert live.upstream.count(model) == 1, "it is not even asked"

    def test_now() -> None:
        Lease.objects.all().delete()
        Channel.objects.filter(pk=key.channel_id).update(listed_at="2100-01-01T00:00Z")
        ApiKey.objects.filter(pk=key.pk).update(next_test_at=clock.now())
        jobs.run_due_jobs()
        key.refresh_from_db()

    test_now()
    assert key.auto_disabled == "key_dead" and key.failed_tests == 1
    assert 60 < (key.next_test_at - clock.now()).total_seconds() <= 120
    test_now()
    assert key.failed_tests == 2 and 120 < (key.next_test_at - clock.now()).total_seconds() <= 240, "twice as late"
    well.set()
    test_now()
    assert key.auto_disabled == "" and key.next_test_at is None
    assert server.post(token, ask(model)).status_code == 200
    assert Notice.objects.filter(kind="key_enabled", data__channel=key.channel.name).exists()


def test_each_failed_test_doubles_the_wait_for_the_next_up_to_a_day(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portal.lib import clock
    from relay.channels.keys import postpone, take_out
    from relay.models import ApiKey, Channel

    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    key = ApiKey(channel=Channel.objects.create(name="main", provider="openai"))
    key.set_secret("sk-upstream-secret-0123456789")
    key.save()
    assert take_out(key.pk, "key_dead", "401")
    waits = []
    for _ in range(13):
        key.refresh_from_db()
        assert key.next_test_at is not None
        waits.append((key.next_test_at - now).total_seconds() / 60)
        postpone(key)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]
    for said, expected in ((3600.0, 1440), (30 * 86_400.0, 1440)):
        key.refresh_from_db()
        postpone(key, said)
        key.refresh_from_db()
        assert key.next_test_at is not None and (key.next_test_at - now).total_seconds() / 60 == expected
    key.failed_tests = 0
    postpone(key, 3600.0)
    key.refresh_from_db()
    assert key.next_test_at is not None and (key.next_test_at - now).total_seconds() == 3600, "as the upstream said"


def test_bare_401s_of_one_clients_retries_leave_the_key_in_service_until_a_test_of_ours_fails(
    live: Portal, server: Server
) -> None:
    from relay import jobs
    from relay.models import ApiKey, Channel, Lease

    async def script(call: Call) -> None:
        await call.reply(401, b"nope")

    Channel.objects.update(test_every=0, listed_at="2100-01-01T00:00Z")  # those of other tests
    model, token = live.model(script, test_every=0), live.token()
    for _ in range(3):
        check(server.post(token, ask(model)), 502, "server_error", "upstream_credentials_exhausted")
    key = until(lambda: ApiKey.objects.filter(channel__served__model__name=model).exclude(next_test_at=None).first())
    assert key.auto_disabled == ""

    def test_now() -> None:
        Lease.objects.all().delete()
        Channel.objects.update(listed_at="2100-01-01T00:00Z")
        jobs.run_due_jobs()
        key.refresh_from_db()

    live.upstream.script(model, hello)
    test_now()
    assert key.auto_disabled == "" and key.next_test_at is None, "a slip of the upstream"
    live.upstream.script(model, script)
    ApiKey.objects.filter(pk=key.pk).update(next_test_at=key.created_at)
    test_now()
    assert key.auto_disabled == "key_dead" and "HTTP 401" in key.auto_disabled_reason


def test_a_bare_401_for_two_users_takes_the_key_out(live: Portal, server: Server) -> None:
    from accounts.models import AuditEvent
    from relay.models import ApiKey

    model, other = live.model(failing(401, None)), live.user()
    server.post(live.token(), ask(model))
    second = server.post(live.token(other), ask(model))
    key = until(lambda: ApiKey.objects.filter(channel__served__model__name=model).exclude(auto_disabled="").first())
    detail = AuditEvent.objects.get(action="key.auto-disable", target_id=str(key.pk)).detail
    assert (detail["status"], detail["user"], detail["request"]) == (
        401,
        other.username,
        second.headers["x-request-id"],
    )


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
    model = live.model(
        keys=tuple(f"sk-key-number-{index}-0123456789" for index in range(3)), key_strategy="round_robin"
    )
    token = live.token()
    for _ in range(9):
        server.post(token, ask(model))
    assert sorted(
        Counter(
            call.headers["authorization"]
            for call in live.upstream.calls
            if call.body and call.json.get("model") == model
        ).values()
    ) == [3, 3, 3]
