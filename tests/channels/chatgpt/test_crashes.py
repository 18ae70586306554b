"""A sign-in outlives the process that refreshes it: one that is killed, or stopped, and a sign-out meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import transaction

from relay.channels.chatgpt_accounts import session, sign_in, store, unstored
from relay.channels.chatgpt_accounts.session import PlanSession
from relay.models import ChatGPTAccount
from relay.providers.plan_requests.transport import PlanRefused
from relay.providers.plans.login import Tokens
from tests.support.asserts import until
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import Person, SignIn, respond, settings_for
from tests.support.server import Server, serving

REFRESH = "/oauth/token"


@pytest.fixture
def worker(running: ChatGPT, portal: Server, tmp_path: Path) -> Iterator[Server]:
    """Another worker on the same database, which does not live long."""
    with serving(tmp_path / "log", env=settings_for(running)) as server:
        yield server


def file_of(person: Person) -> Path:
    return Path(settings.DATA_DIR) / "plans" / f"{person.account.pk}.tokens"


def asked(worker: Server, person: Person, chatgpt: ChatGPT, clients: ThreadPoolExecutor) -> Future[Any]:
    """A request for which the worker asks the issuer for new tokens, which does not answer yet."""
    chatgpt.slow.clear()
    worker.catch_up()

    def request() -> Any:
        with suppress(httpx.TransportError):
            return respond(worker, person.token)

    found = clients.submit(request)
    until(lambda: chatgpt.count(REFRESH) == 1)
    return found


def killed(worker: Server) -> None:
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait(30)


def test_a_worker_that_is_killed_while_the_issuer_is_asked_keeps_nobody_waiting(
    portal: Server, worker: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    person = signed_in(seconds=-5)
    with ThreadPoolExecutor(1) as clients:
        asked(worker, person, chatgpt, clients)
        killed(worker)
    refresh = person.account.tokens["refresh"]
    chatgpt.slow.set()
    until(lambda: refresh in chatgpt.spent)
    chatgpt.spent.discard(refresh)  # the call of the dead one has not arrived
    chatgpt.refreshable[refresh] = person.account.client_id
    portal.catch_up()
    assert respond(portal, person.token).status_code == 200, "the lease was taken over before it had run out"
    assert chatgpt.count(REFRESH) == 2


def test_tokens_that_a_killed_worker_had_not_stored_are_used_by_the_next(
    portal: Server, worker: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    """Between the issuer's answer and the end of the transaction: the token before them is spent."""
    person = signed_in(seconds=-5)
    with ThreadPoolExecutor(1) as clients:
        asked(worker, person, chatgpt, clients)
        with transaction.atomic():
            ChatGPTAccount._base_manager.filter(pk=person.account.pk).update(plan="locked")
            chatgpt.slow.set()
            until(file_of(person).exists)
            killed(worker)
    assert (os.stat(file_of(person)).st_mode & 0o777, os.stat(file_of(person).parent).st_mode & 0o777) == (0o600, 0o700)
    assert b"rt-secret" not in file_of(person).read_bytes()
    portal.catch_up()
    assert respond(portal, person.token).status_code == 200
    person.account.refresh_from_db()
    assert chatgpt.count(REFRESH) == 1 and person.account.tokens["refresh"] in chatgpt.refreshable
    assert not file_of(person).exists()


def test_a_worker_that_is_stopped_stores_what_the_issuer_gives_it(
    worker: Server, signed_in: SignIn, chatgpt: ChatGPT
) -> None:
    person = signed_in(seconds=-5)
    with ThreadPoolExecutor(1) as clients:
        chatgpt.slow.clear()
        worker.catch_up()
        with httpx.Client(trust_env=False) as client, suppress(httpx.TimeoutException):
            body = {"model": "gpt-5.5", "input": "Hi"}
            headers = {"authorization": f"Bearer {person.token}"}
            client.post(f"{worker.v1}/responses", json=body, headers=headers, timeout=1.5)
        assert chatgpt.count(REFRESH) == 1
        os.killpg(worker.process.pid, signal.SIGTERM)
        ended = clients.submit(worker.process.wait, 60)
        until(lambda: not _takes_connections(worker))
        chatgpt.slow.set()
        ended.result()
    person.account.refresh_from_db()
    assert person.account.tokens["refresh"] in chatgpt.refreshable and person.account.lease == ""


def _takes_connections(worker: Server) -> bool:
    try:
        return httpx.get(f"{worker.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def renew(person: Person) -> None:
    async def work() -> None:
        plan = PlanSession(store.held_of(person.account))
        async with httpx.AsyncHTTPTransport() as send:
            await plan.signed(httpx.Request("GET", "http://unused.example"), send)

    asyncio.run(work())


def test_who_signs_out_while_tokens_are_renewed_leaves_none(
    signed_in: SignIn, chatgpt: ChatGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issuer was told of the end of the token before, which it does not know any more."""
    person = signed_in(seconds=-5)
    real = store.save_refreshed

    def save(pk: int, owner: str, tokens: Tokens) -> Any:
        store.save_sign_out(ChatGPTAccount.objects.get(pk=pk), person.user, None)
        return real(pk, owner, tokens)

    monkeypatch.setattr(store, "save_refreshed", save)
    with pytest.raises(PlanRefused):
        renew(person)
    person.account.refresh_from_db()
    assert not person.account.sealed and not file_of(person).exists()
    assert len(chatgpt.revoked) == 1 and chatgpt.revoked[0] not in chatgpt.spent
    assert not chatgpt.refreshable.keys() & set(chatgpt.revoked)


def test_ctrl_c_of_a_command_loses_no_tokens(
    signed_in: SignIn, chatgpt: ChatGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = signed_in(seconds=-5)
    chatgpt.slow.clear()
    monkeypatch.setattr(sign_in, "_SECONDS", 0.3)

    def answer_late() -> None:
        until(lambda: chatgpt.count(REFRESH) == 1)
        time.sleep(1)  # until the command has given up
        chatgpt.slow.set()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(answer_late)
        assert not sign_in.refresh_models(person.account)
    person.account.refresh_from_db()
    assert person.account.tokens["refresh"] in chatgpt.refreshable


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 300_000, "another"])
def test_a_file_that_is_not_of_this_token_is_none(signed_in: SignIn, damage: bytes | str) -> None:
    person = signed_in()
    unstored.keep(person.account.pk, "spent", Tokens("a", "r", "", 5.0, "s"))
    assert unstored.kept(person.account.pk, "spent") == Tokens("a", "r", "", 5.0, "s")
    if isinstance(damage, bytes):
        file_of(person).write_bytes(damage)
    assert unstored.kept(person.account.pk, "another") is None
    unstored.forget(person.account.pk)
    unstored.forget(person.account.pk)


def test_a_disk_that_is_full_keeps_no_request_from_its_answer(
    signed_in: SignIn, chatgpt: ChatGPT, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    person = signed_in(seconds=-5)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unstored, "make_private", full)
    renew(person)
    person.account.refresh_from_db()
    assert person.account.tokens["refresh"] in chatgpt.refreshable and "kept in no file" in caplog.text


@pytest.mark.parametrize("claims", [{"sub": "user-eve"}, {"https://api.openai.com/auth": {"chatgpt_account_id": "b"}}])
def test_tokens_of_another_account_are_refused(
    portal: Server, signed_in: SignIn, chatgpt: ChatGPT, claims: dict[str, Any]
) -> None:
    """A refresh that answers with another person's tokens: nothing is sent with them, and it is told as such."""
    person = signed_in(seconds=-5)
    chatgpt.claims = claims
    for _ in range(2):
        answer = respond(portal, person.token)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "upstream_auth_account_mismatch"
        assert answer.headers["x-airelays-upstream-auth"] == "account_mismatch"
        assert answer.headers["x-should-retry"] == "false"
    assert chatgpt.count(REFRESH) == 1 and chatgpt.seen == []
    person.account.refresh_from_db()
    from relay.channels.chatgpt_accounts import status_of

    assert status_of(person.account)["ready_for_requests"] is False


def test_no_refresh_outlives_its_loop_without_end() -> None:
    async def work() -> None:
        session._spawn(asyncio.sleep(30))
        await session.finish(0.05)

    asyncio.run(work())
