"""One table of all endpoints and of all that a request goes through; each cell is tried at a running portal.

A new route, batch endpoint or websocket that is not in the table is red, and so is a cell without a check.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from django.db import transaction

from relay.api.urls import api
from relay.billing.prices import Price, cost
from relay.protocols.anthropic_messages.batches import PATH as MESSAGES
from relay.providers.apis import PATHS, UPSTREAM_ONLY
from relay.storage.batch_input import ENDPOINTS
from tests.endpoints.table import realtime_upstream
from tests.endpoints.table import row as rows
from tests.endpoints.table.row import PRICE, Row
from tests.endpoints.table.rows import CALLS, CONTENT, LINES, ROWS, SOCKETS
from tests.support.asserts import until
from tests.support.money import books_balance, settled
from tests.support.peers.realtime import Call as SocketCall
from tests.support.peers.realtime import RealtimeUpstream
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared

PLENTY = 10**12  # nano-USD


# -- what a cell needs -------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """What one cell has in the portal, made for all cells at once."""

    row: Row
    model: str
    user: Any
    token: str
    more: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Cell] = field(default_factory=dict)  # that it is compared with


@dataclass
class Answer:
    """What the client got."""

    status: int
    text: str
    request_id: str
    content_type: str

    @property
    def code(self) -> Any:
        """Of the error that the client was told, if need be in a response that was made in the background."""
        return told_code(json.loads(self.text)["error"])


def told_code(error: dict[str, Any]) -> Any:
    """The portal's code of an error in the shape of any API."""
    details = error.get("details")
    if isinstance(details, list):
        return details[0]["reason"].lower()
    return details["error_code"] if details is not None else error["code"]


def send(server: Server, cell: Cell, token: str = "", body: dict[str, Any] | None = None) -> Answer:
    """Call the endpoint and read the answer to its end, of a background response or a batch, too."""
    row = cell.row
    if row.batch:
        return outcome(server, cell)
    if row.socket:
        return Answer(*talk(server, cell, token or cell.token), "", "")
    body = {"model": cell.model, **(row.body if body is None else body)}
    headers = {"authorization": f"Bearer {token or cell.token}"}
    files = {row.file: ("a.bin", CONTENT[row.file])} if row.file else None
    given: dict[str, Any] = {"data": body, "files": files} if files else {"json": body}
    with httpx.Client(headers=headers, timeout=60, trust_env=False, verify=NO_CERTIFICATES) as client:
        try:
            response = client.post(f"{server.v1}/{row.at(cell.model)}", **given)
        except httpx.RemoteProtocolError as reason:  # sound has no other way to say that it breaks off
            return Answer(200, str(reason), "", "")
        found = Answer(
            response.status_code,
            response.content.decode("utf-8", "replace"),
            response.headers["x-request-id"],
            response.headers.get("content-type", ""),
        )
        if row.background and found.status == 200:
            client.headers["authorization"] = f"Bearer {cell.more.get('poll', token or cell.token)}"
            address = f"{server.v1}/responses/{response.json()['id']}"
            found.text = until(
                lambda: (now := client.get(address)).json()["status"] not in {"queued", "in_progress"} and now.text
            )
    return found


def talk(server: Server, cell: Cell, token: str, leaves: bool = False) -> tuple[int, str]:
    """What a realtime client gets."""
    base, asks = f"://127.0.0.1:{server.port}/v1", cell.row.socket
    if cell.row.call:
        tokens = token, cell.more.get("poll", token)
        return realtime_upstream.talk_in_call(base, cell.model, tokens, asks, leaves)
    return realtime_upstream.talk(f"ws{base}/realtime?model={cell.model}", token, asks, leaves)


def submit(server: Server, cell: Cell) -> None:
    """Make a batch of one line."""
    row = cell.row
    line = {"custom_id": "a", "method": "POST", "url": f"/v1/{row.path}", "body": {"model": cell.model, **row.body}}
    headers = {"authorization": f"Bearer {cell.token}"}
    with httpx.Client(headers=headers, timeout=60, trust_env=False, verify=NO_CERTIFICATES) as client:
        if row.of_messages:
            requests = {"requests": [{"custom_id": "a", "params": line["body"]}]}
            made = client.post(f"{server.v1}/messages/batches", json=requests)
            assert made.status_code == 200, made.text
            cell.more["batch"] = made.json()["id"]
            return
        files = {"file": ("b.jsonl", json.dumps(line).encode())}
        file = client.post(f"{server.v1}/files", data={"purpose": "batch"}, files=files).json()
        batch = {"input_file_id": file["id"], "endpoint": line["url"], "completion_window": "24h"}
        cell.more["batch"] = client.post(f"{server.v1}/batches", json=batch).json()["id"]


def outcome(server: Server, cell: Cell) -> Answer:
    """What became of that line."""
    headers = {"authorization": f"Bearer {cell.token}"}
    with httpx.Client(headers=headers, timeout=60, trust_env=False, verify=NO_CERTIFICATES) as client:
        if cell.row.of_messages:
            return message_outcome(client, f"{server.v1}/messages/batches/{cell.more['batch']}")
        address = f"{server.v1}/batches/{cell.more['batch']}"
        ended = {"completed", "failed", "expired", "cancelled"}
        batch = until(lambda: (now := client.get(address).json())["status"] in ended and now)
        file = batch.get("output_file_id") or batch["error_file_id"]
        text = client.get(f"{server.v1}/files/{file}/content").text
        line = json.loads(text)["response"]
        assert line is not None, f"{batch} {text}"
    return Answer(line["status_code"], json.dumps(line["body"]), line["request_id"], "application/json")


# Of errors of Anthropic's API.
STATUSES = {"invalid_request_error": 400, "authentication_error": 401, "permission_error": 403, "not_found_error": 404}


def message_outcome(client: httpx.Client, address: str) -> Answer:
    """The same of a message batch."""
    until(lambda: client.get(address).json()["processing_status"] == "ended")
    result = json.loads(client.get(f"{address}/results").text)["result"]
    if result["type"] == "succeeded":
        return Answer(200, json.dumps(result["message"]), "", "application/json")
    error = result["error"]
    return Answer(STATUSES[error["error"]["type"]], json.dumps(error), "", "application/json")


def record_of(cell: Cell) -> Any:
    """The record of the cell's model. A session has one for its connection, too, which costs nothing."""
    from relay.models import UsageRecord

    found = UsageRecord.objects.filter(model=cell.model).order_by("pk")
    return until(lambda: found.filter(cost__gt=0).first() or (found.first() if not cell.more.get("paid") else None))


def price() -> Price:
    return Price(**{name.removeprefix("per_"): round(float(str(value)) * 10**9) for name, value in PRICE.items()})


def expected_cost(row: Row) -> int:
    """What the good answer costs; to count input tokens is free."""
    return cost(price(), row.used) if row.used.input else 0


# -- the steps ---------------------------------------------------------------------------------------------------------


Prepare = Callable[[Portal, Row], Cell]
Check = Callable[[Server, Portal, Cell], None]


def good(row: Row) -> Any:
    return realtime_upstream.answering(row.answer, row.answer) if row.socket else row.good


def address_for(row: Row) -> str | None:
    return f"http://127.0.0.1:{_shared['socket'].port}/v1" if row.socket else None


def plain(script: Callable[[Row], Any] = good, **options: Any) -> Prepare:
    """A cell with a model of its own, a user with enough money, and a token.

    `balance`: of a user of its own. Models that are well share a channel.
    """

    def prepare(live: Portal, row: Row) -> Cell:
        if "balance" in options:
            user = live.user(balance=options["balance"])
            token = live.token(user)
        else:
            if "token" not in _shared:
                _shared["user"] = live.user(balance=PLENTY)
                _shared["token"] = live.token(_shared["user"])
            user, token = _shared["user"], _shared["token"]
        key, address = f"channel {row.channel} {bool(row.socket)}", address_for(row)
        if script is not good:
            channel = live.channel(address, keys=(rows.SECRET,), **row.channel)
        else:
            channel = _shared[key] = _shared.get(key) or live.channel(address, keys=(rows.SECRET,), **row.channel)
        model = live.model(channels=[channel], price=options.get("price", PRICE), is_open=options.get("is_open", True))
        scripts = _shared["socket"].scripts if row.socket else live.upstream.scripts
        scripts[model] = script(row)
        return Cell(row, model, user, token, dict(options.get("more", {})))

    return prepare


def asked(live: Portal, cell: Cell) -> int:
    """How often an upstream was asked."""
    return int((_shared["socket"] if cell.row.socket else live.upstream).count(cell.model))


def untouched(live: Portal, cell: Cell, answer: Answer, status: int, code: str) -> None:
    """The request was refused, and no upstream was asked."""
    told = cell.row.background and answer.status == 200
    assert (answer.status, answer.code) == (200 if told else status, code), answer.text
    assert asked(live, cell) == 0


def prepare_address(live: Portal, row: Row) -> Cell:
    cell = plain()(live, row)
    return Cell(row, cell.model, cell.user, live.token(cell.user, allowed_ips=["10.9.8.7"]))


def check_address(server: Server, live: Portal, cell: Cell) -> None:
    untouched(live, cell, send(server, cell), 403, "ip_not_allowed")


def check_token(server: Server, live: Portal, cell: Cell) -> None:
    untouched(live, cell, send(server, cell, "sk-wrong"), 401, "invalid_api_key")
    assert send(server, cell).status == 200  # the address is not blocked


def prepare_purpose(live: Portal, row: Row) -> Cell:
    cell = plain()(live, row)
    return Cell(row, cell.model, cell.user, live.token(cell.user, purpose=row.other_purpose))


def check_purpose(server: Server, live: Portal, cell: Cell) -> None:
    untouched(live, cell, send(server, cell), 403, "purpose_not_allowed")


def prepare_models(live: Portal, row: Row) -> Cell:
    cell = plain(is_open=False)(live, row)
    if row.named is not None:
        cell.others["open"] = plain()(live, row)
    return cell


def check_models(server: Server, live: Portal, cell: Cell) -> None:
    untouched(live, cell, send(server, cell), 403, "model_not_allowed")
    for other in cell.others.values():
        answer = send(server, other, body=cell.row.named(cell.row.body, cell.model))
        untouched(live, other, answer, 403, "model_not_allowed")


def prepare_limits(live: Portal, row: Row) -> Cell:
    from relay.models import Token

    cell = plain(balance=PLENTY)(live, row)
    Token.objects.filter(user=cell.user).update(max_rpm=1)
    cell.more["poll"] = live.token(cell.user)
    return cell


def check_limits(server: Server, live: Portal, cell: Cell) -> None:
    assert send(server, cell).status == 200
    answer = send(server, cell)
    assert answer.code == "rate_limit_exceeded" and answer.status == (200 if cell.row.background else 429)
    assert asked(live, cell) == 1


def prepare_price(live: Portal, row: Row) -> Cell:
    cell = plain()(live, row)
    cell.others["unpriced"] = plain(price=None)(live, row)
    return cell


def check_price(server: Server, live: Portal, cell: Cell) -> None:
    other = cell.others["unpriced"]
    untouched(live, other, send(server, other), 400, "model_not_priced")
    answer = send(server, cell)
    assert answer.status == 200, answer.text
    record, used = record_of(cell), cell.row.used
    found = {name: getattr(record, f"{name}_tokens") for name in ("input", "cached_input", "output", "reasoning")}
    assert found == {name: getattr(used, name) for name in found}
    for name in ("cached_audio_input", "cache_write", "cache_write_1h", "audio_input", "audio_output", "image_input"):
        assert getattr(record, f"{name}_tokens") == getattr(used, name), name
    for name in ("images", "milliseconds", "characters", "searches"):
        assert getattr(record, name) == getattr(used, name), name
    assert record.cost == expected_cost(cell.row)


def prepare_reservation(live: Portal, row: Row) -> Cell:
    cell = plain(balance=PLENTY)(live, row)
    cell.others["poor"] = plain(balance=1)(live, row)
    return cell


def check_reservation(server: Server, live: Portal, cell: Cell) -> None:
    poor = cell.others["poor"]
    if not cell.row.batch:
        untouched(live, poor, send(server, poor), 429, "insufficient_quota")
    assert send(server, cell).status == 200
    assert asked(live, poor) == 0  # a line of a batch waits for money
    record = record_of(cell)
    assert record.reserved >= record.cost


CLAMPED = 4 * 10**6  # nano-USD: 125 tokens at the dearest class of output
SPOKEN = 10**8  # the same for a session, which has no limit
LITTLE = 10**5  # less than anything costs that cannot be limited


def prepare_clamp(live: Portal, row: Row) -> Cell:
    return plain(balance=CLAMPED if row.limit else LITTLE)(live, row)


def check_clamp(server: Server, live: Portal, cell: Cell) -> None:
    """The length that the wallet can pay is sent; what cannot be limited is refused."""
    if cell.row.batch and not cell.row.limit:
        assert asked(live, cell) == 0  # it waits for money
        return
    answer = send(server, cell)
    if not cell.row.limit:
        untouched(live, cell, answer, 429, "insufficient_quota")
        return
    assert answer.status == 200, answer.text
    told: Any = live.upstream.last(cell.model).json
    for name in cell.row.limit.split("."):
        told = told[name]
    assert 16 <= int(told) <= CLAMPED // 32_000


def endless(row: Row) -> Any:
    if row.socket:
        return realtime_upstream.endless

    async def script(call: Call) -> None:
        await call.open_stream()
        for event in row.events[:-1] if row.path == "responses" and "type" in row.events[0] else ():
            await call.event(event)
        while True:
            await call.event(row.endless)
            await asyncio.sleep(0.005)

    return script


def prepare_meter(live: Portal, row: Row) -> Cell:
    return plain(endless, balance=SPOKEN if row.socket else CLAMPED)(live, row)


def check_meter(server: Server, live: Portal, cell: Cell) -> None:
    answer = send(server, cell)
    assert answer.status == 200, answer.text[-300:]
    assert cell.row.call or "insufficient_quota" in answer.text.lower(), answer.text[-300:]
    record = record_of(cell)
    # A session reads on what it has cancelled, as for a client that has left.
    assert record.end_reason in ({"ended", "client_gone"} if cell.row.socket else {"ended"}) and record.cost > 0
    assert record.shortfall <= 60 * 32_000, "one event more than is paid for"


def prepare_failover(live: Portal, row: Row) -> Cell:
    async def script(call: Call) -> None:
        await (
            rows.broken(call)
            if any(
                "sk-first" in call.headers.get(name, "") for name in ("authorization", "x-api-key", "x-goog-api-key")
            )
            else row.good(call)
        )

    async def talk(call: SocketCall) -> None:
        await (realtime_upstream.refusing(call) if "sk-first" in call.key else good(row)(call))

    cell = plain()(live, row)
    channels = [
        live.channel(address_for(row), keys=("sk-first-0123456789abcdef",), priority=5, **row.channel),
        live.channel(address_for(row), keys=("sk-second-0123456789abcdef",), **row.channel),
    ]
    model = live.model(channels=channels, price=PRICE)
    if row.socket:
        _shared["socket"].scripts[model] = talk
    else:
        live.upstream.script(model, script)
    return Cell(row, model, cell.user, cell.token)


def check_failover(server: Server, live: Portal, cell: Cell) -> None:
    answer = send(server, cell)
    assert answer.status == 200, answer.text
    record = record_of(cell)
    assert (record.attempts, record.end_reason, asked(live, cell)) == (2, "completed", 2)
    assert record.cost == expected_cost(cell.row)


def dirty_later(row: Row) -> Any:
    """An answer that ends in an error that tells what nobody may know."""

    async def script(call: Call) -> None:
        await call.open_stream()
        for event in row.events[:-1]:
            await call.event(event)
        error = {"message": rows.DIRT, "type": "server_error", "param": None, "code": None}
        await call.event({"type": "error", "error": error} if "type" in row.events[0] else {"error": error})
        await call.end()

    return script


def failed_later(row: Row) -> Any:
    """A response that ends as failed, after it has begun."""

    async def script(call: Call) -> None:
        await call.open_stream()
        for event in row.events[:-1]:
            await call.event(event)
        error = {"code": "server_error", "message": rows.DIRT}
        whole = {**row.events[-1]["response"], "status": "failed", "error": error}
        await call.event({**row.events[-1], "type": "response.failed", "response": whole})
        await call.end()

    return script


def prepare_cleaning(live: Portal, row: Row) -> Cell:
    cell = plain(lambda row: realtime_upstream.failing(rows.DIRT) if row.socket else rows.dirty)(live, row)
    if not (row.batch or row.socket):  # what may pass is tried again, for half a minute
        cell.others["in 200"] = plain(lambda row: rows.dirty_in_200)(live, row)
    if row.stream:
        cell.others["later"] = plain(dirty_later)(live, row)
    if row.stream and "response" in row.events[-1]:
        cell.others["failed"] = plain(failed_later)(live, row)
    return cell


def check_cleaning(server: Server, live: Portal, cell: Cell) -> None:
    for one in (cell, *cell.others.values()):
        answer = send(server, one)
        record = record_of(one)
        assert record.end_reason != "completed" and "error" in answer.text
        for told in (answer.text, record.error_message, json.dumps(record.attempt_log)):
            for secret in (*rows.SECRET.split("."), rows.SECRET[:4], rows.SECRET[-4:], rows.ORGANISATION):
                assert secret not in told, told
        assert rows.HOST not in answer.text + record.error_message


def prepare_end_reason(live: Portal, row: Row) -> Cell:
    cell = plain()(live, row)
    if row.socket:
        return cell
    cell.others["client_error"] = plain(lambda row: rows.dirty)(live, row)
    if not row.batch:  # what may pass is tried again, for half a minute
        cell.others["upstream_error"] = plain(lambda row: rows.broken)(live, row)
    return cell


def check_end_reason(server: Server, live: Portal, cell: Cell) -> None:
    for reason, one in {"completed": cell, **cell.others}.items():
        status = {"completed": 200, "client_error": 400}.get(reason, 502)
        answer = send(server, one)
        record = record_of(one)
        assert (record.end_reason, record.status) == (reason, status)
        assert answer.status == (200 if cell.row.background else status)
        assert record.cost == 0 or reason == "completed"


def check_before_end(server: Server, live: Portal, cell: Cell) -> None:
    """The record is there as soon as the client has the last byte."""
    from relay.models import UsageRecord

    assert send(server, cell).status == 200
    assert UsageRecord.objects.filter(model=cell.model).exists()


def slow(row: Row) -> Any:
    """An upstream that ends its answer once its client has left, and has been seen to leave."""
    if row.socket:
        return realtime_upstream.silent

    async def script(call: Call) -> None:
        await row.begin(call)
        while row.name not in _left:  # noqa: ASYNC110  # it is told by another thread
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        await row.finish(call)

    return script


async def leave(server: Server, live: Portal, cell: Cell) -> None:
    """Ask, and leave once the upstream answers: of a stream, with its first bytes; else without a byte."""
    row = cell.row
    body = {"model": cell.model, **row.body}
    files = {row.file: ("a.bin", CONTENT[row.file])} if row.file else None
    given: dict[str, Any] = {"data": body, "files": files} if files else {"json": body}
    headers = {"authorization": f"Bearer {cell.token}"}
    async with httpx.AsyncClient(timeout=60, trust_env=False, verify=NO_CERTIFICATES) as client:

        async def ask() -> None:
            async with client.stream("POST", f"{server.v1}/{row.at(cell.model)}", headers=headers, **given) as response:
                await anext(response.aiter_raw())

        asking = asyncio.ensure_future(ask())
        while not asking.done() and (row.stream or not asked(live, cell)):  # noqa: ASYNC110  # another thread's
            await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait({asking})
    _left.add(row.name)


def leave_all(server: Server, live: Portal) -> None:
    """All at once, since each upstream goes on for a while."""

    async def all_of_them(cells: list[Cell]) -> None:
        await asyncio.gather(*(leave(server, live, one) for one in cells))

    leaving = [one for (_, step), one in _cells.items() if step == "client leaves"]
    asyncio.run(all_of_them([one for one in leaving if not one.row.socket]))
    for one in (one for one in leaving if one.row.socket):
        talk(server, one, one.token, leaves=True)
        _left.add(one.row.name)


def check_client_leaves(server: Server, live: Portal, cell: Cell) -> None:
    """What the upstream reports after its client has left is charged, and nothing stays reserved."""
    if not _left:
        leave_all(server, live)
    row = cell.row
    cell.more["paid"] = bool(row.socket)
    record = record_of(cell)
    assert record.end_reason == "client_gone"
    assert record.cost == expected_cost(row) if not row.socket else record.cost > 0


def cut(row: Row) -> Any:
    if row.socket:
        return realtime_upstream.cutting

    async def script(call: Call) -> None:
        await row.begin(call)
        call.cut()

    return script


def check_upstream_leaves(server: Server, live: Portal, cell: Cell) -> None:
    """A stream is truncated, and billed by the channel's policy; of a plain answer the client gets an error."""
    row = cell.row
    answer = send(server, cell) if not row.batch else None  # it is tried again, for half a minute
    record = record_of(cell)
    begun = row.stream or row.path == "audio/speech" or bool(row.socket)
    said = begun and row.name != "realtime: transcription"  # which comes as a whole
    assert record.end_reason == ("truncated" if begun else "upstream_error")
    assert (record.cost > 0, record.billing) == ((True, "delivered") if said else (False, "nothing"))
    if answer is not None and not begun and not row.background:
        assert answer.status == 502


def prepare_further_name(live: Portal, row: Row) -> Cell:
    from relay.models import Model, ModelAlias

    cell = plain()(live, row)
    own, alias = cell.model, f"claude-{cell.model}"
    ModelAlias.objects.create(model=Model.objects.get(name=own), name=alias)
    return replace(cell, model=alias, more={"own": own})


def check_further_name(server: Server, live: Portal, cell: Cell) -> None:
    """A request by a further name is the model's: the upstream is asked for it, and it is what is recorded."""
    from relay.models import UsageRecord

    row, own = cell.row, cell.more["own"]
    answer = send(server, cell)
    assert answer.status == 200, answer.text
    record = record_of(replace(cell, model=own, more={"paid": expected_cost(row) > 0}))
    assert (record.model, record.cost) == (own, expected_cost(row))
    assert not UsageRecord.objects.filter(model=cell.model).exists()


STEPS: dict[str, tuple[Prepare, Check]] = {
    "further name": (prepare_further_name, check_further_name),
    "address": (prepare_address, check_address),
    "token": (plain(), check_token),
    "purpose": (prepare_purpose, check_purpose),
    "models": (prepare_models, check_models),
    "limits": (prepare_limits, check_limits),
    "price": (prepare_price, check_price),
    "reservation": (prepare_reservation, check_reservation),
    "clamp": (prepare_clamp, check_clamp),
    "meter": (prepare_meter, check_meter),
    "failover": (prepare_failover, check_failover),
    "cleaning": (prepare_cleaning, check_cleaning),
    "end reason": (prepare_end_reason, check_end_reason),
    "record before the end": (plain(), check_before_end),
    "client leaves": (plain(slow, balance=PLENTY), check_client_leaves),
    "upstream leaves": (plain(cut, balance=PLENTY), check_upstream_leaves),
}


# -- the table ---------------------------------------------------------------------------------------------------------

# Why a cell does not apply.
UNFIT: dict[tuple[str, str], str] = {
    ("count of input tokens", "reservation"): "it is free of charge",
    ("count of input tokens", "clamp"): "it is free of charge",
    ("count of a message's tokens", "reservation"): "it is free of charge",
    ("count of a message's tokens", "clamp"): "it is free of charge",
    ("count of contents' tokens", "reservation"): "it is free of charge",
    ("count of contents' tokens", "clamp"): "it is free of charge",
    ("responses, in the background", "client leaves"): "it is made without its client",
    ("interaction in the background", "client leaves"): "it is made without its client",
    ("realtime", "clamp"): "a session has no limit; what it says is metered",
    ("realtime call", "clamp"): "a session has no limit; what it says is metered",
    ("realtime call", "record before the end"): "the upstream tells its client itself",
    ("realtime: transcription", "clamp"): "it is as long as what was said, for which money is held before",
    ("realtime: transcription", "meter"): "it is as long as what was said, for which money is held before",
    ("realtime: transcription", "reservation"): "its session holds the money for it, and is a row of its own",
}
UNFIT_OF_LINES = {
    "address": "the address is asked when the batch is made",
    "token": "it is asked when the batch is made",
    "limits": "a limit makes a batch slower, and ends no line",
    "client leaves": "it is made without its client",
}


def excuse(row: Row, step: str) -> str:
    """Why a cell does not apply; empty where it does."""
    if step == "meter" and row.endless is None:
        return "it has the length that was reserved for it" if row.limit else "all that it can cost is reserved"
    return (UNFIT_OF_LINES.get(step, "") if row.batch else "") or UNFIT.get((row.name, step), "")


CELLS = [(row, step) for row in (*LINES, *ROWS, *SOCKETS, *CALLS) for step in STEPS if not excuse(row, step)]
CELLS.sort(key=lambda cell: cell[0].batch)  # lines wait to be taken, while the others are tried


_cells: dict[tuple[str, str], Cell] = {}
_left: set[str] = set()  # the rows whose client has left
_shared: dict[str, Any] = {}  # a user, a token, channels


@pytest.fixture
def cells(live: Portal, server: Server, request: pytest.FixtureRequest) -> dict[tuple[str, str], Cell]:
    """All of them that are to be tried, made at once."""
    if not _cells:
        _shared["socket"] = RealtimeUpstream()
        with transaction.atomic():
            tried = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
            wanted = {(one["row"].name, one["step"]) for one in tried if {"row", "step"} <= one.keys()} | {
                ("chat", "address")
            }
            for row, step in CELLS:
                if (row.name, step) not in wanted:
                    continue
                _cells[row.name, step] = STEPS[step][0](live, row)
        server.catch_up()
        lines = [one for cell in _cells.values() for one in (cell, *cell.others.values()) if one.row.batch]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: submit(server, one), lines))
    return _cells


@pytest.mark.parametrize(("row", "step"), CELLS, ids=lambda one: getattr(one, "name", one))
def test_a_cell(cells: dict[tuple[str, str], Cell], server: Server, live: Portal, row: Row, step: str) -> None:
    STEPS[step][1](server, live, cells[row.name, step])


def test_nothing_stays_reserved_and_all_is_paid(cells: dict[tuple[str, str], Cell], live: Portal) -> None:
    """After all cells, also those whose client or upstream left."""
    from relay.models import UsageRecord

    for (_, step), cell in cells.items():
        if step in {"reservation", "meter", "client leaves", "upstream leaves"}:
            paid = sum(record.cost - record.shortfall for record in UsageRecord.objects.filter(user=cell.user))
            before = PLENTY if step != "meter" else SPOKEN if cell.row.socket else CLAMPED
            assert settled(cell.user).balance == before - paid >= 0
        if step == "clamp" and cell.row.batch and not cell.row.limit:
            assert asked(live, cell) == 0
    books_balance()


# By the first part of their paths, the routes that ask no upstream.
ASK_NOBODY = {
    "models": "they are read from the portal's own list",
    "usage": "it is read from the portal's records",
    "dashboard/billing": "it is read from the portal's records",
    "files": "they are stored here",
    "uploads": "they are stored here",
    "conversations": "they are stored here",
    "responses/{response_id}": "they are stored here",
    "interactions/{interaction_id}": "they are stored here",
    "batches": "their lines are rows of the table",
    "messages/batches": "their requests are a row of the table",
    "realtime": "the connection that is made with a secret is a row of the table",
    "openapi.json": "it is a document of the portal's own",
}


def routes() -> list[tuple[str, str]]:
    """The methods and paths of all routes of /v1."""
    return sorted(
        (method, f"{prefix}{path}".strip("/"))
        for prefix, router in api._routers
        for path, view in router.path_operations.items()
        for operation in view.operations
        for method in operation.methods
    )


def test_every_route_is_in_the_table() -> None:
    asked = {row.path for row in (*ROWS, *CALLS)}
    for method, path in routes():
        nobody = [part for part in ASK_NOBODY if path == part or path.startswith((f"{part}/", f"{part}."))]
        path = path.replace("{path:name}:", "{model}:")
        if method == "POST" and path in asked:
            assert not [part for part in nobody if part == path], path
        else:
            assert nobody, f"{method} /v1/{path} has no row in the table"
    assert asked <= {path.replace("{path:name}:", "{model}:") for _, path in routes()}


def test_every_websocket_is_in_the_table() -> None:
    from portal.serving.http.sockets import relay_sockets

    assert {f"/v1/{row.path}" for row in SOCKETS} == set(relay_sockets)


def test_every_batch_endpoint_is_in_the_table() -> None:
    assert {f"/v1/{row.path}" for row in LINES} == {*ENDPOINTS, MESSAGES}


def test_every_upstream_api_is_in_the_table() -> None:
    assert {row.api or row.path.replace("/", ".") for row in (*ROWS, *SOCKETS, *CALLS)} == set(PATHS) - UPSTREAM_ONLY


def code_of(answer: httpx.Response) -> Any:
    return told_code(answer.json()["error"])


@pytest.mark.parametrize(("method", "path"), [one for one in routes() if one[1] != "openapi.json"])
def test_no_route_answers_without_a_token_or_at_another_address(
    cells: dict[tuple[str, str], Cell], server: Server, live: Portal, method: str, path: str
) -> None:
    address = "/v1/" + re.sub(r"\{[^}]*\}", "x", path)
    answer = server.request(method, "sk-wrong", address)
    assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
    answer = server.request(method, cells["chat", "address"].token, address)
    assert (answer.status_code, code_of(answer)) == (403, "ip_not_allowed")


def test_every_cell_has_a_check_or_a_reason() -> None:
    for row in (*ROWS, *LINES, *SOCKETS, *CALLS):
        for step in STEPS:
            assert bool(excuse(row, step)) != ((row, step) in CELLS)
    names = {row.name for row in (*ROWS, *SOCKETS, *CALLS)}
    assert all(name in names and step in STEPS for name, step in UNFIT), "a reason for a cell that is not there"
