"""The page of the balance: codes and notices."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from accounts.models import AuditEvent, User
from portal.lib.money import NANO
from relay.billing.redemption import create_codes
from relay.models import NoticeSettings
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared


def test_balance_page_and_redeeming(people: People) -> None:
    client = signed_in(people.owner)
    assert "$0.00" in client.get("/balance/").content.decode()
    _, codes = create_codes("Gift", 5 * NANO, 1, actor=None)
    assert "not a code" in client.post("/balance/", {"code": "AAAAA-BBBBB"}).content.decode()
    assert client.post("/balance/", {"code": f" {codes[0].lower()} "}).status_code == 302
    page = client.get("/balance/").content.decode()
    assert "$5.00" in page and "code redeemed" in page
    assert "redeemed already" in signed_in(people.other).post("/balance/", {"code": codes[0]}).content.decode()
    assert "$5.00" not in signed_in(people.other).get("/balance/").content.decode()
    assert AuditEvent.objects.filter(action="code.redeem", actor=people.owner).count() == 1


def test_right_codes_do_not_count_as_guesses(people: People) -> None:
    cache.clear()  # guesses of other tests by users of the same number
    _, codes = create_codes("Gift", NANO, 12, actor=None)
    browser = signed_in(people.owner)
    for code in codes[:11]:
        assert browser.post("/balance/", {"code": code}).status_code == 302
    for _ in range(10):
        assert browser.post("/balance/", {"code": "WRONG-WRONG"}).status_code == 422
    assert browser.post("/balance/", {"code": codes[11]}).status_code == 429


def test_guessing_codes_is_slowed_down(people: People, one_window: None) -> None:
    client = signed_in(people.owner)
    statuses = [client.post("/balance/", {"code": f"WRONG-{number}"}).status_code for number in range(14)]
    assert statuses[0] == 422 and statuses[-1] == 429


def test_notice_settings_page(people: People, settings: Any) -> None:
    client = Client()
    client.force_login(people.owner)
    assert Client().get("/balance/notices/").status_code == 302
    with_config(settings, webhook_allow=["127.0.0.1"])
    shown = client.post(
        "/balance/notices/", {"low_balance": "5", "by_email": "on", "webhook_url": "http://127.0.0.1:9/hook"}
    ).content.decode()
    secret = shown.split('id="secret"', 1)[1].split(">", 1)[1].split("<", 1)[0]
    row = NoticeSettings.objects.get(user=people.owner)
    assert row.secret() == secret and row.low_balance == 5
    assert secret.startswith("whsec_") and len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret not in client.get("/balance/notices/").content.decode(), "shown once"
    assert secret not in json.dumps(list(NoticeSettings.objects.values("sealed_secret")))
    with_config(settings, webhook_allow=[], upstream_allow=["127.0.0.1"])  # which is for channels
    for address in ("http://169.254.169.254/", "http://127.0.0.1:9/other"):
        refused = client.post("/balance/notices/", {"webhook_url": address})
        assert refused.status_code == 422 and "not a public Internet address" in refused.content.decode()
    assert not NoticeSettings.objects.filter(user=people.other).exists()


def test_saved_notices_say_how_one_is_told_now(people: People, settings: Any) -> None:
    client = signed_in(people.owner)
    hook = "https://93.184.216.34/hook"

    def told(**form: str) -> str:
        return client.post("/balance/notices/", form, follow=True).content.decode()

    client.post("/balance/notices/", {"webhook_url": hook})  # shows the secret
    assert "below $5.00, you are told by your webhook." in told(low_balance="5", webhook_url=hook, by_email="on")
    settings.MAILS = True
    User.objects.filter(pk=people.owner.pk).update(email="")
    assert "you are told by your webhook." in told(webhook_url=hook, by_email="on"), "there is no address"
    User.objects.filter(pk=people.owner.pk).update(email="ada@example.org")
    both = told(low_balance="0.5", webhook_url=hook, by_email="on")
    assert "below $0.50, you are told by e-mail to ada@example.org and by your webhook." in both
    assert "by e-mail to ada@example.org." in told(by_email="on")
    assert "on the page of your balance alone." in told()


def test_a_webhook_with_a_secret_in_its_query_is_kept_and_masked(people: People) -> None:
    """As DingTalk (`access_token`) and Power Automate (`api-version`, `sig`) give them."""
    client = signed_in(people.owner)
    url = "https://93.184.216.34/robot/send?access_token=of-dingtalk&sig=Zm9v"
    assert client.post("/balance/notices/", {"by_email": "on", "webhook_url": url}).status_code == 200
    page = client.get("/balance/notices/").content.decode()
    assert "of-dingtalk" not in page and "Zm9v" not in page and "access_token=…" in page
    shown = "https://93.184.216.34/robot/send?access_token=…&sig=…"
    assert client.post("/balance/notices/", {"low_balance": "7", "webhook_url": shown}).status_code == 302
    row = NoticeSettings.objects.get(user=people.owner)
    assert row.webhook_url == url and row.low_balance == 7
    assert client.post("/balance/notices/", {"webhook_url": shown.replace("send", "sent")}).status_code == 422


def test_refusals_are_in_the_readers_language(people: People) -> None:
    client = signed_in(people.owner)
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hans"
    _, codes = create_codes("Gift", 5 * NANO, 1, actor=None)
    client.post("/balance/", {"code": codes[0]})
    assert "此兑换码已被兑换。" in client.post("/balance/", {"code": codes[0]}).content.decode()
