"""Upstreams and their sign-ins, as `airelays status` and `airelays accounts` list them. Needs Django."""

from __future__ import annotations

from typing import Any

from accounts.models import User
from accounts.models.counts import count_of
from portal.lib.json import Json
from relay.channels.chatgpt_accounts import status_of
from relay.channels.chatgpt_accounts.places import may_have
from relay.channels.chatgpt_accounts.store import account_of
from relay.channels.status import ChannelStatus, channel_statuses
from relay.models import ApiKey, Channel, ChatGPTAccount, Token
from relay.models.chatgpt_account import SignInState


def accounts() -> list[dict[str, Any]]:
    """A JSON object per channel, in the order in which they are used."""
    in_service = ApiKey.objects.filter(enabled=True, auto_disabled="")
    rows = Channel.objects.annotate(
        keys_all=count_of(ApiKey.objects.all(), "channel"), keys_on=count_of(in_service, "channel")
    )
    channels = {channel.pk: channel for channel in rows}
    statuses = [status for status in channel_statuses() if status.id in channels]
    return [_account(position, status, channels[status.id]) for position, status in enumerate(statuses, 1)]


def sign_ins() -> list[Json]:
    """The users' own sign-ins with ChatGPT that there are, with whose they are; never a token."""
    rows = ChatGPTAccount.objects.exclude(state=SignInState.SIGNED_OUT).select_related("user")
    return [
        {"position": position, "user": row.user.get_username(), **status_of(row)}
        for position, row in enumerate(rows, 1)
    ]


def plan_models(user: User, token: Token | None) -> list[dict[str, Any]]:
    """The models of the user's own plan that clients can call, as `airelays models` lists them.

    A token that is limited to models of the portal has none.
    """
    account = account_of(user)
    usable = account is not None and account.is_on and account.api_enabled and account.state == SignInState.SIGNED_IN
    limited = token is not None and (token.models_limited or token.models_allowed.exists())
    if account is None or not usable or limited or not may_have(user):
        return []
    return [
        {
            "id": model["name"],
            "object": "model",
            "created": int((account.listed_at or account.created_at).timestamp()),
            "owned_by": "ChatGPT plan",
            "display_name": model["label"],
            "abilities": [],
            "price": "in your plan",
        }
        for model in account.listed
    ]


def _account(position: int, status: ChannelStatus, channel: Any) -> dict[str, Any]:
    return {
        "position": position,
        "name": channel.name,
        "provider": channel.provider,
        "enabled": channel.enabled,
        "authenticated": channel.keys_on > 0 or not channel.vendor.needs_key,
        "keys": channel.keys_all,
        "keys_in_service": channel.keys_on,
        "serves": status.serves,
        "status": f"{status.word}: {status.text}" if status.text else status.word,
        "until": status.until,
    }
