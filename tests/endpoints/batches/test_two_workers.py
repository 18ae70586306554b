"""Batches on two workers: whoever has few lines ends while others have many, and limits are limits of both together.

What is shown does not depend on how fast anything is: many lines take minutes, in which nobody waits for their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from portal import limits
from tests.endpoints.batches.jobs import lines, results, submit, wait_for
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import Server, serving
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared

WORKERS = 2
MANY, FEW = 1000, 5
BIG = WORKERS * limits.BATCHES_AT_ONCE  # batches of the user with many lines: all that the workers run of one user
SMALL = 5  # users with few
AT_ONCE = 3
SOME = 20  # lines


class Air:
    """The requests that an upstream is answering, by model, and the most at once."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def script(self, call: Call) -> None:
        model = call.json["model"]
        self.now[model] += 1
        self.most[model] = max(self.most[model], self.now[model])
        await asyncio.sleep(0.1)
        self.now[model] -= 1  # who gets the answer may begin the next one at once
        await call.reply(200, completion())


@pytest.fixture(scope="module")
def workers(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """The server of all tests, and a second worker on its database."""
    with serving(tmp_path_factory.mktemp("second") / "log") as second:
        yield [server, second]


@contextlib.contextmanager
def client(server: Server, token: str) -> Iterator[OpenAI]:
    """It tries again what a limit of requests at once refuses, as reading results while lines are in the air."""
    server.catch_up()
    with OpenAI(base_url=server.url + "/v1", api_key=token, max_retries=50, timeout=60) as sdk:
        yield sdk


def owners(user: Any) -> dict[str, str]:
    """The workers of a user's running batches, by their ids."""
    from relay.models import Batch

    running = Batch.objects.filter(user=user, status="in_progress").exclude(owner="")
    return dict(running.values_list("batch_id", "owner"))


@pytest.mark.parametrize("at_once", [None, AT_ONCE])
def test_few_lines_end_while_another_user_has_many(live: Portal, workers: list[Server], at_once: int | None) -> None:
    from relay.models import Token

    air = Air()
    many = live.model(air.script)
    few = [live.model(air.script) for _ in range(SMALL)]
    owner = live.user()
    token = live.token(owner)

    def limit(requests: int | None) -> None:
        Token.objects.filter(user=owner).update(max_concurrency=requests)
        live.token(owner)  # announces that
        for worker in workers:
            worker.catch_up()

    def goes_on() -> None:
        asked = live.upstream.count(many)
        until(lambda: live.upstream.count(many) >= asked + SOME)

    def keeps_to_it() -> bool:
        air.most[many] = air.now[many]
        goes_on()
        return at_once is None or air.most[many] <= most

    # Without Redis, each worker counts for itself.
    most = AT_ONCE if os.environ.get("AIRELAYS_REDIS_URL") else WORKERS * AT_ONCE
    limit(at_once and 100)  # they are counted from now on
    with contextlib.ExitStack() as stack:
        sdk = stack.enter_context(client(workers[0], token))
        big = [submit(sdk, lines(many, MANY)).id for _ in range(BIG)]
        running = until(lambda: len(set((found := owners(owner)).values())) == WORKERS and found)
        if at_once is not None:
            limit(at_once)
        until(keeps_to_it)  # a batch may have read its token some moments ago
        others = [stack.enter_context(client(workers[number % WORKERS], live.token())) for number in range(SMALL)]
        small = [submit(other, lines(model, FEW)).id for other, model in zip(others, few, strict=True)]
        for other, model, batch_id in zip(others, few, small, strict=True):
            end = wait_for(other, batch_id)
            assert (end.status, end.request_counts.completed) == ("completed", FEW)
            assert len(results(other, end.output_file_id)) == live.upstream.count(model) == FEW
        assert running.items() <= owners(owner).items(), "no batch had to make room"
        goes_on()
        for batch_id in big:
            sdk.batches.cancel(batch_id)
        ended = [wait_for(sdk, batch_id) for batch_id in big]
        assert {state.status for state in ended} == {"cancelled"}
        kept = [line for state in ended for line in results(sdk, state.output_file_id)]
    assert len(kept) == live.upstream.count(many), "all that was answered, once"
    assert at_once is None or air.most[many] <= most
    assert not any(air.now.values())
