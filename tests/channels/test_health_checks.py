"""Health checks of channels."""

from __future__ import annotations

import pytest

from portal.lib import clock
from tests.support.portal import Portal
from tests.support.upstream import Call, hello

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


def test_a_test_of_several_keys_names_each_result(live: Portal) -> None:
    from relay.channels.health_checks import test_channel as run_test

    async def picky(call: Call) -> None:
        secret = call.headers["authorization"]
        if "dead" in secret:
            await call.error(401, "Incorrect API key provided", "invalid_api_key")
        elif "lost" in secret:
            await call.error(404, "Not Found")
        else:
            await hello(call)

    channel = live.channel(keys=("sk-good-0123456789abcdef", "sk-dead-0123456789abcdef", "sk-lost-0123456789abcdef"))
    live.model(picky, channels=[channel])
    good, dead, lost = channel.keys.order_by("pk")
    channel.keys.filter(pk=good.pk).update(label="good one")
    result = run_test(channel, None)
    assert not result.ok and result.message.startswith("1 of 3 keys passed.")
    said = [result.message.index(f"Key {name}: ") for name in ("good one", dead.public_name, lost.public_name)]
    assert "sk-" not in result.message, "people who may not see keys read it"
    assert said[0] > said[1] and said[0] > said[2], "failures come first"
    channel.refresh_from_db()
    assert channel.test_message == result.message[:500] and channel.test_ok is False
    live.upstream.scripts[channel.served.get().model.name] = hello
    assert run_test(channel, None).message.startswith("3 of 3 keys passed.")


def test_a_key_that_breaks_the_test_keeps_no_other_key_from_being_looked_after(
    live: Portal,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from relay.channels.health_checks import refresh_balances
    from relay.channels.health_checks import test_channel as run_test

    async def vendor(call: Call) -> None:
        await call.reply(200, {"code": 0, "data": {"available_balance": 5}})

    channel = live.channel(provider="moonshot", keys=("sk-schlüssel-no-header-carries", "sk-well-0123456789abcdef"))
    model = live.model(hello, channels=[channel])
    broken, well = channel.keys.order_by("pk")
    result = run_test(channel, None)
    assert not result.ok and "UnicodeEncodeError" in result.message and live.upstream.count(model) == 1
    assert "the test of the key " in caplog.text and "schlüssel" not in caplog.text
    channel.keys.filter(pk=broken.pk).update(auto_disabled="key_dead", next_test_at=clock.now())
    run_test(channel, None)
    broken.refresh_from_db()
    assert broken.failed_tests == 1 and broken.next_test_at > clock.now(), "not tested again in every round"
    live.upstream.scripts[""] = vendor
    try:
        assert refresh_balances(channel) == 1
    finally:
        del live.upstream.scripts[""]
    well.refresh_from_db()
    assert well.balance == 5


def test_a_test_asks_some_of_many_keys(live: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.channels import health_checks

    monkeypatch.setattr(health_checks, "_MOST_KEYS", 2)
    channel = live.channel(keys=tuple(f"sk-number-{number}-0123456789abcdef" for number in range(5)))
    live.model(hello, channels=[channel])
    assert health_checks.test_channel(channel, None).message.startswith("2 of 2 keys passed.")


def test_a_vendor_without_an_api_for_text_is_tested_by_what_it_has(live: Portal) -> None:
    from relay.channels.health_checks import test_channel as run_test

    asked: list[str] = []

    async def vectors(call: Call) -> None:
        asked.append(call.path)
        listed = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        await call.reply(200, {"object": "list", "data": listed, "model": call.json["model"]})

    channel = live.channel(provider="voyage")
    model = live.model(vectors, channels=[channel])
    result = run_test(channel, None)
    assert result.ok and model in result.message and live.upstream.last(model).json["input"] == ["OK"]
    ranker = live.name("rerank")
    live.upstream.script(ranker, vectors)
    channel.test_model = ranker
    assert run_test(channel, None).ok and live.upstream.last(ranker).json["documents"] == ["OK"]
    assert asked == ["/v1/embeddings", "/v1/rerank"]
    live.upstream.scripts[model] = hello
    channel.test_model = ""
    assert not run_test(channel, None).ok, "an answer that lists nothing is none"
