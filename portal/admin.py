"""What the admin shows around its model pages: navigation, header, front page."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from portal.dashboard import board

_NAVIGATION: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Relay", (("Channels", "dns", "relay_channel"), ("Models", "smart_toy", "relay_model"), ("Model permissions", "key", "relay_modelpermission"))),
    ("Routing", (("Pools", "account_tree", "relay_pool"), ("Failure rules", "rule", "relay_failurerule"), ("Cooldowns", "ac_unit", "relay_cooldown"))),
    ("People", (("Users", "person", "accounts_user"), ("Groups", "group", "auth_group"), ("Tokens", "vpn_key", "relay_token"))),
    (
        "Money",
        (
            ("Prices", "sell", "relay_modelprice"),
            ("Redemption codes", "redeem", "relay_redemptionbatch"),
            ("Accounts", "account_balance", "relay_ledgeraccount"),
            ("Ledger", "menu_book", "relay_ledgerentry"),
            ("Notices", "notifications", "relay_notice"),
        ),
    ),
    ("Records", (("Usage", "receipt_long", "relay_usagerecord"), ("Audit log", "history", "accounts_auditevent"))),
    (
        "Kept for users",
        (
            ("Files", "upload_file", "relay_upload"),
            ("Responses", "forum", "relay_storedresponse"),
            ("Conversations", "chat", "relay_conversation"),
            ("Batches", "stacks", "relay_batch"),
        ),
    ),
    ("Safety", (("Allowed upstream addresses", "lan", "relay_allowedupstream"), ("Blocked addresses", "block", "relay_blockedaddress"))),
)


_PAGES: dict[str, tuple[tuple[str, str, str, tuple[str, ...]], ...]] = {
    "Routing": (
        ("Explain", "help", "admin-explain", ("relay.view_channel", "accounts.view_user")),
        ("Running requests", "stream", "admin-running", ("relay.end_request",)),
    )
}
"""Pages that are no model's: title, icon, name of the view, permissions."""


def environment(request: HttpRequest) -> list[str] | None:
    """A badge in the header when something about the installation should be in sight."""
    return ["Debug mode", "danger"] if settings.DEBUG else None


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: what this person may see, in the order of the work."""
    found: list[dict[str, Any]] = [{"items": [{"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}]}]
    for title, entries in _NAVIGATION:
        items: list[dict[str, Any]] = []
        user: Any = request.user
        for label, icon, name in entries:
            app, model = name.split("_", 1)
            superuser_only = name == "relay_allowedupstream"
            if user.is_superuser or (not superuser_only and user.has_perm(f"{app}.view_{model}")):
                items.append({"title": label, "icon": icon, "link": reverse(f"admin:{name}_changelist")})
        items += [{"title": label, "icon": icon, "link": reverse(view)} for label, icon, view, rights in _PAGES.get(title, ()) if user.has_perms(rights)]
        if items:
            found.append({"title": title, "separator": True, "items": items})
    return found


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The front page's figures, for those who may see usage and channels."""
    user: Any = request.user
    if user.has_perm("relay.view_usagerecord") and user.has_perm("relay.view_channel"):
        context["board"] = board()
    return context
