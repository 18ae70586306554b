"""Makes what tests need in the database: users, tokens, channels, models."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import transaction

from tests.support.asserts import until
from tests.support.upstream import Script, Upstream


@cache
def _password() -> str:
    """Hashed once, since that is meant to take long."""
    return make_password("a long password")


_numbers = itertools.count(1)


@dataclass
class Portal:
    """Makes what tests need, each under a name that nobody else has."""

    upstream: Upstream

    def name(self, prefix: str) -> str:
        return f"{prefix}-{next(_numbers)}"

    def user(self, **options: Any) -> Any:
        from accounts.models import User
        from relay.billing.ledger import movements

        balance = options.pop("balance", None)
        with transaction.atomic():  # one announcement to the servers, as in the methods below
            user = User.objects.create_user(self.name("user"), **options)
            user.password = _password()
            user.save(update_fields=["password"])
            if balance is None:
                movements.set_unlimited(user, True)
            elif balance:
                movements.top_up(user, balance, actor=None, reason="test")
        return user

    def token(self, user: Any = None, **options: Any) -> str:
        from relay.tokens.lifecycle import create_token

        return create_token(user or self.user(), self.name("token"), actor=None, **options)[1]

    def channel(
        self, base_url: str | None = None, keys: tuple[str, ...] = ("sk-upstream-secret-0123456789",), **options: Any
    ) -> Any:
        from relay.models import ApiKey, Channel

        options.setdefault("provider", "openai")
        with transaction.atomic():
            channel = Channel.objects.create(
                name=self.name("channel"), base_url=base_url or self.upstream.base_url, **options
            )
            for secret in keys:
                key = ApiKey(channel=channel)
                key.set_secret(secret)
                key.save()
        return channel

    def model(
        self,
        script: Script | None = None,
        channels: list[Any] | None = None,
        is_open: bool = True,
        upstream_name: str = "",
        **options: Any,
    ) -> str:
        """A new model on new or given channels; `script` is what the upstream does with requests for it."""
        from relay.models import ChannelModel, Model, ModelPrice

        price = options.pop("price", {"input": 0, "output": 0})
        with transaction.atomic():
            model = Model.objects.create(
                name=self.name("model"),
                is_open=is_open,
                **{name: options.pop(name) for name in ("max_output_tokens", "max_rpm") if name in options},
            )
            for row in [price] if isinstance(price, dict) else price or []:
                ModelPrice.objects.create(model=model, **row)
            for channel in channels if channels is not None else [self.channel(**options)]:
                ChannelModel.objects.create(channel=channel, model=model, upstream_name=upstream_name)
        if script is not None:
            self.upstream.script(upstream_name or model.name, script)
        return model.name

    def record(self, response_or_id: Any) -> Any:
        """The usage record of an answer, waited for: it may be written a moment after a client has left."""
        from relay.models import UsageRecord

        request_id = response_or_id if isinstance(response_or_id, str) else response_or_id.headers["x-request-id"]
        return until(lambda: UsageRecord.objects.filter(request_id=request_id).first())


def ask(model: str, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **more}


@dataclass
class People:
    owner: Any
    other: Any
    staff: Any


def stored_for(user: Any, name: str = "mine.txt") -> Any:
    from relay.storage import files

    sink = files.UploadWriter(files.reserve_upload(user.pk, 3, "me"))
    sink.write(b"abc")
    return sink.finish("stored", name, "user_data", "text/plain")


def two(live: Portal, second: Upstream, script: Script, **options: Any) -> tuple[str, Any, Any]:
    """A model on two channels: the first, of higher priority, does as the script says; the second is well."""
    first, spare = live.channel(priority=5, **options), live.channel(second.base_url)
    return live.model(script, channels=[first, spare]), first, spare
