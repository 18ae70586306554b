"""Servers of others that hang: whoever asked them is told in time, and nobody else waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.mail import send_mail
from django.db import transaction
from django.test import Client

from portal import limits
from portal.services import outside
from portal.services.outside import NotAnswering, PageTurn, call, page_turn
from portal.serving.page_body import Pages
from tests.services.stalled import stalled
from tests.support.asserts import until


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Ends what hangs. Numbers are small, and servers not yet known."""
    monkeypatch.setattr(outside, "_servers", {})
    monkeypatch.setattr(limits, "OUTSIDE_CALLS", 2)
    monkeypatch.setattr(limits, "OUTSIDE_WAITING", 2)
    event = threading.Event()
    yield event
    event.set()


def test_a_call_ends_in_time_and_gives_what_it_gives(go: threading.Event) -> None:
    assert call("it", 5.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call("it", 5.0, lambda: 1 // 0)
    with pytest.raises(NotAnswering, match="it did not answer within"):
        call("it", 0.05, go.wait)


def test_calls_that_have_not_come_back_count_for_their_server_alone(go: threading.Event) -> None:
    for _ in range(2):
        with pytest.raises(NotAnswering):
            call("it", 0.05, go.wait)
    begun: list[str] = []
    with pytest.raises(NotAnswering):
        call("it", 0.05, begun.append, "a mail that its sender was told is not sent")
    assert call("another", 5.0, lambda: 7) == 7
    go.set()
    assert call("it", 5.0, lambda: 7) == 7 and not begun


def test_one_page_has_a_time_for_all_of_its_calls(go: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_OUTSIDE_SECONDS", 0.05)
    token = page_turn.set(PageTurn(lambda: None))
    try:
        with pytest.raises(NotAnswering):
            call("it", 60.0, go.wait)
        with pytest.raises(NotAnswering, match="that one page has"):
            call("another", 60.0, lambda: 7)
    finally:
        page_turn.reset(token)


async def get(pages: Pages, path: str) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await pages({"type": "http", "path": path, "method": "GET", "headers": [], "client": ("::1", 1)}, receive, send)
    return sent


async def test_pages_that_wait_for_others_leave_their_turn(go: threading.Event) -> None:
    asked: list[str] = []

    def hang() -> None:
        asked.append("")
        go.wait()

    async def page(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/hanging/":
            await sync_to_async(call, thread_sensitive=False)("it", 60.0, hang)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    pages = Pages(page)
    hanging = [asyncio.ensure_future(get(pages, "/hanging/")) for _ in range(limits.PAGES_AT_ONCE)]
    await asyncio.to_thread(until, lambda: asked and pages._turns._free)
    assert (await get(pages, "/other/"))[0]["status"] == 200
    go.set()
    assert [(await one)[0]["status"] for one in hanging] == [200] * limits.PAGES_AT_ONCE
    assert pages._turns._free == limits.PAGES_AT_ONCE, "a turn is given back once"


# -- mail --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_mail_server(settings: Any, go: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "MAIL_SECONDS", 0.2)
    settings.EMAIL_BACKEND = "portal.serving.mail.BoundedBackend"
    with stalled() as server:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.EMAIL_USE_TLS, settings.EMAIL_USE_SSL, settings.EMAIL_TIMEOUT = False, False, 30
        yield


def test_a_mail_server_that_hangs(silent_mail_server: None, db: None) -> None:
    with pytest.raises(NotAnswering, match="the mail server did not answer"):
        send_mail("subject", "text", None, ["ada@example.org"])


def test_a_mail_in_a_transaction_is_sent_after_it(
    silent_mail_server: None,
    db: None,
    django_capture_on_commit_callbacks: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everybody who writes would wait for the mail server, too."""
    with django_capture_on_commit_callbacks() as later, transaction.atomic():
        assert send_mail("subject", "text", None, ["ada@example.org"]) == 1
    assert not caplog.records
    (send,) = later
    send()
    assert "a mail could not be sent: the mail server did not answer" in caplog.text
    with transaction.atomic():
        outside.step_aside()
    assert "inside a transaction" in caplog.text, "what asks others there is told to the log"


@pytest.mark.parametrize("path", ["/accounts/password/reset/", "/accounts/login/code/"])
def test_a_page_does_not_tell_by_its_time_whether_there_is_an_account(
    silent_mail_server: None,
    db: None,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    """Neither page waits for the mail server, however long that takes."""
    from allauth.account.models import EmailAddress

    from accounts.models import User

    settings.MAILS = settings.ACCOUNT_LOGIN_BY_CODE_ENABLED = settings.ACCOUNT_PREVENT_ENUMERATION = True
    monkeypatch.setattr(outside, "call", lambda *_: pytest.fail("the page waits for the mail server"))
    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(outside, "later", lambda *work: begun.append(work))
    user = User.objects.create_user("ada", email="ada@example.org")
    EmailAddress.objects.update_or_create(user=user, defaults={"email": user.email, "verified": True, "primary": True})
    answers = [Client().post(path, {"email": f"{name}@example.org"}) for name in ("ada", "nobody")]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert answers[0]["location"] == answers[1]["location"]
    assert [work[0] for work in begun] == ["the mail server"]


def test_what_nobody_waits_for_ends_in_time_too(go: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        outside.later("it", 0.05, go.wait)
    until(lambda: not outside._servers["it"].free._value)
    outside.later("it", 0.05, pytest.fail)
    until(lambda: "nobody waited for: earlier calls to it have not been answered" in caplog.text)
    done = threading.Event()
    outside.later("another", 5.0, done.set)
    assert done.wait(60)
