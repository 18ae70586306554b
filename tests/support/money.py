"""A price, what a request costs at it, and the look at wallets and the ledger."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx

from accounts.models import User
from portal.lib import clock
from relay.billing.ledger.pending import COLUMNS, UsageRow
from relay.billing.ledger.verify import verify
from relay.models import LedgerAccount, RefusedRequest, Token, UsageRecord
from tests.support.asserts import until
from tests.support.server import NO_CERTIFICATES, Server


def wallet(user: User) -> LedgerAccount:
    return LedgerAccount.objects.get(user=user, kind="wallet")


def record(user: User, **values: Any) -> UsageRecord:
    return UsageRecord.objects.create(
        **{
            "request_id": f"req_{UsageRecord.objects.count():032x}",
            "started_at": clock.now(),
            "user": user,
            "model": "gpt",
            "endpoint": "chat.completions",
            "streamed": False,
            "status": 200,
            "end_reason": "completed",
            "usage_source": "reported",
            "latency_ms": 5,
            "input_tokens": 10,
            "output_tokens": 5,
            "cost": 2_000_000,
            "upstream_cost": 500_000,
            "payer": "wallet",
            "billing": "usage",
            **values,
        }
    )


def refused(user: User, token: Token | None = None, **values: Any) -> RefusedRequest:
    return RefusedRequest.objects.create(
        **{
            "request_id": f"req_f{RefusedRequest.objects.count():031x}",
            "started_at": clock.now(),
            "user": user,
            "token": token,
            "model": "no-such-model",
            "endpoint": "POST /v1/chat/completions",
            "status": 404,
            "error_code": "model_not_found",
            "error_message": "The model does not exist here.",
            **values,
        }
    )


def usage_row(**values: Any) -> UsageRow:
    """A usage record as it is handed to the writer, with a time in seconds since 1970 as `started_at`.

    A column that is not among `values` has its default, or else 0, False or "".
    """
    fields = {field.attname: field for field in UsageRecord._meta.concrete_fields}
    defaults = {name: fields[name].get_default() for name in COLUMNS}
    empty = {
        name: fields[name].to_python(0)
        for name, default in defaults.items()
        if default is None and not fields[name].null and name != "started_at"
    }
    return tuple((defaults | empty | values)[name] for name in COLUMNS)


PRICE = {"input": Decimal("2.5"), "cached_input": Decimal("1.25"), "output": Decimal(10)}


# The scripted upstream reports 9 prompt tokens (4 cached, 1 audio) and 7 of answer (3 reasoning, 2 audio).
COST = 4 * 1250 + 5 * 2500 + 7 * 10_000


def settled(user: Any) -> LedgerAccount:
    """The wallet once nothing of it is reserved any more."""
    assert until(lambda: not wallet(user).reserved), f"{wallet(user).reserved} is still reserved"
    return wallet(user)


def books_balance() -> None:
    report = verify()
    assert report.clean, "\n".join(map(str, report.differences))


def at_once(server: Server, token: str, body: dict[str, Any], count: int) -> list[int]:
    async def run() -> list[int]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(
            limits=limits,
            timeout=300,
            trust_env=False,
            verify=NO_CERTIFICATES,
            headers={"authorization": f"Bearer {token}"},
        ) as client:
            answers = await asyncio.gather(
                *(client.post(f"{server.v1}/chat/completions", json=body) for _ in range(count))
            )
        return [answer.status_code for answer in answers]

    return asyncio.run(run())
