"""What is kept of requests that are refused before routing, and how much."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.errors import Forbidden, InsufficientQuota, ModelNotFound, RelayUnavailable, RequestNotFound
from relay.gateway.access import refusals
from relay.gateway.access.refusals import PER_TOKEN, PER_USER, Refusals
from relay.gateway.exchange.client import Client
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.usage.refusals import Refusal


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Refusal]:
    found: list[Refusal] = []

    async def in_thread(_function: Any, rows: list[Refusal]) -> None:
        found.extend(rows)

    monkeypatch.setattr(snapshot_cache, "in_thread", in_thread)
    return found


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [6000.0]
    monkeypatch.setattr("relay.gateway.access.refusals.time.monotonic", lambda: now[0])
    return now


def exchange(token: int = 1, user: int = 1, **more: Any) -> Exchange:
    async def nothing(*_: object) -> Any: ...

    made = Exchange({"headers": []}, nothing, nothing, "192.0.2.1")
    made.caller = Caller("digest", token, user, False, frozenset(), False, False, 0.0, None, ())
    for name, value in more.items():
        setattr(made, name, value)
    return made


def refuse(kept: Refusals, **more: Any) -> None:
    kept.add(exchange(**more), InsufficientQuota("Your balance is used up."), "POST /v1/chat/completions")


def test_a_token_that_is_refused_often_gets_a_few_rows_and_an_exact_count(
    written: list[Refusal], clock: list[float]
) -> None:
    async def main() -> None:
        kept = Refusals(30)
        for _ in range(1000):
            refuse(kept)
        await kept.flush()
        assert len(written) == PER_TOKEN
        refuse(kept, token=2)  # another token of the same user has rows of its own
        clock[0] += 60
        await kept.flush()
        assert len(written) == PER_TOKEN + 2 and sum(row.requests for row in written) == 1001
        refuse(kept)
        await kept.flush()
        assert len(written) == PER_TOKEN + 3, "the next minute begins anew"

    asyncio.run(main())


def test_a_user_with_many_tokens_is_bounded_too(written: list[Refusal]) -> None:
    async def main() -> None:
        kept = Refusals(30)
        for token in range(1, 10_001):
            refuse(kept, token=token)
        refuse(kept, token=99_999, user=2)
        await kept.flush()
        assert [row.user_id for row in written].count(1) == PER_USER and written[-1].user_id == 2

    asyncio.run(main())


def test_what_has_a_record_or_no_known_token_is_not_kept(written: list[Refusal]) -> None:
    async def main() -> None:
        kept = Refusals(30)
        refuse(kept, recorded=True)
        refuse(kept, caller=None)
        kept.add(exchange(), RequestNotFound("There is no receipt of it."), "GET /v1/usage/req_1")  # a look-up only
        await kept.flush()
        off = Refusals(0)
        refuse(off)
        await off.flush(final=True)
        assert written == []

    asyncio.run(main())


def test_texts_of_clients_are_kept_without_secrets_and_control_characters(written: list[Refusal]) -> None:
    async def main() -> None:
        kept = Refusals(30)
        key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
        kept.add(
            exchange(model_asked=f"m\0\n{key}", client=Client({b"x-client-request-id": b"a\0b"})),
            ModelNotFound(f"The model “{key}” does not exist here.\0", param="model"),
            "POST /v1/chat/completions\n" + "x" * 500,
        )
        await kept.flush()
        row = written[0]
        texts = (row.model, row.error_message, row.endpoint, row.client_request_id, row.error_param)
        assert all(text.isprintable() and key not in text and len(text) <= 300 for text in texts)
        assert row.model.startswith("m") and len(row.endpoint) <= 120 and row.error_code == "model_not_found"

    asyncio.run(main())


def test_a_database_that_is_away_loses_none_and_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    async def main() -> None:
        kept = Refusals(30)
        for _ in range(3):
            refuse(kept)
        away, found = True, []

        async def in_thread(_function: Any, rows: list[Refusal]) -> None:
            if away:
                raise RelayUnavailable("away")
            found.extend(rows)

        monkeypatch.setattr(snapshot_cache, "in_thread", in_thread)
        monkeypatch.setattr(refusals, "WAITING", 50)
        with pytest.raises(RelayUnavailable):
            await kept.flush()
        for number in range(500):
            clock[0] += 60
            refuse(kept, token=number + 10, user=number + 10)
        away = False
        await kept.flush()
        assert 50 <= len(found) <= 150 and [row.token_id for row in found[:3]] == [1, 1, 1]

    asyncio.run(main())


def test_a_stop_writes_what_was_only_counted(written: list[Refusal]) -> None:
    async def main() -> None:
        kept = Refusals(30)
        for _ in range(PER_TOKEN + 5):
            kept.add(exchange(), Forbidden("no"), "GET /v1/models")
        await kept.flush(final=True)
        assert sum(row.requests for row in written) == PER_TOKEN + 5

    asyncio.run(main())
