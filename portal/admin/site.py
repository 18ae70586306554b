"""The admin's navigation, header and front page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext as _

from accounts.doors import open_url
from accounts.rights import may
from portal.admin.dashboard import Board, board
from relay.admin.channels.guide.channel import local_offers
from relay.admin.records.usage import sees_earnings, sees_money

_NAVIGATION: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        gettext_noop("Relay"),
        (
            (gettext_noop("Channels"), "dns", "relay_channel"),
            (gettext_noop("API keys"), "passkey", "relay_apikey"),
            (gettext_noop("Models"), "smart_toy", "relay_model"),
            (gettext_noop("Model permissions"), "key", "relay_modelpermission"),
        ),
    ),
    (
        gettext_noop("Routing"),
        (
            (gettext_noop("Pools"), "account_tree", "relay_pool"),
            (gettext_noop("Failure rules"), "rule", "relay_failurerule"),
            (gettext_noop("Cooldowns"), "ac_unit", "relay_cooldown"),
        ),
    ),
    (
        gettext_noop("People"),
        (
            (gettext_noop("Users"), "person", "accounts_user"),
            (gettext_noop("Groups and roles"), "group", "auth_group"),
            (gettext_noop("Tokens"), "vpn_key", "relay_token"),
            (gettext_noop("ChatGPT sign-ins"), "account_circle", "relay_chatgptaccount"),
            (gettext_noop("Staff keys"), "badge", "accounts_staffkey"),
            (gettext_noop("Invitations"), "mail", "accounts_invitation"),
            (gettext_noop("Sign-in providers"), "login", "socialaccount_socialapp"),
        ),
    ),
    (
        gettext_noop("Money"),
        (
            (gettext_noop("Prices"), "sell", "relay_modelprice"),
            (gettext_noop("Budgets"), "savings", "relay_budget"),
            (gettext_noop("Redemption codes"), "redeem", "relay_redemptionbatch"),
            (gettext_noop("Accounts"), "account_balance", "relay_ledgeraccount"),
            (gettext_noop("Ledger"), "menu_book", "relay_ledgerentry"),
            (gettext_noop("Notices"), "notifications", "relay_notice"),
            (gettext_noop("Upstream bills"), "request_quote", "relay_upstreambill"),
            (gettext_noop("Billing keys"), "key", "relay_billingkey"),
        ),
    ),
    (
        gettext_noop("Records"),
        (
            (gettext_noop("Usage"), "receipt_long", "relay_usagerecord"),
            (gettext_noop("Audit log"), "history", "accounts_auditevent"),
        ),
    ),
    (
        gettext_noop("For users"),
        (
            (gettext_noop("Incidents"), "campaign", "relay_incident"),
            (gettext_noop("Error catalogue"), "error", "relay_errortext"),
        ),
    ),
    (
        gettext_noop("Kept for users"),
        (
            (gettext_noop("Files"), "upload_file", "relay_upload"),
            (gettext_noop("Responses"), "forum", "relay_storedresponse"),
            (gettext_noop("Conversations"), "chat", "relay_conversation"),
            (gettext_noop("Batches"), "stacks", "relay_batch"),
        ),
    ),
    (
        gettext_noop("Safety"),
        (
            (gettext_noop("Allowed upstream addresses"), "lan", "relay_allowedupstream"),
            (gettext_noop("Blocked addresses"), "block", "relay_blockedaddress"),
        ),
    ),
)


_PAGES: dict[str, tuple[tuple[str, str, str], ...]] = {
    gettext_noop("Safety"): (
        (gettext_noop("Doctor"), "stethoscope", "admin-doctor"),
        (gettext_noop("Installation"), "settings", "admin-installation"),
    ),
    gettext_noop("Routing"): (
        (gettext_noop("Explain"), "help", "admin-explain"),
        (gettext_noop("Running requests"), "stream", "admin-running"),
    ),
    gettext_noop("Records"): (
        (gettext_noop("Sessions"), "forum", "admin-sessions"),
        (gettext_noop("Caches"), "cached", "admin-caches"),
    ),
}
"""Pages in the navigation that belong to no model: title, icon, name of the view."""


def environment(request: HttpRequest) -> list[str] | None:
    """A badge in the header if debug mode is on."""
    return ["Debug mode", "danger"] if settings.DEBUG else None


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: the pages that the user may view."""
    first = [{"title": _("Overview"), "icon": "dashboard", "link": reverse("admin:index")}]
    who: Any = request.user
    if may(who, "relay.add_channel"):
        first.append({"title": _("Set the portal up"), "icon": "rocket_launch", "link": reverse("admin-setup")})
    found: list[dict[str, Any]] = [{"items": first}]
    for title, entries in _NAVIGATION:
        items: list[dict[str, Any]] = []
        for label, icon, name in entries:
            if url := open_url(request, reverse(f"admin:{name}_changelist")):
                items.append({"title": gettext(label), "icon": icon, "link": url})
        items += [
            {"title": gettext(label), "icon": icon, "link": url}
            for label, icon, view in _PAGES.get(title, ())
            if (url := open_url(request, reverse(view)))
        ]
        if items:
            found.append({"title": gettext(title), "separator": True, "items": items})
    return found


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the board to the front page of users who may view usage and channels."""
    user: Any = request.user
    if may(user, "relay.view_usagerecord", "relay.view_channel"):
        days = request.GET.get("days", "")
        days_shown = int(days) if days in {"1", "7", "30"} else 1
        found = board(user, days_shown, sees_money(request), sees_earnings(request))
        context["board"] = shown = _for_reader(request, found)
        context["local"] = local_offers(request) if shown.setup else None
    return context


def _for_reader(request: HttpRequest, found: Board) -> Board:
    """Take away the links to pages that the reader may not open."""
    return replace(
        found,
        figures=[replace(figure, url=open_url(request, figure.url)) for figure in found.figures],
        todo=[replace(item, url=open_url(request, item.url)) for item in found.todo],
        open_relay=found.open_relay and replace(found.open_relay, url=open_url(request, found.open_relay.url)),
        setup=found.setup and may(request.user, "relay.add_channel"),
    )
