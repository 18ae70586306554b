"""Runs the matrix: every feature of each client API at every upstream, plain and as a stream, through one portal.

The upstream looks at the request that arrived and answers with what exercises the feature; the client reads that. What
a cell says is worked out of both, of the usage that the client was told, and of the usage record with its cost.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import ModuleType
from typing import Any, Final

import aiohttp
from django.db import transaction

from tests.api.compatibility.apis import chat, gemini, messages, responses
from tests.api.compatibility.columns import COLUMNS, Column, Site
from tests.api.compatibility.conversation import Ask, Inexpressible, Json, Part, Reply, Turn, Used
from tests.api.compatibility.features import FEATURES, Feature
from tests.support.apis.answers import Answer, check_items, decoded, events_of
from tests.support.apis.turns import next_turn
from tests.support.server import Server
from tests.support.upstream import Call

CLIENTS: Final[dict[str, ModuleType]] = {one.NAME: one for one in (chat, responses, messages, gemini)}
_PATHS: Final = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
_COUNTING: Final = {"responses": "/v1/responses/input_tokens", "messages": "/v1/messages/count_tokens"}
_MARK: Final = re.compile(rb"cell-(\d+)-")
_AT_ONCE: Final = 12
# USD per million tokens, all different, so that no class can be charged as another.
PRICE: Final = {
    "input": 10,
    "cached_input": 1,
    "cache_write": 13,
    "cache_write_1h": 17,
    "output": 30,
    "reasoning": 43,
    "audio_input": 57,
    "audio_output": 71,
}
_MORE: Final = Turn("user", (Part("text", "And tomorrow?"),))


@dataclass
class Cell:
    """One request, and what was seen of it."""

    number: int
    client: str
    feature: Feature
    column: Column
    stream: bool
    body: Json
    asked: Ask
    reply: Reply | None = None  # what the upstream answers; None: its API has no form for it
    said: Reply | None = None  # the same, as far as it can be said there and heard here
    model: str = ""
    sent: list[Ask] = field(default_factory=list)  # the requests as they arrived
    status: int = 0
    text: str = ""  # of the answer
    headers: dict[str, str] = field(default_factory=dict)
    came: Reply | None = None
    fault: str = ""  # what no client would accept of the answer
    ids: list[str] = field(default_factory=list)  # of the requests
    turns: list[Ask] = field(default_factory=list)  # what was asked, each time
    records: list[Any] = field(default_factory=list)

    @property
    def about(self) -> str:
        how = "stream" if self.stream else "plain"
        return f"{self.client} → {self.column.name}, {self.feature.name}, {how}"

    @property
    def ignored(self) -> list[str]:
        told = self.headers.get("x-airelays-ignored-parameters", "")
        return sorted(name.strip() for name in told.split(",") if name.strip())


# -- what is asked and answered ----------------------------------------------------------------------------------------


def cells(columns: Sequence[Column] = COLUMNS, features: Sequence[Feature] = FEATURES) -> Iterator[Cell]:
    """All cells. A client has no cells for what its API has no form for."""
    numbers = count(1)
    for client, api in CLIENTS.items():
        for feature in features:
            for column in columns:
                for stream in feature.streams:
                    number = next(numbers)
                    asked = _marked(feature.ask, number)
                    try:
                        body = api.write_ask(asked)
                    except Inexpressible:
                        continue
                    if feature.counts and client == "chat":
                        continue
                    cell = Cell(number, client, feature, column, stream, body, asked)
                    cell.reply = _reply(cell)
                    cell.said = _said(cell)
                    yield cell


def _marked(ask: Ask, number: int) -> Ask:
    """The request with its number in what the user says first, which every API carries."""
    first, *rest = ask.turns
    part = first.parts[0]
    marked = (replace(part, value=f"cell-{number}- {part.value}"), *first.parts[1:])
    return Ask([Turn(first.role, marked), *rest], ask.system, dict(ask.options))


def _reply(cell: Cell) -> Reply | None:
    """What the upstream is to answer; None: its API has no form for it."""
    for reply in (cell.feature.reply, cell.feature.otherwise):
        try:
            if reply is not None:
                if reply.signature:  # each its own, since the portal knows whose they are
                    signed = base64.b64encode(f"signature {cell.number}".encode()).decode()
                    reply = replace(reply, signature=signed)
                cell.column.api.write_reply(reply)
                return reply
        except Inexpressible:
            continue
    return None


def _said(cell: Cell) -> Reply | None:
    """The same, as far as its API can say it and the client's can hear it."""
    if cell.reply is None:
        return None
    said: Reply = cell.column.api.write_reply(cell.reply)[1]
    deaf = said.end == "sequence" and "sequence" not in CLIENTS[cell.client].ENDS
    return replace(said, end="stop") if deaf else said


async def _answer(site: Site, column: Column, cell: Cell, call: Call) -> None:
    """What an upstream does with a request."""
    if not cell.feature.counts:
        wrong = column.api.fault(call.json, cell.client == column.api.NAME)
        if wrong and not wrong.startswith(column.takes):
            await column.refuse(call, wrong)
            return
        cell.sent.append(column.api.read_ask(call.json))
    assert cell.said is not None
    if cell.said.error and not cell.said.begins:
        await column.refuse(call, cell.said.error)
    elif cell.said.error:
        whole, _ = column.api.write_reply(Reply())
        pieces = column.api.events(whole)
        await column.breaks(call, pieces[: len(pieces) // 2], cell.said.error)
    else:
        again = cell.feature.again and len(cell.sent) > 1
        whole, _ = column.api.write_reply(Reply() if again else cell.reply)
        await column.send(site, call, whole)


# -- running -----------------------------------------------------------------------------------------------------------


def run(site: Site, server: Server, todo: list[Cell]) -> None:
    """Ask everything."""
    known = {cell.number: cell for cell in todo}
    _make(site, todo, known)
    token = site.live.token()
    server.catch_up()
    asyncio.run(_run(server.url, token, todo))
    _add_records(todo)


def _make(site: Site, todo: list[Cell], known: dict[int, Cell]) -> None:
    """The channels and models. Those of an upstream that breaks off are asked for nothing else."""
    live, places = site.live, dict[tuple[str, int], str]()
    with transaction.atomic():
        for cell in todo:
            key = (cell.column.name, cell.number if cell.feature.reply.error else 0)
            if key not in places:
                channel = live.channel(**cell.column.channel(site))
                name = cell.column.upstream_name(channel.pk)
                script = _script(site, cell.column, known)
                places[key] = live.model(script, channels=[channel], upstream_name=name, price=PRICE)
                if cell.column.name == "vertex claude":  # which counts under a name of its own
                    live.upstream.script("count-tokens", script)
            cell.model = places[key]


def _script(site: Site, column: Column, known: dict[int, Cell]) -> Any:
    async def script(call: Call) -> None:
        counts = call.path.endswith("/count-tokens")  # Bedrock's, which has the request inside
        found = _MARK.search(base64.b64decode(call.json["input"]["invokeModel"]["body"]) if counts else call.body)
        assert found is not None, call.body
        try:
            await _answer(site, column, known[int(found[1])], call)
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            known[int(found[1])].fault = f"the request is in no form of the API: {error!r} {call.body.decode()[:1500]}"
            await column.refuse(call, "unreadable")

    return script


async def _run(url: str, token: str, todo: list[Cell]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:

        async def work(cell: Cell) -> None:
            if cell.said is not None:
                async with gate:
                    await _ask(session, cell)

        await asyncio.gather(*map(work, todo))


async def _ask(session: aiohttp.ClientSession, cell: Cell) -> None:
    body = cell.body
    answer = await _send(session, cell, body)
    cell.turns.append(cell.asked)
    if answer is None:
        return
    if not cell.feature.again or cell.fault or cell.came is None:
        return
    said, came = cell.said, cell.came
    assert said is not None
    await _send(session, cell, next_turn(cell.client, body, answer))
    kept = [Part("thought", "" if said.signature else said.thought, said.signature)] if said.thought else []
    kept += [Part("redacted", said.redacted)] if said.redacted else []
    history = [*cell.asked.turns, Turn("assistant", (*kept, Part("text", said.text))), _MORE]
    cell.turns.append(Ask(history, cell.asked.system, dict(cell.asked.options)))
    cell.came = came


async def _send(session: aiohttp.ClientSession, cell: Cell, body: Json) -> Answer | None:
    """One request; None where its answer is none."""
    headers: dict[str, str] = {}
    if cell.client == "gemini":
        method = "streamGenerateContent?alt=sse" if cell.stream else "generateContent"
        path = f"/v1beta/models/{cell.model}:{'countTokens' if cell.feature.counts else method}"
    else:
        path = (_COUNTING if cell.feature.counts else _PATHS)[cell.client]
        body = {"model": cell.model, **body, **({"stream": True} if cell.stream else {})}
        if cell.client == "messages":
            headers["anthropic-version"] = "2023-06-01"
        if cell.client == "chat" and cell.stream:
            body["stream_options"] = {"include_usage": True}
        if cell.feature.counts and cell.client == "messages":
            body.pop("max_tokens")
    try:
        async with session.post(path, data=json.dumps(body).encode(), headers=headers) as response:
            data = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        cell.fault = f"no answer: {error!r}"
        return None
    cell.status, cell.text = response.status, data.decode()
    cell.headers = {name.lower(): value for name, value in response.headers.items()}
    cell.ids.append(response.headers.get("x-request-id", ""))
    if cell.feature.counts:
        return None
    streamed = cell.headers.get("content-type", "").startswith("text/event-stream")
    try:
        answer = Answer(list(events_of(data)) if streamed else [decoded(data)])
        if cell.stream and not cell.feature.reply.error and cell.status == 200:
            assert answer.done, "the stream has no end"
            if cell.client == "responses" != cell.column.api.NAME:
                check_items(answer.events)
        cell.came = CLIENTS[cell.client].read_reply(answer)
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        cell.fault = cell.fault or f"the answer is in no form of the API: {error!r}"
        return None
    return answer


def _add_records(todo: list[Cell]) -> None:
    from relay.models import UsageRecord

    ids = [one for cell in todo for one in cell.ids]
    found: dict[str, Any] = {}
    for start in range(0, len(ids), 500):
        found |= {row.request_id: row for row in UsageRecord.objects.filter(request_id__in=ids[start : start + 500])}
    for cell in todo:
        cell.records = [found.get(one) for one in cell.ids]


def cost(used: Used) -> int:
    """What these tokens cost at PRICE, in nano-USD; a class that the upstream cannot tell is not there."""
    cached, written, hour = used.cached or 0, used.written or 0, used.hour or 0
    heard, spoken, reasoned = used.audio_in or 0, used.audio_out or 0, used.reasoning or 0
    assert used.input is not None and used.output is not None
    text_in, text_out = used.input - cached - written - heard, used.output - reasoned - spoken
    dollars = (
        text_in * PRICE["input"]
        + cached * PRICE["cached_input"]
        + (written - hour) * PRICE["cache_write"]
        + hour * PRICE["cache_write_1h"]
        + heard * PRICE["audio_input"]
        + text_out * PRICE["output"]
        + reasoned * PRICE["reasoning"]
        + spoken * PRICE["audio_output"]
    )
    return dollars * 1000  # nano-USD, since prices are for a million tokens


def counted(cell: Cell) -> int | None:
    """The tokens that a client was told that its request has."""
    found = json.loads(cell.text)
    value = found.get("input_tokens", found.get("totalTokens"))
    return value if isinstance(value, int) else None
