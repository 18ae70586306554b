"""Calls whose channel, key or model goes out of service while they run: they can be hung up, and are charged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from portal.lib import clock
from tests.support.asserts import until
from tests.support.money import settled
from tests.support.peers.calling import Calls, listen

pytestmark = pytest.mark.shared

WAYS = ["key disabled", "key dead", "channel disabled", "route disabled"]


def withdraw(model: str, way: str) -> None:
    """Take out of service what serves a model."""
    from relay.models import ApiKey, ChannelModel

    served = ChannelModel.objects.get(model__name=model)
    key: Any = ApiKey.objects.get(channel=served.channel)
    if way == "key disabled":
        key.enabled = False
        key.save()
    elif way == "key dead":
        key.auto_disabled, key.auto_disabled_at = "key_dead", clock.now()
        key.save()
    elif way == "channel disabled":
        served.channel.enabled = False
        served.channel.save()
    elif way == "route disabled":
        served.enabled = False
        served.save()
    else:
        key.delete()


def orphan(calls: Calls, model: str, running: bool) -> Any:
    """A call whose worker is gone, and which no worker has claimed yet. `running`: it was saying something."""
    from relay.models import RealtimeCall

    call = RealtimeCall.objects.get(upstream_id=calls.taken(model).id, model=model)
    call.pk, call.call_id, call.owner = None, f"{call.call_id}_", ""
    call.running = [["r", "req_of_nobody"]] if running else []
    call.input_tokens, call.output_tokens = 2000, 500
    call.lease_until = clock.now() - timedelta(seconds=1)
    return call


@pytest.mark.parametrize("way", WAYS)
def test_its_owner_hangs_up_a_call_that_another_worker_has(calls: Calls, way: str) -> None:
    from relay.models import RealtimeCall

    model, user = calls.model(listen), calls.live.user()
    token = calls.live.token(user)
    location = calls.make(token, model).headers["location"]
    call = orphan(calls, model, False)
    call.owner, call.lease_until = "elsewhere:1", clock.now() + timedelta(minutes=5)
    call.save()
    try:
        withdraw(model, way)
        calls.server.catch_up()
        assert calls.server.post(token, {}, path=f"{location}_/hangup").status_code == 200
        assert calls.taken(model).over
    finally:
        RealtimeCall.objects.filter(user=user).delete()


@pytest.mark.parametrize("way", [*WAYS, "key deleted"])
def test_a_call_whose_worker_is_gone_is_charged_and_hung_up_if_it_can_be(calls: Calls, way: str) -> None:
    from relay.models import RealtimeCall

    model, user = calls.model(listen), calls.live.user(balance=10**12)
    token = calls.live.token(user)
    location = calls.make(token, model).headers["location"]
    call = orphan(calls, model, True)
    calls.upstream.joins[calls.upstream_name(model)] = 100
    withdraw(model, way)
    calls.server.catch_up()
    call.save()
    until(lambda: not RealtimeCall.objects.filter(call_id=call.call_id).exists())
    record = next(one for one in calls.records(model) if one.cost)
    assert (record.usage_source, record.end_reason) == ("estimated", "shutdown")
    assert calls.taken(model).over == (way != "key deleted")
    if way == "key deleted":  # the worker that had it in truth has the key still
        assert calls.server.post(token, {}, path=f"{location}/hangup").status_code == 200
    assert settled(user).used == record.cost == 2000 * 4_000 + 500 * 16_000


def test_a_call_whose_key_is_gone_is_hung_up_by_its_client_only(calls: Calls) -> None:
    """The worker that has it still has the key; for others there is none."""
    from relay.models import RealtimeCall

    model, user = calls.model(listen), calls.live.user()
    token = calls.live.token(user)
    location = calls.make(token, model).headers["location"]
    call = orphan(calls, model, False)
    call.owner, call.lease_until = "elsewhere:1", clock.now() + timedelta(minutes=5)
    call.save()
    try:
        withdraw(model, "key deleted")
        calls.server.catch_up()
        answer = calls.server.post(token, {}, path=f"{location}_/hangup")
        assert answer.status_code == 502 and "Close your own connection" in answer.json()["error"]["message"]
        assert calls.server.post(token, {}, path=f"{location}/hangup").status_code == 200
        assert calls.taken(model).over
    finally:
        RealtimeCall.objects.filter(user=user).delete()
