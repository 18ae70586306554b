"""Setting a sign-in provider up: its redirect URL before it is saved, and what its server says when it is."""

from __future__ import annotations

import html
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp
from django.db import connection
from django.test import Client

from accounts.sign_in import discovery
from tests.support.portal import People
from tests.support.provider import Issuer, issuing, provider_form
from tests.support.server import free_port
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared
ADD = "/admin/socialaccount/socialapp/add/"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as server:
        yield server


@pytest.fixture
def staff(people: People) -> Client:
    return signed_in(people.staff)


def text_of(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def test_redirect_url_is_shown_complete_before_and_after_saving(staff: Client, issuer: Issuer, settings: Any) -> None:
    with_config(settings, public_url="https://ai.example.org:8443")
    page = text_of(staff.get(ADD))
    assert ">https://ai.example.org:8443/accounts/oidc/your-word/login/callback/<" in page
    shown = re.search(r'data-callbacks="(\{.*?\})"', page)
    assert shown
    urls = json.loads(shown[1])
    assert urls["openid_connect"].endswith("/oidc/your-word/login/callback/")
    assert urls["github"] == "https://ai.example.org:8443/accounts/github/login/callback/"
    saved = text_of(staff.post(ADD, provider_form(issuer), follow=True))
    full = "https://ai.example.org:8443/accounts/oidc/house/login/callback/"
    assert saved.count(full) == 2, "in the message and in the list"
    assert f">{full}<" in text_of(staff.get(f"/admin/socialaccount/socialapp/{SocialApp.objects.get().pk}/change/"))


def test_server_is_asked_when_it_is_saved_outside_the_transaction(
    staff: Client, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth: list[int] = []
    ask = discovery.configuration_of

    def asked(url: str) -> dict[str, Any]:
        depth.append(len(connection.savepoint_ids))
        return ask(url)

    monkeypatch.setattr(discovery, "configuration_of", asked)
    page = text_of(staff.post(ADD, provider_form(issuer), follow=True))
    assert f"it is the issuer {issuer.url}" in page and SocialApp.objects.exists()
    assert depth == [0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, "{}"), "It answered 404 for its configuration."),
        ((200, "<html>"), "Its configuration cannot be read."),
        ((200, "[]"), "Its configuration cannot be read."),
        ((200, '{"issuer": "x"}'), "Its configuration has no authorization_endpoint."),
        ((200, "x" * (2 << 20)), "Its configuration cannot be read."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_such_server_is_refused(staff: Client, issuer: Issuer, answer: tuple[int, str], said: str) -> None:
    issuer.answers = {"openid-configuration": answer}
    page = text_of(staff.post(ADD, provider_form(issuer)))
    assert said in page and f"{issuer.url}/.well-known/openid-configuration" in page
    assert not SocialApp.objects.exists()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_server_that_has_a_fault_now_is_saved_and_said(staff: Client, issuer: Issuer, status: int) -> None:
    issuer.answers = {"openid-configuration": (status, "")}
    page = text_of(staff.post(ADD, provider_form(issuer), follow=True))
    assert f"It answered {status} for its configuration." in page and "Nobody can sign in until" in page
    assert SocialApp.objects.exists()


def test_server_that_is_away_is_saved_and_said(staff: Client, issuer: Issuer) -> None:
    form = provider_form(issuer, server_url=f"http://127.0.0.1:{free_port()}")
    page = text_of(staff.post(ADD, form, follow=True))
    assert "It cannot be reached." in page and "Nobody can sign in until" in page and SocialApp.objects.exists()


def test_name_that_stands_for_an_inner_address_is_refused_and_an_unknown_one_said(
    staff: Client, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"inner.example.org": "10.0.0.7"}

    def look_up(host: str, port: int, **_options: Any) -> list[Any]:
        if host not in names:
            raise OSError("Name or service not known")
        return [(2, 1, 6, "", (names[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    page = text_of(staff.post(ADD, provider_form(issuer, server_url="https://inner.example.org")))
    assert "10.0.0.7" in page and "not a public Internet address" in page and not SocialApp.objects.exists()
    page = text_of(staff.post(ADD, provider_form(issuer, server_url="https://nowhere.example.org"), follow=True))
    assert "The name nowhere.example.org is not known." in page and SocialApp.objects.exists()


def test_other_changes_are_saved_while_the_server_answers_nonsense(staff: Client, issuer: Issuer) -> None:
    assert staff.post(ADD, provider_form(issuer)).status_code == 302
    path = f"/admin/socialaccount/socialapp/{SocialApp.objects.get().pk}/change/"
    issuer.answers = {"openid-configuration": (404, "")}
    page = text_of(staff.post(path, provider_form(issuer, name="Home", new_secret=""), follow=True))
    assert "It answered 404" in page and SocialApp.objects.get().name == "Home"


@pytest.mark.parametrize(
    ("word", "said"), [("my idp", "Use letters"), ("a/b", "Use letters"), ("", "Choose a word"), ("house", "already")]
)
def test_word_is_one_that_makes_an_address(staff: Client, issuer: Issuer, word: str, said: str) -> None:
    SocialApp.objects.create(provider="openid_connect", provider_id="house", name="x", client_id="c", settings={})
    assert said in text_of(staff.post(ADD, provider_form(issuer, provider_id=word)))
    assert SocialApp.objects.count() == 1


def test_nobody_else_makes_the_portal_ask(people: People, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "configuration_of", lambda _url: pytest.fail("asked"))
    people.other.is_staff = True
    people.other.save()
    for user, status in ((people.owner, 302), (people.other, 403)):
        assert signed_in(user).post(ADD, provider_form(issuer)).status_code == status
