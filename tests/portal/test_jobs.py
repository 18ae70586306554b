"""The command that does what is due."""

from __future__ import annotations

import json

import pytest

from tests.support import forks
from tests.support.portal import Portal
from tests.support.upstream import hello

pytestmark = pytest.mark.shared


def run_jobs(*arguments: str) -> str:
    done = forks.run(["manage.py", "jobs", "--once", *arguments])
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
    assert (
        channel.test_ok
        and channel.test_first_token_ms is not None
        and channel.test_first_token_ms <= channel.test_latency_ms
    )
    assert channel.listed_models == ["mock-large", "mock-small"]
    assert live.upstream.count(model) == 1
    assert "0 piece(s) of work done" in run_jobs(), "nothing is due again"


def test_one_runner_acts(live: Portal) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import Lease

    Lease.objects.update_or_create(
        name="jobs", defaults={"owner": "somebody else", "until": clock.now() + timedelta(minutes=1)}
    )
    assert "another runner is at it" in run_jobs()
    Lease.objects.filter(name="jobs").update(until=clock.now() - timedelta(seconds=1))
    assert "piece(s) of work done" in run_jobs()
    assert not Lease.objects.filter(name="jobs").exists(), "given back"


def test_a_failure_that_cannot_be_kept_ends_no_round(
    live: Portal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from relay import jobs
    from relay.models import JobFault, Lease

    def break_down() -> str:
        raise ValueError("the upstream said \ud800")  # half a character, which no database takes

    work = [jobs.ScheduledJob("one", "a", break_down), jobs.ScheduledJob("two", "b", lambda: "well")]
    monkeypatch.setattr(jobs, "due_jobs", lambda: iter(work))
    Lease.objects.all().delete()
    done = jobs.run_due_jobs()
    jobs.release_lease()
    assert done is not None and [one.outcome for one in done] == ["failed: ValueError", "well"]
    assert "the failure of one of a could not be saved" in caplog.text
    assert not JobFault.objects.filter(name="one").exists()
