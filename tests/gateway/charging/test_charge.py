"""What requests cost."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import httpx
import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.lines import SpendScope
from relay.billing.prices import ONE, Price, PriceList
from relay.errors import InsufficientQuota
from relay.gateway.charging.answer_lengths import ASSUMED_OUTPUT, answer_lengths
from relay.gateway.charging.charge import STREAM_STEP, RequestCharge, fallback_price
from relay.gateway.charging.meter import meter_of
from relay.gateway.charging.reservations import Grant, WorkerReservation
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ModelView
from relay.models import LedgerEntry, Token
from relay.models.token import digest_of
from relay.protocols.usage import Usage
from tests.gateway.attempts import CALLER, candidate, end, model, new_exchange, request
from tests.gateway.routing.routes import NOW, channel
from tests.support.money import COST, PRICE, books_balance, settled, usage_row, wallet
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, chunk, completion

pytestmark = pytest.mark.shared


def test_a_request_costs_its_price_and_is_on_the_books(live: Portal, server: Server) -> None:
    user = live.user(balance=NANO)
    model = live.model(price=PRICE)
    response = server.post(live.token(user), ask(model))
    assert response.status_code == 200, response.text
    assert response.headers["x-relay-cost-usd"] == "0.0000875"
    record = live.record(response)
    assert (record.cost, record.shortfall, record.payer, record.billing) == (COST, 0, "wallet", "usage")
    assert record.upstream_cost == COST and record.price.model.name == model and record.reserved > COST
    found = settled(user)
    assert (found.granted, found.used, found.reserved) == (NANO, COST, 0)
    entry = LedgerEntry.objects.get(request_id=record.request_id)
    assert (entry.kind, entry.debit, entry.credit, entry.amount, entry.held) == ("usage", "held", "revenue", COST, COST)
    books_balance()


def test_group_multiplier_channel_cost_and_overrides(live: Portal, server: Server) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings
    from relay.models import ModelPrice

    user = live.user(balance=NANO)
    group = Group.objects.create(name=live.name("group"))
    GroupSettings.objects.create(group=group, price_multiplier=Decimal("0.5"))
    user.groups.add(group)
    channel = live.channel(cost_multiplier=Decimal("0.8"))
    model = live.model(channels=[channel], price=PRICE)
    token = live.token(user)
    record = live.record(server.post(token, ask(model)))
    assert (record.cost, record.upstream_cost, record.price_multiplier) == (COST // 2, COST * 8 // 10, 500_000)
    row = ModelPrice.objects.get(model__name=model)
    ModelPrice.objects.create(model=row.model, channel=channel, purpose="cost", input=1, output=1)
    ModelPrice.objects.create(model=row.model, channel=channel, purpose="sale", input=0, output=Decimal(100))
    record = live.record(server.post(token, ask(model)))
    assert (record.cost, record.upstream_cost) == (7 * 100_000 // 2, 16_000)
    books_balance()


def test_unlimited_users_are_billed_to_the_house(live: Portal, server: Server) -> None:
    user = live.user()
    record = live.record(server.post(live.token(user), ask(live.model(price=PRICE))))
    assert (record.cost, record.payer) == (COST, "house")
    found = wallet(user)
    assert (found.balance, found.used, found.limited) == (0, COST, False)
    books_balance()


def test_a_model_without_a_price_is_refused(live: Portal, server: Server) -> None:
    response = server.post(live.token(), ask(live.model(price=None)))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "model_not_priced" and response.headers["x-should-retry"] == "false"


def test_a_model_that_is_sold_by_the_image_alone_answers_no_chat(live: Portal, server: Server) -> None:
    token = live.token(live.user(balance=NANO))
    tokens, image = {"input": 0, "output": 0}, {"per_image": Decimal("0.05")}
    response = server.post(token, ask(live.model(price=tokens | image)))
    assert response.status_code == 400 and response.json()["error"]["code"] == "model_not_priced"
    assert "per image" in response.json()["error"]["message"]
    by_call = live.record(server.post(token, ask(live.model(price=tokens | image | {"per_call": Decimal("0.01")}))))
    assert by_call.cost == NANO // 100
    assert server.post(token, ask(live.model(price=tokens))).status_code == 200, "it is given away"


@pytest.mark.parametrize(
    ("policy", "billing"), [("delivered", "delivered"), ("free", "free"), ("reserved", "reserved")]
)
def test_who_leaves_pays_by_the_channels_policy(live: Portal, server: Server, policy: str, billing: str) -> None:
    async def slow(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello there, this is some text."))
        await asyncio.sleep(30)

    user = live.user(balance=NANO)
    model = live.model(slow, price=PRICE, disconnect_policy=policy)
    token = live.token(user)
    server.catch_up()
    with httpx.stream(
        "POST",
        f"{server.v1}/chat/completions",
        json=ask(model, stream=True),
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    ) as response:
        pieces = response.iter_raw()
        next(pieces)
    record = live.record(response)
    assert record.end_reason == "client_gone" and record.billing == billing
    if policy == "free":
        assert record.cost == 0 and record.output_tokens > 0
    elif policy == "reserved":
        assert record.cost == record.reserved > 4096 * 10_000
    else:
        assert record.cost == record.input_tokens * 2500 + record.output_tokens * 10_000 > 0
    assert settled(user).used == record.cost
    books_balance()


async def dead(call: Call) -> None:
    await call.error(500)


async def empty(call: Call) -> None:
    await call.reply(200, b"")


@pytest.mark.parametrize("script", [dead, empty])
def test_a_failed_request_costs_nothing_and_holds_nothing(live: Portal, server: Server, script: Any) -> None:
    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(script, price=PRICE)))
    assert response.status_code == 502
    record = live.record(response)
    assert (record.cost, record.billing) == (0, "nothing")
    found = settled(user)
    assert (found.used, found.reserved) == (0, 0)
    books_balance()


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": -7},
        {"prompt_tokens": 2**63, "completion_tokens": 10**30},
        {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 10_000}},
        {"prompt_tokens": "many", "completion_tokens": None},
        {"prompt_tokens": 1e308, "completion_tokens": True},
        {
            "prompt_tokens": 9,
            "completion_tokens": 7,
            "total_tokens": -(2**62),
            "completion_tokens_details": {"reasoning_tokens": -3},
        },
    ],
)
def test_absurd_usage_never_credits_anybody(live: Portal, server: Server, usage: Any) -> None:
    async def absurd(call: Call) -> None:
        await call.reply(200, completion(usage=usage))

    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(absurd, price=PRICE)))
    assert response.status_code == 200
    record = live.record(response)
    assert record.cost >= 0 and settled(user).balance <= NANO
    books_balance()


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2**63},
        {"n": -1},
        {"max_tokens": -1},
        {"max_tokens": 2**63},
        {"max_tokens": 1e300},
        {"max_completion_tokens": 0},
        {"max_tokens": "NaN"},
    ],
)
def test_absurd_requests_never_credit_anybody(live: Portal, server: Server, body: Any) -> None:
    user = live.user(balance=NANO)
    response = server.post(live.token(user), ask(live.model(price=PRICE), **body))
    assert response.status_code in {200, 400}
    assert settled(user).balance <= NANO
    books_balance()


def test_nan_in_a_usage_object_is_estimated(live: Portal, server: Server) -> None:
    async def nan(call: Call) -> None:
        await call.reply(
            200, json.dumps(completion(usage={"prompt_tokens": float("nan"), "completion_tokens": 5})).encode()
        )

    response = server.post(live.token(live.user(balance=NANO)), ask(live.model(nan, price=PRICE)))
    assert response.status_code in {200, 502}
    books_balance()


def test_a_commit_of_unknown_outcome_is_not_charged_twice(live: Portal) -> None:
    """The connection broke while a transaction was committed: it is looked up before it is written again."""
    from relay.billing.ledger.lines import Charge, ReserveOrder, SpendScope
    from relay.billing.ledger.pending import PendingRecord, PendingReservation, Settlement
    from relay.billing.ledger.writer import UsageWriter

    user = live.user(balance=NANO)
    token = Token.objects.get(digest=digest_of(live.token(user)))
    scope, writer, loop = SpendScope(user.pk, token.pk, movements.today()), UsageWriter(), asyncio.new_event_loop()
    reservation, request_id = live.name("hold"), live.name("req_unknown")
    writer._commit(
        [
            PendingReservation(
                ReserveOrder(reservation, "o", scope, (), 1000, 0, 1000),
                loop.create_future(),
                loop,
                lambda result, wanted: None,
            )
        ],
        False,
    )
    row = usage_row(
        request_id=request_id,
        started_at=time.time(),
        user_id=user.pk,
        token_id=token.pk,
        model="m",
        endpoint="e",
        status=200,
        end_reason="completed",
        usage_source="reported",
        cost=400,
        attempt_log="[]",
        price_multiplier=1_000_000,
        payer="wallet",
        billing="usage",
    )
    record = PendingRecord(
        row,
        Settlement(reservation, scope, Charge(request_id, 400, 1000, False, time.time()), lambda charged: None),
        None,
        loop,
    )
    from django.db import connection

    if connection.vendor == "sqlite":
        assert connection.cursor().execute("PRAGMA synchronous").fetchone()[0] == 2, (
            "records are synced to the disk, though reservations need not be"
        )
    writer._commit([record], False)
    writer._commit([record], True)
    requests.release_expired(time.time() + 1000)
    loop.close()
    assert (wallet(user).used, wallet(user).reserved) == (400, 0)
    books_balance()


M = 1_000_000_000  # nano-USD in a USD: a price of 1 USD per 1M tokens


def test_fallback_price() -> None:
    assert fallback_price("refuse") is None
    assert fallback_price("free") == Price()
    assert fallback_price("5/15") == Price(input=5 * M, output=15 * M)


# -- without a database ------------------------------------------------------------------------------------------------

CHEAP = Price(input=1_000_000, output=2_000_000)  # a nano-USD a token of prompt, two a token of answer
LIMITED = replace(CALLER, limited=True, house=False)


class Purse:
    """In the place of the reservations: so much can be spent. Remembers what was asked for."""

    def __init__(self, has: int = 10**12) -> None:
        self.has = has
        self.need = self.minimum = self.spare = -1

    async def reserve(self, exchange: Exchange, caller: Caller, need: int, minimum: int, spare: int = 0) -> Grant:
        self.need, self.minimum, self.spare = need, minimum, spare
        if self.has < minimum:
            raise InsufficientQuota("not enough")
        scope = SpendScope(caller.user_id, caller.token_id, 1)
        reservation = WorkerReservation(
            "id", "owner", scope, amount=self.has, granted=min(need + spare, self.has), running=1
        )
        return Grant(cast(Any, self), scope, caller.house, reservation, reservation.granted)

    def trim(self, reservation: WorkerReservation) -> None:
        pass


async def charged(
    purse: Purse, view: ModelView, exchange: Exchange | None = None, multiplier: int = ONE, **more: Any
) -> RequestCharge:
    """A charge for a request whose prompt has about 100 tokens."""
    charge = RequestCharge(cast(Any, purse), LIMITED, view, multiplier, None, NOW)
    await charge.reserve(exchange or new_exchange(), request(**{"prompt_tokens": 100, **more}))
    return charge


def priced(*prices: Price, **more: Any) -> ModelView:
    return model(price=PriceList.of(prices or (CHEAP,)), **more)


@pytest.mark.parametrize(
    ("longest", "asked", "tokens"),
    [
        (None, {"output_limit": 50}, 50),
        (None, {"output_limit": 50, "choices": 3}, 150),
        (40, {"output_limit": 1000}, 40),
        (40, {"output_limit": 30}, 30),
        (None, {"stream": True}, STREAM_STEP),
        (40, {"stream": True}, 40),
        (1_000_000, {"stream": True}, STREAM_STEP),
        (None, {}, ASSUMED_OUTPUT),
        (40, {}, 40),
    ],
)
async def test_what_the_longest_answer_costs_is_held_back(
    longest: int | None, asked: dict[str, Any], tokens: int
) -> None:
    purse = Purse()
    charge = await charged(purse, priced(max_output_tokens=longest), **asked)
    assert purse.need == charge.reserved == 100 + 2 * tokens and charge.clamp is None


async def test_it_is_held_back_at_the_dearest_price_of_all_routes_that_may_serve() -> None:
    dear = Price(input=5_000_000, output=5_000_000)
    for listed, of_route in ((CHEAP, dear), (dear, CHEAP)):
        route = replace(channel(1), price=PriceList.of([of_route]))
        purse = Purse()
        await charged(purse, priced(listed, varied=True, routes=(route, channel(2))), output_limit=50)
        assert purse.need == 5 * 150


@pytest.mark.parametrize(
    ("has", "choices", "clamp"),
    [
        (299, 1, 99),  # 100 for the prompt, 199 for the answer
        (250, 3, 25),  # 150 for three answers
        (160, 3, 16),  # 60 are less than three of the shortest; the prompt may be estimated too high
        (100, 1, 16),
    ],
)
async def test_answers_are_clamped_to_what_is_there_but_to_none_that_is_not_worth_sending(
    has: int, choices: int, clamp: int
) -> None:
    charge = await charged(Purse(has), priced(), output_limit=100, choices=choices)
    assert (charge.clamp, charge.reserved) == (clamp, has)
    assert meter_of(charge, new_exchange()) is not None, "not every upstream keeps to a limit"


async def test_short_answers_are_never_clamped_to_more_than_was_asked_for() -> None:
    charge = await charged(Purse(105), priced(), output_limit=4)
    assert charge.clamp == 4


async def test_a_request_is_refused_when_not_even_a_short_answer_to_a_shorter_prompt_can_be_paid() -> None:
    purse = Purse()
    await charged(purse, priced(), output_limit=100, choices=2)
    assert purse.minimum == 60 + 2 * 2 * 16
    await charged(purse, priced(), output_limit=100, exact=True)
    assert purse.minimum == purse.need == 300, "what cannot be made cheaper must be covered"
    with pytest.raises(InsufficientQuota):
        await charged(Purse(91), priced(), output_limit=100)


async def test_the_group_multiplier_is_part_of_what_is_held_back_and_of_the_clamp() -> None:
    purse = Purse(400)
    charge = await charged(purse, priced(), output_limit=100, multiplier=2 * ONE)
    assert purse.need == 600 and charge.clamp == 50


async def test_nothing_stays_promised_to_a_request_that_ended_without_a_record() -> None:
    exchange, purse = new_exchange(), Purse()
    charge = await charged(purse, priced(), exchange, output_limit=50)
    assert charge.grant is not None and charge.grant.reservation is not None
    reservation = charge.grant.reservation
    before = (reservation.granted, reservation.running)
    end(exchange)
    assert before == (200, 1) and (reservation.granted, reservation.running) == (0, 0)


async def test_what_the_portal_failed_to_deliver_costs_nothing() -> None:
    for at_fault, cost, billing in ((True, 0, "free"), (False, 40, "delivered")):
        charge = await charged(Purse(), priced(), output_limit=50)
        charge.finish(candidate(), Usage(20, output=10), "estimated", True, at_fault)
        assert (charge.cost, charge.billing, charge.upstream_cost) == (cost, billing, 40)


async def test_a_prompt_that_no_tier_has_a_price_for_costs_what_was_held_back_for_it() -> None:
    """The estimate was in a tier; the real prompt is shorter than any."""
    tiers = Price(id=1, above_tokens=50, input=4_000_000), Price(id=2, above_tokens=5000, input=8_000_000)
    charge = await charged(Purse(), priced(*tiers), output_limit=50)
    charge.finish(candidate(), Usage(20), "reported", False, False)
    assert (charge.cost, charge.price_id) == (80, 1)


async def test_a_failed_request_costs_nothing_though_its_money_was_held_back() -> None:
    charge = await charged(Purse(), priced(), output_limit=50)
    charge.finish(candidate(), Usage(), "none", True, False)
    charge.finish(None, Usage(20), "reported", False, False)
    assert (charge.cost, charge.billing, charge.payer) == (0, "nothing", "")


DEAR = replace(CHEAP, audio_input=8_000_000, image_input=4_000_000)


@pytest.mark.parametrize(
    ("parts", "cost", "longer"),
    [
        (Usage(), 100, 300),
        (Usage(audio_input=30), 70 + 30 * 8, 400 * 8 - 310),
        (Usage(image_input=10), 90 + 10 * 4, 400 * 8 - 130),
        (Usage(audio_input=90, image_input=90), 90 * 8 + 10 * 4, 400 * 8 - 760),
        (None, 800, 400 * 8 - 800),
    ],
)
async def test_input_is_held_by_its_class_as_far_as_that_is_known(parts: Usage | None, cost: int, longer: int) -> None:
    purse = Purse()
    dear = priced(replace(DEAR, id=1))
    charge = await charged(purse, dear, output_limit=10, most_prompt=lambda: 400, dearer_input=lambda: parts)
    assert (purse.need, purse.spare) == (cost + 20, longer)
    assert purse.minimum == int(cost * 0.6) + 20 and charge.clamp is None


async def test_an_answer_that_is_told_no_limit_is_begun_where_a_useful_part_can_be_paid() -> None:
    purse = Purse()
    await charged(purse, priced(), output_limit=None, stream=True, least_output=200)
    assert purse.minimum == 100 + 2 * 200


async def test_money_is_held_for_a_prompt_longer_than_estimated_where_there_is_some() -> None:
    purse = Purse()
    await charged(purse, priced(), output_limit=10, most_prompt=lambda: 400)
    plain = Purse()
    await charged(plain, priced(), output_limit=10)
    assert (purse.need, purse.minimum) == (plain.need, plain.minimum) and plain.spare == 0
    dearer = Price(input=2 * CHEAP.input, output=CHEAP.output, above_tokens=200)
    tiers = Purse()
    await charged(tiers, priced(CHEAP, dearer), output_limit=10, most_prompt=lambda: 400)
    per_token = purse.spare // 300
    assert purse.spare == 300 * per_token > 0 and tiers.spare == (2 * 400 - 100) * per_token, "the tier of long prompts"
    small = Purse()
    await charged(small, priced(context_window=150), output_limit=10, most_prompt=lambda: 400)
    assert small.spare == 50 * per_token, "no prompt is longer than the window"


async def test_what_is_held_for_a_longer_prompt_is_no_part_of_the_cost_and_last_of_all_for_the_answer() -> None:
    purse = Purse()
    charge = await charged(purse, priced(), output_limit=10, most_prompt=lambda: 400)
    assert charge.grant is not None and charge.grant.amount == purse.need + purse.spare
    assert (charge.reserved, charge.clamp) == (purse.need, None)
    charge.take_kept(purse.spare + 1)
    assert charge._kept == 0 and charge._prompt_cost == 100


@pytest.mark.parametrize(
    ("within", "named", "abilities", "beside"),
    [
        (True, None, (), 0),
        (True, 10, (), 0),
        (True, 16, (), 16),  # a limit of 16 cannot hold it
        (True, 32_000, ("text",), 32_000),
        (False, None, (), 4_000),
        (False, None, ("reasoning",), 4_000),
        (False, None, ("vision",), 0),
        (False, 0, ("reasoning",), 0),
        (False, 10, (), 10),
        (False, 10**9, (), 64_000),
    ],
)
async def test_money_is_held_for_thinking_that_a_limit_does_not_hold_for(
    within: bool, named: int | None, abilities: tuple[str, ...], beside: int
) -> None:
    purse = Purse()
    view = priced(max_output_tokens=4_000, context_window=64_000, abilities=abilities)
    view = replace(view, routes=(channel(1), channel(2, limits_thinking=within)))
    charge = await charged(purse, view, output_limit=16, thinking=named, choices=2)
    plain = Purse()
    await charged(plain, priced(), output_limit=16, choices=2)
    assert purse.need - plain.need == 2 * 2 * beside and purse.minimum == plain.minimum
    poor = await charged(Purse(plain.need + 40), view, output_limit=16, thinking=named, choices=2)
    assert poor.clamp in (None, 16) and charge.clamp is None, "the answer may have what it was told"


async def test_what_exceeds_its_limit_once_is_held_for_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_lengths, "_seen", {})
    route = channel(1)
    view = replace(priced(max_output_tokens=4_000), routes=(route,))

    async def need() -> int:
        purse = Purse()
        charge = await charged(purse, view, output_limit=16)
        charge.finish(candidate(route), Usage(100, output=40), "reported", False, False)
        return purse.need

    first = await need()
    assert await need() == first, "a few tokens beyond are no thoughts"
    charge = await charged(Purse(), view, output_limit=16)
    charge.finish(candidate(route), Usage(100, output=32_000), "estimated", False, False)
    assert await need() == first, "nor is what nobody reported"
    charge.finish(candidate(route), Usage(100, output=32_000), "reported", False, False)
    assert await need() == first + 2 * 4_000
    other = replace(view, routes=(channel(2),))
    elsewhere = Purse()
    await charged(elsewhere, other, output_limit=16)
    assert elsewhere.need == first, "at this channel"
    assert answer_lengths.exceeds(1, view.id, NOW + 86_399) and not answer_lengths.exceeds(1, view.id, NOW + 86_400)
    for number in range(5_000):
        answer_lengths.learn(number, 7, 500, 16, NOW)
    assert len(answer_lengths._seen) <= 4_096
