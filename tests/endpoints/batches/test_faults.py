"""What fails while a batch runs is tried again for a while, and then ends the batch with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from openai import OpenAI

from portal.lib import clock
from relay.endpoints.batches import runner
from relay.endpoints.batches.faults import AWAY_SECONDS, MAX_FAULTS, MAX_FAULTS_ENDING, BatchFaults, entry_of
from relay.endpoints.batches.lines import LineQueue
from relay.endpoints.batches.running import RunningBatch
from relay.endpoints.batches.slots import BatchSlots
from relay.errors import InvalidRequest, RelayUnavailable
from relay.gateway.snapshot.cache import snapshot_cache
from relay.models import Batch, Upload
from relay.storage import files
from relay.storage.batch_input import BatchInput, BatchInputLine
from tests.endpoints.batches.jobs import lines, wait_for
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import hello

AWAY = RelayUnavailable("The portal cannot read its database.")


def _pauses(fault: Exception, ending: bool) -> list[float]:
    faults, now, found = BatchFaults(), 0.0, list[float]()
    while (pause := faults.add(1, fault, ending, now)) is not None:
        found.append(pause)
        now += pause + 10.0
    return found


def test_a_fault_that_repeats_ends_a_batch() -> None:
    assert _pauses(ValueError(), False) == [5.0, 10.0, 20.0, 40.0] and MAX_FAULTS == 5
    assert len(_pauses(ValueError(), True)) == MAX_FAULTS_ENDING - 1
    assert sum(pause + 10 for pause in _pauses(AWAY, False)) >= AWAY_SECONDS
    assert 5 <= len(_pauses(AWAY, True)) < 15


def test_faults_are_of_one_batch_and_of_one_time() -> None:
    faults = BatchFaults()
    for _ in range(MAX_FAULTS - 1):
        assert faults.add(1, ValueError(), False, 0.0) is not None
    assert faults.add(2, ValueError(), False, 0.0) == 5.0
    assert faults.add(1, ValueError(), False, 9_000.0) == 5.0, "long ago"
    for batch in range(2_000):
        faults.add(batch, ValueError(), False, 9_000.0)
    assert len(faults._known) <= 1_000


def test_a_reason_says_what_was_wrong_and_no_internals() -> None:
    assert entry_of(InvalidRequest("A value cannot be stored."))["message"] == "A value cannot be stored."
    shown = entry_of(ValueError("/secret/path"))
    assert shown["code"] == "server_error" and "/secret" not in str(shown)


class Played:
    """A database and a disk some of whose functions fail; what was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: dict[str, Exception]) -> None:
        self.failing, self.called = failing, list[str]()
        self.arguments: dict[str, tuple[Any, ...]] = {}
        monkeypatch.setattr(snapshot_cache, "in_thread", self.call)
        monkeypatch.setattr(snapshot_cache, "in_slow_thread", self.call)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        name = function.__name__
        self.called.append(name)
        self.arguments[name] = arguments
        if name in self.failing:
            raise self.failing[name]
        if name == "read_input":
            return BatchInput((BatchInputLine(1, "a", b"{}"),), "", ())
        return None if name == "finish" else True

    def turns(self, status: str, most: int = 20, expired: bool = False) -> int:
        """Run a batch until it has ended. Returns how often; fails when it does not end."""
        now = clock.now()
        batch = Batch(
            pk=id(self), user_id=1, batch_id="batch_1", status=status, created_at=now,
            expires_at=now + timedelta(hours=-1 if expired else 1),
        )  # fmt: skip
        for turn in range(1, most + 1):
            state = RunningBatch(batch, "owner", BatchSlots(1))
            asyncio.run(runner._run_batch(SimpleNamespace(stopping=False), state, [state]))  # type: ignore[arg-type]
            if self.called[-1] in {"finish", "give_up"}:
                return turn
            assert self.called[-1] == "put_back" and self.arguments["put_back"][-1] == "portal"
        raise AssertionError("it is tried for ever")


@pytest.mark.parametrize("failing", [["read_input"], ["start_batch"], ["finish"], ["start_batch", "finish"]])
@pytest.mark.parametrize(
    ("status", "expired", "most", "outcome"),
    [("validating", False, 5, "failed"), ("cancelling", False, 2, "cancelled"), ("validating", True, 2, "expired")],
)
def test_whatever_fails_a_batch_ends(
    monkeypatch: pytest.MonkeyPatch, failing: list[str], status: str, expired: bool, most: int, outcome: str
) -> None:
    async def answer_all(run: Any, state: RunningBatch, parsed: BatchInput) -> None:
        raise AssertionError("no line can be answered here")

    played = Played(monkeypatch, dict.fromkeys(failing, ValueError("no")))
    monkeypatch.setattr(runner, "_answer_all", answer_all)
    monkeypatch.setattr(runner, "_faults", BatchFaults())
    assert played.turns(status, expired=expired) <= most
    end = played.called[-1]
    assert end == ("give_up" if "finish" in failing else "finish")
    assert outcome in played.arguments[end]


def test_lines_that_have_not_been_made_do_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer_all(run: Any, state: RunningBatch, parsed: BatchInput) -> None:
        state.lines = LineQueue(parsed.lines, 0.0)  # whatever the reason: none of them has been taken

    played, now = Played(monkeypatch, {}), clock.now()
    monkeypatch.setattr(runner, "_answer_all", answer_all)
    batch = Batch(pk=1, user_id=1, status="in_progress", created_at=now, expires_at=now + timedelta(hours=1))
    state = RunningBatch(batch, "owner", BatchSlots(1))
    asyncio.run(runner._run_batch(SimpleNamespace(stopping=False), state, [state]))  # type: ignore[arg-type]
    assert played.called[-1] == "put_back" and "finish" not in played.called


def test_a_database_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, {"read_input": AWAY})
    monkeypatch.setattr(runner, "_faults", BatchFaults())
    with pytest.raises(AssertionError, match="for ever"):
        played.turns("validating")

    class OneAMinute(BatchFaults):
        minutes = 0

        def add(self, batch: int, fault: Exception, ending: bool, now: float) -> float | None:
            self.minutes += 1
            return super().add(batch, fault, ending, 60.0 * self.minutes)

    monkeypatch.setattr(runner, "_faults", OneAMinute())
    assert played.turns("validating", most=100) == 61


@pytest.mark.shared
def test_a_batch_whose_input_is_not_on_the_disk_fails(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    server.catch_up()
    for cancels in (False, True):
        file = sdk.files.create(file=("b.jsonl", lines(model, 2)), purpose="batch")
        files.path_of(Upload.objects.get(file_id=file.id).storage_name).unlink()
        batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        if cancels:
            server.request("POST", sdk.api_key, f"/v1/batches/{batch.id}/cancel")
        done = wait_for(sdk, batch.id)
        assert done.status in ({"failed", "cancelled"} if cancels else {"failed"})
        assert done.errors.data[0].code == "file_not_found"
    assert not live.upstream.count(model)


@pytest.mark.shared
def test_a_line_whose_model_has_a_nul_fails_alone(sdk: OpenAI, live: Portal, server: Server) -> None:
    model = live.model(hello)
    server.catch_up()
    content = lines(model + "\0", 1).replace(b"r0", b"odd") + b"\n" + lines(model, 2)
    file = sdk.files.create(file=("b.jsonl", content), purpose="batch")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    done = wait_for(sdk, batch.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 2, 1)
