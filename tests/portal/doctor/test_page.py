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
