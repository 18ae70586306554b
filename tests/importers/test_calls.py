"""Tokens of the old programs call models here, through the channels that came with them, at a mock upstream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from accounts.models import User
from relay.models import ImportedRow, LedgerAccount
from tests.support.environment import OwnDatabase
from tests.support.importers.old import Old
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving

# A model of each database that every user may call, of an upstream with OpenAI's API.
MODELS = {"one-api": "gpt-4o-mini", "new-api": "gpt-4o-mini"}
PRICES = (200, 800)  # nano-USD of a token, of input and of output, before the multiple of the user's group


@pytest.fixture(scope="module")
def server(own_database: OwnDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On a database of its own: imports leave models of other tests alone, and allow addresses that those refuse."""
    log = tmp_path_factory.mktemp("imported") / "log"
    with serving(log, env={**own_database.env, "AIRELAYS_FEED_POLL_SECONDS": "0.05"}) as running:
        yield running


@pytest.fixture
def moved(
    live: Portal, own_database: OwnDatabase, unpacked: Callable[[str], Old], server: Server
) -> Callable[[str], Old]:
    """Import a database whose channels all lead to the mock upstream, and whose future lies in the future."""

    def move(program: str) -> Old:
        old = unpacked(program)
        old.run("UPDATE channels SET base_url = ? WHERE type NOT IN (3)", live.upstream.base_url.removesuffix("/v1"))
        snapshot = old.facts["snapshot_time"]
        old.run("UPDATE tokens SET expired_time = ? WHERE expired_time > ?", int(time.time()) + 9999, snapshot)
        old.imported(name=f"{program}-calls")
        server.catch_up()
        return old

    return move


def call(server: Server, key: str, model: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=ask(model), headers=headers, timeout=60)


@pytest.mark.parametrize("program", ["one-api", "new-api"])
def test_every_active_token_calls_and_no_other(program: str, moved: Callable[[str], Old], server: Server) -> None:
    old = moved(program)
    rows: dict[int, dict[str, Any]] = {one["id"]: one for one in old.facts["users"]}
    lists = dict(old.run(f"SELECT id, {'models' if program == 'one-api' else 'model_limits'} FROM tokens"))
    networks = dict(old.run(f"SELECT id, {'subnet' if program == 'one-api' else 'allow_ips'} FROM tokens"))
    called = 0
    for token in old.facts["tokens"]:
        allowed = (lists[token["id"]] or "").split(",")
        model = MODELS[program] if MODELS[program] in allowed or allowed == [""] else allowed[-1]
        answer = call(server, token["key"], model)
        owner = rows[token["user_id"]]
        if not token["usable"]:
            assert answer.status_code in {401, 429}, (token, answer.text)
        elif networks[token["id"]] and "127.0.0" not in networks[token["id"]]:
            assert answer.json()["error"]["code"] == "ip_not_allowed"
        elif not owner["quota"]:
            assert answer.json()["error"]["code"] == "insufficient_quota"
        elif model.startswith("gemini"):  # whose upstream speaks another API than the mock
            assert answer.status_code != 401 and answer.status_code != 403
        else:
            assert answer.status_code == 200, (token, answer.text)
            called += 1
    assert called >= 7


def test_a_call_costs_what_it_cost_and_the_balance_says_so(
    moved: Callable[[str], Old], live: Portal, server: Server
) -> None:
    old = moved("one-api")
    token = next(one for one in old.facts["tokens"] if one["usable"] and one["user_id"] == 4 and not one["unlimited"])
    user = User.objects.get(
        pk=ImportedRow.objects.get(installation__name="one-api-calls", kind="user", source_id="4").object_id
    )
    before = LedgerAccount.objects.get(user=user, kind="wallet").balance
    answer = call(server, token["key"], "gpt-4o-mini")
    assert answer.status_code == 200
    used, (into, out) = live.record(answer), PRICES
    cost = (used.input_tokens * into + used.output_tokens * out) * 8 // 10
    assert cost > 0 and before - LedgerAccount.objects.get(user=user, kind="wallet").balance == cost


def test_a_token_is_known_without_its_prefix_too(moved: Callable[[str], Old], server: Server) -> None:
    old = moved("new-api")
    token = next(one for one in old.facts["tokens"] if one["usable"] and one["user_id"] == 4)
    bare = token["key"].removeprefix("sk-")
    assert call(server, bare, "gpt-4o-mini").status_code == 200
    assert call(server, bare[:-1] + ("a" if bare[-1] != "a" else "b"), "gpt-4o-mini").status_code == 401
    pinned = call(server, f"{bare}-1", "gpt-4o-mini")
    assert pinned.status_code == 403 and pinned.json()["error"]["code"] == "channel_pin_not_allowed"
