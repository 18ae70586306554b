"""Who sees and does what: three actors on every page, list, search, export and websocket; the audit log; signing in from elsewhere."""

from __future__ import annotations

import ast
import json
import re
import secrets
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.urls import get_resolver, reverse
from django.utils import translation

from accounts import audit_words
from accounts.models import AuditEvent, Invitation, User
from accounts.models.audit import Unchangeable
from accounts.signals import _SAID
from portal.lib import clock, net
from portal.pages.shared.scope import usage_of
from relay.models import ApiKey, Channel, ChannelModel, ErrorText, Model, ModelPermission, ModelPrice, Token, Upload, UsageRecord
from relay.tokens.lifecycle import create_token
from tests.conftest import People

PORTAL = {
    "home": "/", "tokens": "/tokens/", "token-new": "/tokens/new/", "token": "/tokens/{token}/", "usage": "/usage/", "usage-newest": "/usage/newest/?after=0",
    "usage-export": "/usage/export.csv", "receipt": "/usage/{request}/", "my-files": "/storage/", "docs": "/docs/", "balance": "/balance/", "notices": "/balance/notices/",
    "connect": "/connect/", "models": "/catalog/", "playground": "/playground/", "errors": "/errors/", "status": "/status/", "account": "/accounts/",
}  # fmt: skip
"""Every page of the portal that is read, by the name of its view."""
POSTS = {
    "token-reveal": "/tokens/{token}/reveal/", "token-rotate": "/tokens/{token}/rotate/", "token-revoke": "/tokens/{token}/revoke/", "token-enabled": "/tokens/{token}/enabled/",
    "token-limits": "/tokens/{token}/limits/", "my-file-delete": "/storage/{file}/delete/", "playground-key": "/playground/key/", "kept-delete": "/storage/kept/delete/",
}  # fmt: skip
"""Every view of the portal that changes something."""
SECRET_WORD = "owned-by-alice"


def client(user: Any) -> Client:
    found = Client()
    found.force_login(user)
    return found


@pytest.fixture
def owned(people: People) -> dict[str, Any]:
    """One of everything that belongs to Alice, each with a word in it that nobody else may read."""
    token = create_token(people.owner, SECRET_WORD, actor=people.owner)[0]
    record = UsageRecord.objects.create(
        request_id="req_" + "a" * 32, started_at=clock.now(), user=people.owner, token=token, model=SECRET_WORD, endpoint="chat.completions", streamed=False, status=200,
        end_reason="completed", usage_source="reported", latency_ms=5,
    )  # fmt: skip
    upload = Upload.objects.create(
        file_id="file-alice", user=people.owner, filename=SECRET_WORD, purpose="user_data", size=3, state="stored", storage_name="x", sha256="0" * 64, created_at=clock.now()
    )
    model = Model.objects.create(name=f"{SECRET_WORD}-model")
    ModelPermission.objects.create(model=model, user=people.owner)
    return {"token": token.pk, "request": record.request_id, "file": upload.file_id, "record": record.pk}


def test_every_view_of_the_portal_is_in_these_tests() -> None:
    patterns: list[Any] = list(get_resolver("portal.urls").url_patterns)
    names = {pattern.name for pattern in patterns if getattr(pattern, "name", None) and not str(pattern.pattern).startswith("admin/")}
    assert names - {"healthz", "readyz"} == set(PORTAL) - {"account"} | set(POSTS)


@pytest.mark.parametrize("name", PORTAL)
def test_pages_show_what_is_ones_own(people: People, owned: dict[str, Any], settings: Any, name: str) -> None:
    """Owner, another user, staff without this right: only the owner reads a word of it on the portal."""
    path = PORTAL[name].format(**owned)
    staff = User.objects.create_user("dora", password="a long password", is_staff=True)
    assert Client().get(path).status_code == 302, "nobody without a sign-in"
    assert client(people.owner).get(path).status_code == 200
    for stranger in (people.other, staff, people.staff):
        answer = client(stranger).get(path)
        if "{" in PORTAL[name]:
            assert answer.status_code == 404, stranger
        else:
            assert answer.status_code == 200, stranger
            if answer.streaming:  # written piece by piece from this set; its bytes are looked at in test_portal
                assert not usage_of(stranger).exists()
            else:
                assert SECRET_WORD not in answer.content.decode(), stranger


@pytest.mark.parametrize("name", POSTS)
def test_what_is_anothers_cannot_be_changed(people: People, owned: dict[str, Any], name: str) -> None:
    cache.clear()
    path = POSTS[name].format(**owned)
    data = {"token": owned["token"]} if name == "playground-key" else {}
    assert Client().post(path, data).status_code == 302
    for stranger in (people.other, people.staff):
        answer = client(stranger).post(path, data)
        assert answer.status_code == 404 if name != "kept-delete" else answer.status_code == 302, stranger
    token = Token.objects.get(pk=owned["token"])
    assert token.enabled and token.revoked_at is None and token.rotated_at is None and Upload.objects.filter(file_id="file-alice").exists()
    if name not in {"my-file-delete", "token-limits"}:
        assert client(people.owner).post(path, data).status_code in {200, 302}


@pytest.mark.parametrize("page", [model._meta.label_lower for model in admin.site._registry])
def test_lists_and_searches_of_the_admin_need_their_right(people: People, owned: dict[str, Any], page: str) -> None:
    """A user is sent away, staff without the right is refused, staff with it sees the list and may search it."""
    app, model = page.split(".")
    path = reverse(f"admin:{app}_{model}_changelist")
    assert Client().get(path).status_code == 302 and client(people.owner).get(path).status_code == 302
    staff = User.objects.create_user("dora", password="a long password", is_staff=True)
    for address in (path, f"{path}?q=x", reverse(f"admin:{app}_{model}_add")):
        assert client(staff).get(address).status_code == 403, address
    for address in (path, f"{path}?q=x"):
        assert client(people.staff).get(address, follow=True).status_code == 200, address


OTHER = (
    "/admin/explain/", "/admin/running/", "/admin/setup/", "/admin/setup/keys/", "/admin/now/channels/", "/admin/now/running/", "/admin/installation/",
    "/admin/relay/usagerecord/report/", "/admin/relay/usagerecord/export/", "/admin/autocomplete/?app_label=relay&model_name=modelpermission&field_name=user",
)  # fmt: skip


@pytest.mark.parametrize("path", OTHER)
def test_other_pages_of_the_admin_need_their_right(people: People, path: str) -> None:
    staff = User.objects.create_user("dora", password="a long password", is_staff=True)
    assert client(people.owner).get(path).status_code == 302
    assert client(staff).get(path).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_websockets_tell_only_what_their_user_may_see() -> None:
    """Owner, another user, staff with and without the right."""
    from portal.live import live_router

    people = {name: User.objects.create_user(f"ws-{name}-{secrets.token_hex(3)}", password="x", is_staff=name != "owner") for name in ("owner", "stranger", "operator")}
    people["operator"].groups.add(Group.objects.get(name="Operator"))

    async def first_close(path: str, user: Any) -> int:
        socket = WebsocketCommunicator(live_router, path)
        socket.scope["user"] = user
        connected, code = await socket.connect()
        if not connected:
            return int(code)
        message = await socket.receive_output(5)
        await socket.disconnect()
        return int(message.get("code", 0)) if message["type"] == "websocket.close" else 0

    try:
        for path in ("/live/channels", "/live/running"):
            assert async_to_sync(first_close)(path, people["owner"]) == 4403
            assert async_to_sync(first_close)(path, people["stranger"]) == 4403
            assert async_to_sync(first_close)(path, people["operator"]) == 0
    finally:
        for user in people.values():
            user.ledger_accounts.all().delete()
            user.delete()


def test_switching_a_channel_is_in_its_history(people: People) -> None:
    staff = client(people.staff)
    channel = Channel.objects.create(name="main", provider="openai")
    staff.post("/admin/relay/channel/", {"action": "disable", "_selected_action": [channel.pk]})
    page = staff.get(f"/admin/relay/channel/{channel.pk}/events/").content.decode()
    assert "disabled" in page and "carol" in page


def test_a_key_shows_when_it_was_used_last(people: People) -> None:
    from accounts.admin.base import moment

    channel = Channel.objects.create(name="main", provider="openai")
    for label in ("busy", "idle"):
        key = ApiKey(channel=channel, label=label)
        key.set_secret(f"sk-{label}-0123456789abcdef")
        key.save()
    at = clock.now()
    for number, earlier in enumerate((500, 5)):
        UsageRecord.objects.create(
            request_id=f"req_{number:032}", started_at=at - timedelta(seconds=earlier), user=people.owner, channel=channel, api_key=channel.keys.get(label="busy"), model="m",
            endpoint="chat.completions", streamed=False, status=200, end_reason="completed", usage_source="reported", latency_ms=5,
        )  # fmt: skip
    page = client(people.staff).get(f"/admin/relay/channel/{channel.pk}/change/").content.decode()
    assert page.count(moment(at - timedelta(seconds=5))) == 1 and moment(at - timedelta(seconds=500)) not in page


# -- the audit log ------------------------------------------------------------------------------------------------------


def test_changes_are_in_the_audit_log_with_before_and_after_and_no_secret(people: People) -> None:
    staff = client(people.staff)
    channel = Channel.objects.create(name="main", provider="openai", weight=2)
    key = ApiKey(channel=channel)
    key.set_secret("sk-the-old-secret-0123456789")
    key.save()
    page = staff.get(f"/admin/relay/channel/{channel.pk}/change/").content.decode()
    form = {name: value for name, value in re.findall(r'name="([^"]+)"[^>]*value="([^"]*)"', page) if not name.startswith("_")}
    form |= {"name": "main", "provider": "openai", "weight": "7", "enabled": "on", "keys-0-secret": "sk-the-new-secret-9876543210", "parameters": "{}", "disconnect_policy": "delivered",
             "key_strategy": "random", "retry_unanswered": "broken", "keys-0-enabled": "on", "text_api": ""}  # fmt: skip
    answer = staff.post(f"/admin/relay/channel/{channel.pk}/change/", form)
    assert answer.status_code == 302, re.findall(r"errorlist.*?</ul>", answer.content.decode(), re.S)
    event = AuditEvent.objects.filter(action="channel.change").latest("pk")
    assert event.actor == people.staff and event.detail["changes"]["weight"] == [2, 7]
    row = event.detail["rows"][0]
    assert row["did"] == "change" and row["changes"]["sealed"] == ["••••••", "••••••"]
    assert "secret-0123" not in json.dumps(event.detail) and "secret-9876" not in json.dumps(event.detail)
    shown = staff.get(f"/admin/accounts/auditevent/{event.pk}/change/").content.decode()
    assert "weight" in shown and "Before" in shown and "••••••" in shown
    for method in ("post", "delete"):
        getattr(staff, method)(f"/admin/accounts/auditevent/{event.pk}/change/", {"action": "x"})
    assert AuditEvent.objects.get(pk=event.pk).action == "channel.change"
    with pytest.raises(Unchangeable):
        event.save()
    with pytest.raises(Unchangeable):
        AuditEvent.objects.filter(pk=event.pk).delete()


def test_the_audit_log_is_said_in_words(people: People) -> None:
    """Every action that the code writes, in both languages, and fields by the names that forms give them."""
    written = {str(action) for action in _SAID.values()} | {f"{group}.limited" for group in re.findall(r'throttled\([\w.]+, "([a-z-]+)"', Path("accounts/urls.py").read_text())}
    written |= {f"{model._meta.model_name}.{did}" for model in admin.site._registry for did in ("add", "change", "delete")}
    for path in [path for folder in ("accounts", "relay", "portal") for path in Path(folder).rglob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            if ast.unparse(call.func) == "AuditEvent.write":
                written |= {
                    part.value for part in ast.walk(call.args[0]) if isinstance(part, ast.Constant) and isinstance(part.value, str) and re.fullmatch("[a-z.-]+", part.value)
                }
            elif ast.unparse(call.func) == "self.switch":
                written |= {part.value for part in ast.walk(call.args[-1]) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    written = {action for action in written if action == action.strip(".")} | {"sign-in-provider.add", "sign-in-provider.change"}
    assert {"token.reveal", "setup", "sign-in.limited", "channel.disable", "price.create", "second-factor.add"} <= written and len(written) > 100
    assert not [action for action in written if audit_words.said(action) == action]
    with translation.override("zh-hans"):
        assert not [action for action in written if not re.search("[\u4e00-\u9fff]", audit_words.said(action)) or re.search("[a-z]{4}", audit_words.said(action))]
        assert audit_words.field("channel", "priority") == "优先级" and audit_words.field("", "reason") == "原因"
    AuditEvent.write("wallet.top-up", people.staff, people.owner, "203.0.113.9", usd="40", reason="Welcome")
    AuditEvent.write(
        "channel.change", people.staff, None, None, changes={"priority": [1, 2], "sealed": ["••••••", "••••••"]}, rows=[{"kind": "apikey", "row": "k1", "did": "delete"}]
    )
    page = client(people.staff).get("/admin/accounts/auditevent/").content.decode()
    assert "Balance: topped up" in page and "US dollars: 40, reason: Welcome" in page and "API key k1: deleted" in page and "203.0.113.9" in page


def test_lists_that_are_edited_in_place_and_deletions_are_audited(people: People) -> None:
    staff = client(people.staff)
    model = Model.objects.create(name="m")
    form = {
        "form-TOTAL_FORMS": 1,
        "form-INITIAL_FORMS": 1,
        "form-MIN_NUM_FORMS": 0,
        "form-MAX_NUM_FORMS": 1000,
        "form-0-id": model.pk,
        "form-0-is_open": "on",
        "form-0-enabled": "on",
        "_save": "Save",
    }
    staff.post("/admin/relay/model/?q=m", form)
    assert AuditEvent.objects.filter(action="model.change").latest("pk").detail["changes"] == {"is_open": [False, True]}
    staff.post(f"/admin/relay/model/{model.pk}/delete/", {"post": "yes"})
    assert AuditEvent.objects.filter(action="model.delete", target_name="m").exists()


# -- signing in, signing up ---------------------------------------------------------------------------------------------


def test_sign_up_is_off_unless_it_is_turned_on(db: None) -> None:
    form = {"username": "eve", "email": "eve@example.org", "password1": "a long password", "password2": "a long password"}
    assert "Closed" in Client().get("/accounts/signup/").content.decode()
    Client().post("/accounts/signup/", form)
    assert not User.objects.filter(username="eve").exists()


def with_config(settings: Any, **values: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update=values)


def test_open_sign_up_asks_for_domains_and_a_confirmed_address(db: None, settings: Any) -> None:
    with_config(settings, signup="open", signup_domains=["example.org"])
    settings.MAILS = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    cache.clear()
    form = {"username": "eve", "email": "eve@elsewhere.net", "password1": "a long password 7", "password2": "a long password 7"}
    assert "Accounts here are for addresses at example.org" in Client().post("/accounts/signup/", form).content.decode()
    browser = Client()
    answer = browser.post("/accounts/signup/", {**form, "email": "eve@example.org"})
    assert answer.status_code == 302 and browser.get("/").status_code == 302, "not inside before the address is confirmed"
    code = re.search(r"^([A-Z0-9]{3,6}-?[A-Z0-9]{0,6})$", str(mail.outbox[-1].body), re.M)
    assert code, mail.outbox[-1].body
    browser.post("/accounts/confirm-email/", {"code": code[1]})
    assert browser.get("/").status_code == 200
    assert AuditEvent.objects.filter(action="sign-up", actor_name="eve").exists()


def test_an_invitation_is_used_once_and_puts_people_where_it_says(db: None, settings: Any) -> None:
    with_config(settings, signup="invitation")
    cache.clear()
    group = Group.objects.create(name="Testers")
    invitation = Invitation(note="Eve", email="eve@example.org")
    code = invitation.new_code()
    invitation.save()
    invitation.groups.add(group)
    form = {"username": "eve", "email": "mallory@example.org", "password1": "a long password 7", "password2": "a long password 7"}
    browser = Client()
    browser.get(f"/accounts/signup/?invitation={code}")
    assert "for another e-mail address" in browser.post("/accounts/signup/", form).content.decode()
    assert browser.post("/accounts/signup/", {**form, "email": "eve@example.org"}).status_code == 302
    assert User.objects.get(username="eve").groups.filter(name="Testers").exists()
    invitation.refresh_from_db()
    assert invitation.used == 1 and Invitation.find(code) is None
    assert code not in json.dumps(list(Invitation.objects.values("digest", "note")))


def test_guessing_is_slowed_down_at_every_door(people: People) -> None:
    for path, form in (
        ("/accounts/login/", {"login": "alice", "password": "x"}),
        ("/accounts/2fa/authenticate/", {"code": "1"}),
        ("/accounts/signup/", {"username": "x"}),
    ):
        cache.clear()
        assert 429 in {Client().post(path, form).status_code for _ in range(22)}, path
    cache.clear()


def test_where_nothing_can_be_mailed_the_page_says_so(db: None) -> None:
    assert "sends no e-mail" in Client().get("/accounts/password/reset/").content.decode()


def test_roles_are_handed_out_by_owners_only(people: People) -> None:
    """Staff who may edit users cannot give a role to anybody, not even to one who is not staff yet."""
    from django.contrib.auth.models import Permission

    helper = User.objects.create_user("dora", password="x", is_staff=True)
    helper.user_permissions.add(*Permission.objects.filter(codename__in=("change_user", "view_user")))
    owner_role = Group.objects.get(name="Owner")
    path = f"/admin/accounts/user/{people.owner.pk}/change/"
    form = {"username": "alice", "is_active": "on", "groups": [owner_role.pk], "language": "", "time_zone": "", "notes": "changed"}
    client(helper).post(path, form)
    assert not people.owner.groups.filter(name="Owner").exists()
    boss = User.objects.create_user("olaf", password="x", is_staff=True)
    boss.groups.add(owner_role)
    answer = client(boss).get(path).content.decode()
    assert 'name="is_staff"' in answer and 'name="is_superuser"' not in answer
    assert client(boss).get(f"/admin/accounts/user/{people.staff.pk}/password/").status_code == 403, "nor the password of a superuser"


def test_half_a_sign_in_opens_nothing_and_the_second_factor_is_kept_encrypted(people: People) -> None:
    from allauth.mfa.models import Authenticator
    from allauth.mfa.totp.internal.auth import TOTP

    TOTP.activate(people.owner, "JBSWY3DPEHPK3PXP")
    assert "JBSWY3DPEHPK3PXP" not in json.dumps(Authenticator.objects.get(user=people.owner).data)
    browser = Client()
    cache.clear()
    answer = browser.post("/accounts/login/", {"login": "alice", "password": "a long password"})
    assert answer["location"].startswith("/accounts/2fa/authenticate/")
    assert browser.get("/tokens/").status_code == 302


def test_staff_without_a_second_factor_stay_outside_where_it_is_demanded(people: People, settings: Any) -> None:
    from portal.admin.now import channels_now

    with_config(settings, staff_mfa=True)
    answer = client(people.staff).get("/admin/relay/channel/")
    assert answer.status_code == 302 and answer["location"] == "/accounts/2fa/"
    assert channels_now(people.staff.pk) is None, "nor over a websocket"


def test_websockets_speak_as_the_page_that_opened_them(people: People) -> None:
    from zoneinfo import ZoneInfo

    from django.utils.translation import get_language

    from accounts.preferences import reader_of

    scope = {"user": people.owner, "cookies": {"airelays_zone": "Asia%2FShanghai"}, "headers": [(b"accept-language", b"zh-CN,zh;q=0.9,en;q=0.5")]}
    reader = reader_of(scope)
    assert reader.zone == ZoneInfo("Asia/Shanghai") and reader.sees(get_language) == "zh-hans"
    people.owner.language, people.owner.time_zone = "en", "Europe/Berlin"
    reader = reader_of(scope)
    assert reader.zone == ZoneInfo("Europe/Berlin") and reader.sees(get_language) == "en"
    assert reader_of({"user": people.other, "headers": []}).sees(get_language) == "en"


def test_looking_as_a_user_reads_and_nothing_else(people: People, owned: dict[str, Any]) -> None:
    staff = client(people.staff)
    assert client(people.other).post(f"/accounts/view-as/{people.owner.pk}/").status_code == 403
    assert staff.get(f"/accounts/view-as/{people.owner.pk}/").status_code == 405
    assert staff.post(f"/accounts/view-as/{people.owner.pk}/").status_code == 302
    assert SECRET_WORD in staff.get("/tokens/").content.decode()
    for name, path in POSTS.items():
        assert staff.post(path.format(**owned), {"token": owned["token"]}).status_code == 403, name
    assert AuditEvent.objects.filter(action="user.view-as", actor=people.staff, target_id=str(people.owner.pk)).exists()
    people.owner.is_staff = True
    people.owner.save()
    helper = User.objects.create_user("dora", password="x", is_staff=True)
    helper.groups.add(Group.objects.get(name="Support"))
    assert client(helper).post(f"/accounts/view-as/{people.owner.pk}/").status_code == 403
    assert client(helper).post(f"/accounts/view-as/{people.other.pk}/").status_code == 302
    staff.post("/accounts/view-as/leave/")
    assert SECRET_WORD not in staff.get("/tokens/").content.decode()


class Provider(BaseHTTPRequestHandler):
    """An OpenID Connect server that lets everybody in as Olga."""

    def do_GET(self) -> None:
        address = f"http://{self.headers['host']}"
        path = urlsplit(self.path)
        if path.path.endswith("/.well-known/openid-configuration"):
            self._json(
                {
                    "issuer": address,
                    "authorization_endpoint": f"{address}/authorize",
                    "token_endpoint": f"{address}/token",
                    "userinfo_endpoint": f"{address}/userinfo",
                    "jwks_uri": f"{address}/jwks",
                }
            )
        elif path.path == "/authorize":
            asked = parse_qs(path.query)
            self.send_response(302)
            self.send_header("location", f"{asked['redirect_uri'][0]}?{urlencode({'state': asked['state'][0], 'code': 'c'})}")
            self.send_header("content-length", "0")
            self.end_headers()
        elif path.path == "/userinfo":
            self._json({"sub": "olga-1", "email": "olga@example.org", "email_verified": True, "preferred_username": "olga", "name": "Olga"})
        else:
            self._json({"keys": []})

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        type(self).seen.append({**body, "authorization": self.headers.get("authorization", "")})
        self._json({"access_token": "at", "token_type": "Bearer", "expires_in": 60})

    seen: list[Any] = []

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_an_oidc_server_that_is_set_up_in_the_admin_signs_people_in(people: People, settings: Any) -> None:
    from allauth.socialaccount.models import SocialApp

    with_config(settings, signup="open")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        form = {"provider": "openid_connect", "name": "House", "provider_id": "house", "server_url": address, "client_id": "portal", "new_secret": "the-client-secret-123"}
        staff = client(people.staff)
        assert staff.post("/admin/socialaccount/socialapp/add/", form).status_code == 302
        app = SocialApp.objects.get()
        assert app.secret == "" and "the-client-secret" not in json.dumps(app.settings)
        assert "the-client-secret" not in staff.get(f"/admin/socialaccount/socialapp/{app.pk}/change/").content.decode()
        assert "the-client-secret" not in json.dumps(list(AuditEvent.objects.values("detail")))
        browser = Client()
        assert "House" in browser.get("/accounts/login/").content.decode()
        away = browser.post("/accounts/oidc/house/login/")
        assert away.status_code == 302 and away["location"].startswith(f"{address}/authorize")
        state = parse_qs(urlsplit(away["location"]).query)["state"][0]
        back = browser.get(f"/accounts/oidc/house/login/callback/?{urlencode({'state': state, 'code': 'c'})}")
        assert back.status_code == 302, back.content
        assert "the-client-secret-123" in json.dumps(Provider.seen[-1]) or Provider.seen[-1]["authorization"].startswith("Basic ")
        assert browser.get("/", follow=True).status_code == 200 and User.objects.filter(email="olga@example.org").exists()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://10.0.0.1/realms/x", "http://localhost:9/realms", "http://2130706433/"])
def test_sign_in_providers_cannot_point_inside(people: People, url: str) -> None:
    from allauth.socialaccount.models import SocialApp

    form = {"provider": "openid_connect", "name": "x", "provider_id": "x", "server_url": url, "client_id": "c", "new_secret": "s"}
    answer = client(people.staff).post("/admin/socialaccount/socialapp/add/", form)
    if url.startswith("http://localhost"):  # the suite allows 127.0.0.1, which a local name may stand for; the connection is checked
        return
    assert answer.status_code == 200 and not SocialApp.objects.exists()


def test_the_connection_to_a_provider_is_checked_on_the_address_that_its_name_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import requests

    from accounts.sign_in import outbound

    monkeypatch.setattr(outbound, "allowances", lambda: ())
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 80))])
    with pytest.raises(requests.ConnectionError, match=r"10\.1\.2\.3 is not a public Internet address"):
        outbound.GuardedSession().get("http://id.example.org/.well-known/openid-configuration")
    monkeypatch.setattr(outbound, "allowances", lambda: (net.Allowance.parse("10.1.2.3"),))
    assert outbound.permitted_address("id.example.org", 80) == "10.1.2.3"


# -- the rest -----------------------------------------------------------------------------------------------------------


def test_error_texts_are_written_anew_by_language(people: People) -> None:
    ErrorText.objects.create(code="model_not_found", language="en", meaning="No such model at our house.", remedy="")
    page = client(people.owner).get("/errors/").content.decode()
    assert "No such model at our house." in page and "Copy the name from the list of models." in page
    chinese = client(people.owner).get("/errors/", headers={"accept-language": "zh-hans"}).content.decode()
    assert "No such model at our house." not in chinese and "这里没有叫这个名称的模型。" in chinese
    assert "your text" in client(people.staff).get("/admin/relay/errortext/?language=en").content.decode()


def test_every_error_of_the_api_is_in_the_catalogue() -> None:
    from relay import errors
    from relay.error_texts import CODES

    codes = {found.code for found in vars(errors).values() if isinstance(found, type) and issubclass(found, errors.RelayError) and found.code}
    assert codes <= set(CODES)


@pytest.mark.parametrize(("setting", "stranger", "user"), [("off", 404, 404), ("users", 302, 200), ("public", 200, 200)])
def test_the_status_page_is_for_whom_the_setting_says(people: People, settings: Any, setting: str, stranger: int, user: int) -> None:
    with_config(settings, status_page=setting)
    Model.objects.create(name="closed-one")
    Model.objects.create(name="open-one", is_open=True)
    answer = Client().get("/status/")
    assert answer.status_code == stranger and client(people.owner).get("/status/").status_code == user
    if stranger == 200:
        assert "open-one" in answer.content.decode() and "closed-one" not in answer.content.decode()


@pytest.mark.parametrize(("link", "found"), [
    ("https://chatgpt.com/g/g-2fkFE8rbu-dall-e", "g-2fkFE8rbu"), ("https://chat.openai.com/g/g-2fkFE8rbu?x=1", "g-2fkFE8rbu"), ("g-2fkFE8rbu", "g-2fkFE8rbu"),
    ("https://evil.example/g/g-2fkFE8rbu", None), ("https://chatgpt.com/", None), ("hello", None),
])  # fmt: skip
def test_links_to_gpts(link: str, found: str | None) -> None:
    from relay.channels.models import gpt_id

    assert gpt_id(link) == found


def test_gpts_are_added_by_link_and_take_the_terms_of_their_family(people: People) -> None:
    channel = Channel.objects.create(name="pool", provider="relay")
    family = Model.objects.create(name="gpt-4-gizmo-*")
    ModelPrice.objects.create(model=family, input=3, output=9)
    ChannelModel.objects.create(channel=channel, model=family)
    form = {"link": "https://chatgpt.com/g/g-2fkFE8rbu-dall-e", "name": "Painter", "channels": [channel.pk], "is_open": "on"}
    assert client(people.staff).post("/admin/relay/model/gpt/", form, follow=True).status_code == 200
    model = Model.objects.get(name="gpt-4-gizmo-g-2fkFE8rbu")
    assert model.is_open and model.prices.get().output == 9 and model.served_by.get().channel == channel
    wrong = client(people.staff).post("/admin/relay/model/gpt/", {**form, "link": "https://example.org/x"}, follow=True)
    assert "no link to a GPT" in wrong.content.decode()


def test_the_geekai_bundle_makes_three_tokens_and_shows_them_once(people: People) -> None:
    staff = client(people.staff)
    answer = staff.post(f"/admin/accounts/user/{people.owner.pk}/geekai/", follow=True)
    page = answer.content.decode()
    tokens = list(Token.objects.filter(user=people.owner).order_by("pk"))
    assert [token.purpose for token in tokens] == ["chat", "images", "tasks"] and len(set(re.findall(r"sk-\w{48}", page))) == 3
    assert "no-store" in answer["cache-control"] and "http://testserver<" in page


def test_a_copied_channel_has_no_keys_and_serves_nothing_yet(people: People) -> None:
    channel = Channel.objects.create(name="main", provider="openai", weight=5, tags="fast")
    key = ApiKey(channel=channel)
    key.set_secret("sk-x-0123456789012345")
    key.save()
    ChannelModel.objects.create(channel=channel, model=Model.objects.create(name="m"), upstream_name="up")
    client(people.staff).post(f"/admin/relay/channel/{channel.pk}/copy/", follow=True)
    copy = Channel.objects.get(name="main (2)")
    assert not copy.enabled and copy.weight == 5 and copy.tags == "fast" and not copy.keys.exists() and copy.served.get().upstream_name == "up"


def test_texts_are_all_translated_and_their_compiled_form_is_current() -> None:
    import polib

    from bench.messages import LANGUAGES, LOCALE

    for language in LANGUAGES:
        folder = LOCALE / language / "LC_MESSAGES"
        source, compiled = polib.pofile(str(folder / "django.po")), polib.mofile(str(folder / "django.mo"))
        assert [entry.msgid for entry in source if not entry.translated()] == []
        assert {entry.msgid: entry.msgstr for entry in source if not entry.msgid_plural} == {entry.msgid: entry.msgstr for entry in compiled if not entry.msgid_plural}
        for entry in source:
            if not entry.msgid_plural:
                names = re.findall(r"%\(\w+\)[sd]", entry.msgid)
                assert sorted(names) == sorted(re.findall(r"%\(\w+\)[sd]", entry.msgstr)), entry.msgid
                assert not names or not re.search(r"%(?!\()", entry.msgstr.replace("%%", "")), entry.msgid
