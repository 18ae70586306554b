"""The user's own plan, as other pages need it."""

from __future__ import annotations

from accounts.models import User
from relay.channels.chatgpt_accounts import store
from relay.channels.chatgpt_accounts.places import may_have


def plan_models(user: User, under_v1: bool = False) -> dict[str, str]:
    """The models of the user's own plan while it is on: what they are shown as, by name.

    `under_v1`: for the user's own apps, which is a switch of its own.
    """
    account = store.account_of(user) if may_have(user) else None
    if account is None or not account.is_on or account.state != "signed_in":
        return {}
    if under_v1 and not account.api_enabled:
        return {}
    return {model["name"]: model["label"] for model in account.listed}
