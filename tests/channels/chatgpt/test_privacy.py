"""A plan serves its owner and nobody else, whatever is in the tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from relay.billing.prices import Price, PriceList
from relay.channels.chatgpt_accounts import store
from relay.errors import ModelNotFound
from relay.gateway.access.authorization import permitted_model
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.snapshot import Snapshot
from relay.gateway.snapshot.views import ModelView, PlanView, Route
from relay.models import Token
from relay.tokens.lifecycle import revoke_token
from tests.gateway.routing.routes import channel
from tests.support import sessions
from tests.support.asserts import until
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import Person, SignIn, events_of, respond
from tests.support.portal import Portal
from tests.support.server import Server

OWNER = Caller("owner", 1, 7, True, frozenset({3}), True, True, float("inf"), None, ())
OTHER = replace(OWNER, digest="other", user_id=8)
FREE = PriceList.of([Price()])
PLAN_CHANNEL = replace(channel(5).channel, owner=7)
PAID = channel(6).channel


def model(name: str, *channels: object, **more: object) -> ModelView:
    routes = tuple(Route(one, name, FREE) for one in channels)  # type: ignore[arg-type]
    fields = {"is_open": False, "users": {7: float("inf")}, **more}
    return ModelView(-1, name, "x", 0, context_window=None, max_output_tokens=None, groups={}, routes=routes, **fields)  # type: ignore[arg-type]


def snapshot(on: bool = True, api: bool = True) -> Snapshot:
    plan = PlanView(7, on, api, {"gpt": model("gpt", PLAN_CHANNEL)})
    return Snapshot({"gpt": model("gpt", PAID, is_open=True)}, (), plans={7: plan})


def serving(found: Snapshot, caller: Caller, name: str = "gpt") -> list[int]:
    """The channels that serve a caller."""
    return [route.channel.id for route in caller.routes(permitted_model(caller, found, name, 0.0))]


def test_the_owner_is_served_by_the_plan_alone() -> None:
    assert serving(snapshot(), OWNER) == [5]


def test_somebody_else_is_not_also_as_staff_and_in_the_same_groups() -> None:
    assert serving(snapshot(), OTHER) == [6]


def test_nobody_is_served_while_it_is_off() -> None:
    assert serving(snapshot(on=False), OWNER) == [6]
    assert serving(snapshot(on=False), replace(OWNER, playground=True)) == [6]


def test_tokens_need_the_second_switch_and_the_playground_does_not() -> None:
    assert serving(snapshot(api=False), OWNER) == [6]
    assert serving(snapshot(api=False), replace(OWNER, playground=True)) == [5]


def test_a_token_that_is_limited_to_models_of_the_portal_never_reaches_it() -> None:
    assert snapshot().plan_of(replace(OWNER, models=frozenset({-1}))) is None
    assert snapshot().plan_of(replace(OWNER, models=frozenset())) is None


def test_what_anybody_on_the_network_may_use_never_reaches_it() -> None:
    anybody = replace(OWNER, anybody=True)
    assert serving(snapshot(), anybody) == [6]
    assert list(snapshot().models_of(anybody)) == list(snapshot().models.values())


@pytest.mark.django_db
def test_the_token_of_an_open_relay_is_anybodys_where_others_reach_it(settings: Any) -> None:
    from accounts.models import User
    from relay.gateway.snapshot.load import caller_from_token
    from relay.models import Token
    from relay.tokens.lifecycle import create_token
    from relay.tokens.open_relay import open_relay_token

    owner = User.objects.create_superuser("owner")
    token, own = open_relay_token(), Token.objects.get(pk=create_token(owner, "own", actor=owner)[0].pk)
    assert token is not None and token.user == owner and not caller_from_token(token).anybody
    settings.CONFIG = settings.CONFIG.model_copy(update={"open_relay_on_network": True})
    assert caller_from_token(token).anybody and not caller_from_token(own).anybody


def test_a_plan_under_the_id_of_another_user_serves_neither() -> None:
    found = snapshot()
    stolen = replace(found, plans={8: found.plans[7]})
    assert serving(stolen, OTHER) == [6] and serving(stolen, OWNER) == [6]


def test_a_channel_that_belongs_to_a_user_serves_no_other_even_as_a_route_of_an_open_model() -> None:
    mixed = Snapshot({"gpt": model("gpt", PLAN_CHANNEL, PAID, is_open=True)}, ())
    assert serving(mixed, OTHER) == [6]


def test_suggestions_name_models_of_a_plan_to_its_owner_only() -> None:
    with pytest.raises(ModelNotFound, match="Closest of your ChatGPT plan: gpt"):
        permitted_model(OWNER, snapshot(), "gpt-4", 0.0)
    with pytest.raises(ModelNotFound) as told:
        permitted_model(OTHER, snapshot(), "gpt-4", 0.0)
    assert "plan" not in str(told.value)


def test_rows_of_staff_make_nothing_of_a_plan_anybodys(
    portal: Server, signed_in: SignIn, live: Portal, chatgpt: ChatGPT
) -> None:
    """Its channel is turned on, opened to all, put into a pool and given a model with a price by hand."""
    from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice, Pool

    live.model()
    person = signed_in()
    row = Channel.objects.get(pk=person.account.channel_id)
    row.enabled, row.priority, row.pool = True, 100, Pool.objects.create(name=live.name("pool"))
    row.base_url = live.upstream.base_url
    row.save()
    key = ApiKey(channel=row)
    key.set_secret("sk-by-hand")
    key.save()
    made = Model.objects.create(name=live.name("made"), is_open=True)
    ModelPrice.objects.create(model=made, input=1, output=1)
    ChannelModel.objects.create(channel=row, model=made)
    stranger = live.token(live.user(is_staff=True, is_superuser=True))
    answer = respond(portal, stranger, model=made.name)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "no_available_channel"
    assert respond(portal, stranger).status_code == 404, "of a model of the plan"
    listed = [found["id"] for found in portal.get(stranger, "/v1/models").json()["data"]]
    assert "gpt-5.5" not in listed and made.name not in listed
    assert chatgpt.seen == []
    assert respond(portal, person.token).status_code == 200, "the owner is served as before"


def test_the_setting_says_who_may_have_a_plan(portal: Server, signed_in: SignIn) -> None:
    """By default those who run the portal."""
    assert respond(portal, signed_in(superuser=False).token).status_code == 404
    person = signed_in()
    assert respond(portal, person.token).status_code == 200
    person.user.is_superuser = False
    person.user.save()
    assert respond(portal, person.token).status_code == 404, "at once"


def test_it_is_off_until_its_owner_turns_it_on(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    person = signed_in(on=False, api=False)
    assert respond(portal, person.token).status_code == 404 and chatgpt.seen == []
    person = signed_in(api=False)
    assert respond(portal, person.token).status_code == 404 and chatgpt.seen == []


def test_the_playground_of_the_owner_needs_no_second_switch(portal: Server, signed_in: SignIn) -> None:
    import time

    from relay.gateway.access.short_lived_keys import make_playground_key
    from relay.models import Token

    person = signed_in(api=False)
    key, _ = make_playground_key(Token.objects.get(user=person.user).digest, time.time())
    assert respond(portal, key).status_code == 200


def explained(client: Any, **asked: str) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/admin/explain/", json.dumps(asked), content_type="application/json").json()
    return found


def test_explain_tells_of_a_plan_to_its_owner_and_to_nobody_else(
    portal: Server, signed_in: SignIn, live: Portal
) -> None:
    """Also not to superusers, who may explain what any user's request would do."""
    person, boss = signed_in(), live.user(is_staff=True, is_superuser=True)
    person.user.is_staff = True
    person.user.save()
    asked = {"user": person.user.username, "model": "gpt-5.5"}
    own, other = sessions.signed_in(person.user), sessions.signed_in(boss)
    found = explained(own, **asked)
    assert found["allowed"] and found["serves"] == str(person.account.channel) and found["lines"] == []
    assert "Your own ChatGPT plan answers" in found["plan"]
    assert "Your own ChatGPT plan answers" in own.get("/admin/explain/", asked).content.decode()
    for asker, user in ((other, person.user.username), (own, boss.username), (other, boss.username)):
        found = explained(asker, user=user, model="gpt-5.5")
        assert not found["allowed"] and found["plan"] == "" and found["serves"] is None
        assert "plan" not in json.dumps({name: value for name, value in found.items() if name != "plan"}).lower()
    token = Token.objects.get(user=person.user)
    token.models_limited = True
    token.save()
    assert "limited to models of the portal" in explained(own, **asked, token=str(token.pk))["plan"]
    store.set_api(person.account, False, person.user, None)
    found = explained(own, **asked)
    assert not found["allowed"] and "in the playground" in found["plan"]
    store.set_api(person.account, True, person.user, None)
    store.save_sign_out(person.account, person.user, None)
    found = explained(own, **asked)
    assert not found["allowed"] and "Nobody is signed in" in found["obstacles"][0]


def nothing(person: Person) -> None:
    """It stays as it is."""


def api_off(person: Person) -> None:
    store.set_api(person.account, False, person.user, None)


def plan_off(person: Person) -> None:
    store.set_on(person.account, False, person.user, None)


def signed_out(person: Person) -> None:
    store.save_sign_out(person.account, person.user, None)


def no_superuser(person: Person) -> None:
    person.user.is_superuser = False
    person.user.save()


def disabled(person: Person) -> None:
    person.user.is_active = False
    person.user.save()


def revoked(person: Person) -> None:
    revoke_token(Token.objects.get(user=person.user), actor=None)


@pytest.mark.parametrize("change", [nothing, api_off, plan_off, signed_out, no_superuser, disabled, revoked])
def test_what_ends_the_use_of_a_plan_ends_its_streams(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, change: Callable[[Person], None]
) -> None:
    person = signed_in()
    chatgpt.flows.clear()
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(respond, portal, person.token, stream=True)
        until(lambda: len(chatgpt.seen) == 1)
        change(person)
        portal.catch_up()
        if change is nothing:
            chatgpt.flows.set()
        last = events_of(answer.result(30).text)[-1]
        chatgpt.flows.set()
    assert last["type"] == ("response.completed" if change is nothing else "error"), last
    assert change is nothing or last["code"] == "request_ended"
