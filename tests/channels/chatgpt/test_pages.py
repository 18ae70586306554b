"""The page of a user's own plan, the list for staff, and who may see and change what."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from portal.cli import upstreams
from portal.pages.own_plan.offered import plan_models
from relay.channels.chatgpt_accounts import sign_in, store
from relay.channels.models import gpt_channels
from relay.models import ChatGPTAccount
from relay.tokens.lifecycle import create_token
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.portal import People

PAGE = "/chatgpt/"


@pytest.fixture
def browsers(clients: tuple[Client, Client, Client], people: People, configured: Any) -> tuple[Client, Client, Client]:
    """Of the owner of a plan, of another user and of staff. Everyone may have a plan here."""
    configured.CONFIG = configured.CONFIG.model_copy(update={"plan_users": "everyone"})
    return clients


@pytest.fixture
def account(browsers: Any, people: People, chatgpt: ChatGPT) -> ChatGPTAccount:
    begun = sign_in.begin(people.owner)
    found = sign_in.finish(people.owner, begun, chatgpt.authorize(begun.address))
    return found


def now_of(account: ChatGPTAccount) -> ChatGPTAccount:
    return ChatGPTAccount.objects.get(pk=account.pk)


def test_a_user_signs_in_by_pasting_the_address(
    browsers: tuple[Client, Client, Client], people: People, chatgpt: ChatGPT
) -> None:
    owner, _, _ = browsers
    page = owner.get(PAGE).content.decode()
    assert "Sign in with ChatGPT" in page and "AIRelays Portal" in page
    shown = owner.post("/chatgpt/sign-in/", follow=True)
    address = shown.context["address"]
    assert address.startswith(f"{chatgpt.url}/oauth/authorize?")
    kept = str(dict(owner.session.items()))
    assert "verifier" not in kept and "state=" not in kept, "it is sealed"
    wrong = owner.post("/chatgpt/finish/", {"address": "http://127.0.0.1:1455/auth/callback?state=x&code=y"})
    assert wrong.status_code == 422 and "belongs to another sign-in" in wrong.content.decode()
    for pasted in ("", "hello", address):  # the last: where one signs in, not where the browser ends
        wrong = owner.post("/chatgpt/finish/", {"address": pasted})
        assert wrong.status_code == 422 and "copy the whole address" in wrong.content.decode()
    done = owner.post("/chatgpt/finish/", {"address": chatgpt.authorize(address)}, follow=True)
    assert "You are signed in as ada@example.org." in done.content.decode()
    found = ChatGPTAccount.objects.get()
    assert found.user == people.owner and not found.is_on
    tokens = [str(token) for token in found.tokens.values() if token]
    assert not any(token in done.content.decode() for token in tokens)


def test_each_switch_needs_its_notice_to_be_read(browsers: Any, account: ChatGPTAccount) -> None:
    owner, _, _ = browsers
    page = owner.get(PAGE).content.decode()
    assert "https://openai.com/policies/sign-in-with-chatgpt-terms/" in page
    assert owner.post("/chatgpt/switch/", {"what": "plan", "on": "1"}).status_code == 422
    assert not now_of(account).is_on
    owner.post("/chatgpt/switch/", {"what": "api", "on": "1", "read": "1"})
    assert not now_of(account).api_enabled, "it is off as a whole"
    owner.post("/chatgpt/switch/", {"what": "plan", "on": "1", "read": "1"})
    assert now_of(account).is_on and not now_of(account).api_enabled
    assert owner.post("/chatgpt/switch/", {"what": "api", "on": "1"}).status_code == 422
    assert "general-purpose API access" in owner.get(PAGE).content.decode()
    owner.post("/chatgpt/switch/", {"what": "api", "on": "1", "read": "1"})
    assert now_of(account).api_enabled
    owner.post("/chatgpt/switch/", {"what": "plan", "on": "0"})
    account.refresh_from_db()
    assert not account.is_on and not account.api_enabled


def test_a_switch_says_what_holds_now_and_what_is_next(browsers: Any, account: ChatGPTAccount) -> None:
    owner, _, _ = browsers

    def told(what: str, on: str) -> str:
        answer = owner.post("/chatgpt/switch/", {"what": what, "on": on, "read": "1"}, follow=True)
        return " ".join(str(message) for message in answer.context["messages"])

    assert "Turn it on first." in told("api", "1")
    assert told("plan", "1").startswith("Your plan is on: its models answer you in the playground.")
    assert 'href="/playground/"' in owner.get(PAGE).content.decode()
    assert "name one of its models there, such as gpt-5.5" in told("api", "1")
    assert 'href="/connect/"' in owner.get(PAGE).content.decode()
    assert "In the playground it still answers you." in told("api", "0")
    assert "nothing is sent to it" in told("plan", "0")
    ChatGPTAccount.objects.update(state="expired", model_list=None)
    assert "sign in again first" in told("plan", "1")
    assert "not known yet: fetch them above" in told("api", "1")


def test_another_user_sees_and_changes_nothing(browsers: Any, people: People, account: ChatGPTAccount) -> None:
    _, other, _ = browsers
    page = other.get(PAGE).content.decode()
    assert "ada@example.org" not in page and "acc-ada" not in page
    for path, body in (
        ("/chatgpt/switch/", {"what": "plan", "on": "1", "read": "1"}),
        ("/chatgpt/models/", {}),
        ("/chatgpt/sign-out/", {}),
    ):
        assert other.post(path, body).status_code == 404
    assert other.get(f"/admin/relay/chatgptaccount/{account.pk}/change/").status_code in {302, 403}
    account.refresh_from_db()
    assert account.state == "signed_in" and not account.is_on


def test_staff_see_who_it_is_and_its_state_and_never_a_token(
    browsers: Any, people: People, account: ChatGPTAccount, chatgpt: ChatGPT
) -> None:
    _, _, staff = browsers
    store.set_on(account, True, people.owner, None)
    for path in ("/admin/relay/chatgptaccount/", f"/admin/relay/chatgptaccount/{account.pk}/change/"):
        answer = staff.get(path)
        assert answer.status_code == 200
        page = answer.content.decode()
        assert "ada@example.org" in page and "plus" in page
        assert not any(token in page for token in account.tokens.values()) and account.sealed not in page
    assert staff.get(f"/admin/relay/chatgptaccount/{account.pk}/turn-off/").status_code == 200, "it asks"
    assert now_of(account).is_on
    staff.post(f"/admin/relay/chatgptaccount/{account.pk}/turn-off/")
    assert not now_of(account).is_on
    staff.post(f"/admin/relay/chatgptaccount/{account.pk}/sign-out/")
    account.refresh_from_db()
    assert account.state == "signed_out" and chatgpt.revoked


def test_its_channel_is_in_no_list_of_channels(browsers: Any, account: ChatGPTAccount) -> None:
    _, _, staff = browsers
    for path in ("/admin/relay/channel/", "/admin/"):
        assert account.channel.name not in staff.get(path).content.decode()
    assert account.channel_id not in {one["id"] for one in staff.get("/admin/now/channels/").json()["channels"]}
    for path in ("/admin/setup/channel/", f"/admin/setup/channel/?channel={account.channel_id}"):
        page = staff.get(path).content.decode()
        assert account.channel.name not in page and "First add a channel" not in page, "the guide is about no plan"
    assert staff.get("/admin/setup/test/", {"channel": account.channel_id}).status_code == 302
    form = {
        "channel": account.channel_id,
        "provider": "openai",
        "name": "taken",
        "base_url": "https://api.openai.com/v1",
    }
    staff.post("/admin/setup/channel/", form)
    account.channel.refresh_from_db()
    assert account.channel.name != "taken" and account.channel.provider == "chatgpt"
    assert account.channel not in gpt_channels(), "models that users make are put on no plan"


def test_apps_can_be_connected_to_its_models(browsers: Any, account: ChatGPTAccount, people: People) -> None:
    owner, other, _ = browsers
    store.set_on(account, True, people.owner, None)
    assert "gpt-5.5" not in owner.get("/connect/").context["models"], "under /v1 it is off"
    store.set_api(account, True, people.owner, None)
    page = owner.get("/connect/?model=gpt-5.5").context
    assert "gpt-5.5" in page["models"] and (page["model"], page["price"]) == ("gpt-5.5", "in your plan")
    assert plan_models(people.owner, under_v1=True) and not plan_models(people.other, under_v1=True)
    assert "gpt-5.5" not in other.get("/connect/").context["models"]


def test_commands_tell_of_a_plan_what_clients_can_call(account: ChatGPTAccount, people: People) -> None:
    def listed(token: Any = None) -> list[str]:
        return [model["id"] for model in upstreams.plan_models(people.owner, token)]

    token, _ = create_token(people.owner, "mine", actor=None)
    store.set_on(account, True, people.owner, None)
    assert listed() == [], "under /v1 it is off"
    store.set_api(account, True, people.owner, None)
    assert "gpt-5.5" in listed() and "gpt-5.5" in listed(token)
    assert upstreams.plan_models(people.other, None) == []
    token.models_limited = True
    token.save()
    assert listed(token) == [], "it is for models of the portal"
    assert account.channel.name not in {one["name"] for one in upstreams.accounts()}
    assert [one["user"] for one in upstreams.sign_ins()] == [people.owner.username]


def test_the_playground_offers_its_models_to_its_owner(browsers: Any, people: People, account: ChatGPTAccount) -> None:
    owner, other, _ = browsers
    assert owner.get("/playground/").context["models"] == []
    store.set_on(account, True, people.owner, None)
    names = [model["name"] for model in owner.get("/playground/").context["models"]]
    assert names == ["gpt-5.5", "gpt-5.4-mini", "gpt-6-new"]
    assert other.get("/playground/").context["models"] == []


def test_a_signed_out_owner_can_turn_it_off(browsers: Any, people: People, account: ChatGPTAccount) -> None:
    owner, _, _ = browsers
    store.set_on(account, True, people.owner, None)
    owner.post("/chatgpt/sign-out/")
    assert "Still turned on" in owner.get(PAGE).content.decode()
    owner.post("/chatgpt/switch/", {"what": "plan", "on": "0"})
    assert not now_of(account).is_on


def test_those_who_may_have_none_see_no_page(browsers: Any, configured: Any) -> None:
    owner, _, _ = browsers
    configured.CONFIG = configured.CONFIG.model_copy(update={"plan_users": "off"})
    assert owner.get(PAGE).status_code == 404
    assert (
        "my-plan" not in owner.get("/").content.decode() and 'href="/chatgpt/"' not in owner.get("/").content.decode()
    )
    owner.post("/chatgpt/sign-in/")
    assert "plan_sign_in" not in owner.session
