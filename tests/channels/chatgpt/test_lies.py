"""What an issuer or a plan says and no honest one would: nothing of it breaks a request, a page or a sign-in."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from django.db import OperationalError

from relay.channels.chatgpt_accounts import session, store
from relay.channels.chatgpt_accounts.session import PlanSession
from relay.providers.plan_requests.transport import PlanRefused, refusal
from relay.providers.plans.catalogue import read_models
from relay.providers.plans.identity import identity_of
from relay.providers.plans.login import LoginFailed, Tokens, expiry_of, read_discovery, read_tokens
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import SignIn

HUGE = "1" + "0" * 400
NOW = 1_790_000_000.0


def token_that_expires(moment: str) -> str:
    claims = base64.urlsafe_b64encode(b'{"exp":' + moment.encode() + b"}").decode().rstrip("=")
    return f"head.{claims}.sign"


@pytest.mark.parametrize("seconds", ["1000000000000000", "999999999999999999", HUGE, "-1", "0", '"soon"', "1.5"])
def test_a_time_that_no_token_holds_is_none(seconds: str) -> None:
    found = read_tokens(f'{{"access_token":"a","refresh_token":"r","expires_in":{seconds}}}'.encode(), NOW)
    assert found == Tokens("a", "r")
    assert expiry_of(token_that_expires(seconds)) == 0.0


@pytest.mark.parametrize("token", ["a\\r\\nx-other: y", "caf\\u00e9", "a b", "nul\\u0000", "x" * 40_000])
def test_a_token_that_no_header_carries_is_none(token: str) -> None:
    for name, other in (("access_token", "refresh_token"), ("refresh_token", "access_token")):
        with pytest.raises(LoginFailed):
            read_tokens(f'{{"{name}":"{token}","{other}":"good"}}'.encode(), NOW)


@pytest.mark.parametrize(
    ("headers", "error", "wait"),
    [
        ({}, f'"resets_in_seconds":{HUGE}', None),
        ({}, f'"resets_at":{HUGE}', None),
        ({}, '"resets_in_seconds":1000000000', None),
        ({"retry-after": "9" * 400}, '"x":1', None),
        ({"retry-after": "0"}, '"x":1', None),
        ({"retry-after": "30"}, f'"resets_at":{HUGE}', 30.0),
        ({}, '"resets_at":1790000060', 60.0),
        ({}, '"resets_in_seconds":604800', 604_800.0),
    ],
)
def test_a_window_begins_again_when_one_can(headers: dict[str, str], error: str, wait: float | None) -> None:
    found = refusal(429, headers, f'{{"error":{{"type":"usage_limit_reached",{error}}}}}'.encode(), NOW)
    assert found is not None and found.error.retry_after == wait


def test_a_list_of_models_that_lies_is_read() -> None:
    long = "9" * 5000
    body = f'{{"models":[{{"slug":"a","context_window":{HUGE},"minimal_client_version":"{long}"}}]}}'
    assert read_models(body.encode(), "0.1") == [{"name": "a", "label": "a", "context": 0, "efforts": []}]


def test_nobody_has_a_name_that_moves_a_cursor() -> None:
    own = {"chatgpt_plan_type": "plus\x00", "chatgpt_account_id": "acc\r\nx-other: y"}
    who = identity_of({"sub": "a\x1b[2J", "email": "a\x00@example.org\u202e", "https://x/auth": own}, "https://x")
    assert (who.subject, who.email, who.plan, who.account) == ("a[2J", "a@example.org", "plus", "")


@pytest.mark.parametrize("address", ["javascript:alert(1)//", "file:///etc/passwd", "--new-window", "//example.org"])
def test_only_a_page_is_opened_in_a_browser(address: str) -> None:
    body = f'{{"issuer":"https://i","authorization_endpoint":"{address}","token_endpoint":"t","jwks_uri":"j"}}'
    with pytest.raises(LoginFailed):
        read_discovery("https://i", body.encode())


# -- a refresh that does not end well --------------------------------------------------------------------------------


def renewed(person: Any) -> None:
    async def renew() -> None:
        plan = PlanSession(store.held_of(person.account))
        async with httpx.AsyncHTTPTransport() as send:
            await plan.signed(httpx.Request("GET", "http://unused.example"), send)

    asyncio.run(renew())


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the database fail the given number of times when new tokens are to be stored."""

    def fail(times: int) -> None:
        left, real = [OperationalError("database is locked")] * times, store.save_refreshed

        def save(pk: int, owner: str, tokens: Tokens) -> Any:
            if left:
                raise left.pop()
            return real(pk, owner, tokens)

        monkeypatch.setattr(store, "save_refreshed", save)

    return fail


def test_tokens_that_cannot_be_stored_at_once_are_stored_then(signed_in: SignIn, chatgpt: ChatGPT, fails: Any) -> None:
    """The token before them is spent: without them the person would have to sign in again."""
    person = signed_in(seconds=-5)
    fails(2)
    renewed(person)
    before = person.account.tokens["refresh"]
    person.account.refresh_from_db()
    assert before in chatgpt.spent and person.account.tokens["refresh"] in chatgpt.refreshable
    assert person.account.lease == ""


def test_a_database_that_is_away_is_a_failure_for_now(
    signed_in: SignIn, fails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_STORE_SECONDS", 0.0)
    person = signed_in(seconds=-5)
    fails(9)
    with pytest.raises(PlanRefused) as refused:
        renewed(person)
    assert (refused.value.error.status, refused.value.error.retry) == (503, True)
    person.account.refresh_from_db()
    assert person.account.state == "signed_in"


def test_an_issuer_is_not_waited_for_longer_than_the_lease_holds(
    signed_in: SignIn, chatgpt: ChatGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker takes the lease then, and spends the same refresh token."""
    assert session._ASK_SECONDS + session._STORE_SECONDS < store.LEASE_SECONDS
    monkeypatch.setattr(session, "_ASK_SECONDS", 0.2)
    person = signed_in(seconds=-5)
    chatgpt.slow.clear()
    with pytest.raises(PlanRefused) as refused:
        renewed(person)
    chatgpt.slow.set()
    assert refused.value.error.retry is True
    person.account.refresh_from_db()
    assert (person.account.state, person.account.lease) == ("signed_in", "")
