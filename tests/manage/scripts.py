"""Scripts that use the management API, and what they work on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import Group, Permission
from django.http import HttpRequest
from django.test import Client

from accounts.models import StaffKey, User
from accounts.models.staff_key import SCOPES
from portal.lib import clock
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.redemption import create_codes
from relay.models import ApiKey, Budget, Channel, ChannelModel, Cooldown, Model, ModelPermission, ModelPrice
from relay.tokens.lifecycle import create_token

UPSTREAM = "https://upstream.example.org/v1"
SECRET = "sk-upstream-secret-0123456789"


def make_key(user: User, *scopes: str, days: float = 1) -> str:
    """A staff key for these scopes, for all without any."""
    key = StaffKey(
        user=user, name="a script", scopes=list(scopes or SCOPES), expires_at=clock.now() + timedelta(days=days)
    )
    secret = key.new_secret()
    key.save()
    return secret


def give(user: User, powers: str) -> User:
    """A user with exactly these rights, read anew."""
    codes = [power.partition(".")[2] for power in powers.split()]
    found = Permission.objects.filter(codename__in=codes)
    assert found.count() == len(codes), powers
    user.user_permissions.set(found)
    return User.objects.get(pk=user.pk)


def request_of(user: User) -> HttpRequest:
    """A request of somebody for the pages, as commands make it."""
    request = HttpRequest()
    request.method, request.user = "POST", user
    return request


@dataclass
class Script:
    """Sends requests with a key, as curl does: no cookies, no CSRF token."""

    secret: str
    root: str = "/api/v1"

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        client = Client(enforce_csrf_checks=True)
        sent = {"Authorization": f"Bearer {self.secret}"} if self.secret else {}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        return client.generic(
            method, self.root + path, text, content_type="application/json", headers={**sent, **names}
        )

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """What is answered, which is no error."""
        answer = self(method, path, body, **headers)
        assert answer.status_code in (200, 201), (method, path, answer.status_code, answer.content)
        return answer.json()


def world(owner: User) -> dict[str, int]:
    """One row of each resource, by path. Prices, users and groups are such that they can be changed."""
    channel = Channel.objects.create(name="first", provider="openai", base_url=UPSTREAM)
    key = ApiKey(channel=channel)
    key.set_secret(SECRET)
    key.save()
    model, other = Model.objects.create(name="m-1"), Model.objects.create(name="m-2")
    served = ChannelModel.objects.create(channel=channel, model=model)
    ModelPrice.objects.create(model=model, input=1, output=1, valid_from=clock.now() - timedelta(days=1))
    soon = (clock.now() + timedelta(days=1)).replace(microsecond=0)  # as pages write it
    price = ModelPrice.objects.create(model=other, input=1, output=1, valid_from=soon)
    user, group = User.objects.create_user("ulla", email="ulla@example.org"), Group.objects.create(name="Guild")
    movements.top_up(user, 5 * NANO, actor=None, reason="test")
    token, _secret = create_token(user, "hers", actor=None)
    batch, _codes = create_codes("spring", NANO, 2, actor=owner)
    code = batch.codes.first()
    assert code is not None
    now = clock.now()
    cooldown = Cooldown.objects.create(
        place=f"{channel.pk}:0:0", channel=channel, kind="rate_limited", since=now, until=now + timedelta(hours=1)
    )
    return {
        "channels": channel.pk,
        "keys": key.pk,
        "channel-models": served.pk,
        "models": model.pk,
        "other": other.pk,
        "permissions": ModelPermission.objects.create(model=other, user=user).pk,
        "prices": price.pk,
        "users": user.pk,
        "groups": group.pk,
        "tokens": token.pk,
        "budgets": Budget.objects.create(user=user, period="day", limit=Decimal(3)).pk,
        "redemption-batches": batch.pk,
        "redemption-codes": code.pk,
        "cooldowns": cooldown.pk,
    }
