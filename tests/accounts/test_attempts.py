"""Guesses at passwords and codes: counted under the account, whatever its spelling and wherever they come from."""

from __future__ import annotations

import json

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client, RequestFactory

from accounts.models import Attempt, AuditEvent, User
from accounts.sign_in import attempts
from accounts.sign_in.throttle import guarded, typed
from portal.lib import clock
from tests.support.portal import People

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("one_window")]
RIGHT = "a long password"


def try_password(name: str, password: str, address: str, browser: Client | None = None) -> int:
    form = {"login": name, "password": password}
    return (browser or Client()).post("/accounts/login/", form, REMOTE_ADDR=address).status_code


def test_all_spellings_of_an_account_are_one(people: People) -> None:
    people.owner.email = "alice@example.org"
    people.owner.save()
    spellings = ["alice", "Alice", " alice", "alice  ", "\talice", "ALICE", "alice@example.org", "ALICE@Example.Org "]
    found = [
        try_password(spellings[number % len(spellings)], f"x{number}", f"127.0.9.{number // 4}") for number in range(40)
    ]
    looked_at = found.count(200)
    assert looked_at <= attempts.PASSWORDS.tries + 8, "a few from anywhere, then one from each new address"
    assert set(found) == {200, 429}


def test_names_that_nobody_has_are_counted_as_well(people: People) -> None:
    found = [try_password("nobody here", f"x{number}", "127.0.9.1") for number in range(12)]
    assert found.count(200) == attempts.PASSWORDS.tries


def test_nobody_can_lock_another_out(people: People) -> None:
    home = Client()
    assert try_password("alice", RIGHT, "127.0.7.1", home) == 302
    home.post("/accounts/logout/")
    for number in range(60):
        try_password("alice", f"x{number}", f"127.0.9.{number % 12}")
    assert try_password("alice", RIGHT, "127.0.9.1", home) == 302, "in a browser that was used before, from anywhere"
    assert try_password("alice", RIGHT, "127.0.7.2") == 302, "in a new browser, from an address that has not tried"
    assert try_password("alice", RIGHT, "127.0.9.2") == 429, "but not from where the guesses came"
    assert try_password("bob", RIGHT, "127.0.7.2") == 302


def test_the_browser_that_is_known_has_no_more_guesses_than_others(people: People) -> None:
    home = Client()
    try_password("alice", RIGHT, "127.0.7.1", home)
    home.post("/accounts/logout/")
    found = [try_password("alice", f"x{number}", f"127.0.7.{number}", home) for number in range(20)]
    assert found.count(200) == attempts.PASSWORDS.tries
    assert try_password("alice", RIGHT, "127.0.6.1") == 302, "which does not count for other browsers"


def test_a_cookie_of_another_account_opens_nothing(people: People) -> None:
    other = Client()
    try_password("bob", RIGHT, "127.0.7.1", other)
    other.post("/accounts/logout/")
    found = [try_password("alice", f"x{number}", "127.0.7.1", other) for number in range(12)]
    assert found.count(200) == attempts.PASSWORDS.tries


def test_second_factors_are_guessed_per_account_and_not_per_address(people: People) -> None:
    TOTP.activate(people.owner, "JBSWY3DPEHPK3PXP")
    found = []
    for place in range(12):
        browser, address = Client(), f"127.0.12.{place}"
        assert try_password("alice", RIGHT, address, browser) == 302
        for number in range(6):
            answer = browser.post("/accounts/2fa/authenticate/", {"code": f"{number:06}"}, REMOTE_ADDR=address)
            found.append(answer.status_code)
    assert found.count(200) <= attempts.CODES.most, "of 72"
    assert Authenticator.objects.filter(user=people.owner).exists()


def test_right_passwords_do_not_count(people: People) -> None:
    assert {try_password("alice", RIGHT, "127.0.9.9") for _ in range(15)} == {302}


def test_an_office_behind_one_address_signs_in(people: People) -> None:
    """Each in a browser that nobody is known in."""
    names = [f"colleague-{number}" for number in range(24)]
    for name in names:
        User.objects.create_user(name, password=RIGHT)
    assert {try_password(name, RIGHT, "127.0.9.3") for name in names} == {302}
    found = [try_password(f"nobody {number}", "x", "127.0.9.3") for number in range(24)]
    assert found.count(200) == 20 and found[20:] == [429] * 4, "and guesses count as before"
    assert try_password("colleague-1", RIGHT, "127.0.9.3") == 429


def test_right_sign_ins_give_no_more_guesses(people: People) -> None:
    found = []
    for number in range(30):
        found.append(try_password(f"nobody {number}", "x", "127.0.9.4"))
        try_password("bob", RIGHT, "127.0.9.4")
    assert found.count(200) == 20


def test_the_audit_log_does_not_grow_with_the_guesses(people: People) -> None:
    for number in range(60):
        try_password("alice", f"x{number}", "127.0.9.1")
    assert AuditEvent.objects.filter(action="sign-in.limited").count() <= 2


def test_attempts_at_the_same_time_all_count(people: People) -> None:
    """As other workers write them, between the look and the writing."""
    assert [attempts._add("s", "o", 60) for _ in range(3)] == [1, 2, 3]
    assert Attempt.objects.get().count == 3
    Attempt.objects.update(ends_at=int(clock.now().timestamp()) - 1)
    attempts.delete_expired()
    assert not Attempt.objects.exists()


def test_what_is_counted_names_nobody(people: People) -> None:
    try_password("alice", "x", "127.0.9.1")
    assert "alice" not in json.dumps(list(Attempt.objects.values())) and Attempt.objects.exists()


def test_mails_with_codes_cannot_be_used_up_by_strangers(people: People) -> None:
    people.owner.email = "alice@example.org"
    people.owner.save()
    view = guarded(lambda request: HttpResponse("sent"), "t", "1000/m", "code-mail", typed("email"), False)

    def ask(address: str) -> int:
        request = RequestFactory().post("/", {"email": "Alice@example.org"}, REMOTE_ADDR=address)
        request.user = AnonymousUser()
        return view(request).status_code

    cache.clear()
    assert [ask("127.0.9.1") for _ in range(10)].count(200) == attempts.MAILS.tries
    assert ask("127.0.7.1") == 200
