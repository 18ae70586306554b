"""The portal as people use it, in a real browser: from an empty system to an answered request, and what each may and
may not do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support import environment
from tests.support.pages.browser import CHROMIUM, BrowserFaults, chromium, sign_in
from tests.support.pages.mailbox import Mailbox
from tests.support.provider import issuing
from tests.support.server import ROOT, Server, free_port, serving
from tests.support.streams import running
from tests.support.upstream import Upstream, endless

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on this machine")
expect.set_options(timeout=60_000)
PASSWORD = "correct horse battery"
NO_WEBSOCKETS = "window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.({ code: 1006 }), 1); } };"


@dataclass
class Site:
    """A portal of its own, started as `make run` does."""

    server: Server
    base: str
    admin_password: str
    browser: Browser
    upstream: Upstream
    watched: list[BrowserFaults]
    mail: Mailbox
    shell: subprocess.Popen[str]  # `manage.py shell`, one for all of the file
    cookies: dict[str, Any] = dataclasses.field(default_factory=dict)

    def context(self, **options: Any) -> BrowserContext:
        found = self.browser.new_context(
            locale=options.pop("locale", "en-GB"),
            timezone_id="Europe/Berlin",
            viewport={"width": 1280, "height": 900},
            **options,
        )
        found.set_default_timeout(60_000)
        self.watched.append(BrowserFaults(found))
        return found

    def page(self, name: str, password: str = PASSWORD) -> Page:
        """Signed in; the door is used once a name, since it is counted."""
        if name not in self.cookies:
            page = self.context().new_page()
            sign_in(page, self.base, name, password)
            self.cookies[name] = page.context.storage_state()
            return page
        return self.context(storage_state=self.cookies[name]).new_page()

    def admin(self) -> Page:
        return self.page("admin", self.admin_password)

    def models(self, token: str) -> list[str]:
        answer = httpx.get(
            f"{self.server.v1}/models", headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=60
        )
        answer.raise_for_status()
        return [model["id"] for model in answer.json()["data"]]

    def ask(self, token: str, model: str) -> httpx.Response:
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
        return httpx.post(
            f"{self.server.v1}/chat/completions",
            headers={"authorization": f"Bearer {token}"},
            json=body,
            trust_env=False,
            timeout=30,
        )

    def manage(self, code: str) -> str:
        """Run Python in the portal's own settings: what no page does, such as making somebody staff.

        Returns when the portal has taken over what that changed.
        """
        assert self.shell.stdin is not None and self.shell.stdout is not None
        self.shell.stdin.write(json.dumps(code) + "\n")
        self.shell.stdin.flush()
        said = str(json.loads(self.shell.stdout.readline() or '"the shell has ended"'))
        self.server.catch_up()
        return said


SHELL = """
import contextlib, io, json, sys
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(json.loads(line), {})
    print(json.dumps(out.getvalue().strip()), flush=True)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("browser")
    environment.new_sqlite(folder / "data")  # tables without a row, whose migrations take as long as ten of the tests
    port = free_port()
    log = folder / "log"
    command = [sys.executable, "manage.py", "start", "--port", str(port)]
    mail = Mailbox()
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    env = {
        "AIRELAYS_DATA_DIR": str(folder / "data"),
        "AIRELAYS_STATUS_PAGE": "public",
        "AIRELAYS_SIGNUP": "invitation",
        "AIRELAYS_EMAIL_HOST": "127.0.0.1",
        "AIRELAYS_EMAIL_PORT": str(mail.server_address[1]),
        "AIRELAYS_EMAIL_SECURITY": "none",
    }
    with (
        serving(log, env=env, port=port, command=command) as server,
        subprocess.Popen(
            [sys.executable, "manage.py", "shell", "-v0", "-c", SHELL],
            cwd=ROOT,
            env={**os.environ, "AIRELAYS_DATA_DIR": env["AIRELAYS_DATA_DIR"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as shell,
        chromium() as browser,
    ):
        password = re.search(r"Sign in as admin with the password (\S+)", log.read_text())
        assert password
        found = Site(server, f"http://localhost:{port}", password[1], browser, upstream, [], mail, shell)
        yield found
        mail.shutdown()
        mail.server_close()
        faults = [fault for watch in found.watched for fault in watch.faults]
    assert not faults, faults
    assert "Internal Server Error" not in log.read_text(), log.read_text()[-3000:]


@pytest.fixture(autouse=True)
def closed(site: Site) -> Iterator[None]:
    """Pages of one test would go on listening, drawing and asking while the next ones run."""
    yield
    for context in site.browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def ready(site: Site) -> Token:
    """The first-run guide, walked through by hand: what comes out is a user's token."""
    page = site.admin()
    page.goto(f"{site.base}/admin/")
    page.get_by_role("link", name="Set the portal up").first.click()
    page.wait_for_url("**/setup/channel/**")
    page.select_option("#id_provider", "deepseek")
    expect(page.locator("#id_base_url")).to_have_value("https://api.deepseek.com/v1")
    page.select_option("#id_provider", "relay")
    page.fill("#id_base_url", "http://10.1.2.3/v1")
    page.fill("#id_name", "House")
    page.get_by_role("button", name="Add the channel").click()
    expect(page.locator(".errorlist")).to_contain_text("not a public Internet address")
    page.fill("#id_base_url", site.upstream.base_url)
    page.get_by_role("button", name="Add the channel").click()
    page.wait_for_url("**/setup/keys/**")
    page.goto(f"{site.base}/admin/")  # left, and taken up again
    page.get_by_role("link", name="Set the portal up").first.click()
    page.wait_for_url("**/setup/keys/**")
    page.get_by_role("button", name="Keep the keys").click()
    expect(page.locator("body")).to_contain_text(
        "There already:" if page.locator(".ar-note").count() else "Paste at least one key"
    )
    page.fill("#keys", "sk-upstream-key-one-0123456789\nsk-upstream-key-two-0123456789")
    page.get_by_role("button", name="Keep the keys").click()
    page.wait_for_url("**/setup/models/**")
    page.check("input[value=mock-large]")
    page.fill("#typed", "mock-closed")
    page.get_by_role("button", name="Add the models").click()
    page.wait_for_url("**/setup/test/**")
    page.get_by_role("button", name="Test now").click()
    page.wait_for_url("**/setup/open/**")
    page.get_by_label("mock-large").check()
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/setup/prices/**")
    for field in page.locator("input[name^=input-]").all():
        field.fill("2.5")
    for field in page.locator("input[name^=output-]").all():
        field.fill("ten")
    page.get_by_role("button", name="Save the prices").click()
    expect(page.locator(".errorlist").first).to_contain_text("Type amounts")
    for field in page.locator("input[name^=input-]").all():
        field.fill("2.5")
    for field in page.locator("input[name^=output-]").all():
        field.fill("10")
    page.get_by_role("button", name="Save the prices").click()
    page.wait_for_url("**/setup/user/**")
    page.fill("#id_username", "wanda")
    page.fill("#id_email", "wanda@example.org")
    page.fill("#id_password", PASSWORD)
    page.fill("#id_balance", "5")
    page.get_by_role("button", name="Create the user").click()
    page.wait_for_url("**/setup/token/**")
    page.select_option("#user", label="wanda")
    page.get_by_role("button", name="Create the token").click()
    secret = page.locator("#secret").inner_text()
    expect(page.locator("body")).to_contain_text("The portal is ready.")
    page.context.close()
    return Token(site, secret)


@dataclass
class Token:
    site: Site
    secret: str


def test_the_guide_ends_with_a_streamed_answer(ready: Token) -> None:
    answer = ready.site.ask(ready.secret, "mock-large")
    assert answer.status_code == 200 and "Hello" in answer.text and answer.text.rstrip().endswith("[DONE]")
    page = ready.site.admin()
    page.goto(f"{ready.site.base}/admin/")
    expect(page.locator(".ar-figures")).to_contain_text("Requests")
    expect(page.locator("#live-state")).to_have_text("live")
    page.goto(f"{ready.site.base}/admin/relay/usagerecord/")
    page.locator("table a", has_text="…").first.click()
    expect(page.locator("body")).to_contain_text("$0.0000")


def test_a_model_is_opened_closed_and_granted_and_apps_see_it_at_once(ready: Token) -> None:
    site = ready.site
    assert site.models(ready.secret) == ["demo", "mock-large"]
    page = site.admin()
    page.goto(f"{site.base}/admin/relay/model/?q=mock-closed")
    page.locator("input[name=form-0-is_open]").check(force=True)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("body")).to_contain_text("changed successfully")
    assert "mock-closed" in site.models(ready.secret)
    page.goto(f"{site.base}/admin/relay/model/?q=mock-closed")
    page.locator("input[name=form-0-is_open]").uncheck(force=True)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("body")).to_contain_text("changed successfully")
    assert "mock-closed" not in site.models(ready.secret) and site.ask(ready.secret, "mock-closed").status_code == 403
    pk = site.manage("from accounts.models import User; print(User.objects.get(username='wanda').pk)")
    page.goto(f"{site.base}/admin/relay/modelpermission/add/")
    for field, text in (("model", "mock-closed"), ("user", "wanda")):
        page.locator(f".field-{field} .select2-selection").click()
        page.locator(".select2-search__field").last.fill(text)
        page.locator(".select2-results__option", has_text=text).first.click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("body")).to_contain_text("added successfully")
    assert "mock-closed" in site.models(ready.secret) and site.ask(ready.secret, "mock-closed").status_code == 200
    page.goto(f"{site.base}/admin/accounts/auditevent/")
    page.locator("#result_list a", has_text="").filter(has_text=re.compile(r"\d")).first.click()
    expect(page.locator("body")).to_contain_text("modelpermission.add")
    page.goto(f"{site.base}/admin/accounts/user/{pk}/change/")
    expect(page.locator("body")).to_contain_text("wanda")


def test_a_token_is_created_shown_used_and_revoked(ready: Token) -> None:
    site = ready.site
    page = site.page("wanda")
    page.goto(f"{site.base}/tokens/new/")
    page.fill("#id_name", "editor")
    page.select_option("#id_purpose", "chat")
    page.get_by_role("button", name="Create").click()
    secret = page.locator("#secret").inner_text()
    assert site.ask(secret, "mock-large").status_code == 200
    refused = httpx.post(
        f"{site.server.v1}/images/generations",
        headers={"authorization": f"Bearer {secret}"},
        json={"model": "mock-large", "prompt": "x"},
        trust_env=False,
        timeout=60,
    )
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "purpose_not_allowed"
    page.get_by_role("link", name="To the token's page").click()
    page.get_by_role("button", name="Show the token").click()
    assert page.locator("#secret").inner_text() == secret
    page.get_by_role("link", name="To the token's page").click()
    page.get_by_text("Revoke…").click()
    page.get_by_role("button", name="Revoke for good").click()
    expect(page.locator(".note")).to_contain_text("is revoked")
    gone = site.ask(secret, "mock-large")
    assert gone.status_code == 401 and gone.json()["error"]["code"] == "invalid_api_key"


def test_a_code_is_redeemed(ready: Token) -> None:
    site = ready.site
    page = site.admin()
    page.goto(f"{site.base}/admin/relay/redemptionbatch/add/")
    page.fill("#id_name", "Spring")
    page.fill("#id_usd", "7.50")
    page.fill("#id_count", "1")
    page.get_by_role("button", name="Save", exact=True).click()
    wanted = re.compile(r"[A-Z2-9]{5}(?:-[A-Z2-9]{5}){3}")
    page.locator("body").filter(has_text=wanted).wait_for()  # the page that follows
    code = wanted.search(page.locator("#main, body").first.inner_text())
    assert code
    user = site.page("wanda")
    user.goto(f"{site.base}/balance/")
    user.fill("#code", "AAAAA-AAAAA-AAAAA-AAAAA")
    user.get_by_role("button", name="Redeem").click()
    expect(user.locator("#code-error")).to_contain_text("not a code of this portal")
    user.fill("#code", code[0].lower())
    user.get_by_role("button", name="Redeem").click()
    expect(user.locator(".note")).to_contain_text("$7.50 were added")


def test_the_playground_streams_and_says_what_it_cost(ready: Token) -> None:
    site = ready.site
    page = site.page("wanda")
    page.goto(f"{site.base}/playground/?model=mock-large")
    assert (
        page.evaluate("document.querySelectorAll('script:not([src]):not([type=\"application/json\"])').length") == 0
    ), "no inline script"
    page.fill("#pg-text", "Say hello.")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.answer .text")).to_have_text("Hello there.")
    expect(page.locator(".turn.answer .meta")).to_contain_text("cost $")
    expect(page.locator(".turn.answer .meta")).to_contain_text("9 tokens in")
    expect(page.locator("#pg-code")).to_contain_text("Say hello.")
    page.locator("#tab-curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#pg-code")).to_contain_text("from openai import OpenAI")
    page.locator(".turn.answer a", has_text="receipt").click()
    expect(page.locator("h1")).to_have_text("Receipt")
    page.goto(f"{site.base}/playground/?model=mock-large")
    site.upstream.script("mock-large", _broken)
    try:
        page.fill("#pg-text", "Again.")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".turn.failed .text")).to_contain_text("That did not work")
    finally:
        site.upstream.scripts.pop("mock-large")


async def _broken(call: Any) -> None:
    await call.error(400, "The mock refuses this prompt.", "mock_refusal")


def test_the_playground_makes_pictures_and_shows_them(ready: Token) -> None:
    site = ready.site
    site.manage(
        "from relay.models import *; c=Channel.objects.get(name='House'); m=Model.objects.create(name='mock-painter', "
        "is_open=True, abilities=['image_generation']);"
        "ChannelModel.objects.create(channel=c, model=m); ModelPrice.objects.create(model=m, input=0, output=0, "
        "per_image='0.04')"
    )
    site.upstream.script("mock-painter", _paint)
    page = site.page("wanda")
    page.goto(f"{site.base}/playground/?model=mock-painter")
    expect(page.locator("#pg-mode")).to_have_value("image")
    page.fill("#pg-text", "A green dot.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn.answer img")).to_be_visible()
    expect(page.locator(".turn.answer .meta")).to_contain_text("cost $0.04")


async def _paint(call: Any) -> None:
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    await call.reply(200, {"created": 1, "data": [{"b64_json": dot}]})


def test_a_second_factor_is_set_up_and_asked_for(ready: Token) -> None:
    site = ready.site
    site.manage(f"from accounts.models import User; User.objects.create_user('mia', 'mia@example.org', '{PASSWORD}')")
    page = site.page("mia")
    page.goto(f"{site.base}/accounts/")
    page.get_by_role("link", name=re.compile("Authenticator app")).click()
    page.get_by_role("link", name="Activate").first.click()
    _confirm(page)
    secret = page.locator("#authenticator_secret, input[disabled], input[readonly]").first.input_value()
    page.fill("#id_code", _code(secret))
    page.get_by_role("button", name="Activate").click()
    page.wait_for_url(lambda url: "activate" not in url)
    other = site.context().new_page()
    other.goto(f"{site.base}/accounts/login/")
    other.fill("#id_login", "mia")
    other.fill("#id_password", PASSWORD)
    other.click("main form.card button")
    other.wait_for_url("**/2fa/authenticate/**")
    other.goto(f"{site.base}/tokens/")
    assert "/accounts/" in other.url, "half a sign-in opens nothing"
    other.goto(f"{site.base}/accounts/2fa/authenticate/")
    other.fill("#id_code", "000000")
    other.get_by_role("button", name="Sign In").first.click()
    expect(other.locator(".errorlist")).to_contain_text("Incorrect code")
    while "authenticate" in other.url:
        other.fill("#id_code", _code(secret))  # a code is taken once: the next one may have to be waited for
        other.get_by_role("button", name="Sign In").first.click()
        other.wait_for_timeout(1500)
    expect(other.locator("h1")).to_have_text("Overview")


def _confirm(page: Page) -> None:
    """The password is asked for again before the sign-in is changed."""
    page.wait_for_url("**/reauthenticate/**")
    page.fill("#id_password", PASSWORD)
    page.locator("main form button").first.click()
    page.wait_for_url(lambda url: "reauthenticate" not in url)


def _code(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30)))


def test_a_passkey_is_added_and_signs_in_without_a_password(ready: Token) -> None:
    site = ready.site
    site.manage(f"from accounts.models import User; User.objects.create_user('paul', 'paul@example.org', '{PASSWORD}')")
    context = site.context()
    page = context.new_page()
    tools = context.new_cdp_session(page)
    tools.send("WebAuthn.enable")
    tools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )
    sign_in(page, site.base, "paul", PASSWORD)
    page.goto(f"{site.base}/accounts/2fa/webauthn/add/")
    _confirm(page)
    page.fill("#id_name", "laptop")
    page.locator("#id_passwordless").check()
    page.get_by_role("button", name="Add").click()
    page.wait_for_url(lambda url: "/webauthn/add" not in url)
    page.goto(f"{site.base}/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login/**")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.locator("h1")).to_have_text("Overview")
    expect(page.locator(".who")).to_contain_text("paul")


def test_a_code_that_is_mailed_signs_in(ready: Token) -> None:
    site = ready.site
    page = site.context().new_page()
    page.goto(f"{site.base}/accounts/login/")
    page.get_by_role("link", name="Mail me a code").click()
    page.fill("#id_email", "wanda@example.org")
    before = len(site.mail.mails)
    page.locator("main form button").first.click()
    page.wait_for_url("**/login/code/confirm/**")
    code = _mailed(site, page, before)
    page.fill("#id_code", "AAAAAA")
    page.locator("main form button").first.click()
    expect(page.locator(".errorlist")).to_contain_text("Incorrect code")
    page.fill("#id_code", code)
    page.locator("main form button").first.click()
    expect(page.locator("h1")).to_have_text("Overview")


def _mailed(site: Site, page: Page, before: int) -> str:
    """The code in the mail that comes after so many."""
    while len(site.mail.mails) <= before:
        page.wait_for_timeout(50)
    code = re.search(r"^([A-Z0-9]{3,}-?[A-Z0-9]{3,})\r?$", site.mail.mails[-1], re.M)
    assert code, site.mail.mails[-1]
    return code[1]


def test_an_account_elsewhere_is_connected_and_signs_in(ready: Token) -> None:
    """Over a provider set up in the admin; the browser must be let go there and back."""
    site = ready.site
    with issuing() as server:
        page = site.admin()
        page.goto(f"{site.base}/admin/socialaccount/socialapp/add/")
        for field, value in (
            ("name", "House"),
            ("provider_id", "house"),
            ("server_url", server.url),
            ("client_id", "portal"),
            ("new_secret", "s3cret-of-the-client"),
        ):
            page.fill(f"#id_{field}", value)
        expect(page.locator("#callback")).to_have_text(f"{site.base}/accounts/oidc/house/login/callback/")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator("body")).to_contain_text("Register the redirect URL")
        user = site.page("wanda")
        user.goto(f"{site.base}/accounts/3rdparty/")
        user.get_by_role("link", name="House").click()
        user.locator("main form button").first.click()
        _confirm(user)
        user.wait_for_url("**/3rdparty/**")
        expect(user.locator("main")).to_contain_text("House")
        stranger = site.context().new_page()
        stranger.goto(f"{site.base}/accounts/login/")
        stranger.get_by_role("link", name="House").click()
        stranger.locator("main form button").first.click()
        expect(stranger.locator("h1")).to_have_text("Overview")
        expect(stranger.locator(".who")).to_contain_text("wanda")


def test_an_invitation_lets_one_person_in(ready: Token) -> None:
    site = ready.site
    closed = site.context().new_page()
    closed.goto(f"{site.base}/accounts/signup/")
    expect(closed.locator("h1")).to_contain_text("cannot sign up")
    page = site.admin()
    page.goto(f"{site.base}/admin/accounts/invitation/add/")
    page.fill("#id_note", "Nora")
    page.get_by_role("button", name="Save", exact=True).click()
    link = page.locator("#link").inner_text().replace("127.0.0.1", "localhost")
    guest = site.context().new_page()
    guest.goto(link)
    for field, value in (
        ("username", "nora"),
        ("email", "nora@example.org"),
        ("password1", PASSWORD),
        ("password2", PASSWORD),
    ):
        guest.fill(f"#id_{field}", value)
    before = len(site.mail.mails)
    guest.get_by_role("button", name="Sign Up").click()
    guest.wait_for_url("**/confirm-email/**")
    guest.fill("#id_code", _mailed(site, guest, before))
    guest.locator("main form button").first.click()
    expect(guest.locator("h1")).to_have_text("Overview")
    second = site.context().new_page()
    second.goto(link)
    expect(second.locator("h1")).to_contain_text("cannot sign up")


def test_support_looks_as_a_user_and_can_change_nothing(ready: Token) -> None:
    site = ready.site
    site.manage(
        "from accounts.models import User; from django.contrib.auth.models import Group;"
        f"u=User.objects.create_user('sam', password='{PASSWORD}', is_staff=True); "
        "u.groups.add(Group.objects.get(name='Support'))"
    )
    pk = site.manage("from accounts.models import User; print(User.objects.get(username='wanda').pk)")
    page = site.page("sam")
    page.goto(f"{site.base}/admin/accounts/user/{pk}/look")
    page.get_by_role("button", name="Look", exact=True).click()
    expect(page.locator(".viewing")).to_contain_text("as wanda does")
    page.goto(f"{site.base}/tokens/")
    expect(page.locator("main")).to_contain_text("First token")
    page.locator("tbody a").first.click()
    page.get_by_role("button", name="Show the token").click()
    expect(page.locator("h1")).to_have_text("Only looking")
    page.get_by_role("button", name="Leave").first.click()
    page.wait_for_url("**/admin/accounts/user/**")
    admin = site.manage("from accounts.models import User; print(User.objects.get(username='admin').pk)")
    answer = page.goto(f"{site.base}/admin/accounts/user/{admin}/look")
    assert answer is not None and answer.status == 403, "staff are not looked at by staff"


USER, CHANNEL, USAGE = "/admin/accounts/user/{user}", "/admin/relay/channel/{channel}", "/admin/relay/usagerecord"
ROLES = {
    # role: pages it sees, pages it must not see
    "Operator": (
        [
            "/admin/",
            "/admin/relay/channel/",
            "/admin/relay/model/",
            f"{USAGE}/",
            "/admin/running/",
            "/admin/relay/incident/",
        ],
        [
            "/admin/relay/ledgerentry/",
            "/admin/relay/redemptionbatch/",
            f"{USAGE}/report",
            f"{USAGE}/export",
            f"{USER}/top-up",
            "/admin/relay/allowedupstream/",
        ],
    ),
    "Accountant": (
        [
            "/admin/relay/modelprice/",
            "/admin/relay/channel/",
            "/admin/relay/redemptionbatch/",
            "/admin/relay/ledgerentry/",
            f"{USAGE}/report",
            f"{USER}/top-up",
        ],
        [
            f"{CHANNEL}/test",
            "/admin/running/",
            "/admin/setup/keys/",
            f"{USER}/look",
        ],
    ),
    "Support": (
        [
            "/admin/accounts/user/",
            f"{USER}/change/",
            f"{USER}/sign-in/",
            f"{USER}/factors/",
            "/admin/accounts/invitation/",
            "/admin/relay/token/",
            f"{USAGE}/",
            "/admin/explain/",
        ],
        [
            f"{USER}/top-up",
            f"{CHANNEL}/test",
            "/admin/relay/token/add/",
            "/admin/accounts/user/add/",
            "/admin/auth/group/add/",
            "/admin/setup/",
        ],
    ),
}


@pytest.mark.parametrize("role", ROLES)
def test_roles_cannot_do_what_they_must_not(ready: Token, role: str) -> None:
    """By address, since hiding a link is no protection."""
    site = ready.site
    name = f"role-{role.lower()}"
    site.manage(
        "from accounts.models import User; from django.contrib.auth.models import Group;"
        f"u=User.objects.create_user('{name}', password='{PASSWORD}', is_staff=True); "
        f"u.groups.add(Group.objects.get(name='{role}'))"
    )
    ids = json.loads(
        site.manage(
            "import json; from accounts.models import User; from relay.models import Channel; "
            "print(json.dumps({'user': User.objects.get(username='wanda').pk, 'channel': "
            "Channel.objects.get(name='House').pk}))"
        )
    )
    page = site.page(name)
    seen, hidden = ROLES[role]
    for path in seen:
        answer = page.goto(site.base + path.format(**ids))
        assert answer is not None and answer.status == 200, (role, path)
    for path in hidden:
        answer = page.goto(site.base + path.format(**ids))
        refused = answer is not None and (answer.status in {403, 404} or page.url.rstrip("/").endswith("/admin"))
        assert refused, (role, path, answer and answer.status, page.url)
    if role == "Operator":
        page.goto(f"{site.base}/admin/relay/usagerecord/")
        assert "Margin" not in page.content() and "Charged" not in page.content()
        page.goto(f"{site.base}/admin/")
        assert "Margin" not in page.locator(".ar-figures").inner_text()
    if role == "Support":
        for view in ("change", "events"):
            page.goto(f"{site.base}/admin/relay/channel/{ids['channel']}/{view}/")
            assert "sk-upst" not in page.content(), "not even a masked key"


def test_pages_speak_chinese_and_keep_the_users_zone(ready: Token) -> None:
    site = ready.site
    context = site.context(locale="zh-CN")
    page = context.new_page()
    page.goto(f"{site.base}/accounts/login/")
    expect(page.locator("h1")).to_have_text("登录")
    sign_in(page, site.base, "wanda", PASSWORD)
    expect(page.locator("h1")).to_have_text("概览")
    page.goto(f"{site.base}/accounts/")
    page.select_option("#id_language", "en")
    page.select_option("#id_time_zone", "Asia/Tokyo")
    page.locator("main form button").last.click()
    expect(page.locator("h1")).to_have_text("My account")
    page.goto(f"{site.base}/usage/")
    shown = page.locator("tbody time").first
    moment = shown.get_attribute("datetime") or ""
    assert moment.endswith("+09:00"), moment
    page.goto(f"{site.base}/accounts/")
    page.select_option("#id_language", "")
    page.select_option("#id_time_zone", "")
    page.locator("main form button").last.click()


def test_usage_appears_while_one_looks_with_websockets_and_without(ready: Token) -> None:
    site = ready.site
    for blocked in (False, True):
        context = site.context()
        if blocked:
            context.add_init_script(NO_WEBSOCKETS)
        context.add_cookies(site.page("wanda").context.storage_state()["cookies"])  # type: ignore[arg-type]  # its own form
        page = context.new_page()
        page.goto(f"{site.base}/usage/")
        expect(page.locator("[data-live]")).to_have_attribute("data-state", "polling" if blocked else "live")
        assert site.ask(ready.secret, "mock-large").status_code == 200
        expect(page.locator("tbody tr.new")).to_have_count(1)


@pytest.mark.parametrize("blocked", [False, True])
def test_running_requests_are_seen_and_ended_with_websockets_and_without(ready: Token, blocked: bool) -> None:
    site = ready.site
    context = site.context(storage_state=site.cookies["admin"])
    if blocked:
        context.add_init_script(NO_WEBSOCKETS)
    page = context.new_page()
    page.goto(f"{site.base}/admin/running/")
    expect(page.locator("#running-state")).to_have_text("Asked for every few seconds." if blocked else "Live.")
    expect(page.locator("#running-none")).to_be_visible()
    site.upstream.script("mock-large", endless)
    try:
        with running(site.server, ready.secret, "mock-large") as found:
            row = page.locator("#running-rows tr")
            expect(row).to_contain_text("wanda")
            expect(page.locator("#running-none")).to_be_hidden()
            row.get_by_role("link", name="End").click()
            page.get_by_role("button", name="End").click()
        assert "request_ended" in found["text"] and "[DONE]" not in found["text"]
    finally:
        site.upstream.scripts.pop("mock-large")
    expect(page.locator("#running-none")).to_be_visible(timeout=20_000)


def test_the_books_are_proven_while_one_looks(ready: Token) -> None:
    page = ready.site.admin()
    page.goto(f"{ready.site.base}/admin/relay/ledgeraccount/")
    page.get_by_role("link", name="The books").click()
    page.get_by_role("button", name="Prove the books now").click()
    expect(page.locator(".ar-state.good").first).to_have_text("The books balance")
    expect(page.get_by_role("button", name="Prove the books now")).to_be_visible()


def test_a_channels_state_changes_while_one_looks_with_websockets_and_without(ready: Token) -> None:
    site = ready.site
    site.manage(
        "from relay.models import Channel; Channel.objects.create(name='Spare', base_url='https://api.example.com/v1')"
    )
    desk = site.admin()
    desk.goto(f"{site.base}/admin/relay/channel/")
    seen = (
        (False, False, "disabled", "live", "en-GB"),
        (True, True, "no key", "every few seconds", "en-GB"),
        (False, False, "已停用", "实时", "zh-CN"),
    )
    for blocked, wish, word, how, language in seen:
        # Not every Chromium says on websockets which language it was told to have.
        chosen = "zh-hans" if language == "zh-CN" else ""
        site.manage(
            f"from accounts.models import User; User.objects.filter(is_superuser=True).update(language={chosen!r})"
        )
        looks = []
        for path in ("/admin/", "/admin/relay/channel/"):
            context = site.context(storage_state=site.cookies["admin"], locale=language)
            if blocked:
                context.add_init_script(NO_WEBSOCKETS)
            page = context.new_page()
            page.goto(site.base + path)
            expect(page.locator("#live-state")).to_have_text(how)
            looks.append(page)
        site.manage(f"from relay.models import Channel; Channel.objects.filter(name='Spare').update(enabled={wish})")
        for page in looks:
            line = page.locator("li, tr").filter(has_text="Spare")
            expect(line.locator(".ar-state")).to_have_text(word)
            page.context.close()
    site.manage("from relay.models import Channel; Channel.objects.filter(name='Spare').delete()")
    site.manage("from accounts.models import User; User.objects.update(language='')")


def test_overrides_are_written_in_rows_tried_and_saved(ready: Token) -> None:
    site = ready.site
    pk = site.manage("from relay.models import Channel; print(Channel.objects.get(name='House').pk)")
    page = site.admin()
    page.goto(f"{site.base}/admin/relay/channel/{pk}/overrides/")
    expect(page.locator("textarea[data-overrides]")).to_be_hidden()
    page.get_by_label("Examples").select_option(label="Leave temperature out for a model")
    row = page.locator(".ar-rules li")
    expect(row.locator("[data-part=path]")).to_have_value("temperature")
    row.locator("[data-part=models]").fill("")
    page.get_by_role("button", name="Add a rule").click()
    second = page.locator(".ar-rules li").nth(1)
    second.locator("[data-part=path]").fill("seed")
    second.locator("[data-part=value]").fill("7")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".ar-diff del").first).to_contain_text('"temperature"')
    expect(page.locator(".ar-diff ins").filter(has_text='"seed": 7')).to_have_count(1)
    expect(page.locator(".ar-rules li")).to_have_count(2)
    page.get_by_role("button", name="Delete this rule").nth(1).click()
    page.get_by_role("button", name="As JSON").click()
    expect(page.locator("textarea[data-overrides]")).to_have_value('[\n  {"do":"remove","path":"temperature"}\n]')
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**/change/")
    saved = site.manage("from relay.models import Channel; print(Channel.objects.get(name='House').overrides)")
    assert saved == "[{'do': 'remove', 'path': 'temperature'}]"
    site.manage("from relay.models import Channel; c = Channel.objects.get(name='House'); c.overrides = []; c.save()")


def test_actions_of_the_administration_are_reached_by_keyboard(ready: Token) -> None:
    page = ready.site.admin()
    pk = ready.site.manage("from accounts.models import User; print(User.objects.get(username='wanda').pk)")
    page.goto(f"{ready.site.base}/admin/accounts/user/{pk}/change/")
    page.wait_for_function("document.documentElement.dataset.named")
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.textContent")
        if "More" in focused.split():
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="GeekAI bundle").first).to_be_visible()
    page.wait_for_function("document.activeElement.matches('body > nav a')")
    page.keyboard.press("Escape")
    page.wait_for_function("/more_horiz/.test(document.activeElement.textContent)")
    expect(page.get_by_role("link", name="GeekAI bundle").first).to_be_hidden()


def test_everything_on_the_way_to_a_token_works_by_keyboard(ready: Token) -> None:
    site = ready.site
    page = site.context().new_page()
    page.goto(f"{site.base}/accounts/login/")
    page.locator("#id_login").focus()
    page.keyboard.type("wanda")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "Tokens":
            break
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Tokens")
    assert page.evaluate(
        "getComputedStyle(document.querySelector('a:focus-visible, :focus-visible') || document.body).outlineStyle"
    ) in {"solid", "none", "auto"}


def test_staff_without_a_second_factor_stay_outside_where_one_is_demanded(ready: Token, tmp_path: Path) -> None:
    folder = Path(ready.site.server.database).parent
    with serving(
        tmp_path / "log", env={"AIRELAYS_DATA_DIR": str(folder), "AIRELAYS_STAFF_MFA": "true", "AIRELAYS_JOBS": "false"}
    ) as server:
        page = ready.site.context().new_page()
        sign_in(page, server.url.replace("127.0.0.1", "localhost"), "admin", ready.site.admin_password)
        page.goto(server.url.replace("127.0.0.1", "localhost") + "/admin/relay/channel/")
        assert page.url.endswith("/accounts/2fa/")
        expect(page.locator(".note")).to_contain_text("needs a second factor")
