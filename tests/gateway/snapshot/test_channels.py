"""Channels and keys that have not changed keep their views; whatever has changed is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group

from portal.lib import clock
from relay.gateway.snapshot import channels
from relay.gateway.snapshot.channels import ChannelViews
from relay.gateway.snapshot.views import UnusableKey
from relay.models import AllowedUpstream, ApiKey, Channel, Pool
from tests.support.portal import Portal
from tests.support.upstream import Upstream

pytestmark = pytest.mark.shared
SECRETS = ("sk-first-0123456789", "sk-second-0123456789", "sk-third-0123456789")


@pytest.fixture
def two(db: None, upstream: Upstream) -> tuple[Channel, Channel]:
    return Portal(upstream).channel(keys=SECRETS), Portal(upstream).channel(keys=SECRETS)


def add_key(channel: Channel) -> None:
    key = ApiKey(channel=channel)
    key.set_secret("sk-fourth-0123456789")
    key.save()


def replace_secret(channel: Channel) -> None:
    key = channel.keys.all()[1]
    key.set_secret("sk-another-0123456789")
    key.save()


def join_pool(channel: Channel) -> None:
    Channel.objects.filter(pk=channel.pk).update(pool=Pool.objects.create(name="pool"))


def change_pool(channel: Channel) -> None:
    join_pool(channel)
    Pool.objects.update(strategy="least_in_flight")


def move(channel: Channel) -> None:
    Channel.objects.filter(pk=channel.pk).update(base_url="http://127.0.0.1:9/elsewhere")


def set_field(**values: Any) -> Callable[[Channel], object]:
    return lambda channel: Channel.objects.filter(pk=channel.pk).update(**values)


def set_key(**values: Any) -> Callable[[Channel], object]:
    return lambda channel: ApiKey.objects.filter(pk=channel.keys.all()[0].pk).update(**values)


CHANGES: dict[str, Callable[[Channel], object]] = {
    "key added": add_key,
    "key deleted": lambda channel: channel.keys.all()[2].delete(),
    "key replaced": replace_secret,
    "key disabled": set_key(enabled=False),
    "key renamed": set_key(label="new"),
    "key limited": set_key(max_rpm=7),
    "key weighed": set_key(weight=9),
    "key dead": set_key(auto_disabled="key_dead", auto_disabled_reason="refused"),
    "last key of its address": lambda channel: channel.keys.all().delete(),
    "pool joined": join_pool,
    "pool changed": change_pool,
    "groups": lambda channel: channel.groups.add(Group.objects.create(name="few")),
    "groups limited": set_field(groups_limited=True),
    "address": move,
    "proxy": set_field(proxy_url="http://127.0.0.1:9"),
    "vendor": set_field(provider="deepseek"),
    "rules": set_field(parameters={"seed": "drop"}),
    "timeouts": set_field(idle_timeout=3),
    "limits": set_field(max_concurrency=2),
    "priority": set_field(priority=5),
    "text api": set_field(text_api="chat"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_read_and_touches_no_other_channel(change: str, two: tuple[Channel, Channel]) -> None:
    """What is read after it equals what a worker reads that has just started."""
    changed, other = two
    views = ChannelViews()
    allowed = AllowedUpstream.allowances()
    before = views.read(allowed)
    CHANGES[change](changed)
    after = views.read(allowed)
    assert after == ChannelViews().read(allowed)
    assert after[changed.pk] != before[changed.pk]
    assert after[other.pk] is before[other.pk]


def decrypted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of keys that are decrypted from now on."""
    opened, decrypt = list[int](), ApiKey.secret_to_compare

    def secret(key: ApiKey) -> str:
        opened.append(key.pk)
        return decrypt(key)

    monkeypatch.setattr(ApiKey, "secret_to_compare", secret)
    return opened


def test_of_many_keys_each_is_decrypted_when_it_is_first_used(
    two: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channels, "_OPENED_AT_ONCE", 5)
    damaged = two[0].keys.all()[0]
    ApiKey.objects.filter(pk=damaged.pk).update(sealed="v1:nothing")
    opened, views = decrypted(monkeypatch), ChannelViews()
    first, second, _ = views.read(())[two[0].pk].keys
    assert not opened and first.id == damaged.pk
    assert second.usable and second.headers["authorization"] == f"Bearer {SECRETS[1]}" and second.signer is None
    assert not first.usable and opened == [second.id, first.id] and "cannot be decrypted" in caplog.text
    with pytest.raises(UnusableKey):
        _ = first.headers
    Channel.objects.filter(pk=two[1].pk).update(weight=3)
    again = views.read(())[two[0].pk].keys
    assert again[1] is second and opened[2:] == [key.pk for key in two[1].keys.all()], "few are decrypted at once"


def test_keys_beside_a_changed_one_are_not_decrypted_again(
    two: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    views, opened = ChannelViews(), decrypted(monkeypatch)
    views.read(())
    assert len(opened) == 2 * len(SECRETS)
    changed = two[0].keys.all()[1]
    replace_secret(two[0])
    views.read(())
    assert opened[2 * len(SECRETS) :] == [changed.pk]


def test_what_no_view_shows_changes_none(two: tuple[Channel, Channel]) -> None:
    views = ChannelViews()
    before = views.read(())
    Channel.objects.update(test_ok=True, tested_at=clock.now(), notes="slow on Mondays", listed_models=["m"])
    ApiKey.objects.update(balance=3, balance_at=clock.now(), failed_tests=2)
    after = views.read(())
    assert all(after[pk] is before[pk] for pk in before)


def test_an_allowance_that_ends_refuses_the_channel(two: tuple[Channel, Channel]) -> None:
    views = ChannelViews()
    assert views.read(AllowedUpstream.allowances())[two[0].pk].refusal == ""
    assert "127.0.0.1" in views.read(())[two[0].pk].refusal


def test_a_disabled_channel_is_forgotten(two: tuple[Channel, Channel]) -> None:
    views = ChannelViews()
    views.read(())
    Channel.objects.filter(pk=two[0].pk).update(enabled=False)
    assert set(views.read(())) == {two[1].pk}
