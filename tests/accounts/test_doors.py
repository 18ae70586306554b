"""What each role finds: no link to a page that it may not open, and a page that says what is missing."""

from __future__ import annotations

import re
from collections import deque
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import Client

from accounts.models import User
from relay.models import UsageRecord
from tests.support.pages.seeded import add_typical_problems
from tests.support.portal import People
from tests.support.sessions import signed_in

ROLES = ("Owner", "Operator", "Accountant", "Support")


class Links(HTMLParser):
    """The addresses on a page that its reader, or a script of it, may open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        for name in ("href", "data-poll", "action"):
            if given.get(name) and tag != "link":
                self.found.append(given[name])
        if url := given.get("data-ajax--url"):
            names = ("app-label", "model-name", "field-name")
            query = {name.replace("-", "_"): given[f"data-{name}"] for name in names}
            self.found.append(f"{url}?{urlencode(query)}")


def kind_of(path: str) -> str:
    """The page that an address leads to, whatever row it shows. Users are kept apart: of some, more may be done."""
    where = urlsplit(path)
    if where.path.startswith("/admin/accounts/user/"):
        return where.path
    if where.path.startswith("/admin/autocomplete/"):
        return path
    return re.sub(r"/(\d+|req_\w+)(?=/)", "/#", where.path)


def crawl(browser: Client, start: str) -> dict[str, str]:
    """Open every kind of page that can be reached by links. Returns those that are refused, with the page before."""
    waiting = deque([(start, "")])
    seen, refused = {kind_of(start)}, {}
    while waiting:
        path, before = waiting.popleft()
        answer = browser.get(path)
        if answer.status_code in {403, 404} or answer.status_code >= 500:
            refused[path] = f"{answer.status_code} from {before}"
        body = answer.content.decode() if "html" in answer.get("content-type", "") and not answer.streaming else ""
        found = Links(body).found if answer.status_code == 200 else [answer.get("location", "")]
        for link in found:
            to = urlsplit(urljoin(path, link))
            if to.netloc or not to.path or to.path.startswith(("/static/", "/i18n/")) or to.path.endswith("/logout/"):
                continue
            if not to.path.startswith(start):
                continue
            address = to.path + (f"?{to.query}" if to.query else "")
            if kind_of(address) not in seen:
                seen.add(kind_of(address))
                waiting.append((address, path))
    return refused


@pytest.fixture
def seeded(db: None, settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.CONFIG = settings.CONFIG.model_copy(update={"status_page": "public"})
    UsageRecord.objects.all().delete()
    User.objects.update(is_superuser=True)
    call_command("seed", users=1, tokens=2, requests=60, days=2)
    add_typical_problems()
    User.objects.create_superuser("boss")
    User.objects.create_user("colleague", is_staff=True)


@pytest.mark.parametrize("role", [*ROLES, "staff", "user"])
def test_nobody_is_led_to_a_page_that_is_refused(seeded: None, role: str) -> None:
    person = User.objects.create_user("person", is_staff=role != "user")
    if role in ROLES:
        person.groups.add(Group.objects.get(name=role))
    refused = crawl(signed_in(person), "/" if role in {"user", "staff"} else "/admin/")
    assert not refused, "\n".join(f"{path}: {why}" for path, why in refused.items())


def test_a_refusal_says_what_is_missing_and_whom_to_ask(people: People) -> None:
    """By pages of the admin, actions, other pages and things that only some or none may do."""
    owner = User.objects.create_user("olga", is_staff=True)
    owner.groups.add(Group.objects.get(name="Owner"))
    person = User.objects.create_user("dora", is_staff=True)
    browser = signed_in(person)
    user, boss = people.owner.pk, people.staff.pk

    def page(path: str, said: set[str], *, of: Client = browser) -> str:
        answer = of.get(path)
        assert answer.status_code == 403
        text = " ".join(answer.content.decode().split())
        assert said <= {one for one in said if one in text}, text
        return text

    ask = "Rights are given by: olga, carol."
    page(
        "/admin/relay/channel/",
        {"lack the right “See channels”", "Roles that have it:", "Owner, Support", ask},
    )
    page("/admin/relay/budget/add/", {"“Add budgets”", "Accountant, Owner", ask})
    page(f"/admin/accounts/user/{user}/top-up/", {"“Top up, deduct, and lift", "Accountant, Owner", ask})
    page("/admin/running/", {"running requests of everyone", "Operator", ask})
    page("/admin/explain/", {"lack the rights “See channels” · “See users”", ask})
    page("/admin/setup/channel/", {"“Add channels”"})
    page("/admin/relay/allowedupstream/", {"for superusers only", "Ask one of them: carol."})
    page(f"/admin/accounts/user/{boss}/password/", {"Not allowed"})
    looking = signed_in(owner)
    page(f"/admin/accounts/user/{boss}/look/", {"for superusers only"}, of=looking)
    page("/admin/relay/usagerecord/add/", {"Nobody may do this"}, of=signed_in(people.staff))
    member = signed_in(people.other)
    text = page("/admin/login/", {"for staff, and bob is not staff", "Ask the administrator"}, of=member)
    assert "carol" not in text and "olga" not in text
    people.other.groups.add(Group.objects.get(name="Operator"))
    page("/admin/login/", {"You are in Operator, but its rights count for staff only", ask}, of=member)


def test_a_form_that_is_too_old_has_a_page_of_its_own(people: People) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people.staff)
    for path in ("/tokens/new/", "/admin/relay/pool/add/"):
        answer = browser.post(path, {"name": "x"})
        assert answer.status_code == 403
        text = answer.content.decode()
        assert "The form was not accepted" in text and "Nothing was changed" in text and "right" not in text
