"""A list or reference that limits something and becomes empty by itself allows nothing, never everything."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.db import models
from django.test import Client

from portal.lib import clock
from relay.gateway.access.authorization import find_model, usable_models
from relay.gateway.snapshot.load import caller_from_token, caller_from_user, load_snapshot
from relay.models import (
    ApiKey,
    Batch,
    Channel,
    ChannelModel,
    Incident,
    Model,
    ModelPermission,
    Pool,
    Token,
)
from relay.models.fields import keep_used
from relay.signals import LIMITING_LISTS
from relay.storage.batches import batch_token_digest
from relay.tokens.lifecycle import create_token
from tests.support.portal import People
from tests.support.sessions import signed_in

LIMITS: Final = {
    "relay.Token.models_allowed": "models_limited",
    "relay.Channel.groups": "groups_limited",
    "relay.Incident.affected": "models_limited",
}
"""Lists that limit something, and the flag that outlives their rows."""
GIVE: Final = {
    "auth.Group.permissions",
    "accounts.Role.given",
    "accounts.User.groups",
    "accounts.User.user_permissions",
    "accounts.Invitation.groups",
    "relay.BillingKey.also",
    "relay.Model.channels",
    "relay.Model.abilities",
    "accounts.StaffKey.scopes",
}
"""Lists and references that give something: an empty one gives nothing."""
GO_TOGETHER: Final = {
    "relay.ModelPermission.user",
    "relay.ModelPermission.group",
    "relay.Budget.user",
    "relay.Budget.token",
    "relay.Cooldown.api_key",
    "relay.Cooldown.model",
    "relay.ModelPrice.channel",
    "relay.Upload.session",
}
"""References whose rows are deleted with what they name, so that they never become empty."""
KEPT: Final = {
    "relay.LedgerAccount.token",
    "relay.RedemptionCode.redeemed_by",
    "relay.LedgerEntry.token",
    "relay.LedgerEntry.actor",
    "relay.StoredResponse.channel",
    "relay.StoredResponse.api_key",
    "relay.StoredResponse.token",
    "relay.RefusedRequest.user",
    "relay.RefusedRequest.token",
    "relay.UsageRecord.user",
    "relay.UsageRecord.token",
    "relay.UsageRecord.channel",
    "relay.UsageRecord.api_key",
    "relay.UsageRecord.price",
    "relay.SessionSum.user",
    "relay.SessionSum.token",
    "relay.SessionPart.user",
    "relay.SessionPart.channel",
    "relay.CacheSwitch.user",
    "relay.CacheSwitch.from_channel",
    "relay.CacheSwitch.from_key",
    "relay.CacheSwitch.to_channel",
    "relay.CacheSwitch.to_key",
}
"""References that keep what they name from being deleted, or keep its id."""
SAY_WHO: Final = {
    "admin.LogEntry.content_type",
    "accounts.AuditEvent.actor",
    "accounts.Invitation.created_by",
    "relay.BooksProof.actor",
    "relay.Diagnosis.actor",
    "relay.RedemptionBatch.created_by",
    "socialaccount.SocialToken.app",
}
"""References that are only shown."""
CLOSE: Final = {"accounts.User.invitation", "relay.Batch.token", "relay.Channel.pool"}
"""Optional references with a test of their own: of what they name nothing is left, and nothing opens."""
TYPED: Final = {"relay.Token.allowed_ips", "relay.Channel.parameters", "relay.Channel.overrides"}
"""Texts and rules that only a person changes, who reads beside them what an empty one means."""
FACTS: Final = {
    "socialaccount.SocialApp.settings",
    "socialaccount.SocialAccount.extra_data",
    "mfa.Authenticator.data",
    "accounts.AuditEvent.detail",
    "relay.Channel.listed_models",
    "relay.ChatGPTAccount.model_list",
    "relay.ChatGPTAccount.windows",
    "relay.ImportedRow.seen",
    "relay.Model.filled_facts",
    "relay.Model.reasoning_levels",
    "relay.Notice.data",
    "relay.BooksProof.differences",
    "relay.BooksProof.totals",
    "relay.Diagnosis.report",
    "relay.RollupMark.gaps",
    "relay.RealtimeCall.running",
    "relay.UsageRecord.attempt_log",
    "relay.Worker.running",
    "relay.Worker.state",
}
"""JSON of facts, by which nothing is limited."""


def may_become_empty() -> set[str]:
    """Every many-to-many list, optional reference and JSON value of the tables."""
    return {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in (*model._meta.concrete_fields, *model._meta.many_to_many)
        if field.many_to_many or (field.is_relation and field.null) or isinstance(field, models.JSONField)
    }


def test_each_list_and_optional_reference_is_classified() -> None:
    classes = (set(LIMITS), GIVE, GO_TOGETHER, KEPT, SAY_WHO, CLOSE, TYPED, FACTS)
    known = set().union(*classes)
    assert may_become_empty() - known == set(), "say what it means when this becomes empty"
    assert known - may_become_empty() == set() and len(known) == sum(map(len, classes))
    assert {f"{sender._meta.label}" for sender in LIMITING_LISTS} == {
        apps.get_model(name.rpartition(".")[0])
        ._meta.get_field(name.rpartition(".")[2])
        .remote_field.through._meta.label
        for name in LIMITS
    }
    for name in GO_TOGETHER | KEPT | SAY_WHO:
        field: Any = apps.get_model(name.rpartition(".")[0])._meta.get_field(name.rpartition(".")[2])
        wanted = (
            {models.CASCADE}
            if name in GO_TOGETHER
            else {models.PROTECT, models.DO_NOTHING, keep_used}
            if name in KEPT
            else None
        )
        assert wanted is None or field.remote_field.on_delete in wanted, name


def allowed(token: Token) -> list[str]:
    return [model.name for model in usable_models(caller_from_token(token), load_snapshot().models.values(), 0.0, True)]


@pytest.fixture
def served(people: People) -> Callable[[str], Model]:
    """Makes open models on a channel for everyone."""
    channel = Channel.objects.create(name="all", provider="demo")

    def make(name: str) -> Model:
        model = Model.objects.create(name=name, is_open=True)
        ChannelModel.objects.create(channel=channel, model=model)
        return model

    return make


@pytest.mark.parametrize("way", ["deleted", "deleted in a list", "removed", "set to none", "replaced and deleted"])
def test_token_limited_to_models_that_are_gone_may_use_none(
    people: People, served: Callable[[str], Model], way: str
) -> None:
    only, other = served("only-this"), served("other")
    token, _secret = create_token(people.owner, "limited", actor=None, models_allowed=[only])
    before = caller_from_token(token)
    assert allowed(token) == ["only-this"]
    if way == "deleted":
        only.delete()
    elif way == "deleted in a list":
        Model.objects.filter(pk=only.pk).delete()
    elif way == "removed":
        token.models_allowed.remove(only)
    elif way == "set to none":
        token.models_allowed.set([])
    else:
        token.models_allowed.set([other])
        other.delete()
        other = served("another")
    token.name = "saved again"
    token.save()
    found = Token.objects.get(pk=token.pk)
    assert allowed(found) == [], "after a restart"
    assert not before.may_use(load_snapshot().models[other.name], 0.0), "in the memory of a worker"
    client = signed_in(people.owner)
    for page in ("/tokens/", f"/tokens/{token.pk}/"):
        text = client.get(page).content.decode()
        assert "none: the models that it was for are gone" in text
        assert "all of your models" not in text and "every model you may use" not in text


def test_a_list_that_is_written_from_its_other_side_limits_too(people: People, served: Callable[[str], Model]) -> None:
    only = served("only-this")
    served("other")
    token, _secret = create_token(people.owner, "limited", actor=None)
    only.tokens.add(token)
    only.delete()
    assert allowed(Token.objects.get(pk=token.pk)) == []


def test_channel_of_a_group_that_is_gone_serves_nobody(people: People) -> None:
    group = Group.objects.create(name="vip")
    channel = Channel.objects.create(name="reserved", provider="demo")
    channel.groups.add(group)
    model = Model.objects.create(name="m", is_open=True)
    ChannelModel.objects.create(channel=channel, model=model)
    people.owner.groups.add(group)
    view = load_snapshot().models["m"]
    assert caller_from_user(people.owner).routes(view) and not caller_from_user(people.other).routes(view)
    group.delete()
    view = load_snapshot().models["m"]
    assert not caller_from_user(people.owner).routes(view) and not caller_from_user(people.other).routes(view)
    from relay.channels.models import copy_channel

    copied = copy_channel(channel)
    assert copied.groups_limited, "nor does a copy of it"


def test_incident_of_a_model_that_is_gone_is_shown_to_nobody(people: People) -> None:
    secret = Model.objects.create(name="secret-model")
    ModelPermission.objects.create(model=secret, user=people.owner)
    incident = Incident.objects.create(title="secret-model is slow", started_at=clock.now())
    incident.affected.add(secret)
    pages = [signed_in(person).get("/status/").content.decode() for person in (people.owner, people.other)]
    assert ["secret-model is slow" in page for page in pages] == [True, False]
    secret.delete()
    for person in (people.owner, people.other):
        assert "secret-model is slow" not in signed_in(person).get("/status/").content.decode()


def test_pool_and_token_of_a_batch_that_are_gone_open_nothing(people: People) -> None:
    pool = Pool.objects.create(name="p", strategy="least_in_flight")
    channel = Channel.objects.create(name="c", provider="demo", pool=pool)
    channel.groups.add(Group.objects.create(name="vip"))
    model = Model.objects.create(name="m", is_open=True)
    ChannelModel.objects.create(channel=channel, model=model)
    pool.delete()
    view = load_snapshot().models["m"]
    assert view.routes[0].channel.pool is None and not caller_from_user(people.other).routes(view)
    assert batch_token_digest(Batch(token_id=None)) is None, "nobody pays for it: it does not run"


def test_channel_whose_keys_are_all_disabled_sends_no_request_without_one(db: None) -> None:
    channel = Channel.objects.create(name="local", provider="vllm", base_url="https://gpu.example.org/v1")
    model = Model.objects.create(name="m", is_open=True)
    ChannelModel.objects.create(channel=channel, model=model)
    assert len(load_snapshot().models["m"].routes[0].channel.keys) == 1, "its vendor needs none"
    key = ApiKey(channel=channel, max_rpm=1)
    key.set_secret("sk-secret-0123456789abcdef")
    key.save()
    key.enabled = False
    key.save()
    assert load_snapshot().models["m"].routes[0].channel.keys == ()


def test_disabled_model_is_not_replaced_by_its_family(served: Callable[[str], Model]) -> None:
    served("gpt-4-gizmo-*")
    member = served("gpt-4-gizmo-g-secret")
    assert find_model(load_snapshot(), "gpt-4-gizmo-g-other") is not None
    member.enabled = False
    member.save()
    assert find_model(load_snapshot(), "gpt-4-gizmo-g-secret") is None
    assert find_model(load_snapshot(), "g-secret") is None


def token_form(**values: Any) -> dict[str, Any]:
    return {"name": "t", "purpose": "", "enabled": "on", "budgets-TOTAL_FORMS": 0, "budgets-INITIAL_FORMS": 0, **values}


def test_the_limit_of_a_token_is_lifted_only_by_saying_so(
    staff: Client, people: People, served: Callable[[str], Model]
) -> None:
    only = served("only-this")
    token, _secret = create_token(people.owner, "t", actor=None)
    url = f"/admin/relay/token/{token.pk}/change/"
    assert staff.post(url, token_form(models_allowed=[only.pk])).status_code == 302
    assert Token.objects.get(pk=token.pk).models_limited, "choosing one is enough"
    page = staff.post(url, token_form(models_allowed=[only.pk]))
    assert page.status_code == 200 and "To lift the limit" in page.content.decode()
    page = staff.post(url, token_form(models_limited="on"), follow=True)
    assert "may use no model" in page.content.decode() and allowed(Token.objects.get(pk=token.pk)) == []
    assert staff.post(url, token_form()).status_code == 302
    assert allowed(Token.objects.get(pk=token.pk)) == ["only-this"]


@pytest.mark.django_db(transaction=False)
def test_going_back_disables_what_would_open(people: People, served: Callable[[str], Model]) -> None:
    """The version before knew no flag: an empty list meant everything."""
    only = served("only-this")
    gone, _secret = create_token(people.owner, "gone", actor=None, models_allowed=[served("gone")])
    kept, _secret = create_token(people.owner, "kept", actor=None, models_allowed=[only])
    free, _secret = create_token(people.owner, "free", actor=None)
    Model.objects.get(name="gone").delete()
    migration = import_module("relay.migrations.0014_limits_outlive_lists")
    migration.close_what_would_open(apps, None)
    state = {token.name: token.enabled for token in Token.objects.all()}
    assert state == {"gone": False, "kept": True, "free": True}
    Token.objects.update(models_limited=False)
    migration.set_flags(apps, None)
    assert {token.name for token in Token.objects.filter(models_limited=True)} == {"kept"}
    assert gone.pk and kept.pk and free.pk
