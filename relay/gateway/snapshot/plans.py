"""Reads users' own plans into views. Synchronous, as `relay.gateway.snapshot.load` is.

A plan is apart from channels and models for everybody: no row of theirs can put it into a list, a pool or a price.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from django.conf import settings

from portal.lib.json import Json, int_of, text_of
from portal.lib.net import Allowance
from relay.billing.prices import Price, PriceList
from relay.channels.chatgpt_accounts.places import may_have, place_of
from relay.channels.chatgpt_accounts.session import PlanSession
from relay.channels.chatgpt_accounts.store import held_of
from relay.gateway.snapshot.channels import channel_view
from relay.gateway.snapshot.views import ChannelView, KeyView, ModelView, PlanView, Route
from relay.models import ChatGPTAccount
from relay.models.chatgpt_account import SignInState
from relay.providers.parameters import Policy, policy_of
from relay.providers.vendors import PLAN_VENDOR
from relay.transport.body import request_headers

_FREE: Final = PriceList.of([Price()])
_FOREVER: Final = float("inf")


def read_plans(allowed: tuple[Allowance, ...]) -> dict[int, PlanView]:
    """The plans that their owners have turned on, by the owner's id. One query. Raises DatabaseError."""
    rows = ChatGPTAccount.objects.select_related("channel", "user").filter(enabled_at__isnull=False)
    return {row.user_id: _plan(row, allowed) for row in rows if may_have(row.user)}


def _plan(account: ChatGPTAccount, allowed: tuple[Allowance, ...]) -> PlanView:
    channel = _channel(account, allowed)
    models = [_model(found, channel, account) for found in account.listed]
    by_name = {model.name: model for model in models}
    signed_out = account.state == SignInState.SIGNED_OUT
    return PlanView(account.user_id, account.is_on, account.api_enabled, by_name, signed_out)


def _channel(account: ChatGPTAccount, allowed: tuple[Allowance, ...]) -> ChannelView:
    """The channel of an account, with nothing of what a channel may have that staff set up."""
    row, place, config = account.channel, place_of(account.shape), settings.CONFIG
    row.base_url, row.proxy_url, row.overrides, row.text_api = place.base_url, "", [], ""
    row.max_rpm = row.max_tpm = row.max_rpd = None
    row.max_concurrency = config.plan_concurrency
    limits = config.plan_output_limits
    own: Policy = {"responses/max_output_tokens": "forward"} if limits == "forward" else {}
    view = channel_view(row, [], None, frozenset(), allowed)
    key = KeyView(0, 1, request_headers({}), str(account), signer=PlanSession(held_of(account)))
    return replace(
        view,
        keys=(key,),
        groups=None,
        pool=None,
        owner=account.user_id,
        refused_limits=PLAN_VENDOR.refused_limits if limits == "refuse" else {},
        policies={family: policy_of(PLAN_VENDOR.parameters, own, family) for family in view.policies},
        cost_multiplier=0,
        disconnect_policy="delivered",
        retry_unanswered="never",
    )


def _model(found: Json, channel: ChannelView, account: ChatGPTAccount) -> ModelView:
    name = text_of(found, "name")
    efforts = found.get("efforts")
    return ModelView(
        # Of no row: negative, and the same in every worker.
        id=-1 - (zlib.crc32(name.encode()) & 0x7FFFFFFF),
        name=name,
        owned_by=PLAN_VENDOR.key,
        created=int(account.created_at.timestamp()),
        is_open=False,
        context_window=int_of(found, "context") or None,
        max_output_tokens=None,
        users={account.user_id: _FOREVER},
        groups={},
        routes=(Route(channel, name, _FREE, _FREE),),
        price=_FREE,
        sticky=True,
        display_name=text_of(found, "label"),
        reasoning_levels=tuple(_texts(efforts)),
    )


def _texts(value: object) -> Sequence[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
