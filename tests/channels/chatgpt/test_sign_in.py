"""Signing in and out, against the issuer."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from relay.channels.chatgpt_accounts import adopt, sign_in, status_of, store
from relay.channels.chatgpt_accounts.places import host_id
from relay.models import ChatGPTAccount
from relay.providers.plans.login import LoginFailed
from tests.support.peers.plans.chatgpt import RESOURCE, SCOPE, ChatGPT
from tests.support.portal import Portal


@pytest.fixture
def user(live: Portal, configured: Any) -> Any:
    return live.user(is_superuser=True)


@pytest.fixture
def older(configured: Any) -> Any:
    configured.CONFIG = configured.CONFIG.model_copy(update={"plan_shape": "codex", "client_id": "app_of_ours"})
    return configured


def sign(user: Any, chatgpt: ChatGPT) -> ChatGPTAccount:
    begun = sign_in.begin(user, 4567)
    return sign_in.finish(user, begun, chatgpt.authorize(begun.address), user, None)


def test_the_first_sign_in_names_this_app_and_has_a_client_issued(user: Any, chatgpt: ChatGPT) -> None:
    begun = sign_in.begin(user, 4567)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.address).query).items()}
    assert asked["client_id"] == "dynamic_agent_client" and asked["agent_name_hint"] == "AIRelays Portal"
    assert asked["ext_agent_host_id"] == host_id() and asked["ext_agent_host_id"].startswith("urn:uuid:")
    assert asked["redirect_uri"] == "http://127.0.0.1:4567/auth/callback"
    assert asked["scope"] == SCOPE and asked["resource"] == RESOURCE
    assert asked["code_challenge_method"] == "S256" and len(asked["state"]) > 30 and len(asked["nonce"]) > 30
    assert "originator" not in asked
    account = sign_in.finish(user, begun, chatgpt.authorize(begun.address))
    assert account.client_id.startswith("oaiapp_") and account.state == "signed_in"
    form = next(form for path, form in chatgpt.calls if path == "/oauth/token")
    assert form["client_id"] == account.client_id and form["resource"] == RESOURCE and "client_secret" not in form
    assert (account.email, account.plan, account.account_id) == ("ada@example.org", "plus", "acc-ada")
    assert [model["name"] for model in account.listed] == ["gpt-5.5", "gpt-5.4-mini", "gpt-6-new"]
    assert not account.is_on and not account.api_enabled, "off until its owner has read the terms"


def test_a_second_sign_in_uses_the_issued_client(user: Any, chatgpt: ChatGPT) -> None:
    first = sign(user, chatgpt)
    store.set_on(first, True, user, None)
    again = sign(user, chatgpt)
    assert again.client_id == first.client_id and chatgpt.asked["client_id"] == first.client_id
    assert "agent_name_hint" not in chatgpt.asked
    assert again.is_on, "the same person at the issuer"
    assert ChatGPTAccount.objects.filter(user=user).count() == 1


def test_another_persons_account_is_off_again(user: Any, chatgpt: ChatGPT) -> None:
    store.set_on(sign(user, chatgpt), True, user, None)
    before = dict(chatgpt.person)
    chatgpt.person = {"sub": "user-eve", "email": "eve@example.org"}
    try:
        assert not sign(user, chatgpt).is_on
    finally:
        chatgpt.person = before


def test_tokens_are_stored_encrypted_and_shown_nowhere(user: Any, chatgpt: ChatGPT) -> None:
    account = sign(user, chatgpt)
    tokens = {name: str(token) for name, token in account.tokens.items()}
    assert tokens["refresh"].startswith("rt-secret-")
    assert tokens["refresh"] not in account.sealed and tokens["access"] not in account.sealed
    shown = repr(status_of(account)) + repr(store.held_of(account)) + str(account)
    assert not any(token in shown for token in tokens.values())


@pytest.mark.parametrize("spoil", ["state", "iss", "no_code", "denied", "empty", "long"])
def test_an_address_that_is_not_this_sign_ins_is_refused(user: Any, chatgpt: ChatGPT, spoil: str) -> None:
    begun = sign_in.begin(user)
    address = chatgpt.authorize(begun.address, consents=spoil != "denied")
    address = {
        "state": address.replace(begun.login.state, "x" * 43),
        "iss": address.replace(f"iss={chatgpt.url}", "iss=https://evil.example.org"),
        "no_code": address.replace("&code=", "&kode="),
        "empty": "",
        "long": address + "x" * 9000,
    }.get(spoil, address)
    with pytest.raises(LoginFailed):
        sign_in.finish(user, begun, address)
    assert store.account_of(user) is None and chatgpt.count("/oauth/token") == 0


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://evil.example.org"}, {"aud": ["other"]}, {"exp": 1}, {"nonce": "other"}, {"nonce": None},
     {"sub": None}],
)  # fmt: skip
def test_a_false_proof_of_who_signed_in_is_refused(user: Any, chatgpt: ChatGPT, claims: dict[str, Any]) -> None:
    chatgpt.claims = claims
    with pytest.raises(LoginFailed, match="proof of who signed in"):
        sign(user, chatgpt)
    assert store.account_of(user) is None


def test_a_proof_that_another_key_signed_is_refused(user: Any, chatgpt: ChatGPT) -> None:
    chatgpt.signed_with = "wrong"
    with pytest.raises(LoginFailed, match="proof of who signed in"):
        sign(user, chatgpt)


def test_words_of_the_issuer_are_shown_to_nobody(user: Any, chatgpt: ChatGPT, caplog: pytest.LogCaptureFixture) -> None:
    chatgpt.answers["/oauth/token"] = (400, b'{"error":"invalid_grant","error_description":"secret words"}')
    with pytest.raises(LoginFailed) as failed:
        sign(user, chatgpt)
    assert "secret words" not in str(failed.value) + caplog.text


def test_without_the_scope_of_the_plan_nothing_can_be_used_and_consent_is_asked_again(
    user: Any, chatgpt: ChatGPT
) -> None:
    chatgpt.granted = "openid profile email offline_access"
    try:
        account = sign(user, chatgpt)
    finally:
        chatgpt.granted = SCOPE
    assert account.state == "incomplete" and not status_of(account)["authenticated"]
    sign(user, chatgpt)
    assert chatgpt.asked["prompt"] == "consent"
    account.refresh_from_db()
    assert account.state == "signed_in"


def test_signing_out_revokes_and_forgets(user: Any, chatgpt: ChatGPT) -> None:
    account = sign(user, chatgpt)
    refresh, client = account.tokens["refresh"], account.client_id
    assert sign_in.sign_out(account, user, None)
    form = next(form for path, form in chatgpt.calls if path == "/oauth/revoke")
    assert form == {"token": refresh, "token_type_hint": "refresh_token", "client_id": client}
    account.refresh_from_db()
    assert account.state == "signed_out" and not account.sealed and not account.email and not account.subject


def test_signing_out_works_here_while_the_issuer_is_away(user: Any, chatgpt: ChatGPT) -> None:
    account = sign(user, chatgpt)
    chatgpt.answers["/oauth/revoke"] = (500, b"oops")
    assert not sign_in.sign_out(account, user, None)
    account.refresh_from_db()
    assert not account.sealed


def test_the_older_form_signs_in_under_our_own_name(user: Any, older: Any, chatgpt: ChatGPT) -> None:
    account = sign(user, chatgpt)
    asked = chatgpt.asked
    assert asked["redirect_uri"] == "http://localhost:1455/auth/callback" and asked["client_id"] == "app_of_ours"
    assert asked["id_token_add_organizations"] == "true" and "originator" not in asked and "resource" not in asked
    assert account.shape == "codex" and account.state == "signed_in"
    assert [model["name"] for model in account.listed] == ["gpt-5.5", "gpt-5.4-mini"], "for the version"
    assert ("/models", {"client_version": ["0.153.4"]}) in chatgpt.calls


def test_the_older_form_needs_a_client_of_its_own(user: Any, configured: Any) -> None:
    configured.CONFIG = configured.CONFIG.model_copy(update={"plan_shape": "codex"})
    with pytest.raises(LoginFailed, match="CLIENT_ID"):
        sign_in.begin(user)


def test_a_code_can_be_typed_on_another_device(user: Any, older: Any, chatgpt: ChatGPT) -> None:
    device = sign_in.begin_device(user)
    assert (device.user_code, device.interval) == ("ABCD-1234", 1.0)
    assert sign_in.finish_device(user, device) is None
    chatgpt.devices["ABCD-1234"] = True
    account = sign_in.finish_device(user, device)
    assert account is not None and account.state == "signed_in"


def test_the_device_form_is_refused_where_it_is_not_offered(user: Any, older: Any, chatgpt: ChatGPT) -> None:
    chatgpt.offers_device = False
    with pytest.raises(LoginFailed, match="does not offer"):
        sign_in.begin_device(user)


def test_the_supported_form_has_no_device_form(user: Any) -> None:
    with pytest.raises(LoginFailed, match="does not offer"):
        sign_in.begin_device(user)


def test_addresses_outside_the_public_internet_must_be_allowed(user: Any, configured: Any, chatgpt: ChatGPT) -> None:
    configured.CONFIG = configured.CONFIG.model_copy(update={"upstream_allow": []})
    with pytest.raises(LoginFailed, match="may not be used"):
        sign_in.begin(user)
    assert chatgpt.calls == []


def test_an_issuer_sends_to_no_other_host(user: Any, chatgpt: ChatGPT) -> None:
    document = {
        "issuer": chatgpt.url, "authorization_endpoint": f"{chatgpt.url}/oauth/authorize",
        "token_endpoint": "http://127.0.0.1:9/oauth/token", "jwks_uri": f"{chatgpt.url}/.well-known/jwks.json",
    }  # fmt: skip
    import json

    chatgpt.answers["/.well-known/openid-configuration"] = (200, json.dumps(document).encode())
    with pytest.raises(LoginFailed, match="configuration cannot be read"):
        sign(user, chatgpt)


# -- the sign-in of AIRelays 0.x -------------------------------------------------------------------------------------


def auth_file(chatgpt: ChatGPT, **more: Any) -> dict[str, Any]:
    given = chatgpt.tokens("app_of_airelays")
    tokens = {name: given[name] for name in ("id_token", "access_token", "refresh_token")}
    return {
        "bound_account_id": "acc-ada", "tokens": {**tokens, "account_id": "acc-ada"},
        "last_refresh": "2026-11-01T10:00:00+00:00", **more,
    }  # fmt: skip


@pytest.fixture
def alone(db: None, configured: Any) -> Any:
    from accounts.models import User

    return User.objects.create_superuser("only", password="x")


def test_the_sign_in_of_airelays_is_adopted(alone: Any, chatgpt: ChatGPT) -> None:
    auth = auth_file(chatgpt)
    assert adopt(auth, "~/.airelays/auth.json")
    account = ChatGPTAccount.objects.get(user=alone)
    assert (account.email, account.account_id, account.shape) == ("ada@example.org", "acc-ada", "codex")
    assert account.client_id == "app_of_airelays", "the only client that can refresh its tokens"
    assert account.tokens["refresh"] == auth["tokens"]["refresh_token"] and not account.is_on
    assert adopt(auth, "again") and ChatGPTAccount.objects.count() == 1
    account.refresh_from_db()
    assert account.source == "~/.airelays/auth.json", "it is not adopted twice"


def test_an_id_token_may_be_an_object(alone: Any, chatgpt: ChatGPT) -> None:
    auth = auth_file(chatgpt)
    auth["tokens"]["id_token"] = {"raw_jwt": auth["tokens"]["id_token"]}
    assert adopt(auth, "x") and ChatGPTAccount.objects.get().email == "ada@example.org"


@pytest.mark.parametrize(
    "auth", [{}, {"tokens": None}, {"tokens": {"refresh_token": "r"}}, {"tokens": {"id_token": "a.b.c"}}]
)
def test_what_is_no_sign_in_is_not_adopted(alone: Any, auth: dict[str, Any]) -> None:
    assert not adopt(auth, "x") and not ChatGPTAccount.objects.exists()


def test_it_is_adopted_for_nobody_where_it_is_not_clear_whose_it_is(alone: Any, chatgpt: ChatGPT) -> None:
    from accounts.models import User

    User.objects.create_superuser("second", password="x")
    assert not adopt(auth_file(chatgpt), "x")


def test_one_that_is_bound_to_another_account_is_not_adopted(alone: Any, chatgpt: ChatGPT) -> None:
    assert not adopt(auth_file(chatgpt, bound_account_id="other"), "x")


def test_a_sign_in_that_begun_long_ago_is_over(user: Any, chatgpt: ChatGPT) -> None:
    kept = sign_in.begin(user).as_dict()
    assert sign_in.Begun.of(kept) is not None
    assert sign_in.Begun.of({**kept, "began_at": time.time() - 901}) is None
    assert sign_in.Begun.of({**kept, "login": {}}) is None and sign_in.Begun.of(None) is None
