"""The admin: what staff see and do, and what they must not."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib import clock
from relay.models import AllowedUpstream, ApiKey, BlockedAddress, Channel, ChannelModel, Model, Token, UsageRecord
from relay.models.token import digest_of
from relay.tokens.lifecycle import create_token
from tests.conftest import People
from tests.support.upstream import Call, Upstream

LISTS = [
    "relay/channel",
    "relay/model",
    "relay/modelpermission",
    "relay/token",
    "relay/usagerecord",
    "relay/upload",
    "relay/blockedaddress",
    "relay/allowedupstream",
    "relay/pool",
    "relay/failurerule",
    "relay/cooldown",
]
LISTS += ["accounts/user", "accounts/auditevent", "auth/group"]


@pytest.fixture
def staff(people: People) -> Client:
    client = Client()
    client.force_login(people.staff)
    return client


@pytest.fixture
def clerk(db: None) -> Client:
    """Staff with permission for users and tokens, not for channels."""
    user = User.objects.create_user("clerk", password="a long password", is_staff=True)
    wanted = ["view_user", "change_user", "add_token", "change_token", "view_token"]
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    client = Client()
    client.force_login(user)
    return client


NO_BUDGETS = {"budgets-TOTAL_FORMS": 0, "budgets-INITIAL_FORMS": 0}


def channel_form(**values: Any) -> dict[str, Any]:
    empty = {f"{prefix}-{name}": 0 for prefix in ("keys", "served") for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS")}
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


@pytest.mark.parametrize("path", LISTS)
def test_lists_and_add_pages_open_for_superusers_and_not_for_others(staff: Client, people: People, path: str) -> None:
    create_token(people.owner, "t", actor=None)
    assert staff.get(f"/admin/{path}/").status_code == 200
    assert staff.get(f"/admin/{path}/?q=x").status_code == 200
    for user in (people.owner, people.other):
        client = Client()
        client.force_login(user)
        assert client.get(f"/admin/{path}/").status_code == 302


def test_clerk_sees_what_the_permissions_say(clerk: Client, people: People) -> None:
    front = clerk.get("/admin/").content.decode()
    assert "/admin/accounts/user/" in front and "/admin/relay/channel/" not in front and "/admin/relay/allowedupstream/" not in front
    assert clerk.get("/admin/relay/channel/").status_code == 403
    assert clerk.get("/admin/relay/allowedupstream/").status_code == 403
    assert clerk.get("/admin/relay/usagerecord/").status_code == 403


def test_staff_cannot_make_themselves_superusers(clerk: Client, people: People) -> None:
    user = User.objects.get(username="clerk")
    form = {"username": "clerk", "email": "", "is_active": "on", "is_staff": "on", "is_superuser": "on", "notes": ""}
    clerk.post(f"/admin/accounts/user/{user.pk}/change/", form)
    user.refresh_from_db()
    assert not user.is_superuser
    assert clerk.post(f"/admin/accounts/user/{people.staff.pk}/password/", {"password1": "another long one", "password2": "another long one"}).status_code == 403
    people.staff.refresh_from_db()
    assert people.staff.check_password("a long password")


def test_staff_gain_no_rights_through_groups_or_other_staff(clerk: Client, people: People) -> None:
    from django.contrib.auth.models import Group

    powerful = Group.objects.create(name="powerful")
    powerful.permissions.set(Permission.objects.filter(codename="change_channel"))
    clerk_user, colleague = User.objects.get(username="clerk"), User.objects.create_user("colleague", is_staff=True)
    form = {"email": "new@example.com", "is_active": "on", "groups": [powerful.pk], "notes": ""}
    clerk.post(f"/admin/accounts/user/{clerk_user.pk}/change/", {**form, "username": "clerk"})
    clerk_user.refresh_from_db()
    assert clerk_user.email == "new@example.com" and not clerk_user.groups.exists()
    assert clerk.post(f"/admin/accounts/user/{colleague.pk}/change/", {**form, "username": "colleague"}).status_code == 403
    assert clerk.post(f"/admin/accounts/user/{colleague.pk}/password/", {"password1": "another long one", "password2": "another long one"}).status_code == 403
    clerk.post(f"/admin/accounts/user/{people.other.pk}/change/", {**form, "username": "bob"})
    assert not people.other.groups.exists(), "a group that carries rights is for owners to give"
    plain = Group.objects.create(name="plain")
    clerk.post(f"/admin/accounts/user/{people.other.pk}/change/", {**form, "username": "bob", "groups": [plain.pk]})
    assert list(people.other.groups.all()) == [plain], "for users, groups are classes that staff manage"


def test_pages_of_users_show_nothing_of_their_passwords(staff: Client, clerk: Client, people: People) -> None:
    """Neither of the salt nor of the hash, not even how they begin; what the hash was made with may be known."""
    people.owner.set_password("a long password")
    people.owner.save()
    algorithm, *parts = people.owner.password.split("$")
    without = User.objects.create(username="no-password", password="!")
    for person in (staff, clerk):
        page = person.get(f"/admin/accounts/user/{people.owner.pk}/change/").content.decode()
        assert f"({algorithm})" in page and "****" not in page
        assert not [part for part in parts if len(part) > 5 and part in page]
        assert "No password set." in person.get(f"/admin/accounts/user/{without.pk}/change/").content.decode()


def test_front_page_says_what_needs_a_person(staff: Client) -> None:
    Channel.objects.create(name="No key", provider="openai")
    Model.objects.create(name="orphan")
    page = staff.get("/admin/").content.decode()
    assert "Channel “No key” serves nothing: It has no enabled key." in page and "“orphan”: no price" in page


def test_channel_is_added_with_keys_and_models_in_one_go(staff: Client) -> None:
    keys = "sk-first-0123456789abcdef\n\n sk-second-0123456789abcdef \nsk-first-0123456789abcdef"
    response = staff.post("/admin/relay/channel/add/", channel_form(new_keys=keys, new_models="gpt-a\npublic = vendor/real"))
    assert response.status_code == 302, response.content.decode()
    channel = Channel.objects.get(name="Test")
    assert [key.secret() for key in channel.keys.all()] == ["sk-first-0123456789abcdef", "sk-second-0123456789abcdef"]
    assert all("0123456789" not in key.sealed for key in channel.keys.all())
    assert sorted((served.model.name, served.upstream_name) for served in channel.served.all()) == [("gpt-a", ""), ("public", "vendor/real")]
    assert not Model.objects.get(name="gpt-a").is_open


def test_keys_are_write_only(staff: Client) -> None:
    staff.post("/admin/relay/channel/add/", channel_form(new_keys="sk-verysecret-0123456789abcdef"))
    channel = Channel.objects.get(name="Test")
    for path in (f"/admin/relay/channel/{channel.pk}/change/", "/admin/relay/channel/", f"/admin/relay/channel/{channel.pk}/history/"):
        page = staff.get(path).content.decode()
        assert "verysecret" not in page
    key = channel.keys.get()
    inline = {
        "keys-TOTAL_FORMS": 1, "keys-INITIAL_FORMS": 1, "keys-MIN_NUM_FORMS": 0, "keys-0-id": key.pk, "keys-0-channel": channel.pk,
        "keys-0-label": "main", "keys-0-enabled": "on", "keys-0-weight": 1,
    }  # fmt: skip
    url = f"/admin/relay/channel/{channel.pk}/change/"
    assert staff.post(url, channel_form(**inline)).status_code == 302
    key.refresh_from_db()
    assert (key.label, key.secret()) == ("main", "sk-verysecret-0123456789abcdef"), "an empty field keeps the key"
    assert staff.post(url, channel_form(**inline, **{"keys-0-secret": "sk-replaced-0123456789abcd"})).status_code == 302
    key.refresh_from_db()
    assert key.secret() == "sk-replaced-0123456789abcd"


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
    response = staff.post("/admin/relay/channel/add/", channel_form(**{field: url, **({"provider": "vllm"} if not url else {})}))
    page = response.content.decode()
    assert response.status_code == 200 and words in page
    assert not Channel.objects.filter(name="Test").exists()
    if "public Internet" in words:
        assert "Allowed upstream addresses" in page, "the remedy is named"


def test_vendor_whose_own_address_is_this_machine_needs_the_allow_list_too(staff: Client, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_allow": []})
    page = staff.post("/admin/relay/channel/add/", channel_form(provider="ollama")).content.decode()
    assert "127.0.0.1 is not a public Internet address" in page and not Channel.objects.exists()
    Channel.objects.create(name="Old", provider="ollama")
    assert "Channel “Old” serves nothing: Its address may not be used: 127.0.0.1 is not a public Internet address" in staff.get("/admin/").content.decode()
    AllowedUpstream.objects.create(address="127.0.0.1:11434")
    assert staff.post("/admin/relay/channel/add/", channel_form(provider="ollama")).status_code == 302
    assert "is not used" not in staff.get("/admin/").content.decode()


def test_superuser_opens_the_guard_for_one_address(staff: Client) -> None:
    assert staff.post("/admin/relay/allowedupstream/add/", {"address": "nonsense here", "note": ""}).status_code == 200
    assert staff.post("/admin/relay/allowedupstream/add/", {"address": "10.0.0.1:8000", "note": "GPU box"}).status_code == 302
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
    assert "It costs a few tokens" in staff.get(url).content.decode() and upstream.count("probe-ok") == 0, "a GET asks, it does not act"
    page = staff.post(url, follow=True).content.decode()
    assert "Answered in" in page and "“mock”" in page and upstream.count("probe-ok") == 1
    channel.refresh_from_db()
    assert channel.test_ok is True and channel.test_latency_ms is not None
    assert AuditEvent.objects.get(action="channel.test").detail["ok"] is True


@pytest.mark.parametrize(
    ("status", "words"), [(401, "does not accept this key"), (404, "does not know this model"), (429, "rate limit"), (402, "no money or quota"), (500, "upstream failed")]
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
    assert channel.served.filter(model__name="mock-small").exists() and not Model.objects.filter(name="mock-large").exists()


def test_token_made_for_a_user_is_shown_once(staff: Client, people: People) -> None:
    form = {"user": people.owner.pk, "name": "gift", "enabled": "on", "expires_at_0": "", "expires_at_1": "", "allowed_ips": "", "notes": "", **NO_BUDGETS}
    response = staff.post("/admin/relay/token/add/", form)
    secret = response.content.decode().split('id="secret"', 1)[1].split(">", 1)[1].split("<", 1)[0]
    token = Token.objects.get(name="gift")
    assert token.digest == digest_of(secret) and "no-store" in response["cache-control"]
    assert secret not in staff.get(f"/admin/relay/token/{token.pk}/change/").content.decode()
    assert AuditEvent.objects.filter(action="token.create", target_id=str(token.pk)).exists()


def test_token_is_rotated_and_revoked_after_being_asked(staff: Client, people: People) -> None:
    token, secret = create_token(people.owner, "t", actor=None)
    url = f"/admin/relay/token/{token.pk}/rotate/"
    staff.get(url)
    token.refresh_from_db()
    assert token.digest == digest_of(secret), "a GET asks, it does not act"
    page = staff.post(url).content.decode()
    token.refresh_from_db()
    assert token.digest != digest_of(secret) and token.hint[:7] in page
    many = staff.post("/admin/relay/token/", {"action": "revoke_selected", "_selected_action": token.pk})
    token.refresh_from_db()
    assert not token.revoked_at and "stop working for good" in many.content.decode()
    staff.post("/admin/relay/token/", {"action": "revoke_selected", "_selected_action": token.pk, "confirmed": "1"})
    token.refresh_from_db()
    assert token.revoked_at
    assert staff.post(f"/admin/relay/token/{token.pk}/rotate/").status_code == 302
    token.refresh_from_db()
    assert token.revoked_at and token.sealed == ""


def test_disabling_tokens_in_the_list(staff: Client, people: People) -> None:
    token, _ = create_token(people.owner, "t", actor=None)
    for action, expected in (("disable", False), ("enable", True)):
        staff.post("/admin/relay/token/", {"action": action, "_selected_action": token.pk})
        token.refresh_from_db()
        assert token.enabled is expected


def test_records_cannot_be_changed(staff: Client, people: People) -> None:
    record = UsageRecord.objects.create(
        request_id="req_x", started_at=clock.now(), user=people.owner, model="m", endpoint="chat.completions", streamed=False, status=200,
        end_reason="completed", usage_source="reported", latency_ms=5,
    )  # fmt: skip
    event = AuditEvent.write("x", people.owner)
    for path in (f"relay/usagerecord/{record.pk}", f"accounts/auditevent/{event.pk}"):
        assert staff.get(f"/admin/{path}/change/").status_code == 200
        assert staff.post(f"/admin/{path}/change/", {}).status_code == 403
        assert staff.post(f"/admin/{path}/delete/", {"post": "yes"}).status_code == 403
    assert staff.get("/admin/relay/usagerecord/add/").status_code == 403


def test_address_is_unblocked_by_deleting_its_row(staff: Client) -> None:
    row = BlockedAddress.objects.create(address="203.0.113.9", failures=8, blocked_until=clock.now())
    staff.post(f"/admin/relay/blockedaddress/{row.pk}/delete/", {"post": "yes"})
    assert not BlockedAddress.objects.exists()


def test_permission_is_for_a_user_or_a_group(staff: Client, people: People) -> None:
    model = Model.objects.create(name="m")
    form = {"model": model.pk, "user": "", "group": "", "expires_at_0": "", "expires_at_1": ""}
    assert "Choose a user or a group" in staff.post("/admin/relay/modelpermission/add/", form).content.decode()
    assert staff.post("/admin/relay/modelpermission/add/", {**form, "user": people.owner.pk}).status_code == 302


def test_lists_make_a_fixed_number_of_queries(staff: Client, people: People, django_assert_max_num_queries: Any) -> None:
    for number in range(15):
        channel = Channel.objects.create(name=f"c{number}", provider="demo")
        ChannelModel.objects.create(channel=channel, model=Model.objects.create(name=f"m{number}"))
        create_token(people.owner, f"t{number}", actor=None)
        UsageRecord.objects.create(
            request_id=f"req_{number}", started_at=clock.now(), user=people.owner, channel=channel, model="m", endpoint="chat.completions",
            streamed=False, status=200, end_reason="completed", usage_source="reported", latency_ms=5,
        )  # fmt: skip
    staff.get("/admin/")  # adds the requests up
    with django_assert_max_num_queries(24):
        staff.get("/admin/")
    for path in (f"{name}/" for name in LISTS):
        with django_assert_max_num_queries(15):
            assert staff.get(f"/admin/{path}").status_code == 200


def test_new_users_join_the_default_groups(db: None) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings

    group = Group.objects.create(name="everyone")
    GroupSettings.objects.create(group=group, is_default=True)
    assert list(User.objects.create_user("dora").groups.all()) == [group]


def test_usage_of_deleted_things_is_still_shown(staff: Client) -> None:
    channel = Channel.objects.create(name="gone", provider="demo")
    UsageRecord.objects.create(
        request_id="req_gone", started_at=clock.now(), channel=channel, model="m", endpoint="chat.completions", streamed=False, status=200,
        end_reason="completed", usage_source="reported", latency_ms=5,
    )  # fmt: skip
    channel.delete()
    assert staff.get("/admin/relay/usagerecord/").status_code == 200
