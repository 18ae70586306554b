"""The admin's page of the checks: who may run them, one run at a time, its progress, and what is shown of it."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import AuditEvent
from portal.doctor import runs
from portal.doctor.report import Check, Report
from portal.lib import clock
from relay.models import Diagnosis
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

PAGE = "/admin/doctor/"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were started, none of which runs."""
    commands: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **options: Any) -> None:
            assert options["env"]["DJANGO_SETTINGS_MODULE"] == "portal.settings"
            assert options["env"]["AIRELAYS_PORT"] == "80", "where this server listens, whatever the settings say"
            commands.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    return commands


def test_the_right_to_change_channels_opens_the_page(people: People, started: list[list[str]]) -> None:
    for user in (people.owner, people.other):
        assert signed_in(user).post(PAGE).status_code == 302
    assert clerk("view_channel").post(PAGE).status_code == 403
    assert started == [] and not Diagnosis.objects.exists()
    assert signed_in(people.staff).get(PAGE).status_code == 200
    assert started == [], "nothing is checked when the page is opened"


def test_an_operator_runs_them_one_at_a_time(people: People, started: list[list[str]]) -> None:
    client = clerk("change_channel")
    for _ in range(2):
        assert client.post(PAGE, {"response": "1"}).status_code == 302
    (command,) = started
    found = Diagnosis.objects.get()
    assert command[-2:] == ["doctor", str(found.pk)] and found.response
    assert AuditEvent.objects.filter(action="doctor.run").count() == 1
    assert client.get(PAGE + "?now=1").json() == {"running": True, "stage": "", "done": 0}
    assert b"doctor.js" in client.get(PAGE).content
    Diagnosis.objects.update(seen_at=clock.now() - timedelta(minutes=5))
    assert b"broken off" in client.get(PAGE).content
    client.post(PAGE)
    assert len(started) == 2 and not Diagnosis.objects.first().response  # type: ignore[union-attr]


def test_what_was_found_is_shown_failures_first_and_downloaded(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [Check("a", "pass", "All <b>well</b>."), Check("b", "fail", "Broken.", ("Mend it.",))]
    wishes = []

    def run(config: object, wish: Any, tell: Any) -> Report:
        wishes.append(wish)
        tell("Upstreams: 1 of 2", 1)
        return Report(checks)

    monkeypatch.setattr(runs, "run", run)
    found = Diagnosis.objects.create(actor=people.staff, language="zh-hans", response=False)
    call_command("doctor", str(found.pk))
    found.refresh_from_db()
    assert (found.state, found.done, found.stage) == ("finished", 2, "")
    assert wishes[0].with_costs and not wishes[0].response
    page = staff.get(PAGE).content.decode()
    assert page.index("Broken.") < page.index("All &lt;b&gt;well") and "Mend it." in page
    answer = staff.get(PAGE + "?json=1")
    assert json.loads(answer.content) == found.report and "attachment" in answer["content-disposition"]
    with pytest.raises(CommandError):
        call_command("doctor", str(found.pk))


@pytest.mark.parametrize(
    ("check", "address", "has_step"),
    [
        (Check("relay_token", "fail", "None.", ("Create one: airelays token create 'Mine'",)), "token/add/", False),
        (
            Check("books", "warn", "Unproved.", ("Run: airelays manage ledger prove",)),
            "ledgeraccount/verify",
            False,
        ),
        (Check("upstream_auth", "skip", "None.", ("Add one.",), {"channels": 0}), "/admin/setup/", False),
        (Check("upstream_auth", "fail", "None.", ("Correct them.",), {"channels": 2}), "relay/channel/", False),
        (Check("channel:7", "fail", "Refused.", ("Replace it.",), {"channel": 7, "status": 401}), "exact=7", False),
        (Check("channel:7", "fail", "No name.", ("Check it.",), {"channel": 7, "failed": "name"}), "channel/7/", False),
        (Check("response", "fail", "No answer.", ("Test it.",), {"channel": 7}), "channel/7/", False),
        (Check("response", "skip", "No model.", ("Add models.",)), "relay/channel/", False),
        (Check("plan_sign_ins", "warn", "Over.", ("Sign in: airelays login",)), "relay/chatgptaccount/", False),
        (Check("environment", "warn", "A typo.", ("Correct it.",)), "/admin/installation/", False),
        (Check("clock", "fail", "It is wrong.", ("timedatectl set-ntp true",)), "", True),
        (Check("response", "skip", "As you asked."), "", False),
        (Check("plan_sign_ins", "skip", "Nobody."), "", False),
        (Check("channel:7", "pass", "Well.", data={"channel": 7}), "", False),
    ],
    ids=lambda value: f"{value.name}-{value.status}" if isinstance(value, Check) else None,
)
def test_next_steps_link_the_page_where_they_are_done(
    staff: Client, people: People, check: Check, address: str, has_step: bool
) -> None:
    Diagnosis.objects.create(actor=people.staff, finished_at=clock.now(), report=Report([check]).as_json())
    page = staff.get(PAGE)
    (shown,) = page.context["checks"]
    assert address in shown["url"] and bool(shown["url"]) == bool(address)
    assert bool(shown["steps"]) == has_step, "what is linked stands there once"
    text = page.content.decode()
    assert (f'href="{shown["url"]}"' in text) == bool(address)
    assert "airelays token create" not in text, "a page is no terminal"
    if address:
        assert staff.get(shown["url"]).status_code in {200, 302}


def test_pages_that_the_reader_may_not_open_are_not_linked(people: People) -> None:
    steps = ("Create one: airelays token create 'Mine'",)
    checks = [Check("relay_token", "fail", "None.", steps)]
    Diagnosis.objects.create(actor=people.staff, finished_at=clock.now(), report=Report(checks).as_json())
    (shown,) = clerk("change_channel").get(PAGE).context["checks"]
    assert shown["url"] == "" and shown["steps"] == list(steps)


def test_what_upstreams_charge_is_told_to_those_who_may_know(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes: list[Any] = []

    def run(config: object, wish: Any, tell: object) -> Report:
        wishes.append(wish)
        return Report([])

    monkeypatch.setattr(runs, "run", run)
    for actor in (people.owner, None):
        runs.make_run(Diagnosis.objects.create(actor=actor))
    assert [wish.with_costs for wish in wishes] == [False, False]


def test_a_run_that_cannot_start_or_breaks_says_so(
    staff: Client, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    staff.post(PAGE)
    assert b"Cannot allocate memory" in staff.get(PAGE).content
    found = Diagnosis.objects.create(actor=people.staff)

    def broken(*args: object) -> Report:
        raise RuntimeError("oops")

    monkeypatch.setattr(runs, "run", broken)
    with pytest.raises(RuntimeError):
        runs.make_run(found)
    assert found.state == "failed" and b"oops" in staff.get(PAGE).content


def test_old_runs_are_deleted(people: People, started: list[list[str]]) -> None:
    Diagnosis.objects.bulk_create(Diagnosis(finished_at=clock.now()) for _ in range(25))
    runs.start_run(people.staff, response=False, port="80")
    assert Diagnosis.objects.count() == 20
