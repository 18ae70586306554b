"""Channels and models that have answered none of their last requests, on the pages that say what is up."""

from __future__ import annotations

import html
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from portal.lib import clock
from relay.channels import recent
from relay.channels.status import channel_status, model_states
from relay.models import ApiKey, Channel, ChannelModel, Model, UsageRecord
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


@pytest.fixture
def channel(db: None) -> Channel:
    channel = Channel.objects.create(name="House", provider="openai")
    key = ApiKey(channel=channel)
    key.set_secret("sk-house-0123456789abcdef")
    key.save()
    model = Model.objects.create(name="gpt-house", is_open=True)
    ChannelModel.objects.create(channel=channel, model=model)
    return channel


def ended(channel: Channel | None, *reasons: str, ago: float = 0) -> None:
    for reason in reasons:
        UsageRecord.objects.create(
            request_id=f"req_{UsageRecord.objects.count():032x}",
            started_at=clock.now() - timedelta(minutes=ago),
            channel=channel,
            model="gpt-house",
            endpoint="chat.completions",
            streamed=False,
            status=200 if reason == "completed" else 502,
            end_reason=reason,
            error_message="" if reason == "completed" else "503 over capacity",
            usage_source="none",
            latency_ms=5,
        )


@pytest.mark.parametrize(
    ("reasons", "count"),
    [
        (["completed", *["upstream_error"] * 4], 0),
        (["completed", *["upstream_error"] * 3, "timeout", "truncated"], 5),
        ([*["upstream_error"] * 7, "completed"], 0),
        ([*["upstream_error"] * 7, "client_error"], 0),
        ([*["upstream_error"] * 5, "client_gone", "shutdown"], 5),
    ],
)
def test_failures_count_since_the_last_answer(channel: Channel, reasons: list[str], count: int) -> None:
    ended(channel, *reasons)
    found = recent.failing()
    assert [run.count for run in found.channels.values()] == ([count] if count else [])
    assert [run.count for run in found.models.values()] == ([count] if count else [])


def test_those_of_long_ago_do_not_count(channel: Channel) -> None:
    ended(channel, *["upstream_error"] * 6, ago=11)
    assert recent.failing() == recent.Recent()


def test_the_pages_say_that_a_channel_answers_nothing(people: People, channel: Channel, settings: Any) -> None:
    with_config(settings, status_page="public")
    ended(channel, *["upstream_error"] * 6)
    found = channel_status(channel.pk)
    assert found is not None and (found.state, found.word) == ("partly", "failing") and "over capacity" in found.text
    page = html.unescape(signed_in(people.staff).get("/admin/").content.decode())
    assert "“House” answers nothing: None of its last 6 requests was answered: 503 over capacity" in page
    assert ">failing<" in Client().get("/status/").content.decode()
    ended(channel, "completed")
    assert ">failing<" not in Client().get("/status/").content.decode()


def test_a_model_is_up_where_a_channel_of_the_reader_serves_it(channel: Channel) -> None:
    model, group = Model.objects.get(name="gpt-house"), Group.objects.create(name="resellers")
    assert model_states([model]) == {model.pk: "up"}
    channel.groups.add(group)
    channel.groups_limited = True
    channel.save()
    assert model_states([model]) == {model.pk: "down"} and model_states([model], {group.pk}) == {model.pk: "up"}


def test_a_channel_that_is_reserved_for_groups_that_are_gone_is_not_up(channel: Channel) -> None:
    group = Group.objects.create(name="resellers")
    channel.groups.add(group)
    channel.groups_limited = True
    channel.save()
    found = channel_status(channel.pk)
    assert found is not None and found.state == "up"
    group.delete()
    found = channel_status(channel.pk)
    assert found is not None and (found.state, found.word) == ("down", "reserved for nobody")
