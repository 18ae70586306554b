"""The user's speech of a realtime session, and what the upstream owes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portal.lib.json import Json
from relay.protocols.realtime.conversation import Conversation
from relay.protocols.realtime.speech import Speech

TRANSCRIBED: Json = {"audio": {"input": {"transcription": {"model": "heard"}, "turn_detection": None}}}


def event(kind: str, **more: Any) -> str:
    return json.dumps({"type": kind, **more})


def speech(listens: bool = False) -> Speech:
    found = Speech()
    found.heard(event("session.created", session=TRANSCRIBED))
    if listens:
        found.heard(event("session.updated", session={**TRANSCRIBED, "turn_detection": {"type": "server_vad"}}))
        found.configured({"audio": {"input": {"transcription": {}, "turn_detection": {"type": "server_vad"}}}})
    return found


def finished(found: Speech, item_id: str) -> float:
    spoken = found.finished(item_id)
    assert spoken is not None
    return spoken.seconds


def test_an_end_without_an_id_that_is_told_again_is_none() -> None:
    found = speech()
    found.appended(2.0)
    found.sent({"type": "input_audio_buffer.commit"})
    found.heard(event("input_audio_buffer.committed", item_id="a"))
    found.appended(1.0)
    assert finished(found, "") == 2.0 and found.finished("") is None
    stream = Speech()
    stream.heard(event("session.created"))
    stream.sent({"type": "input_audio_buffer.commit"})
    stream.appended(3.0)
    assert finished(stream, "") == 3.0 and stream.finished("") is None


def test_what_is_committed_is_owed_until_it_has_been_written_down_or_cannot_be() -> None:
    found = speech()
    for seconds in (2.0, 3.0, 4.0):
        found.appended(seconds)
        found.sent({"type": "input_audio_buffer.commit"})
    assert (found.seconds, found.commits) == (9.0, 3)
    found.heard(event("input_audio_buffer.committed", item_id="a"))
    found.heard(event("input_audio_buffer.committed", item_id="b"))
    assert (found.seconds, found.commits) == (9.0, 3)
    assert finished(found, "b") == 3.0
    found.heard(event("conversation.item.input_audio_transcription.failed", item_id="a"))
    assert (found.seconds, found.commits, [left.seconds for left in found.unfinished()]) == (4.0, 1, [4.0])
    assert finished(found, "never confirmed") == 4.0 and finished(found, "again") == 0.0
    assert (found.seconds, found.commits) == (0.0, 0)


def test_a_commit_that_is_refused_is_not_owed() -> None:
    found = speech()
    found.sent({"type": "input_audio_buffer.commit"})
    found.refused()
    assert found.commits == 0


def test_an_upstream_that_listens_commits_by_itself_and_counts_little_of_silence() -> None:
    found = speech(listens=True)
    for _ in range(100):
        found.appended(10.0)
    assert found.seconds == 60.0
    found.heard(event("input_audio_buffer.speech_started", item_id="a", audio_start_ms=999_000))
    found.appended(100.0)
    assert found.seconds == 101.0
    found.heard(event("input_audio_buffer.committed", item_id="a"))
    assert (found.seconds, found.commits) == (101.0, 1)


def test_without_an_end_of_turns_all_audio_counts() -> None:
    found = speech()
    found.appended(1000.0)
    assert found.seconds == 1000.0
    found.sent({"type": "input_audio_buffer.clear"})
    assert found.seconds == 0.0


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"transcription": {"model": "new"}}}},
        {"input_audio_transcription": {"model": "new"}},
    ],
)
@pytest.mark.parametrize("kind", ["session.update", "transcription_session.update"])
def test_speech_counts_from_the_moment_that_the_client_asks_for_it_to_be_written_down(session: Json, kind: str) -> None:
    found = Speech()
    found.appended(5.0)
    assert found.seconds == 0.0
    found.sent({"type": kind, "session": session})
    assert (found.seconds, found.model) == (5.0, "new")
    found.sent({"type": kind, "session": {"audio": {"input": {"transcription": None}}}})
    assert found.seconds == 5.0, "not before the upstream says so"
    found.heard(event("session.updated", session={"audio": {"input": {"transcription": None}}}))
    assert (found.on, found.seconds) == (False, 0.0)


def test_the_audio_of_an_event_is_measured_by_the_format_of_the_session() -> None:
    conversation = Conversation()
    append: Json = {"type": "input_audio_buffer.append", "audio": "A" * 64_000}
    assert conversation.sent(append) == conversation.sent_audio(48_000) == 1.0
    conversation.configured(event("session.updated", session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}}))
    assert conversation.sent(append) == 6.0
    assert conversation.sent({"type": "response.create"}) == 0.0


@pytest.mark.parametrize("text", ['{"type":"input_audio_buffer.committed","item_id":7}', '"input_audio_buffer."', "{"])
def test_events_that_make_no_sense_are_left_alone(text: str) -> None:
    found = speech()
    assert not found.heard(text) and found.commits == 0
