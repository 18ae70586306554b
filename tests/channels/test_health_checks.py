"""What people who run the portal do: look at running requests and end them, stop it, look after channels, ask why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from django.test import Client

from tests.conftest import People, Portal, ask
from tests.gateway.test_failover import _until
from tests.support.server import ROOT, Server, serving
from tests.support.upstream import Call, chunk, completion, hello


async def endless(call: Call) -> None:
    await call.open_stream()
    while True:
        await call.event(chunk("word "))
        await asyncio.sleep(0.05)


@contextmanager
def running(server: Server, token: str, model: str) -> Iterator[dict[str, Any]]:
    """A stream in a thread of its own; what has come of it."""
    found: dict[str, Any] = {"text": ""}

    def read() -> None:
        with httpx.stream(
            "POST", server.url + "/v1/chat/completions", json=ask(model, stream=True), headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        ) as answer:
            found["id"], found["status"] = answer.headers["x-request-id"], answer.status_code
            for piece in answer.iter_text():
                found["text"] += piece
        found["ended"] = time.monotonic()

    server.catch_up()
    thread = threading.Thread(target=read)
    thread.start()
    _until(lambda: found["text"])
    try:
        yield found
    finally:
        thread.join(20)
        assert not thread.is_alive()


def sign_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


# -- running requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_running_request_is_seen_and_ended_on_another_worker(live: Portal, server: Server, stream: bool) -> None:
    """This process is not the one that serves: like another worker it knows only the database."""
    from accounts.models import AuditEvent

    async def slow(call: Call) -> None:
        await call.closed_event()

    model = live.model(endless if stream else slow)
    owner = live.user()
    token = live.token(owner)
    boss = sign_in(live.user(is_staff=True, is_superuser=True))
    server.catch_up()
    answer: dict[str, Any] = {}

    def plain() -> None:
        answer["response"] = httpx.post(server.url + "/v1/chat/completions", json=ask(model), headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False)

    def end_it() -> str:
        boss.get("/admin/running/")
        row = _until(lambda: next((row for row in _rows(boss) if row["model"] == model), None))
        assert row["user"] == owner.username and row["streamed"] is stream and row["channel"].startswith("channel-")
        page = boss.get(f"/admin/running/{row['id']}/end/")
        assert page.status_code == 200 and row["id"] in page.content.decode()
        assert boss.post(f"/admin/running/{row['id']}/end/").status_code == 302
        return str(row["id"])

    if stream:
        with running(server, token, model) as found:
            _until(lambda: next((row for row in _rows(boss) if row["model"] == model and row["output"] > 0), None) or (boss.get("/admin/running/") and None))
            request_id = end_it()
            began = time.monotonic()
        assert found["ended"] - began < 2
        last = json.loads(found["text"].strip().rsplit("data: ", 1)[1])
        assert last["error"]["code"] == "request_ended" and "administrator" in last["error"]["message"] and "[DONE]" not in found["text"]
    else:
        thread = threading.Thread(target=plain)
        thread.start()
        _until(lambda: live.upstream.count(model))
        request_id = end_it()
        thread.join(10)
        assert answer["response"].status_code == 403 and answer["response"].json()["error"]["code"] == "request_ended"
    assert live.upstream.last_closed(model, 2)
    assert live.record(request_id).end_reason == "ended"
    assert AuditEvent.objects.get(action="request.end", detail__request_id=request_id).actor is not None


def _rows(client: Client) -> list[dict[str, Any]]:
    from relay.usage.running import lines

    client.get("/admin/running/")
    return lines().rows


def test_running_requests_are_for_those_who_may_end_them(people: People) -> None:
    from accounts.models import User
    from relay.models import UsageRecord

    clerk = User.objects.create_user("clerk", password="a long password", is_staff=True)
    for path in ("/admin/running/", "/admin/running/req_" + "0" * 32 + "/end/"):
        assert sign_in(people.owner).get(path).status_code == 302, "to the sign-in of staff"
        assert sign_in(clerk).get(path).status_code == 403
        assert sign_in(people.staff).get(path).status_code == 200
    assert sign_in(people.staff).get("/admin/running/req_x/end/").status_code == 404
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType

    clerk.user_permissions.add(Permission.objects.get(codename="end_request", content_type=ContentType.objects.get_for_model(UsageRecord)))
    assert sign_in(clerk).get("/admin/running/").status_code == 200


async def test_the_live_page_tells_staff_and_nobody_else(live_sessions: dict[str, str], server: Server, live: Portal) -> None:
    url = f"ws://127.0.0.1:{server.port}/live/running"

    async def listen(cookie: str) -> Any:
        async with websockets.connect(url, additional_headers={"cookie": cookie, "origin": server.url}) as socket:
            return json.loads(await asyncio.wait_for(socket.recv(), 10))

    found = await listen(live_sessions["staff"])
    assert found["workers"] and {"workers", "rows"} == set(found)
    for who in ("owner", "clerk", "nobody"):
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await listen(live_sessions[who])
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


@pytest.fixture
def live_sessions(live: Portal) -> dict[str, str]:
    found = {"nobody": ""}
    for who, options in (("owner", {}), ("clerk", {"is_staff": True}), ("staff", {"is_staff": True, "is_superuser": True})):
        found[who] = f"sessionid={sign_in(live.user(**options)).cookies['sessionid'].value}"
    return found


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_lets_streams_end_and_cuts_the_rest_with_an_error_event(live: Portal, tmp_path: Path, workers: int) -> None:
    async def three_seconds(call: Call) -> None:
        await call.open_stream()
        for _ in range(15):
            await call.event(chunk("word "))
            await asyncio.sleep(0.1)
        await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    from portal.lib import clock
    from relay.models import Worker

    began_at = clock.now()
    short, long = live.model(three_seconds), live.model(endless)
    token = live.token()
    with serving(tmp_path / "log", "--workers", str(workers), env={"AIRELAYS_SHUTDOWN_SECONDS": "4"}) as own:
        _until(lambda: Worker.objects.filter(started_at__gte=began_at).count() == workers)
        with running(own, token, short) as ends, running(own, token, long) as cut:
            os.kill(own.process.pid, signal.SIGTERM)
            began = time.monotonic()
            with pytest.raises(httpx.TransportError):
                for _ in range(40):
                    httpx.get(own.url + "/healthz", timeout=2, trust_env=False)
                    time.sleep(0.05)
        assert own.process.wait(15) == 0
    assert "data: [DONE]" in ends["text"]
    last = json.loads(cut["text"].strip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "relay_unavailable" and "[DONE]" not in cut["text"]
    assert 3.5 < cut["ended"] - began < 8
    assert live.record(ends["id"]).end_reason == "completed" and live.record(cut["id"]).end_reason == "shutdown"
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_request_that_waits_is_told_when_the_portal_stops(live: Portal, tmp_path: Path) -> None:
    async def silent(call: Call) -> None:
        await call.closed_event()

    model, token = live.model(silent), live.token()
    found: dict[str, httpx.Response] = {}
    with serving(tmp_path / "log", env={"AIRELAYS_SHUTDOWN_SECONDS": "1"}) as own:
        own.catch_up()

        def wait() -> None:
            found["answer"] = httpx.post(own.url + "/v1/chat/completions", json=ask(model), headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False)

        thread = threading.Thread(target=wait)
        thread.start()
        _until(lambda: live.upstream.count(model))
        os.kill(own.process.pid, signal.SIGTERM)
        thread.join(10)
        assert own.process.wait(15) == 0
    assert found["answer"].status_code == 503 and found["answer"].json()["error"]["code"] == "relay_unavailable" and found["answer"].headers["retry-after"] == "1"
    assert live.record(found["answer"]).end_reason == "shutdown"


def test_readiness_goes_before_the_listener_when_there_is_a_delay(live: Portal, tmp_path: Path) -> None:
    with serving(tmp_path / "log", env={"AIRELAYS_SHUTDOWN_DELAY_SECONDS": "1.5"}) as own:
        os.kill(own.process.pid, signal.SIGTERM)
        ready = _until(lambda: (found := httpx.get(own.url + "/readyz", timeout=5, trust_env=False)).status_code == 503 and found)
        assert "the portal is stopping" in ready.json()["problems"]
        assert httpx.get(own.url + "/healthz", timeout=5, trust_env=False).status_code == 200
        assert own.process.wait(15) == 0


# -- looking after channels --------------------------------------------------------------------------------------------


def run_jobs(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", "jobs", "--once", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_does_what_is_due_and_tells_it(live: Portal) -> None:
    from relay.models import Channel, Lease

    Lease.objects.all().delete()
    Channel.objects.all().update(test_every=0, listed_at="2100-01-01T00:00Z")
    channel = live.channel(test_every=5)
    model = live.model(hello, channels=[channel])
    lines = [json.loads(line) for line in run_jobs("--json").splitlines()]
    mine = {line["name"]: line["outcome"] for line in lines if line["subject"] == channel.name}
    assert mine["test"].startswith("Answered in ") and mine["model list and balance"] == "models listed, 0 balance(s)"
    channel.refresh_from_db()
    assert channel.test_ok and channel.test_first_token_ms is not None and channel.test_first_token_ms <= channel.test_latency_ms
    assert channel.listed_models == ["mock-large", "mock-small"]
    assert live.upstream.count(model) == 1
    assert "0 piece(s) of work done" in run_jobs(), "nothing is due again"


def test_a_test_asks_for_the_model_that_the_channel_names(live: Portal) -> None:
    from relay.channels.health_checks import test_channel as run_test

    channel = live.channel(test_model=live.name("chat"))
    embedding = live.model(channels=[channel])
    assert run_test(channel, None).ok
    assert live.upstream.count(channel.test_model) == 1 and live.upstream.count(embedding) == 0


def test_a_test_knows_the_administrators_rules(live: Portal) -> None:
    from relay.channels.health_checks import test_channel as run_test
    from relay.models import FailureRule

    async def odd(call: Call) -> None:
        await call.error(400, "your plan has lapsed", "plan_lapsed")

    channel = live.channel()
    live.model(odd, channels=[channel])
    rule = FailureRule.objects.create(word="plan_lapsed", failure_class="billing")
    assert "no money" in run_test(channel, None).message
    assert channel.keys.get().auto_disabled == "billing"
    rule.delete()


def test_one_runner_acts(live: Portal) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import Lease

    Lease.objects.update_or_create(name="jobs", defaults={"owner": "somebody else", "until": clock.now() + timedelta(minutes=1)})
    assert "another runner is at it" in run_jobs()
    Lease.objects.filter(name="jobs").update(until=clock.now() - timedelta(seconds=1))
    assert "piece(s) of work done" in run_jobs()
    assert not Lease.objects.filter(name="jobs").exists(), "given back"


def test_staff_hear_when_an_upstreams_models_change(live: Portal) -> None:
    from relay.channels.health_checks import refresh_models
    from relay.models import ChannelModel, Notice

    live.user(is_staff=True, is_superuser=True)
    channel = live.channel()
    model = live.model(channels=[channel], upstream_name="mock-small")
    assert refresh_models(channel)
    assert not Notice.objects.filter(kind="model_list", data__channel=channel.name).exists(), "the first list is no change"
    channel.listed_models = ["mock-old", "mock-small"]
    channel.save()
    assert refresh_models(channel)
    notice = Notice.objects.filter(kind="model_list", data__channel=channel.name).first()
    assert notice is not None and notice.data["new"] == ["mock-large"] and notice.data["gone"] == ["mock-old"]
    ChannelModel.objects.filter(channel=channel).update(upstream_name="mock-old")
    channel.listed_models = ["mock-large", "mock-old", "mock-small"]
    channel.save()
    assert refresh_models(channel)
    notice = Notice.objects.filter(kind="model_list", data__channel=channel.name).order_by("-pk").first()
    assert notice is not None and notice.data["served_and_gone"] == ["mock-old"]
    assert ChannelModel.objects.get(channel=channel, model__name=model).missing_since is not None


@pytest.mark.parametrize(
    ("provider", "path", "answer", "expected"),
    [
        (
            "deepseek",
            "/user/balance",
            {"is_available": True, "balance_infos": [{"currency": "CNY", "total_balance": "0"}, {"currency": "USD", "total_balance": "12.50"}]},
            "12.5 USD",
        ),
        ("moonshot", "/v1/users/me/balance", {"code": 0, "data": {"available_balance": 49.58894, "voucher_balance": 46.5, "cash_balance": 3.0}}, "49.58894"),
        ("openrouter", "/v1/credits", {"data": {"total_credits": 100.5, "total_usage": 25.25}}, "75.25 USD"),
        ("siliconflow", "/v1/user/info", {"code": 20000, "data": {"balance": "0.88", "totalBalance": "88.00"}}, "88"),
        ("deepseek", "/user/balance", {"nonsense": 1}, ""),
    ],
)
def test_balances_where_the_vendor_tells_them(live: Portal, provider: str, path: str, answer: object, expected: str) -> None:
    from relay.channels.health_checks import refresh_balances

    asked: list[str] = []

    async def vendor(call: Call) -> None:
        asked.append(call.path)
        await call.reply(200, answer)

    channel = live.channel(provider=provider)
    live.upstream.scripts[""] = vendor
    try:
        assert refresh_balances(channel) == (1 if expected else 0)
    finally:
        del live.upstream.scripts[""]
    assert asked == [path]
    key = channel.keys.get()
    shown = f"{key.balance.normalize():f} {key.balance_currency}".strip() if key.balance is not None else ""
    assert shown == expected


# -- asking why --------------------------------------------------------------------------------------------------------


def explain(client: Client, **asked: Any) -> dict[str, Any]:
    response = client.post("/admin/explain/", json.dumps(asked), content_type="application/json")
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def test_why_a_user_cannot_see_a_model_in_words(live: Portal) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import User
    from portal.lib import clock
    from relay.models import Channel, Model, ModelPermission, Token

    boss = sign_in(live.user(is_staff=True, is_superuser=True))
    user = live.user()
    name = live.model(is_open=False)
    model = Model.objects.get(name=name)
    found = explain(boss, user=user.username, model=name)
    assert not found["allowed"] and found["verdict"] == f"{user} cannot see “{name}”." and "is not open" in found["obstacles"][0] and "in no group" in found["obstacles"][0]
    User.objects.filter(pk=boss.session["_auth_user_id"]).update(language="zh-hans")
    found = explain(boss, user=user.username, model=name)
    assert found["verdict"] == f"{user} 看不到“{name}”。" and "未开放" in found["obstacles"][0] and found["lines"][0]["standing"] == "正在服务"
    User.objects.filter(pk=boss.session["_auth_user_id"]).update(language="en")
    group = Group.objects.create(name=live.name("group"))
    permission = ModelPermission.objects.create(model=model, group=group)
    assert group.name in explain(boss, user=user.username, model=name)["obstacles"][0]
    user.groups.add(group)
    found = explain(boss, user=user.username, model=name)
    assert found["allowed"] and "can use" in found["verdict"] and found["lines"][0]["standing"] == "serves now"
    permission.expires_at = clock.now()
    permission.save()
    assert "ended on" in explain(boss, user=user.username, model=name)["obstacles"][0]
    permission.expires_at = None
    permission.save()
    live.token(user)
    token = Token.objects.get(user=user)
    token.models_allowed.add(Model.objects.get(name=live.model()))
    assert "limited to other models" in explain(boss, user=user.username, model=name, token=str(token.pk))["obstacles"][0]
    token.models_allowed.clear()
    token.enabled = False
    token.save()
    assert "is disabled" in explain(boss, user=user.username, model=name, token=str(token.pk))["obstacles"][0]
    channel = Channel.objects.get(served__model=model)
    channel.groups.add(Group.objects.create(name=live.name("vip")))
    found = explain(boss, user=user.username, model=name)
    assert "reserved for the groups vip-" in found["lines"][0]["why"] and not found["allowed"]
    channel.enabled = False
    channel.save()
    assert "disabled" in explain(boss, user=user.username, model=name)["lines"][0]["why"]
    assert f"Did you mean “{name}”" in explain(boss, user=user.username, model=name + "s")["obstacles"][0]
    model.enabled = False
    model.save()
    assert any("is disabled" in obstacle for obstacle in explain(boss, user=user.username, model=name)["obstacles"])


def test_why_a_request_goes_where_it_goes(live: Portal, server: Server) -> None:
    from relay.models import Cooldown

    boss = sign_in(live.user(is_staff=True, is_superuser=True))
    user = live.user()
    token = live.token(user)

    async def limited(call: Call) -> None:
        await call.error(429, "Rate limit reached", "rate_limit_exceeded", {"retry-after": "120"})

    first, spare = live.channel(priority=5), live.channel(priority=1)
    model = live.model(channels=[first, spare])

    async def script(call: Call) -> None:
        await (limited(call) if "first" in call.headers["authorization"] else call.reply(200, completion()))

    key = first.keys.get()
    key.set_secret("sk-first-0123456789abcdef")
    key.save()
    live.upstream.script(model, script)
    found = explain(boss, user=user.username, model=model)
    assert [(line["channel"], line["standing"]) for line in found["lines"]] == [(first.name, "serves now"), (spare.name, "stands by")]
    assert found["serves"] == f"the channel “{first.name}”"
    assert server.post(token, ask(model)).status_code == 200
    _until(lambda: Cooldown.objects.filter(channel=first).exists())
    found = explain(boss, user=user.username, model=model)
    assert [(line["channel"], line["standing"]) for line in found["lines"]] == [(first.name, "left alone"), (spare.name, "serves now")]
    assert found["lines"][0]["returns"] is not None and "rate limit" in found["lines"][0]["why"] and "Rate limit reached" in found["lines"][0]["why"]
    from relay.models import Token

    own = Token.objects.get(user=user)
    form = boss.get(f"/admin/relay/token/{own.pk}/explain/", follow=True).content.decode()
    assert f'value="{user.username}"' in form and f'<option value="{own.pk}" selected>' in form
    page = boss.get(f"/admin/explain/?user={user.username}&model={model}").content.decode()
    assert "left alone" in page and first.name in page


def test_explaining_is_for_staff_with_the_right(people: People) -> None:
    from accounts.models import User

    clerk = User.objects.create_user("clerk", password="a long password", is_staff=True)
    asked = json.dumps({"user": "alice", "model": "x"})
    assert sign_in(people.owner).post("/admin/explain/", asked, content_type="application/json").status_code == 302
    assert sign_in(clerk).post("/admin/explain/", asked, content_type="application/json").status_code == 403
    assert sign_in(people.staff).post("/admin/explain/", asked, content_type="application/json").status_code == 200
    for body, status in ((b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"user":"nobody","model":"x"}', 404), (b'{"user":"alice","model":"x","token":"1e9"}', 404)):
        assert sign_in(people.staff).post("/admin/explain/", body, content_type="application/json").status_code == status
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(people.staff)
    assert strict.post("/admin/explain/", asked, content_type="application/json").status_code == 403, "not from another site"
