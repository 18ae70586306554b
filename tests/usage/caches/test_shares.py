"""Cache hit shares by channel, key and model, and the notice when one has fallen."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import User
from relay import jobs
from relay.models import Lease, Notice, UsageRecord
from relay.usage import rollup
from relay.usage.caches import drops
from relay.usage.caches.drops import fallen
from relay.usage.caches.shares import CacheShare, share_of, shares_by
from tests.support.portal import People
from tests.support.sessions import with_config
from tests.usage.conversations.turns import channel, turn

pytestmark = pytest.mark.shared
DAY = 86_400.0


def test_shares_of_three_periods_by_channel_key_and_model(alone: None, people: People) -> None:
    (main, (one, two)), (_spare, (other,)) = channel("Main", 2), channel("Spare")
    turn(people.owner, one, cached_input_tokens=9000)
    turn(people.owner, two, cached_input_tokens=1000)
    turn(people.owner, one, 3 * DAY, cached_input_tokens=5000)
    turn(people.owner, other, 20 * DAY, model="n")
    turn(people.owner, one, 40 * DAY, cached_input_tokens=5000)
    rollup.catch_up()
    assert rollup.differences() == []
    by_channel, by_key, by_model = (
        {line.label: [share.percent for share in line.shares] for line in shares_by(by)}
        for by in ("channel", "key", "model")
    )
    assert by_channel == {"Main": [50.0, 50.0, 50.0], "Spare": [None, None, 0.0]}
    assert by_key == {"Main 0": [90.0, 70.0, 70.0], "Main 1": [10.0, 10.0, 10.0], "Spare 0": [None, None, 0.0]}
    assert by_model == {"m": [50.0, 50.0, 50.0], "n": [None, None, 0.0]}
    assert [line.label for line in shares_by("key", main.pk)] == ["Main 0", "Main 1"]
    assert [line.label for line in shares_by("model", main.pk)] == ["m"]
    assert share_of(UsageRecord.objects.filter(api_key=one)) == CacheShare(30_000, 19_000)
    assert share_of(UsageRecord.objects.none()).text == "—"
    assert [CacheShare(tokens).size for tokens in (0, 999, 1234, 999_999, 45_600_000, 7 * 10**9)] == [
        "0",
        "999",
        "1.23 K",
        "1 M",
        "45.6 M",
        "7 G",
    ]


def test_keys_are_named_without_a_part_of_their_secret(alone: None, people: People) -> None:
    _main, (key,) = channel("Main")
    key.label = ""
    key.save()
    turn(people.owner, key)
    rollup.catch_up()
    (line,) = shares_by("key")
    assert line.label == f"#{key.pk}" and key.hint not in line.label and line.under == "Main"


def test_sums_of_keys_that_are_gone_are_shown_by_their_id(alone: None, people: People) -> None:
    _main, (key,) = channel("Main")
    turn(people.owner, key)
    rollup.catch_up()
    pk = key.pk
    key.delete()
    assert [line.label for line in shares_by("key")] == [f"#{pk}"]


@pytest.mark.parametrize(
    ("now", "week", "part", "expected"),
    [
        ((1000, 290), (1000, 600), 0.5, True),
        ((1000, 300), (1000, 600), 0.5, False),
        ((1000, 0), (1000, 600), 0.5, True),
        ((1000, 0), (1000, 600), 0.0, False),  # switched off
        ((99, 0), (1000, 600), 0.5, False),  # too few tokens today
        ((1000, 0), (99, 60), 0.5, False),  # or in the week
        ((0, 0), (0, 0), 0.5, False),
        ((1000, 0), (1000, 49), 0.5, False),  # there was hardly anything to lose
        ((1000, 599), (1000, 600), 1.0, True),
    ],
)
def test_when_a_share_has_fallen(now: tuple[int, int], week: tuple[int, int], part: float, expected: bool) -> None:
    assert fallen(CacheShare(*now), CacheShare(*week), part, tokens=100) is expected


def test_staff_who_may_change_channels_are_told_once_a_day_of_each(
    alone: None, people: People, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_config(settings, cache_drop=0.5, cache_drop_tokens=10_000)
    User.objects.create_user("eve", is_staff=True)  # without rights
    (_main, (key,)), (_spare, (other,)) = channel("Main"), channel("Spare", model="n")
    for number in range(1, 8):
        turn(people.owner, key, number * DAY, cached_input_tokens=9000)
        turn(people.owner, other, number * DAY, cached_input_tokens=9000, model="n")
    turn(people.owner, key, cached_input_tokens=2000)
    turn(people.owner, other, cached_input_tokens=8000, model="n")
    Lease.objects.filter(name="cache hit shares").delete()
    (job,) = [job for job in jobs.due_jobs() if job.name == "cache hit shares"]
    assert job.run() == "2 fallen"
    assert not drops.is_due(), "the next look is ten minutes later"
    assert job.run() == "2 fallen"
    told = {notice.subject: notice for notice in Notice.objects.filter(kind="cache_share")}
    assert set(told) == {
        "Less comes from the prompt caches of the channel “Main”",
        "Less comes from the prompt caches of the model “m”",
    }
    notice = told["Less comes from the prompt caches of the channel “Main”"]
    assert notice.user == people.staff and "20 % of the tokens" in notice.text and "90 % before" in notice.text
    assert notice.data == {"channel": "Main", "today_percent": 20.0, "week_percent": 90.0}


def test_the_notice_has_an_off_switch(alone: None, settings: Any) -> None:
    Lease.objects.filter(name="cache hit shares").delete()
    assert drops.is_due()
    with_config(settings, cache_drop=0.0)
    assert not drops.is_due() and all(job.name != "cache hit shares" for job in jobs.due_jobs())
