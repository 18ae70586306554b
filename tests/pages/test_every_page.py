"""Every page of the portal and of the administration: as many queries with much data as with little, no serious fault
of accessibility, nothing wider than a phone.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver

from accounts.models import User
from relay.models import Channel, Model, Token, UsageRecord
from relay.providers.vendors import offered
from relay.usage import rollup
from tests.support.pages.browser import CHROMIUM
from tests.support.pages.pages import ALL_PAGES, FILTERED_PAGES, ids
from tests.support.pages.seeded import add_typical_problems

MOST = 45
"""Queries of one page.

The user's page has the most: two lists in tabs, their choices, the wallet, what the header needs.
"""


@pytest.mark.timeout(1500)  # every page four times: minutes on a machine that is busy with something else
def test_pages_ask_a_bounded_number_of_questions(db: None, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"status_page": "public", "signup": "open"})
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    rollup.rebuild()
    User.objects.update(is_superuser=True)
    UsageRecord.objects.all().delete()
    admin = User.objects.create_superuser("page-admin", password="a long password")
    call_command("seed", users=12, tokens=40, requests=400, days=5)
    known = ids()
    few = _queries(known, admin)
    _more(known)
    many = _queries(known, admin)
    assert not {name: count for name, count in many.items() if count > MOST}, many
    assert not {name: (few[name], count) for name, count in many.items() if count > few[name] + 2}


def test_pages_answer_in_every_language(db: None, settings: Any) -> None:
    """A translation that has lost a placeholder breaks its page."""
    settings.CONFIG = settings.CONFIG.model_copy(update={"status_page": "public", "signup": "open"})
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    User.objects.update(is_superuser=True)
    UsageRecord.objects.all().delete()
    admin = User.objects.create_superuser("page-admin", password="a long password")
    call_command("seed", users=5, tokens=9, requests=200, days=3)
    known = ids()
    for code, _name in settings.LANGUAGES:
        browsers = {
            "": Client(headers={"accept-language": code}),
            "user": Client(headers={"accept-language": code}),
            "staff": Client(headers={"accept-language": code}),
        }
        browsers["user"].force_login(User.objects.get(pk=known["user"]))
        browsers["staff"].force_login(admin)
        for place in ALL_PAGES:
            answer = browsers[place.role].get(place.path.format(**known))
            assert answer.status_code == 200 and f'lang="{code}"' in answer.content.decode(), (code, place)


def test_nothing_stays_english_for_readers_of_chinese(db: None, settings: Any) -> None:
    """But for names, and for what people have written themselves."""
    settings.CONFIG = settings.CONFIG.model_copy(update={"status_page": "public", "signup": "open"})
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    User.objects.update(is_superuser=True)
    UsageRecord.objects.all().delete()
    admin = User.objects.create_superuser("page-admin", password="a long password", language="zh-hans")
    call_command("seed", users=5, tokens=9, requests=200, days=3)
    add_typical_problems()
    known = ids()
    browsers = {role: Client(headers={"accept-language": "zh-hans"}) for role in ("", "user", "staff")}
    browsers["user"].force_login(User.objects.get(pk=known["user"]))
    browsers["staff"].force_login(admin)
    names = {name for model in (User, Group, Channel, Model, Token) for name in map(str, model.objects.all())} | {
        f"{token.name} ({token.hint}" for token in Token.objects.all()
    }
    names |= (
        {zone.replace("_", " ") for zone in available_timezones()}
        | {vendor.label for vendor in offered()}
        | {"AIRelays"}
    )
    known_names = re.compile(
        r"(?<!\w)(" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + r")(?!\w)"
    )
    found = {}
    pages = [(place.role, place.path.format(**known)) for place in ALL_PAGES]
    for model in site._registry:
        start = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        first = model._default_manager.first()
        pages += [("staff", f"{start}add/")] + ([("staff", f"{start}{first.pk}/change/")] if first is not None else [])
    for role, path in pages:
        answer = browsers[role].get(path)
        if answer.status_code == 403:  # what nobody adds or deletes
            continue
        read = Words()
        read.feed(answer.content.decode())
        for text in read.found:
            if (
                not NAME.fullmatch(text)
                and not (KEPT[0].search(path) and KEPT[1].fullmatch(text))
                and re.search("[a-z]{3}", known_names.sub("", text))
            ):
                found[text] = path
    assert not found, "\n".join(f"{text}: {path}" for text, path in found.items())


NAME = re.compile(
    r"AIRelays.*|ChatGPT( · AIRelays)?|English"
    r"|zh-hans|esc|OpenID Connect|Google|Microsoft|Node|Python|curl|aider|Cline|Codex|Claude Code"
    r"|opencode|Gemini CLI(: .*)?|Continue|Cursor|GeekAI|LangChain|LibreChat|Open WebUI|Zed"
    # As those apps' own pages call them.
    r"|API Provider|Base URL|Credential|Model ID|Webhook URL|OpenAI API Key|OpenAI Compatible API Key"
    r"|Override OpenAI Base URL|airelays import --help"
    r"|(boolean|file|integer|object|string)|\".*|Azure OpenAI.*"
    r"|req_.*|sk-.*|[a-z]+\.[a-z-]+|portal\.W\d+|user\d+@example\.org"
    r"|It works\.|key \d.*|503 over capacity|channel: .*|A made-up failure\.|Groq answers slowly"
    r"|Move to a new database|Their status page .*|#?seeded.*"
    r"|(claude-code|codex)(, [0-9.]+)?|minimal|low|medium|high|xhigh|max"
)
"""Names, addresses, codes, values of `reasoning_effort`, and what the seeding wrote as people would."""
KEPT = (
    re.compile("/admin/(accounts/auditevent|relay/(ledgeraccount|ledgerentry|cooldown|notice))/.*change/"),
    re.compile(r"wallet.*|key:\d.*|system .*|apikey .*|channel|kind|reason|key_dead|401 .*|tour|overload|revenue"),
)
"""Pages of rows that nobody writes by hand, and what is in their fields as it is kept."""


class Words(HTMLParser):
    """What a page says in Latin letters alone, in its text and in what is read out or shown beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._see(*(value for name, value in attrs if name in {"title", "aria-label", "placeholder", "alt"}))
        if tag not in {"input", "img", "br", "meta", "link", "hr", "path", "rect"}:
            self._open.append("icon" if "material-symbols" in (dict(attrs).get("class") or "") else tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() not in {tag, "icon"}:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style", "pre", "code", "textarea", "svg", "icon"} & set(self._open):
            self._see(data)

    def _see(self, *texts: str | None) -> None:
        for text in (" ".join(text.split()) for text in texts if text):
            if re.search("[a-z]{3}", text) and not re.search("[\u4e00-\u9fff]", text):
                self.found.add(text)


def _queries(known: dict[str, Any], admin: Any) -> dict[str, int]:
    browsers = {"": Client(), "user": Client(), "staff": Client()}
    browsers["user"].force_login(User.objects.get(pk=known["user"]))
    browsers["staff"].force_login(admin)
    found = {}
    for place in (*ALL_PAGES, *(place for place in FILTERED_PAGES if place.name != "tokens-page")):
        path = place.path.format(**known)
        assert browsers[place.role].get(path).status_code == 200, place  # adds up what waits
        with CaptureQueriesContext(connection) as queries:
            browsers[place.role].get(path)
        found[place.name] = len(queries)
    return found


def _more(known: dict[str, Any]) -> None:
    """Three times as much of everything that pages list."""
    from accounts.models import AuditEvent
    from relay.models import ApiKey, Channel, ChannelEvent, ChannelModel, Incident, Model, ModelPrice, Token
    from relay.models.token import make_token_secret

    owner = User.objects.get(pk=known["user"])
    for number in range(30):
        user = User.objects.create_user(f"more-{number}")
        for whose in (user, owner):
            token = Token(user=whose, name=f"more {number}")
            token.set_secret(make_token_secret())
            token.save()
        channel = Channel.objects.create(name=f"more {number}", provider="demo", tags="more")
        key = ApiKey(channel=channel if number else Channel.objects.get(pk=known["channel"]))
        key.set_secret(f"sk-more-{number}-0123456789abcdef")
        key.save()
        model = Model.objects.create(name=f"more-{number}", is_open=True)
        ModelPrice.objects.create(model=model, input=1, output=1)
        ChannelModel.objects.create(channel=channel, model=model)
        Incident.objects.create(title=f"more {number}").affected.add(model)
        AuditEvent.write("more", owner, model)
        ChannelEvent.write(known["channel"], "more")


def test_every_list_of_the_administration_is_among_the_pages() -> None:
    """But for those of things that are few, and of what is kept for users, which have tests of their own."""
    from django.contrib import admin

    listed = {place.path.partition("?")[0] for place in ALL_PAGES}
    small = {
        "pool",
        "failurerule",
        "allowedupstream",
        "blockedaddress",
        "notice",
        "upload",
        "storedresponse",
        "conversation",
        "batch",
    }
    missing = [
        model._meta.model_name
        for model in admin.site._registry
        if f"/admin/{model._meta.app_label}/{model._meta.model_name}/" not in listed
    ]
    assert set(missing) == small


def test_every_page_of_users_is_in_the_tour() -> None:
    patterns: list[Any] = list(get_resolver("portal.urls").url_patterns)
    paths = {
        "/" + str(pattern.pattern)
        for pattern in patterns
        if getattr(pattern, "name", None) and "<" not in str(pattern.pattern)
    }
    shown = {place.path for place in ALL_PAGES}
    assert {path for path in paths if not path.startswith("/admin/")} - shown == {
        "/usage/export.csv",
        "/usage/newest/",
        "/storage/kept/delete/",
        "/playground/key/",
        "/chatgpt/finish/",
        "/chatgpt/models/",
        "/chatgpt/sign-in/",
        "/chatgpt/sign-out/",
        "/chatgpt/switch/",
        "/healthz",
        "/readyz",
    }


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on this machine")
@pytest.mark.timeout(1500)
def test_axe_finds_no_serious_fault_on_any_page(tmp_path: Path) -> None:
    """In a process of its own, since it serves a portal of its own: dark, and light as narrow as a phone."""
    import subprocess
    import sys

    from tests.support.server import ROOT

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.pages.check", "--requests", "1500", "--looks", "dark,narrow"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1400,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
