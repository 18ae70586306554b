"""Processes that serve /v1 and health checks alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from allauth.mfa.models import Authenticator

from portal.lib import clock
from portal.relay_only import others
from relay.models import Worker
from tests.support import forks
from tests.support.asserts import until
from tests.support.load.targets import family
from tests.support.portal import Portal, ask
from tests.support.server import ROOT, Server, free_port, serving

_HEADER = "x-relay-channel"
_PAGES = ("/", "/admin/", "/accounts/login/", "/tokens/", "/static/portal/icon.svg", "/nowhere")
_LOADED = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "portal.relay_only.settings"
import django
django.setup()
import portal.relay_only.asgi
print(*sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"AIRELAYS_STAFF_MFA": "true", "AIRELAYS_RELAY_HEADERS": "false"}
    with serving(tmp_path_factory.mktemp("relay") / "log", "--relay-only", env=env) as server:
        yield server


def test_it_answers_plain_and_in_streams_and_keeps_records(relay: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    plain = relay.post(token, ask(model))
    assert plain.status_code == 200 and plain.json()["object"] == "chat.completion"
    stream = relay.post(token, ask(model, stream=True))
    assert stream.text.endswith("data: [DONE]\n\n")
    assert live.record(plain).end_reason == live.record(stream).end_reason == "completed"
    assert model in {one["id"] for one in relay.get(token, "/v1/models").json()["data"]}


def test_its_errors_have_the_shape_of_their_api(relay: Server, live: Portal) -> None:
    token = live.token()
    assert relay.post(token, ask("none")).json()["error"]["code"] == "model_not_found"
    assert relay.post(token, ask("none"), "/v1/messages").json()["type"] == "error"
    unknown = relay.get(token, "/v1/nothing")
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "unknown_url"
    assert relay.get("wrong", "/v1/models").status_code == 401


@pytest.mark.parametrize("path", _PAGES)
def test_other_paths_say_that_it_only_relays(relay: Server, path: str) -> None:
    for method in ("GET", "POST", "HEAD") if path != "/" else ("GET",):
        answer = httpx.request(method, relay.url + path, trust_env=False)
        assert answer.status_code == 404, method
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text.startswith("" if method == "HEAD" else "This process only relays")


def test_it_is_ready_and_opens_no_live_pages(relay: Server) -> None:
    assert httpx.get(f"{relay.url}/healthz", trust_env=False).json()["ok"]
    assert httpx.get(f"{relay.url}/readyz", trust_env=False).json()["problems"] == []
    with socket.create_connection(("127.0.0.1", relay.port), 30) as connection:
        connection.sendall(
            b"GET /live/running HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")


def test_its_start_says_what_it_does_not_do_and_its_workers_are_marked(relay: Server, live: Portal) -> None:
    assert "It relays only: pages and jobs" in relay.log.read_text()
    workers = family(relay.process.pid)
    states = until(lambda: Worker.objects.filter(pid__in=workers).values_list("state", flat=True))
    assert [one["relay_only"] for one in states] == [True]


def test_powers_of_staff_need_the_second_factor_there_too(relay: Server, live: Portal) -> None:
    model = live.model()
    found = {}
    for factor in (True, False):
        user = live.user(is_staff=True, is_superuser=True)
        if factor:
            Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data={})
        found[factor] = _HEADER in relay.post(live.token(user), ask(model)).headers
    assert found == {True: True, False: False}


def test_it_loads_neither_admin_nor_pages_nor_sign_in() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    absent = {
        "accounts.admin", "accounts.sign_in", "allauth.account", "allauth.socialaccount", "django.contrib.admin",
        "django.test", "jwt", "portal.pages", "portal.urls", "relay.admin", "relay.jobs", "requests", "unfold",
    }  # fmt: skip
    assert "relay.api.openai.chat" in loaded and not absent & loaded


def test_commands_know_all_tables_whatever_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    done = forks.run(["manage.py", "makemigrations", "--check", "--dry-run"], {"AIRELAYS_RELAY_ONLY": "true"})
    assert (done.returncode, done.stdout) == (0, "No changes detected\n")


def test_a_database_without_migrations_is_refused(tmp_path: Path) -> None:
    env = {"AIRELAYS_DATA_DIR": str(tmp_path), "AIRELAYS_DATABASE_URL": "", "AIRELAYS_RELAY_ONLY": "true"}
    for command in ("serve", "start"):
        done = forks.run(["manage.py", command, "--port", str(free_port())], env)
        assert done.returncode == 1 and "the database misses migrations. Run: " in done.stderr


@pytest.mark.django_db
def test_others_are_workers_with_pages_that_were_seen_lately() -> None:
    def worker(seconds: float, **state: object) -> None:
        seen = clock.now() - timedelta(seconds=seconds)
        name = f"one-{Worker.objects.count()}"
        Worker.objects.create(name=name, host="here", pid=1, started_at=seen, seen_at=seen, state=state)

    Worker.objects.all().delete()
    worker(1, relay_only=True)
    worker(600, relay_only=False)
    assert not others.others()
    worker(1)  # of a version that did not say
    assert others.others()


def test_a_portal_without_pages_is_told_once_an_hour(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = False
    now = 1000.0
    monkeypatch.setattr(others, "others", lambda: found)
    monkeypatch.setattr(others, "_next", now + 120)
    monkeypatch.setattr("time.monotonic", lambda: now)
    for seconds, there, told in ((0, False, 0), (120, True, 0), (121, False, 1), (200, False, 1), (3722, False, 2)):
        found, now = there, 1000.0 + seconds
        others.look_for_others(lambda: False)
        assert len(caplog.records) == told, seconds
    assert "no process of this portal serves its pages" in caplog.text
