"""What people and machines are told of a sign-in: who it is and its state, never a token."""

from __future__ import annotations

from portal.lib.json import Json
from relay.channels.chatgpt_accounts.places import moved, place_of
from relay.channels.chatgpt_accounts.store import holds_another
from relay.models import ChatGPTAccount
from relay.models.chatgpt_account import SignInState


def status_of(account: ChatGPTAccount | None) -> Json:
    """The state of a sign-in, with the keys of AIRelays' `status --json` and further ones.

    `account`: None, there is none.
    """
    if account is None or account.state == SignInState.SIGNED_OUT:
        place = place_of()
        return {
            "authenticated": False, "credentials_present": False, "account_bound": False, "ready_for_requests": False,
            "state": SignInState.SIGNED_OUT.value, "email": None, "plan_type": None, "account_id": None,
            "last_refresh": None, "storage_mode": "database", "shape": place.shape.key, "enabled": False,
            "api_enabled": False, "models": [], "windows": None,
        }  # fmt: skip
    ready = account.state == SignInState.SIGNED_IN and not moved(account) and not holds_another(account)
    return {
        "authenticated": ready,
        "credentials_present": bool(account.sealed),
        "account_bound": bool(account.subject),
        "ready_for_requests": ready and account.is_on,
        "state": account.state,
        "email": account.email or None,
        "plan_type": account.plan or None,
        "account_id": account.account_id or None,
        "last_refresh": account.refreshed_at.isoformat() if account.refreshed_at else None,
        "storage_mode": "database",
        "shape": account.shape,
        "enabled": account.is_on,
        "api_enabled": account.api_enabled,
        "models": [model["name"] for model in account.listed],
        "windows": account.windows or None,
    }
