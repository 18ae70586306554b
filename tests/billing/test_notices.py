"""Notices: each thing once, by e-mail to a real mail server and by a signed webhook to a real port."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.test import Client
from standardwebhooks.webhooks import Webhook

from portal import limits
from portal.lib import clock
from portal.lib.money import NANO
from portal.services.outside import NotAnswering
from relay.billing import notices, webhooks
from relay.billing.ledger import movements, requests
from relay.billing.ledger.lines import Charge, ReserveOrder, SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.models import Budget, LedgerAccount, Notice, NoticeSettings
from relay.tokens.lifecycle import create_token
from tests.services.stalled import stalled
from tests.support.pages.mailbox import Mailbox
from tests.support.portal import People
from tests.support.sessions import with_config

pytestmark = pytest.mark.shared


class Hook(HTTPServer):
    """Keeps what it is sent; answers with `status`."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), HookHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class HookHandler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def hook(settings: Any) -> Iterator[Hook]:
    """Allowed for webhooks: what is allowed for channels does not count for them."""
    with_config(settings, webhook_allow=["127.0.0.1"])
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    server = Mailbox()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings.EMAIL_BACKEND = "portal.serving.mail.BoundedBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", server.server_address[1], False
    settings.CONFIG = settings.CONFIG.model_copy(update={"email_host": "127.0.0.1"})
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def spend(user: Any, token: Any, amount: int) -> None:
    books, scope = LedgerSql(), SpendScope(user.pk, token.pk, movements.today())
    held = requests.reserve(books, ReserveOrder("h" * 32, "o", scope, (), amount, 0, amount), clock.now().timestamp())
    assert held.granted == amount
    requests.settle(books, "h" * 32, scope, [Charge("req_x", amount, amount, False, clock.now().timestamp())])


def kinds(user: Any) -> list[str]:
    return [f"{notice.kind} {notice.subject}" for notice in Notice.objects.filter(user=user).order_by("pk")]


def test_a_low_balance_is_told_once_until_something_is_added(people: People) -> None:
    user = people.owner
    token = create_token(user, "t", actor=None)[0]
    assert notices.write_due_notices() == 0, "who never had money is not told"
    movements.top_up(user, 2 * NANO, actor=None, reason="x")
    assert notices.write_due_notices() == 0
    spend(user, token, NANO + NANO // 2)
    assert notices.write_due_notices() == 1 and notices.write_due_notices() == 0
    assert kinds(user) == ["low_balance Your balance is low: $0.50"]
    movements.top_up(user, 100_000, actor=None, reason="x")
    assert notices.write_due_notices() == 1, "still low after something was added: told again"
    NoticeSettings.objects.create(user=user, low_balance=Decimal("0.10"))
    assert notices.write_due_notices() == 0
    movements.set_unlimited(user, True)
    assert notices.write_due_notices() == 0
    assert not Notice.objects.exclude(user=user).exists()


def test_who_cannot_sign_in_any_more_is_told_nothing(people: People) -> None:
    user = people.owner
    token = create_token(user, "t", actor=None)[0]
    movements.top_up(user, 10 * NANO, actor=None, reason="x")
    Budget.objects.create(token=token, period="month", limit=10)
    spend(user, token, 10 * NANO - 1)
    user.is_active = False
    user.save()
    assert notices.write_due_notices() == 0
    user.is_active = True
    user.save()
    assert notices.write_due_notices() == 2


def test_budgets_are_told_at_four_fifths_and_in_full_once_a_period(people: People) -> None:
    user = people.owner
    token = create_token(user, "laptop", actor=None)[0]
    movements.top_up(user, 100 * NANO, actor=None, reason="x")
    Budget.objects.create(token=token, period="month", limit=10)
    spend(user, token, 7 * NANO)
    assert notices.write_due_notices() == 0
    spend(user, token, NANO)
    assert notices.write_due_notices() == 1 and notices.write_due_notices() == 0
    spend(user, token, 2 * NANO)
    assert notices.write_due_notices() == 1 and notices.write_due_notices() == 0
    assert kinds(user) == ["budget 80 % of a monthly budget is spent", "budget 100 % of a monthly budget is spent"]
    assert "laptop" in Notice.objects.filter(user=user)[0].text


@pytest.mark.parametrize("granted", [1, 2, 3, 7, 11, 99, 101, 9 * 10**18])
def test_a_budget_is_told_of_exactly_when_a_percentage_is_reached(people: People, granted: int) -> None:
    at = {80: -(-granted * 80 // 100), 100: granted}  # the first whole nano-USD that is so much or more
    amounts = sorted({used for mark in at.values() for used in (mark - 1, mark) if 0 <= used <= granted})
    for number, used in enumerate(amounts):
        account = LedgerAccount(key=f"budget:user:{number}", kind="budget", period="day", user=people.owner)
        account.last_day, account.granted, account.used = movements.today(), granted, used
        account.save()
    expected = [100 if used >= at[100] else 80 for used in amounts if used >= at[80]]
    assert notices.write_due_notices() == len(expected)
    told = Notice.objects.filter(user=people.owner).order_by("pk")
    assert sorted(notice.data["percent"] for notice in told) == sorted(expected)


def test_an_account_that_cannot_be_told_of_keeps_nobody_else_from_being_told(
    people: People, caplog: pytest.LogCaptureFixture
) -> None:
    for user in (people.owner, people.other):
        token = create_token(user, "t", actor=None)[0]
        movements.top_up(user, NANO, actor=None, reason="x")
        Budget.objects.create(token=token, period="day", limit=1)
        spend(user, token, NANO * 9 // 10)
    LedgerAccount.objects.filter(user=people.owner, kind="budget").update(period="year")  # which has no word
    assert notices.write_due_notices() == 3
    assert [notice.kind for notice in Notice.objects.filter(user=people.owner)] == ["low_balance"]
    assert kinds(people.other) == ["low_balance Your balance is low: $0.10", "budget 80 % of a daily budget is spent"]
    assert "no notice could be made of the account budget:" in caplog.text


def test_a_threshold_larger_than_any_wallet_keeps_nobody_else_from_being_told(people: People) -> None:
    """The form takes none any more; one may have been stored before."""
    client = Client()
    client.force_login(people.owner)
    assert client.post("/balance/notices/", {"low_balance": "9999999999", "by_email": "on"}).status_code == 422
    NoticeSettings.objects.create(user=people.owner, low_balance=9_999_999_999)
    for user in (people.owner, people.other):
        movements.top_up(user, 1000, actor=None, reason="x")
    assert notices.write_due_notices() == 2


def test_a_notice_that_cannot_be_kept_or_sent_keeps_no_other_waiting(
    people: People,
    hook: Hook,
    mailbox: Mailbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    people.owner.email, people.other.email = "alice@example.org", "bob@example.org"
    people.owner.save(update_fields=["email"])
    people.other.save(update_fields=["email"])
    row = NoticeSettings(user=people.owner, webhook_url=hook.url)
    row.set_secret(webhooks.new_secret())
    row.save()

    def notice(user: Any, key: str, subject: str) -> Notice:
        return Notice(key=key, kind="redeemed", user=user, subject=subject, text="x")

    broken = notice(people.owner, "unwritable", "\ud800")  # half a character, which no database takes
    assert notices._write([broken, notice(people.owner, "two lines", "a\nb"), notice(people.other, "well", "c")]) == 2
    assert "the notice unwritable could not be kept" in caplog.text
    assert notices.deliver() == 1, "a subject of two lines is no subject of a mail"
    assert len(mailbox.mails) == 1 and "bob@example.org" in mailbox.mails[0] and len(hook.calls) == 1
    for _ in range(6):
        Notice.objects.update(next_try_at=clock.now() - timedelta(seconds=1))
        notices.deliver()
    stuck = Notice.objects.get(key="two lines")
    assert (stuck.done, stuck.tries, stuck.webhook_state) == (True, 5, "sent")
    assert stuck.email_state.startswith("failed: BadHeaderError") and len(hook.calls) == 1


def test_everyone_is_told_in_their_own_language(people: People) -> None:
    from relay.channels.keys import notify_staff

    people.owner.language = people.staff.language = "zh-hans"
    people.owner.save(update_fields=["language"])
    people.staff.save(update_fields=["language"])
    type(people.staff).objects.create_superuser("erin", password="a long password")
    for user in (people.owner, people.other):
        movements.top_up(user, NANO, actor=None, reason="x")
        token = create_token(user, "laptop", actor=None)[0]
        Budget.objects.create(token=token, period="week", limit=1)
        spend(user, token, NANO * 9 // 10)
    assert notices.write_due_notices() == 4
    assert kinds(people.other) == ["low_balance Your balance is low: $0.10", "budget 80 % of a weekly budget is spent"]
    assert kinds(people.owner) == ["low_balance 您的余额不足：$0.10", "budget 每周预算已用去 80 %"]
    assert "laptop" in Notice.objects.filter(user=people.owner, kind="budget")[0].text
    from django.utils.translation import gettext

    assert notify_staff("key", "k", lambda: (gettext("The channel has no other key in service."), "x"), {}) == 2
    told = {notice.user.username: notice.subject for notice in Notice.objects.filter(kind="key")}
    assert told == {"carol": "该渠道没有其他可用的密钥。", "erin": "The channel has no other key in service."}


def check_old_signature(secret: str, headers: dict[str, str], body: bytes) -> None:
    """As receivers of versions before 0.2 do."""
    stamp, _, signature = headers["x-airelays-signature"].partition(",v1=")
    expected = hmac.new(secret.encode(), stamp.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signature, expected)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of their libraries."""
    secret, message, body = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
    )
    headers = webhooks.sign(secret, message, body, 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == message and headers["webhook-timestamp"] == "1614265330"


def test_a_secret_made_before_standard_webhooks_signs_in_both_ways() -> None:
    secret = "whsec_-_" + "A" * 41  # 32 bytes in base64 for URLs, without padding
    body, now = b"{}", int(clock.now().timestamp())
    headers = webhooks.sign(secret, "notice_1", body, now)
    check_old_signature(secret, headers, body)
    Webhook("whsec_+/" + "A" * 41 + "=").verify(body, headers)


def test_mail_and_signed_webhook(people: People, hook: Hook, mailbox: Mailbox, settings: Any) -> None:
    with_config(settings, public_url="https://ai.example.org:8443")
    user = people.owner
    user.email = "alice@example.org"
    user.save()
    row = NoticeSettings(user=user, webhook_url=hook.url)
    secret = webhooks.new_secret()
    row.set_secret(secret)
    row.save()
    movements.top_up(user, 1000, actor=None, reason="x")
    notices.write_due_notices()
    assert notices.deliver() == 1 and notices.deliver() == 0
    (headers, body), *others = hook.calls
    assert not others and len(mailbox.mails) == 1
    assert "Your balance is low" in mailbox.mails[0] and "alice@example.org" in mailbox.mails[0]
    for path in ("/balance/", "/balance/notices/"):
        assert f"https://ai.example.org:8443{path}\r\n" in mailbox.mails[0]
    Webhook(secret).verify(body, headers)
    check_old_signature(secret, headers, body)
    told = json.loads(body)
    assert told["type"] == "low_balance" and told["data"]["left_usd"] == "0.000001"
    assert told["id"] == headers["webhook-id"] == f"notice_{Notice.objects.get().pk}"
    notice = Notice.objects.get(user=user)
    assert (notice.done, notice.email_state, notice.webhook_state) == (True, "sent", "sent")


def test_a_failing_webhook_is_tried_again_and_given_up_in_the_end(people: People, hook: Hook) -> None:
    hook.status = 302  # redirects are not followed
    row = NoticeSettings(user=people.owner, webhook_url=hook.url)
    row.set_secret(webhooks.new_secret())
    row.save()
    movements.top_up(people.owner, 1000, actor=None, reason="x")
    notices.write_due_notices()
    for _ in range(8):
        notices.deliver()
        Notice.objects.update(next_try_at=clock.now() - timedelta(seconds=1))
    notice = Notice.objects.get()
    assert notice.done and notice.webhook_state == "failed: HTTP 302" and len(hook.calls) == 5
    assert {headers["webhook-id"] for headers, _ in hook.calls} == {f"notice_{notice.pk}"}, "so that it is taken once"


def test_a_webhook_is_not_called_at_a_private_address(people: People, hook: Hook, settings: Any) -> None:
    with_config(settings, webhook_allow=[], upstream_allow=["127.0.0.1"])  # which is for channels
    row = NoticeSettings(user=people.owner, webhook_url=hook.url)
    row.set_secret(webhooks.new_secret())
    row.save()
    movements.top_up(people.owner, 1000, actor=None, reason="x")
    notices.write_due_notices()
    notices.deliver()
    assert not hook.calls and "not a public Internet address" in Notice.objects.get().webhook_state


def test_redeeming_is_told(people: People) -> None:
    from relay.billing.redemption import create_codes

    client = Client()
    client.force_login(people.owner)
    _, codes = create_codes("x", 5 * NANO, 1, actor=None)
    client.post("/balance/", {"code": codes[0]})
    assert kinds(people.owner) == ["redeemed A code of $5.00 was redeemed"]
    assert "A code of $5.00 was redeemed" in client.get("/balance/").content.decode()


def test_a_starting_balance_below_the_threshold_is_no_news(people: People) -> None:
    db = LedgerSql()
    movements._grant(db, people.owner.pk, 10_000_000, "starting", "house", None, "Starting balance")
    assert notices.write_due_notices() == 0, "one second after signing up"
    token = create_token(people.owner, "t", actor=None)[0]
    spend(people.owner, token, 1_000_000)
    assert notices.write_due_notices() == 1


def test_no_mail_goes_to_an_address_that_nobody_has_proved(people: People, mailbox: Mailbox) -> None:
    user = people.owner
    user.email, user.signed_up = "victim@example.org", True
    user.save()
    movements.top_up(user, 4_989_640_000, actor=None, reason="x")
    NoticeSettings.objects.create(user=user, low_balance=Decimal("4.99"))
    assert notices.write_due_notices() == 1 and notices.deliver() == 1
    assert not mailbox.mails and Notice.objects.get().email_state == "none"
    Notice.objects.update(done=False, email_state="", next_try_at=clock.now())
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    assert notices.deliver() == 1 and len(mailbox.mails) == 1
    assert "$4.98 is left of your balance, less than $4.99." in Notice.objects.get().text


def test_servers_that_hang_keep_nobody_else_waiting(
    people: People, hook: Hook, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Neither one user's webhook, nor the mail server: it is asked once in a round, and webhooks are called."""
    monkeypatch.setattr(limits, "WEBHOOK_SECONDS", 0.3)
    asked: list[str] = []

    def hangs(*_: Any) -> int:
        asked.append("")
        raise NotAnswering("the mail server did not answer within 20 seconds")

    monkeypatch.setattr(notices, "send_mail", hangs)
    with stalled() as silent:
        for user, url in ((people.owner, f"http://127.0.0.1:{silent.port}/hook"), (people.other, hook.url)):
            user.email = f"{user.username}@example.org"
            user.save(update_fields=["email"])
            row = NoticeSettings(user=user, webhook_url=url)
            row.set_secret(webhooks.new_secret())
            row.save()
        with_config(settings, email_host="127.0.0.1")
        users = (people.owner, people.owner, people.other)
        assert notices._write(
            Notice(key=f"n{number}", kind="redeemed", user=user, subject="s", text="x")
            for number, user in enumerate(users)
        ) == len(users)
        assert notices.deliver() == 0
    states = list(Notice.objects.order_by("pk").values_list("webhook_state", flat=True))
    assert states[2] == "sent" and all("did not answer within" in state for state in states[:2])
    assert len(asked) == 1 and len(hook.calls) == 1
    assert set(Notice.objects.values_list("email_state", flat=True)) == {"failed: the mail server does not answer"}
