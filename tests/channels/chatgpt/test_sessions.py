"""The sign-in behind a plan: renewed once, whatever asks, and what clients read when it does not do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.support.asserts import until
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import SignIn, respond
from tests.support.portal import Portal
from tests.support.server import Server

REFRESH = "/oauth/token"


def refused(answer: Any, state: str, retry: str = "false") -> None:
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert error["code"] == f"upstream_auth_{state}" and error["type"] == "authentication_error"
    assert answer.headers["x-airelays-upstream-auth"] == state and answer.headers["x-should-retry"] == retry
    assert "secret words" not in answer.text


def test_a_token_that_ends_soon_is_renewed_first(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    person = signed_in(seconds=30)
    before = person.account.tokens
    assert respond(portal, person.token).status_code == 200
    assert chatgpt.count(REFRESH) == 1 and len(chatgpt.seen) == 1
    person.account.refresh_from_db()
    after = person.account.tokens
    assert after["refresh"] != before["refresh"] and before["refresh"] in chatgpt.spent
    assert chatgpt.seen[0]["headers"]["authorization"] == f"Bearer {after['access']}"
    form = next(form for path, form in chatgpt.calls if path == REFRESH)
    assert form["client_id"] == person.account.client_id and "client_secret" not in form


def test_the_older_form_is_renewed_by_json(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    person = signed_in("codex", seconds=30)
    assert respond(portal, person.token).status_code == 200
    form = next(form for path, form in chatgpt.calls if path == REFRESH)
    assert form["scope"] == "openid profile email" and "resource" not in form


def test_many_requests_at_once_renew_it_once(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    person = signed_in(seconds=30)
    chatgpt.slow.clear()
    portal.catch_up()
    with ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(respond, portal, person.token) for _ in range(2)]
        until(lambda: chatgpt.count(REFRESH) == 1)
        chatgpt.slow.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
    assert chatgpt.count(REFRESH) == 1


def test_a_401_renews_exactly_once_and_the_request_is_sent_again(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    person = signed_in()
    chatgpt.valid.pop(person.account.tokens["access"])
    assert respond(portal, person.token).status_code == 200
    assert chatgpt.count(REFRESH) == 1 and chatgpt.count("/responses") == 2


def test_a_second_401_is_told_as_rejected(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    person = signed_in()
    chatgpt.reject_access = True
    refused(respond(portal, person.token), "rejected")
    assert chatgpt.count(REFRESH) == 1 and chatgpt.count("/responses") == 2
    person.account.refresh_from_db()
    assert person.account.sealed and person.account.state == "signed_in", "nothing was deleted"
    chatgpt.reject_access = False
    assert respond(portal, person.token).status_code == 200, "nothing was left to cool down"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error":"invalid_grant","error_description":"secret words"}'),
        (401, b'{"error":{"code":"refresh_token_reused","message":"secret words"}}'),
        (401, b"secret words"),
    ],
)
def test_a_refresh_token_that_is_no_more_asks_to_sign_in_again(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, status: int, body: bytes
) -> None:
    person = signed_in(seconds=30)
    chatgpt.answers[REFRESH] = (status, body)
    refused(respond(portal, person.token), "refresh_failed")
    person.account.refresh_from_db()
    assert person.account.state == "expired" and person.account.sealed, "nothing was deleted"
    refused(respond(portal, person.token), "refresh_failed")
    assert chatgpt.count(REFRESH) == 1 and chatgpt.seen == [], "it is not asked for what it has refused"
    assert "secret words" not in portal.log.read_text()


@pytest.mark.parametrize(("status", "body"), [(503, b"oops"), (401, b'{"error":"invalid_client"}'), (200, b"{}")])
def test_a_failure_for_now_deletes_nothing_and_may_be_retried(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, status: int, body: bytes
) -> None:
    person = signed_in(seconds=-5)
    chatgpt.answers[REFRESH] = (status, body)
    refused(respond(portal, person.token), "refresh_failed", retry="true")
    person.account.refresh_from_db()
    assert person.account.state == "signed_in" and person.account.sealed
    chatgpt.answers = {}
    assert respond(portal, person.token).status_code == 200


def test_a_token_that_still_holds_is_used_while_the_issuer_is_away(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    person = signed_in(seconds=40)
    chatgpt.answers[REFRESH] = (503, b"oops")
    assert respond(portal, person.token).status_code == 200


def test_a_running_portal_notices_the_end_of_a_sign_in_and_the_next_one(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    from relay.channels.chatgpt_accounts import store

    person = signed_in()
    assert respond(portal, person.token).status_code == 200
    store.save_sign_out(person.account, person.user, None)
    refused(respond(portal, person.token), "missing")
    assert chatgpt.count("/responses") == 1


def test_no_path_to_any_upstream_is_told_as_a_missing_sign_in() -> None:
    from relay.errors import ModelNotFound, PlanAuthError
    from relay.gateway.access.authorization import permitted_model
    from relay.gateway.snapshot.snapshot import Snapshot
    from tests.gateway.attempts import CALLER

    with pytest.raises(PlanAuthError) as told:
        permitted_model(CALLER, Snapshot({}, (), lack_plans=frozenset({CALLER.user_id})), "gpt-5.5", 0.0)
    assert told.value.headers()["x-airelays-upstream-auth"] == "missing" and told.value.retry is False
    with pytest.raises(ModelNotFound):
        permitted_model(CALLER, Snapshot({}, ()), "gpt-5.5", 0.0)


def test_tokens_are_sent_to_no_other_address_than_they_were_given_for(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    person = signed_in()
    person.account.base_url = "https://before.example.org/v1"
    person.account.save()
    refused(respond(portal, person.token), "missing")
    assert chatgpt.seen == []


def test_the_lease_holds_across_processes_and_ends_with_its_time(signed_in: SignIn) -> None:
    from portal.lib import clock
    from relay.channels.chatgpt_accounts import store
    from relay.models import ChatGPTAccount

    account = signed_in().account
    first = store.take_lease(account.pk)
    assert first and not store.take_lease(account.pk)
    store.end_lease(account.pk, "another")
    assert not store.take_lease(account.pk), "it is ended by who has it"
    store.end_lease(account.pk, first)
    second = store.take_lease(account.pk)
    assert second
    ChatGPTAccount._base_manager.update(lease_until=clock.now() - timedelta(seconds=1))
    assert store.take_lease(account.pk), "of a worker that has died"


def test_two_requests_are_made_at_once(portal: Server, signed_in: SignIn, chatgpt: ChatGPT) -> None:
    """A third one is refused at once."""
    person = signed_in(seconds=30)
    chatgpt.slow.clear()  # they wait for the refresh
    portal.catch_up()
    with ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(respond, portal, person.token) for _ in range(3)]
        until(lambda: any(answer.done() for answer in answers))
        chatgpt.slow.set()
        found = sorted(answer.result().status_code for answer in answers)
    assert found == [200, 200, 429]


def test_requests_of_a_plan_are_in_the_usage_and_cost_nothing(portal: Server, signed_in: SignIn, live: Portal) -> None:
    person = signed_in()
    record = live.record(respond(portal, person.token))
    assert (record.model, record.cost, record.output_tokens) == ("gpt-5.5", 0, 4)
    assert record.channel_id == person.account.channel_id and record.user_id == person.user.pk
