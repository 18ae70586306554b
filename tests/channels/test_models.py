"""A channel's models: what its upstream lists."""

from __future__ import annotations

import pytest

from portal import limits
from relay.channels import connection
from relay.channels.probe import fetch_models, probe_channel
from relay.models import Channel
from tests.services.stalled import stalled
from tests.support.portal import Portal
from tests.support.upstream import Call

pytestmark = pytest.mark.shared


def test_staff_hear_when_an_upstreams_models_change(live: Portal) -> None:
    from relay.channels.health_checks import refresh_models
    from relay.models import ChannelModel, Notice

    live.user(is_staff=True, is_superuser=True)
    channel = live.channel()
    model = live.model(channels=[channel], upstream_name="mock-small")
    assert refresh_models(channel)
    assert not Notice.objects.filter(kind="model_list", data__channel=channel.name).exists(), (
        "the first list is no change"
    )
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
    ("link", "found"),
    [
        ("https://chatgpt.com/g/g-2fkFE8rbu-dall-e", "g-2fkFE8rbu"),
        ("https://chat.openai.com/g/g-2fkFE8rbu?x=1", "g-2fkFE8rbu"),
        ("g-2fkFE8rbu", "g-2fkFE8rbu"),
        ("https://evil.example/g/g-2fkFE8rbu", None),
        ("https://chatgpt.com/", None),
        ("hello", None),
    ],
)
def test_links_to_gpts(link: str, found: str | None) -> None:
    from relay.channels.models import gpt_id

    assert gpt_id(link) == found


def test_an_upstream_that_hangs_is_told_in_time(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MOST_SECONDS", 0.2)
    with stalled() as server:
        channel = Channel.objects.create(name="Hanging", provider="openai", base_url=f"http://127.0.0.1:{server.port}")
        assert "did not answer in time" in fetch_models(channel, None).error
        assert "did not answer in time" in probe_channel(channel, None, "m").message


KEY = "Qm7vXn2kLr9s.Tb4wYc6dHj5p"  # of no vendor's form


@pytest.mark.parametrize("said", [KEY, f"{KEY[:5]}…{KEY[-4:]}", KEY.partition(".")[2]])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_test_does_not_show_the_key_that_it_sent(live: Portal, status: int, said: str) -> None:
    async def script(call: Call) -> None:
        assert call.headers["authorization"] == f"Bearer {KEY}"
        await call.reply(status, {"error": {"message": f"No {said} here", "type": "server_error", "code": said}})

    channel = live.channel(keys=(KEY,))
    result = probe_channel(channel, channel.keys.get(), live.model(script, channels=[channel]))
    assert not result.ok and "No [redacted key] here" in result.message
    assert result.failure is not None and not [part for part in KEY.split(".") if part in result.failure.detail]


def test_a_test_of_a_stream_does_not_show_the_key_either(live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event({"error": {"message": f"No {KEY} here", "type": "server_error", "code": "x"}})
        await call.end()

    channel = live.channel(keys=(KEY,))
    result = probe_channel(channel, channel.keys.get(), live.model(script, channels=[channel]), streamed=True)
    assert not result.ok and "No [redacted key] here" in result.message


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_list_of_models_that_is_refused_does_not_show_the_key(
    live: Portal, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async def script(call: Call) -> None:
        await call.reply(status, {"error": {"message": f"No {KEY} here", "type": "server_error", "code": KEY}})

    monkeypatch.setitem(live.upstream.scripts, "", script)  # a request that names no model
    channel = live.channel(keys=(KEY,))
    error = fetch_models(channel, channel.keys.get()).error
    assert error and not [part for part in KEY.split(".") if part in error]


def test_a_proxy_that_cannot_be_reached_is_told_without_its_password(live: Portal) -> None:
    """The host stays: staff have entered it."""
    channel = live.channel("http://api.vendor.example.com/v1", proxy_url="http://relay:s3cret-Pa55word@127.0.0.1:1")
    for said in (
        fetch_models(channel, channel.keys.get()).error,
        probe_channel(channel, channel.keys.get(), "m").message,
    ):
        assert "127.0.0.1:1" in said and "s3cret" not in said


def test_an_answer_without_end_is_not_read(live: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream of anybody's, such as another relay, may send what it likes."""
    from relay.channels.health_checks import refresh_balances
    from relay.channels.probe import fetch_balance
    from relay.channels.upstream_prices import fetch_prices

    monkeypatch.setattr(limits, "LIST_BYTES", 1000)
    sent = 0

    async def long(call: Call) -> None:
        nonlocal sent
        sent += 1
        await call.reply(200, b" " * 200_000 + b'{"data": [], "remaining": 1}')

    live.upstream.script("", long)  # what names no model
    try:
        channel = live.channel(provider="relay")
        key = channel.keys.get()
        assert "connection failed" in fetch_models(channel, key).error
        assert fetch_balance(channel, key) is None and not refresh_balances(channel)
        assert fetch_prices(channel, key) == {}
    finally:
        del live.upstream.scripts[""]
    assert sent >= 3
