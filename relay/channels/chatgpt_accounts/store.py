"""Reads and writes the sign-ins of users. Each change is in the audit log, and running workers notice it at once."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from accounts.models import AuditEvent, Change, User
from accounts.models.change import announce
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from portal.lib.json import Json, text_of
from portal.lib.processes import host_id, is_dead, process_start
from relay.channels.chatgpt_accounts import unstored
from relay.channels.chatgpt_accounts.places import Place, moved, shape_of
from relay.models import Channel, ChatGPTAccount
from relay.models.chatgpt_account import SignInState
from relay.providers.plans.identity import Identity, identity_of
from relay.providers.plans.login import Tokens, claims_of
from relay.providers.plans.shapes import Shape
from relay.providers.vendors import PLAN_VENDOR

LEASE_SECONDS: Final = 60.0
_SUBJECT, _ACCOUNT = 200, 100  # characters that the columns hold


@dataclass(frozen=True, slots=True)
class Held:
    """The tokens of one account, as they are sent. Times are seconds since 1970."""

    pk: int
    state: str
    shape: Shape
    client_id: str
    account_id: str
    access: str = field(repr=False, default="")
    refresh: str = field(repr=False, default="")
    expires_at: float = 0.0
    another: bool = False  # the tokens are those of another account than the one that signed in

    @property
    def headers(self) -> dict[str, str]:
        found = {"authorization": f"Bearer {self.access}"}
        if self.shape.account_header and self.account_id:
            found[self.shape.account_header] = self.account_id
        return found


def held_of(account: ChatGPTAccount) -> Held:
    """The tokens of an account; none where they cannot be decrypted, or were given for other addresses."""
    try:
        tokens: Json = {} if moved(account) else account.tokens
    except Undecryptable:
        tokens = {}
    return Held(
        account.pk,
        account.state,
        shape_of(account.shape),
        account.client_id,
        account.account_id,
        text_of(tokens, "access"),
        text_of(tokens, "refresh"),
        account.expires_at.timestamp() if account.expires_at else 0.0,
        _is_another(account, tokens),
    )


def _is_another(account: ChatGPTAccount, tokens: Json) -> bool:
    """Whether an account's tokens say that they are another's: of another person, or another of their accounts.

    A refresh gives a proof of who it is for, too, and must be for who has signed in (OpenID Connect Core 1.0, 12.2).
    """
    claims = claims_of(text_of(tokens, "identity"))
    if not claims:
        return False
    who = identity_of(claims, shape_of(account.shape).namespace)
    pairs = ((who.subject[:_SUBJECT], account.subject), (who.account[:_ACCOUNT], account.account_id))
    return any(said and known and said != known for said, known in pairs)


def holds_another(account: ChatGPTAccount) -> bool:
    """Whether the tokens of an account are those of another one than has signed in."""
    return held_of(account).another


def read_held(pk: int) -> Held | None:
    account = ChatGPTAccount.objects.filter(pk=pk).first()
    return held_of(account) if account is not None else None


def account_of(user: User) -> ChatGPTAccount | None:
    return ChatGPTAccount.objects.select_related("channel", "user").filter(user=user).first()


def _made_for(user: User) -> ChatGPTAccount:
    """The account of a user, with the channel that its records name. Inside a transaction."""
    found: ChatGPTAccount | None = ChatGPTAccount.objects.select_for_update().filter(user=user).first()
    if found is not None:
        return found
    name = f"{PLAN_VENDOR.label}: {user.get_username()}"[:70]
    if Channel.objects.filter(name=name).exists():
        name = f"{name} {user.pk}"
    channel = Channel.objects.create(
        name=name,
        provider=PLAN_VENDOR.key,
        enabled=False,
        max_concurrency=settings.CONFIG.plan_concurrency,
        retry_unanswered="never",
        test_every=0,
    )
    return ChatGPTAccount(user=user, channel=channel)


def save_sign_in(
    user: User, place: Place, client_id: str, tokens: Tokens, who: Identity, source: str, actor: Any, ip: str | None
) -> ChatGPTAccount:
    """Store a sign-in. Another person's account than before is off until its owner turns it on."""
    with transaction.atomic():
        account = _made_for(user)
        same = account.subject == who.subject and account.state != SignInState.SIGNED_OUT
        if not same:
            account.enabled_at, account.api_enabled, account.windows = None, False, None
            account.model_list = account.listed_at = None
        account.state = SignInState.SIGNED_IN
        if place.shape.needed_scope and place.shape.needed_scope not in tokens.scope.split():
            account.state = SignInState.INCOMPLETE
        account.shape, account.client_id = place.shape.key, client_id
        account.issuer, account.base_url, account.source = place.issuer, place.base_url, source[:100]
        account.subject, account.email = who.subject[:_SUBJECT], who.email[:254]
        account.plan, account.account_id = who.plan[:40], who.account[:_ACCOUNT]
        account.signed_in_at = account.refreshed_at = clock.now()
        _set_tokens(account, tokens)
        account.lease, account.lease_until = "", None
        account.save()
        AuditEvent.write("chatgpt.sign-in", actor, account, ip, owner=user.get_username())
    return account


def _set_tokens(account: ChatGPTAccount, tokens: Tokens) -> None:
    account.set_tokens({"access": tokens.access, "refresh": tokens.refresh, "identity": tokens.identity})
    account.expires_at = datetime.fromtimestamp(tokens.expires_at, UTC) if tokens.expires_at else None


def save_sign_out(account: ChatGPTAccount, actor: Any, ip: str | None) -> None:
    """Forget the tokens and who signed in."""
    with transaction.atomic():
        account.state, account.sealed, account.expires_at = SignInState.SIGNED_OUT, "", None
        account.subject = account.email = account.plan = account.account_id = account.client_id = ""
        account.windows, account.signed_in_at, account.refreshed_at = None, None, None
        account.save()  # what is on stays on, so that its models are refused and not answered by others
        AuditEvent.write("chatgpt.sign-out", actor, account, ip, owner=account.user.get_username())
    unstored.forget(account.pk)


def set_on(account: ChatGPTAccount, on: bool, actor: Any, ip: str | None) -> None:
    """Turn the use of a plan on or off. Its use under /v1 is off each time it is turned on."""
    with transaction.atomic():
        account.enabled_at, account.api_enabled = clock.now() if on else None, False
        account.save(update_fields=["enabled_at", "api_enabled"])
        AuditEvent.write(
            "chatgpt.enable" if on else "chatgpt.disable", actor, account, ip, owner=account.user.get_username()
        )


def set_api(account: ChatGPTAccount, on: bool, actor: Any, ip: str | None) -> None:
    """Allow or end the use of a plan that is on under /v1, by its owner's own tokens."""
    with transaction.atomic():
        account.api_enabled = on and account.is_on
        account.save(update_fields=["api_enabled"])
        action = "chatgpt.allow-api" if account.api_enabled else "chatgpt.end-api"
        AuditEvent.write(action, actor, account, ip, owner=account.user.get_username())


def save_models(pk: int, models: list[Json]) -> None:
    with transaction.atomic():
        ChatGPTAccount._base_manager.filter(pk=pk).update(model_list=models, listed_at=clock.now())
        announce(Change.CATALOG)


def save_windows(pk: int, windows: Json) -> None:
    """Note the usage windows, which no worker needs to hear of."""
    found: Json = {"windows": windows}
    if plan := text_of(windows, "plan"):
        found["plan"] = plan[:40]
    ChatGPTAccount._base_manager.filter(pk=pk).update(**found)


# -- refreshing ------------------------------------------------------------------------------------------------------


def take_lease(pk: int) -> str:
    """Take the right to refresh the tokens of an account; empty while somebody else has it, on whatever host.

    A process that has died on this one has it no more.
    """
    now, owner = clock.now(), _new_owner()
    until = now + timedelta(seconds=LEASE_SECONDS)
    rows = ChatGPTAccount._base_manager.filter(pk=pk)
    if rows.filter(Q(lease_until=None) | Q(lease_until__lt=now)).update(lease=owner, lease_until=until):
        return owner
    holder = rows.values_list("lease", flat=True).first() or ""
    if _has_died(holder) and rows.filter(lease=holder).update(lease=owner, lease_until=until):
        return owner
    return ""


def _new_owner() -> str:
    """A name for who refreshes now, by which others see whether its process still runs. Of at most 40 characters."""
    pid = os.getpid()
    return f"{_here()}:{pid}:{process_start(pid)}:{secrets.token_hex(4)}"


def _has_died(owner: str) -> bool:
    here, _, process = owner.partition(":")
    return here == _here() and is_dead(f"{host_id()}:{process}")


def _here() -> str:
    """This machine and container, in short: the column holds 40 characters."""
    return hashlib.sha256(host_id().encode()).hexdigest()[:8]


def end_lease(pk: int, owner: str) -> None:
    ChatGPTAccount._base_manager.filter(pk=pk, lease=owner).update(lease="", lease_until=None)


def save_refreshed(pk: int, owner: str, tokens: Tokens) -> Held | None:
    """Store new tokens, before they are used. None: the account was signed out or in meanwhile."""
    with transaction.atomic():
        account = ChatGPTAccount.objects.select_for_update().filter(pk=pk, lease=owner).first()
        if account is None or not account.sealed:
            return None
        _set_tokens(account, tokens)
        account.refreshed_at, account.lease, account.lease_until = clock.now(), "", None
        account.save(update_fields=["sealed", "expires_at", "refreshed_at", "lease", "lease_until"])
    return held_of(account)


def save_expired(pk: int, owner: str) -> None:
    """The issuer takes the refresh token no more: its owner has to sign in again. Nothing is deleted."""
    with transaction.atomic():
        account = ChatGPTAccount.objects.select_for_update().filter(pk=pk, lease=owner).first()
        if account is not None and account.state != SignInState.SIGNED_OUT:
            account.state, account.lease, account.lease_until = SignInState.EXPIRED, "", None
            account.save(update_fields=["state", "lease", "lease_until"])
