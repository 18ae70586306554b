"""How much of the audio that a client appends becomes part of the conversation, and what is to be held for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.realtime.audio_buffer import AudioBuffer
from relay.protocols.realtime.conversation import Conversation
from relay.protocols.realtime.speech import Speech


class Spoken:
    """A session, by what its buffer commits and what its conversation has heard."""

    def __init__(self, direct: bool = False) -> None:
        self.now = 1000.0
        self.buffer = AudioBuffer(direct=direct, clock=lambda: self.now)
        self.conversation = Conversation()
        self.conversation.listen(self.buffer)

    def microphone(self, seconds: float, piece: float = 0.1) -> None:
        """As long as it lasts."""
        for _ in range(round(seconds / piece)):
            self.now += piece
            self.buffer.append(piece)

    @property
    def heard(self) -> float:
        """Seconds that are part of the conversation."""
        return self.conversation.unreported[1] / 10


STARTS: list[tuple[object, float]] = [(120_000, 3.0), (119_700, 3.3), (119_700.0, 3.3)]
# What cannot be an offset in what was appended: then within the time in which a server hears speech.
STARTS += [(wrong, 5.3) for wrong in (None, True, "120000", -1, float("nan"), float("inf"), 9e12)]


@pytest.mark.parametrize(("start", "seconds"), STARTS)
def test_silence_before_a_turn_is_not_part_of_it(start: object, seconds: float) -> None:
    spoken = Spoken()
    spoken.microphone(120)
    assert spoken.buffer.pending == 60.0 and spoken.heard == 0.0
    spoken.buffer.started(start)
    spoken.microphone(3)
    assert spoken.buffer.pending == pytest.approx(seconds, abs=0.5)
    taken = spoken.buffer.take()
    assert taken == pytest.approx(seconds, abs=0.5 if seconds == 5.3 else 1e-6) and spoken.heard == pytest.approx(taken)


def test_what_is_behind_the_end_of_a_turn_belongs_to_the_next() -> None:
    spoken = Spoken()
    spoken.microphone(10)
    spoken.buffer.started(2_000)
    spoken.buffer.stopped(6_000)
    assert spoken.buffer.take() == 4.0
    spoken.buffer.started(7_000)
    spoken.buffer.stopped(9_000)
    assert spoken.buffer.take() == 2.0 and spoken.heard == pytest.approx(6.0)


@pytest.mark.parametrize("stops", [(1_190_000, 1_199_000), (0, 9_000)])
def test_no_turn_is_longer_than_what_was_appended_since_the_last(stops: tuple[int, int]) -> None:
    spoken = Spoken()
    for _ in range(20):
        spoken.buffer.append(60.0)
    spoken.buffer.started(stops[0])
    spoken.buffer.stopped(stops[1])
    assert spoken.buffer.take() == 9.0
    spoken.buffer.append(5.0)
    spoken.buffer.started(0)
    spoken.buffer.stopped(3_600_000)
    assert spoken.buffer.take() <= 1_205.0 - 9.0
    assert spoken.heard <= 1_205.0


def test_a_turn_of_a_call_is_as_long_as_the_distance_of_its_offsets() -> None:
    """Their clock is not the one by which the call is counted here."""
    spoken = Spoken(direct=True)
    spoken.microphone(100)
    spoken.buffer.started(1_000_000)
    spoken.microphone(3.5)
    assert spoken.buffer.pending == pytest.approx(3.8)
    spoken.buffer.stopped(1_003_200)
    assert spoken.buffer.take() == pytest.approx(3.2)
    spoken.microphone(100)
    spoken.buffer.started(None)
    spoken.microphone(1)
    assert spoken.buffer.take() == pytest.approx(1.3)


def test_speech_that_is_told_to_begin_twice_begins_once() -> None:
    spoken = Spoken()
    spoken.microphone(30)
    spoken.buffer.started(10_000)
    spoken.buffer.started(20_000)
    spoken.buffer.stopped(25_000)
    assert spoken.buffer.take() == 15.0


def test_silence_that_a_server_commits_counts() -> None:
    """Where a session has an idle timeout, the model is given the silence."""
    spoken = Spoken()
    spoken.microphone(100)
    spoken.buffer.timed_out(94_000, 100_000)
    assert spoken.buffer.take() == 6.0 and spoken.heard == pytest.approx(6.0)


def test_a_client_that_commits_commits_all_that_no_turn_was_heard_in() -> None:
    """How little the server hears is the client's setting: an estimate is not steered by it."""
    spoken = Spoken()
    spoken.microphone(600, 1.0)
    assert spoken.buffer.commit() == 600.0 and spoken.heard == 600.0
    spoken.buffer.restore(600.0)
    assert spoken.heard == 0.0 and spoken.buffer.commit() == 600.0


def test_a_buffer_that_is_emptied_while_the_server_commits_it_is_counted() -> None:
    spoken = Spoken()
    spoken.microphone(10)
    spoken.buffer.started(1_000)
    spoken.microphone(1)
    spoken.buffer.clear()
    assert spoken.buffer.pending == 0.0
    spoken.buffer.stopped(10_500)
    assert spoken.buffer.take() == 9.5
    spoken.microphone(5)
    spoken.buffer.clear()
    assert spoken.buffer.pending == 0.0 and spoken.buffer.commit() == 0.0


@pytest.mark.parametrize("vad", [True, False])
def test_a_server_that_tells_of_no_commits_has_committed_what_it_answers(vad: bool) -> None:
    spoken = Spoken()
    for turn in range(3):
        spoken.microphone(30)
        if vad:
            spoken.buffer.started((turn * 30 + 28) * 1000)
        spoken.buffer.answers()
    assert spoken.heard == pytest.approx(6.0 if vad else 90.0)


def test_a_server_that_tells_of_commits_is_not_counted_twice() -> None:
    spoken, found = Spoken(), Speech()
    found.buffer = spoken.buffer
    for turn in range(3):
        spoken.microphone(30)
        spoken.buffer.started((turn * 30 + 28) * 1000)
        found.heard(json.dumps({"type": "input_audio_buffer.committed", "item_id": str(turn)}))
        spoken.buffer.answers()
    assert spoken.heard == pytest.approx(6.0)


def test_silence_is_held_for_as_long_as_it_may_still_be_heard_as_speech() -> None:
    spoken = Spoken()
    for _ in range(20):
        spoken.buffer.append(60.0)
    conversation = spoken.conversation
    assert (conversation.input_tokens, conversation.input_parts.audio_input) == (2000, 600)
    assert conversation.most_input == 12_000, "a report is believed up to what it can have heard"
    assert conversation.probable_input == 0


def test_without_an_end_of_turns_all_that_was_appended_is_held_for() -> None:
    spoken = Spoken()
    spoken.buffer.listens = False
    spoken.buffer.append(1200.0)
    assert spoken.conversation.input_tokens == 12_000
    spoken.buffer.commit()
    assert (spoken.conversation.input_tokens, spoken.conversation.probable_input) == (12_000, 12_000)


@pytest.mark.parametrize("more", [{"audio_start_ms": []}, {"audio_start_ms": {}}, {}])
def test_offsets_of_another_type_are_none(more: dict[str, Any]) -> None:
    found = Speech()
    found.appended(5.0)
    assert not found.heard(json.dumps({"type": "input_audio_buffer.speech_started", "item_id": "i", **more}))
    assert found.buffer.take() == 5.0
