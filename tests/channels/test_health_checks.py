"""Health checks of channels."""

from __future__ import annotations

import pytest

from tests.support.portal import Portal
from tests.support.upstream import Call

pytestmark = pytest.mark.shared


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
