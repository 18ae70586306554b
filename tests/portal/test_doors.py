"""Every view of the portal asks who may, each time: read from the URLs, so that a new one is missed by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import Change, User
from portal.live import live_router
from relay.api.auth import counted_auth, token_auth
from relay.api.urls import api
from relay.gateway.snapshot.load import caller_from_user
from tests.support.portal import People, Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared

# For everybody, signed in or not: they sign in, sign up, or say how the portal is.
PUBLIC = frozenset(
    [
        "healthz",
        "readyz",
        "set_language",
        "account_login",
        "account_request_login_code",
        "account_logout",
        "account_inactive",
        "account_signup",
        "account_reset_password",
        "account_confirm_login_code",
        "account_confirm_password_reset_code",
        "account_email_verification_sent",
        "account_complete_password_reset",
        "password-reset-link",
        "account_password_reset_completed",
        "mfa_authenticate",
        "mfa_login_webauthn",
        "socialaccount_login_cancelled",
        "socialaccount_login_error",
        "socialaccount_signup",
        "openid_connect_login",
        "openid_connect_callback",
        "github_login",
        "github_callback",
        "gitlab_login",
        "gitlab_callback",
        "google_login",
        "google_callback",
        "google_login_by_token",
        "microsoft_login",
        "microsoft_callback",
    ]
)
# For those who are signed in, about themselves. `tests.pages.test_ownership` asks whose rows they show.
SIGNED_IN = frozenset(
    [
        "home",
        "tokens",
        "token-new",
        "token",
        "token-reveal",
        "token-rotate",
        "token-revoke",
        "token-enabled",
        "token-limits",
        "usage",
        "usage-export",
        "usage-newest",
        "receipt",
        "sessions",
        "session",
        "my-files",
        "kept-delete",
        "my-file-download",
        "my-file-delete",
        "docs",
        "balance",
        "notices",
        "connect",
        "models",
        "playground",
        "playground-key",
        "my-plan",
        "my-plan-finish",
        "my-plan-models",
        "my-plan-sign-in",
        "my-plan-sign-out",
        "my-plan-switch",
        "errors",
        "status",
        "account",
        "connect_pending",
        "view-as-leave",
        "account_reauthenticate",
        "account_email",
        "account_change_password",
        "account_set_password",
        "mfa_index",
        "mfa_reauthenticate",
        "mfa_activate_totp",
        "mfa_deactivate_totp",
        "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes",
        "mfa_download_recovery_codes",
        "mfa_list_webauthn",
        "mfa_add_webauthn",
        "mfa_reauthenticate_webauthn",
        "mfa_remove_webauthn",
        "mfa_edit_webauthn",
        "socialaccount_connections",
    ]
)
# For all staff: what they show depends on the rights of each.
ANY_STAFF = frozenset(
    ["admin:index", "admin:search", "admin:logout", "admin:password_change_done", "admin:jsi18n", "admin:app_list"]
)
# For staff with these permissions.
STAFF = {
    "admin-explain": "relay.view_channel accounts.view_user",
    "admin-running": "relay.end_request",
    "admin-caches": "relay.view_usagerecord relay.view_channel",
    "admin-refused": "relay.view_usagerecord",
    "admin-sessions": "relay.view_usagerecord",
    "admin-session": "relay.view_usagerecord",
    "admin-setup": "relay.add_channel",
    "admin-setup-step": "relay.add_channel",
    "admin-doctor": "relay.change_channel",
    "admin-installation": "relay.change_channel",
    "admin-channels-now": "relay.view_channel",
    "admin-running-now": "relay.end_request",
    "admin-end-request": "relay.end_request",
    "view-as": "accounts.view_as",
    "admin:accounts_user_add": "accounts.add_user accounts.change_user",
    "admin:accounts_user_top_up": "relay.add_ledgerentry accounts.view_user",
    "admin:accounts_user_deduct": "relay.add_ledgerentry accounts.view_user",
    "admin:accounts_user_switch_unlimited": "relay.add_ledgerentry accounts.view_user",
    "admin:accounts_user_look": "accounts.view_as",
    "admin:accounts_user_usage": "relay.view_usagerecord",
    "admin:accounts_user_movements": "relay.view_ledgerentry",
    "admin:accounts_user_tokens": "relay.view_token",
    "admin:accounts_user_budgets": "relay.view_budget",
    "admin:accounts_user_geekai": "relay.add_token accounts.view_user",
    "admin:accounts_user_remove_factors": "accounts.help_sign_in accounts.view_user",
    "admin:accounts_user_sign_in_help": "accounts.help_sign_in accounts.view_user",
    "admin:accounts_user_send_reset_mail": "accounts.help_sign_in accounts.view_user",
    "admin:accounts_user_lift_limits": "accounts.help_sign_in accounts.view_user",
    "admin:accounts_invitation_renew": "accounts.help_sign_in accounts.view_invitation",
    "admin:auth_user_password_change": "accounts.change_user",
    "admin:accounts_staffkey_revoke": "accounts.change_staffkey",
    "admin:relay_channel_test_channel": "relay.change_channel",
    "admin:relay_channel_choose_models": "relay.change_channel",
    "admin:relay_channel_edit_overrides": "relay.change_channel",
    "admin:relay_channel_take_costs": "relay.change_channel relay.add_modelprice relay.view_earnings",
    "admin:relay_channel_put_keys_back": "relay.change_channel",
    "admin:relay_channel_forget_apis": "relay.change_channel",
    "admin:relay_channel_copy": "relay.add_channel",
    "admin:relay_channel_explain": "relay.view_channel accounts.view_user",
    "admin:relay_channel_state_history": "relay.view_channel",
    "admin:relay_channel_caches": "relay.view_channel relay.view_usagerecord",
    "admin:relay_chatgptaccount_turn_off": "relay.change_chatgptaccount",
    "admin:relay_chatgptaccount_sign_out": "relay.change_chatgptaccount",
    "admin:relay_model_explain": "relay.view_model relay.view_channel accounts.view_user",
    "admin:relay_model_prices": "relay.view_model relay.view_modelprice",
    "admin:relay_model_add_gpt": "relay.add_model",
    "admin:relay_modelprice_new_version": "relay.add_modelprice",
    "admin:relay_ledgeraccount_movements": "relay.view_ledgerentry",
    "admin:relay_ledgeraccount_verify_books": "relay.view_earnings",
    "admin:relay_ledgerentry_export_csv": "relay.view_ledgerentry",
    "admin:relay_redemptionbatch_find_code": "relay.view_redemptionbatch",
    "admin:relay_redemptionbatch_show_codes": "relay.add_redemptionbatch",
    "admin:relay_redemptionbatch_export_codes": "relay.add_redemptionbatch",
    "admin:relay_redemptionbatch_disable_codes": "relay.change_redemptionbatch",
    "admin:relay_token_explain": "relay.view_token relay.view_channel accounts.view_user",
    "admin:relay_token_usage": "relay.view_token relay.view_usagerecord",
    "admin:relay_token_budgets": "relay.view_budget",
    "admin:relay_token_rotate": "relay.change_token",
    "admin:relay_token_revoke": "relay.change_token",
    **{
        f"admin:relay_{model}_{view}": f"relay.{right}_{model} relay.view_earnings"
        for model in ("billingkey", "upstreambill")
        for view, right in (("changelist", "view"), ("add", "add"), ("change", "view"), ("history", "view"))
    },
    "admin:relay_billingkey_ask_now": "relay.change_billingkey relay.view_billingkey relay.view_earnings",
    "admin:relay_usagerecord_cost_report": "relay.view_usagerecord relay.view_earnings",
    "admin:relay_usagerecord_export_csv": "relay.view_usagerecord relay.view_ledgeraccount",
}
# Of the management API, which takes keys and no session: `tests.manage.test_routes` asks for each route's powers.
KEYED = ("manage:", "manage-nothing", "manage-root", "one-api-")
SUPERUSERS = "allowedupstream"  # the model whose pages are for superusers alone
NAMELESS = frozenset(("accounts/password/", "favicon.ico", "admin/login/", "admin/password_change/"))  # which redirect
VALUES = {
    "<slug:step>": "channel",
    "<slug:request_id>": "req_" + "0" * 32,
    "<slug:file_id>": "file-x",
    "<slug:code>": "0" * 16,
}


@dataclass(frozen=True)
class Door:
    name: str
    route: str

    @property
    def path(self) -> str:
        """With ids that nobody has: who may not is refused before anything is looked for."""
        route = self.route
        for old, new in {
            **VALUES,
            "<int:pk>": "0",
            "<int:user_id>": "0",
            "<path:object_id>": "0",
            "<slug:provider_id>": "x",
        }.items():
            route = route.replace(old, new)
        return "/" + route

    def powers(self) -> str | None:
        """The permissions that open it; None when it is not known here."""
        if self.name in STAFF:
            return STAFF[self.name]
        for model in admin.site._registry:
            app, model_name = model._meta.app_label, str(model._meta.model_name)
            for view, right in MODEL_VIEWS.items():
                if self.name == f"admin:{app}_{model_name}_{view}":
                    return f"{app}.{right}_{model_name}"
        return None


MODEL_VIEWS = {"changelist": "view", "add": "add", "change": "view", "history": "view", "delete": "delete"}


def doors(resolver: Any = None, route: str = "", spaces: tuple[str, ...] = ()) -> Iterator[Door]:
    for pattern in (resolver or get_resolver("portal.urls")).url_patterns:
        here = route + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from doors(pattern, here, (*spaces, *filter(None, [pattern.namespace])))
        elif isinstance(pattern, URLPattern):
            yield Door(":".join([*spaces, pattern.name or ""]), here)


def staff_doors() -> list[Door]:
    return [door for door in doors() if door.powers() is not None]


def test_every_view_is_classified() -> None:
    """A new view: say above for whom it is."""
    unknown = []
    for door in doors():
        known = door.name in PUBLIC | SIGNED_IN | ANY_STAFF or door.powers() is not None
        replaced = door.name in {"admin:login", "admin:autocomplete", "admin:view_on_site"} or door.name == "admin:"
        keyed = door.name.startswith(KEYED)
        nameless = door.route in NAMELESS or door.route.startswith(("accounts/social/", "accounts/oidc/^"))
        if not (known or replaced or keyed or nameless):
            unknown.append((door.name, door.route))
    assert unknown == []
    assert [str(route.pattern) for route in live_router.routes] == [
        "live/usage/<slug:whose>",
        "live/running",
        "live/channels",
    ], "and to the tests of tests.portal.test_live"


def let_in(answer: Any) -> bool:
    """Whether a view did not send somebody away: 404 is what it says of an id that nobody has."""
    away = answer.get("location", "")
    return answer.status_code not in {401, 403} and away != "/admin/" and "/login/" not in away and "/2fa/" not in away


def grant(group: Group, powers: str) -> None:
    codes = [power.partition(".")[2] for power in powers.split()]
    found = Permission.objects.filter(codename__in=codes)
    assert found.count() == len(codes), powers
    group.permissions.set(found)


@pytest.mark.timeout(1200)  # every power at every view
def test_powers_of_staff_are_asked_at_every_view(people: People, settings: Any) -> None:
    """Nobody, a user, staff without the right, staff with it, then without a second factor, then without the group."""
    role = Group.objects.create(name="Role")
    person = User.objects.create_user("dora", is_staff=True)
    gone = signed_in(User.objects.create_user("gone", is_staff=True, is_superuser=True))
    gone.post("/accounts/logout/")
    plain, user, boss = Client(), signed_in(people.owner), signed_in(people.staff)
    staff = signed_in(person)
    everything = signed_in(other := User.objects.create_user("emil", is_staff=True))
    wrong = []
    for door in staff_doors():
        powers = door.powers()
        assert powers is not None

        def ask(browser: Client, door: Door = door) -> bool:
            if door.name == "view-as":
                answer = browser.post(f"/accounts/view-as/{people.other.pk}/")
                browser.post("/accounts/view-as/leave/")
                return answer.status_code == 302 and answer["location"] == "/"
            ids = {"admin:accounts_user_": people.other.pk, "admin:auth_group_": role.pk}
            real = next((pk for prefix, pk in ids.items() if door.name.startswith(prefix)), 0)
            return let_in(browser.get(door.path.replace("/0/", f"/{real}/")))

        grant(role, powers)
        refused = {"nobody": plain, "a user": user, "who signed out": gone}
        if door.name in STAFF and door.name != "admin-setup":  # whose steps ask for one right each
            implied = [power.partition(".")[2].replace("view_", "change_") for power in powers.split()]
            others = Permission.objects.exclude(pk__in=role.permissions.all()).exclude(codename__in=implied)
            other.user_permissions.set(others)
            refused["staff with all other rights"] = everything
        person.groups.clear()
        refused["staff without the right"] = staff
        wrong += [f"{door.name}: {who} is let in" for who, browser in refused.items() if ask(browser)]
        person.groups.add(role)
        inside = ask(staff)
        if powers.endswith(SUPERUSERS):
            wrong += [f"{door.name}: is for superusers"] if inside else []
        elif not inside and ask(boss):  # some pages only show: nobody adds, changes or deletes there
            wrong.append(f"{door.name}: staff with the right are not let in")
        if inside:
            with_config(settings, staff_mfa=True)
            wrong += [f"{door.name}: no second factor is asked for"] if ask(staff) else []
            with_config(settings, staff_mfa=False)
            person.groups.remove(role)
            wrong += [f"{door.name}: the right is gone, and still opens it"] if ask(staff) else []
    assert "\n".join(wrong) == ""


def test_pages_about_oneself_are_for_those_who_are_signed_in(people: People) -> None:
    gone = signed_in(people.other)
    gone.post("/accounts/logout/")
    for door in doors():
        if door.name in SIGNED_IN or door.name in ANY_STAFF - {"admin:logout"}:
            for browser in (Client(), gone):
                path = door.path.replace("^(?P<app_label>accounts|auth|socialaccount|relay)/$", "relay/")
                for answer in (browser.get(path), browser.post(path)):
                    assert answer.status_code in {302, 403, 405}, (door, answer.status_code)
                    assert "/login/" in answer.get("location", "/login/"), (door, answer["location"])


def test_the_doors_for_everybody_answer(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    # It writes in a thread of its own, and the transaction of the test has the lock.
    monkeypatch.setattr("portal.serving.probes.health._checked", lambda: "")
    for door in doors():
        if door.name in PUBLIC:
            for answer in (Client().get(door.path), Client().post(door.path)):
                assert answer.status_code < 500, (door, answer.status_code)


def test_a_search_and_suggestions_show_what_the_person_may_view(people: People) -> None:
    """Of the admin: its search, and the suggestions of fields."""
    staff = signed_in(User.objects.create_user("dora", is_staff=True))
    User.objects.create_user("needle-in-the-hay")
    query = "app_label=relay&model_name=token&field_name=user&term=needle"
    assert staff.get(f"/admin/autocomplete/?{query}").status_code == 403
    assert "needle-in-the-hay" not in staff.get("/admin/search/?s=needle").content.decode()
    assert "needle-in-the-hay" in signed_in(people.staff).get(f"/admin/autocomplete/?{query}").content.decode()


def test_every_route_of_v1_is_for_tokens() -> None:
    """But the document that describes them, which asks by itself."""
    found, without = 0, []
    for _prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for operation in view.operations:
                found += 1
                if not (operation.auth_callbacks or router.auth in {token_auth, counted_auth}):
                    without.append(path)
    assert found > 40 and sorted(without) == ["/openapi.json"]


@pytest.mark.parametrize("how", ["group", "staff", "disabled", "permission"])
def test_powers_of_tokens_of_staff_end_at_once(live: Portal, server: Server, how: str) -> None:
    """To choose a channel, and to read receipts of others."""
    person, role = live.user(is_staff=True), Group.objects.create(name=live.name("role"))
    role.permissions.set(Permission.objects.filter(codename__in=("view_channel", "view_usagerecord")))
    person.groups.add(role)
    channel = live.channel()
    model, token = live.model(channels=[channel]), live.token(person)
    other = server.post(live.token(), ask(model)).headers["x-request-id"]
    live.record(other)
    pinned = f"{token}-{channel.pk}"
    assert server.post(pinned, ask(model)).status_code == 200
    assert server.get(token, f"/v1/usage/{other}").status_code == 200
    if how == "group":
        person.groups.remove(role)
    elif how == "permission":
        role.permissions.clear()
    else:
        person.is_staff, person.is_active = how != "staff", how != "disabled"
        person.save()
    assert server.post(pinned, ask(model)).status_code == (401 if how == "disabled" else 403)
    assert server.get(token, f"/v1/usage/{other}").status_code == (401 if how == "disabled" else 404)


def test_tokens_of_staff_without_the_factor_that_is_demanded_are_ordinary(people: People, settings: Any) -> None:
    with_config(settings, staff_mfa=True)
    assert not caller_from_user(User.objects.get(pk=people.staff.pk)).is_staff
    TOTP.activate(people.staff, "JBSWY3DPEHPK3PXP")
    assert caller_from_user(User.objects.get(pk=people.staff.pk)).is_staff
    Authenticator.objects.all().delete()
    assert not caller_from_user(User.objects.get(pk=people.staff.pk)).is_staff
    assert Change.objects.filter(topic=Change.USER, key=str(people.staff.pk)).exists(), "workers are told"
