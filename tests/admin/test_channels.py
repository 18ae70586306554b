"""Channels in the admin: added, tested, copied, and what the address guard says."""

from __future__ import annotations

import html
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.models import AuditEvent
from portal.lib import clock, net
from relay.channels.probe import ModelList
from relay.channels.urls import base_url_of
from relay.models import AllowedUpstream, ApiKey, BlockedAddress, Channel, ChannelModel, Model, UsageRecord
from relay.providers.vendors import VENDORS
from tests.support.portal import People
from tests.support.sessions import signed_in
from tests.support.upstream import Call, Upstream

pytestmark = pytest.mark.shared


def channel_form(**values: Any) -> dict[str, Any]:
    empty = {
        f"{prefix}-{name}": 0
        for prefix in ("keys", "served")
        for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS")
    }
    form = {
        "name": "Test",
        "provider": "openai",
        "base_url": "",
        "enabled": "on",
        "priority": "0",
        "weight": "1",
        "sends_done": "on",
        "stream_usage": "on",
        "cost_multiplier": "1",
        "disconnect_policy": "delivered",
        "key_strategy": "random",
        "retry_unanswered": "broken",
    }
    return {**form, **empty, **values}


def test_channel_is_added_with_keys_and_models_in_one_go(staff: Client) -> None:
    keys = "sk-first-0123456789abcdef\n\n sk-second-0123456789abcdef \nsk-first-0123456789abcdef"
    response = staff.post(
        "/admin/relay/channel/add/", channel_form(new_keys=keys, new_models="gpt-a\npublic = vendor/real")
    )
    assert response.status_code == 302, response.content.decode()
    channel = Channel.objects.get(name="Test")
    assert [key.secret_for(channel) for key in channel.keys.all()] == [
        "sk-first-0123456789abcdef",
        "sk-second-0123456789abcdef",
    ]
    assert all("0123456789" not in key.sealed for key in channel.keys.all())
    assert sorted((served.model.name, served.upstream_name) for served in channel.served.all()) == [
        ("gpt-a", ""),
        ("public", "vendor/real"),
    ]
    assert not Model.objects.get(name="gpt-a").is_open


def test_keys_are_write_only(staff: Client) -> None:
    staff.post("/admin/relay/channel/add/", channel_form(new_keys="sk-verysecret-0123456789abcdef"))
    channel = Channel.objects.get(name="Test")
    for path in (
        f"/admin/relay/channel/{channel.pk}/change/",
        "/admin/relay/channel/",
        f"/admin/relay/channel/{channel.pk}/history/",
    ):
        page = staff.get(path).content.decode()
        assert "verysecret" not in page
    key = channel.keys.get()
    inline = {
        "keys-TOTAL_FORMS": 1,
        "keys-INITIAL_FORMS": 1,
        "keys-MIN_NUM_FORMS": 0,
        "keys-0-id": key.pk,
        "keys-0-channel": channel.pk,
        "keys-0-label": "main",
        "keys-0-enabled": "on",
        "keys-0-weight": 1,
    }
    url = f"/admin/relay/channel/{channel.pk}/change/"
    assert staff.post(url, channel_form(**inline)).status_code == 302
    key.refresh_from_db()
    assert (key.label, key.secret_for(key.channel)) == ("main", "sk-verysecret-0123456789abcdef"), (
        "an empty field keeps the key"
    )
    assert staff.post(url, channel_form(**inline, **{"keys-0-secret": "sk-replaced-0123456789abcd"})).status_code == 302
    key.refresh_from_db()
    assert key.secret_for(key.channel) == "sk-replaced-0123456789abcd"


@pytest.mark.parametrize(
    ("field", "url", "words"),
    [
        ("base_url", "", "type the base URL"),
        ("base_url", "http://10.0.0.1/v1", "not a public Internet address"),
        ("base_url", "http://169.254.169.254/", "not a public Internet address"),
        ("base_url", "ftp://example.com", "must start with"),
        ("base_url", "https://u:p@example.com/v1", "user name or password"),
        ("proxy_url", "http://192.168.1.1:3128", "not a public Internet address"),
        ("proxy_url", "https://proxy.example.com", "must start with http://"),
    ],
)
def test_guard_speaks_when_a_channel_is_saved(staff: Client, field: str, url: str, words: str) -> None:
    response = staff.post(
        "/admin/relay/channel/add/", channel_form(**{field: url, **({"provider": "vllm"} if not url else {})})
    )
    page = response.content.decode()
    assert response.status_code == 200 and words in page
    assert not Channel.objects.filter(name="Test").exists()
    if "public Internet" in words:
        assert "Allowed upstream addresses" in page, "the remedy is named"


@pytest.mark.parametrize(
    ("provider", "typed", "kept"),
    [
        ("openai", "", ""),
        ("openai", " https://api.openai.com/v1/ ", ""),  # the vendor's own, as the guide fills it in
        ("openai", "https://api.openai.com/v2", "https://api.openai.com/v2"),
        ("openai", "http://10.0.0.1/v1", "10.0.0.1 is not a public Internet address."),
        ("vllm", "", "vLLM has no address of its own: type the base URL of the upstream."),
        ("vllm", "https://gpu.example.org/v1//", "https://gpu.example.org/v1"),
        (
            "snowflake",
            "",
            "Snowflake Cortex has another address for every customer. Type yours, which has this form: "
            "https://{account}.snowflakecomputing.com/api/v2/cortex/v1",
        ),
        (
            "bedrock_claude",
            "https://bedrock-runtime.{region}.amazonaws.com",
            "Put your own values in the place of what stands in braces, such as {region}.",
        ),
        ("perplexity", "api.perplexity.ai/", ""),
        ("ollama", "", "127.0.0.1 is not a public Internet address."),
        ("ollama", "http://127.0.0.1:11434/v1", "127.0.0.1 is not a public Internet address."),
        ("demo", "", ""),
    ],
)
def test_the_base_url_of_a_channel_is_the_typed_one_or_empty_for_the_vendors_own(
    staff: Client,
    settings: Any,
    provider: str,
    typed: str,
    kept: str,
) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_allow": []})
    try:
        assert base_url_of(VENDORS[provider], typed) == kept
    except net.AddressRefused as reason:
        assert str(reason).startswith(kept) and kept
    form = {"name": "Test", "provider": provider, "base_url": typed}
    for path, data in (("/admin/relay/channel/add/", channel_form(**form)), ("/admin/setup/channel/", form)):
        page = staff.post(path, data)
        if page.status_code == 302:
            assert Channel.objects.get().base_url == kept
            Channel.objects.all().delete()
        else:
            assert kept in html.unescape(page.content.decode()) and not Channel.objects.exists()


def test_vendor_whose_own_address_is_this_machine_needs_the_allow_list_too(staff: Client, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_allow": []})
    page = staff.post("/admin/relay/channel/add/", channel_form(provider="ollama")).content.decode()
    assert "127.0.0.1 is not a public Internet address" in page and not Channel.objects.exists()
    Channel.objects.create(name="Old", provider="ollama")
    assert (
        "Channel “Old” serves nothing: Its address may not be used: 127.0.0.1 is not a public Internet address"
        in staff.get("/admin/").content.decode()
    )
    AllowedUpstream.objects.create(address="127.0.0.1:11434")
    assert staff.post("/admin/relay/channel/add/", channel_form(provider="ollama")).status_code == 302
    assert "is not used" not in staff.get("/admin/").content.decode()


def test_superuser_opens_the_guard_for_one_address(staff: Client) -> None:
    assert staff.post("/admin/relay/allowedupstream/add/", {"address": "nonsense here", "note": ""}).status_code == 200
    assert (
        staff.post("/admin/relay/allowedupstream/add/", {"address": "10.0.0.1:8000", "note": "GPU box"}).status_code
        == 302
    )
    assert AllowedUpstream.objects.get().address == "10.0.0.1:8000"
    assert staff.post("/admin/relay/channel/add/", channel_form(base_url="http://10.0.0.1:9000/v1")).status_code == 200
    assert staff.post("/admin/relay/channel/add/", channel_form(base_url="http://10.0.0.1:8000/v1")).status_code == 302


def test_actions_on_channels(staff: Client) -> None:
    channel = Channel.objects.create(name="A", provider="demo")
    for action, expected in (("disable", False), ("enable", True)):
        staff.post("/admin/relay/channel/", {"action": action, "_selected_action": channel.pk})
        channel.refresh_from_db()
        assert channel.enabled is expected
    assert list(AuditEvent.objects.values_list("action", flat=True)) == ["channel.enable", "channel.disable"]


def make_channel(upstream: Upstream, model: str, key: str = "sk-upstream-secret-0123456789") -> Channel:
    channel = Channel.objects.create(name="Probe", provider="openai", base_url=upstream.base_url)
    row = ApiKey(channel=channel)
    row.set_secret(key)
    row.save()
    ChannelModel.objects.create(channel=channel, model=Model.objects.create(name=model), upstream_name=model)
    return channel


def test_test_action_sends_a_real_request_and_reports(staff: Client, upstream: Upstream) -> None:
    channel = make_channel(upstream, "probe-ok")
    url = f"/admin/relay/channel/{channel.pk}/test/"
    assert "It costs a few tokens" in staff.get(url).content.decode() and upstream.count("probe-ok") == 0, (
        "a GET asks, it does not act"
    )
    page = staff.post(url, follow=True).content.decode()
    assert "Answered in" in page and "“mock”" in page and upstream.count("probe-ok") == 1
    channel.refresh_from_db()
    assert channel.test_ok is True and channel.test_latency_ms is not None
    assert AuditEvent.objects.get(action="channel.test").detail["ok"] is True


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept this key"),
        (404, "does not know this model"),
        (429, "rate limit"),
        (402, "no money or quota"),
        (500, "upstream failed"),
    ],
)
def test_test_action_explains_failures_in_words(staff: Client, upstream: Upstream, status: int, words: str) -> None:
    async def script(call: Call) -> None:
        await call.error(status, f"no, and your key sk-leaked-secret-{status} is bad", "x")

    upstream.script(f"probe-{status}", script)
    channel = make_channel(upstream, f"probe-{status}")
    page = staff.post(f"/admin/relay/channel/{channel.pk}/test/", follow=True).content.decode()
    assert words in page and f"HTTP {status}" in page and "leaked" not in page


def test_test_action_on_unreachable_and_empty_channels(staff: Client) -> None:
    channel = Channel.objects.create(name="Nowhere", provider="llamacpp", base_url="http://127.0.0.1:9/v1")
    assert "serves no model yet" in staff.post(f"/admin/relay/channel/{channel.pk}/test/", follow=True).content.decode()
    ChannelModel.objects.create(channel=channel, model=Model.objects.create(name="m"))
    assert "cannot be reached" in staff.post(f"/admin/relay/channel/{channel.pk}/test/", follow=True).content.decode()
    channel.provider = "openai"
    channel.save()
    assert "no enabled key" in staff.post(f"/admin/relay/channel/{channel.pk}/test/", follow=True).content.decode()


def test_models_are_fetched_and_added(staff: Client, upstream: Upstream) -> None:
    channel = make_channel(upstream, "probe-models")
    url = f"/admin/relay/channel/{channel.pk}/models/"
    page = staff.get(url).content.decode()
    assert "mock-large" in page and "mock-small" in page
    staff.post(url, {"name": ["mock-small"], "open": "1"})
    assert Model.objects.get(name="mock-small").is_open
    assert (
        channel.served.filter(model__name="mock-small").exists()
        and not Model.objects.filter(name="mock-large").exists()
    )


def test_models_are_listed_with_a_key_in_service_and_errors_name_it(
    staff: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = make_channel(upstream, "probe-keys")
    first = channel.keys.get()
    first.auto_disabled = "key_dead"
    first.save()
    second = ApiKey(channel=channel)
    second.set_secret("sk-second-0123456789abcdef")
    second.save()
    asked = []

    def fetch(_channel: Channel, key: ApiKey) -> ModelList:
        asked.append(key)
        return ModelList((), "The upstream does not accept this key.")

    monkeypatch.setattr("relay.admin.channels.model_list.fetch_models", fetch)
    for url in (f"/admin/relay/channel/{channel.pk}/models/", f"/admin/setup/models/?channel={channel.pk}"):
        assert f"Asked with the key {second}." in staff.get(url).content.decode()
    assert asked == [second, second]
    ApiKey.objects.filter(pk=second.pk).update(enabled=False)
    staff.get(f"/admin/relay/channel/{channel.pk}/models/")
    assert asked[-1] == first, "none is in service: it may be good again"


def test_address_is_unblocked_by_deleting_its_row(staff: Client) -> None:
    row = BlockedAddress.objects.create(address="203.0.113.9", failures=8, blocked_until=clock.now())
    staff.post(f"/admin/relay/blockedaddress/{row.pk}/delete/", {"post": "yes"})
    assert not BlockedAddress.objects.exists()


def test_a_block_is_found_by_the_address_that_it_blocks(staff: Client) -> None:
    until = clock.now()
    for address in ("203.0.113.9", "2001:db8:1:2::/64"):
        BlockedAddress.objects.create(address=address, failures=8, blocked_until=until)
    for typed, found in (
        ("203.0.113.9", ["203.0.113.9"]),
        ("::ffff:203.0.113.9", ["203.0.113.9"]),
        ("2001:db8:1:2::77", ["2001:db8:1:2::/64"]),
        ("2001:db8:9::1", []),
        ("203.0", ["203.0.113.9"]),
    ):
        page = staff.get("/admin/relay/blockedaddress/", {"q": typed})
        assert [row.address for row in page.context["cl"].result_list] == found, typed


def test_switching_a_channel_is_in_its_history(people: People) -> None:
    staff = signed_in(people.staff)
    channel = Channel.objects.create(name="main", provider="openai")
    staff.post("/admin/relay/channel/", {"action": "disable", "_selected_action": [channel.pk]})
    page = staff.get(f"/admin/relay/channel/{channel.pk}/events/").content.decode()
    assert "disabled" in page and "carol" in page


def test_a_key_shows_when_it_was_used_last(people: People) -> None:
    from accounts.admin.base import format_time

    channel = Channel.objects.create(name="main", provider="openai")
    for label in ("busy", "idle"):
        key = ApiKey(channel=channel, label=label)
        key.set_secret(f"sk-{label}-0123456789abcdef")
        key.save()
    at = clock.now()
    for number, earlier in enumerate((500, 5)):
        UsageRecord.objects.create(
            request_id=f"req_{number:032}",
            started_at=at - timedelta(seconds=earlier),
            user=people.owner,
            channel=channel,
            api_key=channel.keys.get(label="busy"),
            model="m",
            endpoint="chat.completions",
            streamed=False,
            status=200,
            end_reason="completed",
            usage_source="reported",
            latency_ms=5,
        )
    page = signed_in(people.staff).get(f"/admin/relay/channel/{channel.pk}/change/").content.decode()
    assert (
        page.count(format_time(at - timedelta(seconds=5))) == 1 and format_time(at - timedelta(seconds=500)) not in page
    )


def test_a_copied_channel_has_no_keys_and_serves_nothing_yet(people: People) -> None:
    channel = Channel.objects.create(name="main", provider="openai", weight=5, tags="fast")
    key = ApiKey(channel=channel)
    key.set_secret("sk-x-0123456789012345")
    key.save()
    ChannelModel.objects.create(channel=channel, model=Model.objects.create(name="m"), upstream_name="up")
    signed_in(people.staff).post(f"/admin/relay/channel/{channel.pk}/copy/", follow=True)
    copy = Channel.objects.get(name="main (2)")
    assert (
        not copy.enabled
        and copy.weight == 5
        and copy.tags == "fast"
        and not copy.keys.exists()
        and copy.served.get().upstream_name == "up"
    )


def test_page_says_what_took_a_key_out_and_which_apis_the_upstream_lacks(staff: Client, people: People) -> None:
    from accounts.models import Change
    from relay.channels.cooldowns import MissingApi, save_missing_apis
    from relay.channels.keys import Evidence, take_out
    from relay.models import Cooldown

    channel = Channel.objects.create(name="main", provider="openai")
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-secret-0123456789")
    key.save()
    page = f"/admin/relay/channel/{channel.pk}/change/"
    plain = html.unescape(staff.get(page).content.decode())
    assert "APIs that the upstream lacks" not in plain and "answer to" not in plain
    assert take_out(key.pk, "key_dead", "HTTP 401: no such key", Evidence(401, "bad_key", people.owner.pk, "req_1"))
    now = clock.now().timestamp()
    save_missing_apis([((channel.pk, "responses"), MissingApi(now, now + 60, "HTTP 404: Not Found (proof)"))], "w")
    plain = html.unescape(staff.get(page).content.decode())
    assert "HTTP 401: no such key · code bad_key" in plain
    assert f"answer to the request req_1 of {people.owner.username}" in plain
    assert "/v1/responses: HTTP 404: Not Found (proof)" in plain
    history = html.unescape(staff.get(f"/admin/relay/channel/{channel.pk}/events/").content.decode())
    assert "/v1/responses: HTTP 404: Not Found (proof)" in history
    connection.run_on_commit.clear()  # a new request would begin a transaction of its own
    forget = f"/admin/relay/channel/{channel.pk}/forget-apis/"
    assert "/v1/responses" in staff.get(forget).content.decode()
    assert staff.post(forget).status_code == 302 and not Cooldown.objects.exists()
    assert Change.objects.filter(topic="cooldown", key=f"{channel.pk}:api:responses").count() == 2, "workers hear of it"
    assert "Nothing is known" in html.unescape(staff.get(forget).content.decode())
    plain = html.unescape(staff.get(page).content.decode())
    assert "/v1/responses" not in plain


def test_another_address_or_secret_has_nothing_of_what_the_old_one_did(staff: Client) -> None:
    from relay.channels.cooldowns import MissingApi, save_missing_apis
    from relay.models import Cooldown

    staff.post("/admin/relay/channel/add/", channel_form())
    channel = Channel.objects.get(name="Test")
    now = clock.now().timestamp()
    save_missing_apis([((channel.pk, "responses"), MissingApi(now, now + 60, "x"))], "w")
    page = f"/admin/relay/channel/{channel.pk}/change/"
    assert staff.post(page, channel_form(notes="x")).status_code == 302 and Cooldown.objects.exists()
    Cooldown.objects.create(
        place=f"{channel.pk}:0:0", channel=channel, kind="transient", since=clock.now(), until=clock.now()
    )
    assert staff.post(page, channel_form(base_url="https://api.openai.com/v1")).status_code == 302
    assert not Cooldown.objects.exists()
    key = ApiKey(channel=channel)
    key.set_secret("sk-dead-0123456789abcdef")
    key.save()
    Cooldown.objects.create(
        place=f"{channel.pk}:{key.pk}:0",
        channel=channel,
        api_key=key,
        kind="key_dead",
        since=clock.now(),
        until=clock.now(),
    )
    page, form = f"/admin/relay/apikey/{key.pk}/change/", {"channel": channel.pk, "enabled": "on", "weight": 1}
    assert staff.post(page, form | {"label": "x"}).status_code == 302 and Cooldown.objects.exists()
    assert staff.post(page, form | {"secret": "sk-good-0123456789abcdef"}).status_code == 302
    assert not Cooldown.objects.exists()
