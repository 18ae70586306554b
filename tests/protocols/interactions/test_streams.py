"""Streams of interactions: the bytes that go on, the ids in them, their ends, and the steps that they tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.interactions.events import DONE, events_of, log_of, logged, steps_of
from relay.protocols.interactions.objects import parse_interaction, with_members
from relay.protocols.interactions.stream import InteractionStream
from tests.support.peers import interactions as peer
from tests.support.peers.interactions import CALL, HELLO, THOUGHT, USAGE, written

ID, OWN = "v1_ChdhYmNkZWZnaGlqa2xtbm9w", "int_0123"
WHOLE: dict[str, Any] = {
    "id": ID,
    "object": "interaction",
    "model": "m",
    "status": "completed",
    "previous_interaction_id": "v1_before",
    "created": "2026-11-30T07:00:00Z",
    "steps": [THOUGHT, HELLO],
    "usage": USAGE,
}
MEMBERS = {"id": OWN, "previous_interaction_id": "int_before"}


def codec(stored: bool = True) -> InteractionStream:
    return InteractionStream(own=dict(MEMBERS), stored=stored)


def data_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: {")]


def upstream(whole: dict[str, Any] = WHOLE) -> list[bytes]:
    return [*map(written, peer.events_of(whole)), DONE]


def run(stream: InteractionStream, pieces: list[bytes], clean: bool = True) -> bytes:
    out = b"".join(map(stream.feed, pieces)) + stream.finish(clean)
    return out + stream.terminal


def test_events_go_on_as_they_are_but_for_ids() -> None:
    stream = codec()
    out = run(stream, upstream())
    assert stream.done and stream.error is None and stream.failed is None and stream.upstream_id == ID
    assert ID.encode() not in out and b"v1_before" not in out and out.endswith(DONE)
    deltas = [event for event in upstream() if b"step." in event]
    assert all(event in out for event in deltas)
    assert [event["event_type"] for event in data_of(out)] == [event["event_type"] for event in peer.events_of(WHOLE)]
    assert stream.usage is not None and (stream.usage.input, stream.usage.output, stream.usage.reasoning) == (11, 12, 5)
    assert stream.final is not None and stream.final["steps"] == WHOLE["steps"]
    assert {name: stream.final[name] for name in MEMBERS} == MEMBERS


def test_the_end_waits_for_the_record() -> None:
    stream = codec()
    out = b"".join(map(stream.feed, upstream()))
    assert stream.done and b"interaction.completed" not in out and b"interaction.completed" in stream.terminal


@pytest.mark.parametrize("size", range(1, 40))
def test_pieces_of_any_size_are_the_same(size: int) -> None:
    whole = b"".join(upstream())
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert run(codec(), pieces) == run(codec(), [whole])


def test_nothing_is_sent_before_it_says_something() -> None:
    stream, events = codec(), upstream()
    quiet = [event for event in events if b"step.delta" not in event][:3]
    assert b"".join(map(stream.feed, quiet)) == b""
    out = stream.feed(next(event for event in events if b"step.delta" in event))
    assert stream.started and out.count(b"event: ") == 4


def test_an_error_before_and_in_the_middle() -> None:
    error = (
        b'event: error\ndata: {"event_type":"error","error":{"code":"rate_limit_exceeded","message":"Slow down."}}\n\n'
    )
    stream = codec()
    assert stream.feed(error) == b"" and stream.error is not None and b"rate_limit_exceeded" in stream.error
    stream, half = codec(), upstream()[:8]
    assert b"".join(map(stream.feed, half)) and stream.started
    stream.feed(error)
    assert stream.error is not None and b"Slow down." in stream.error and not stream.done
    told = data_of(stream.failure("It broke off.", "server_error", "upstream_truncated", None))
    assert told == [{"event_type": "error", "error": {
        "code": "internal", "message": "It broke off.",
        "details": [{"reason": "UPSTREAM_TRUNCATED", "domain": "airelays"}],
    }}]  # fmt: skip


def test_one_that_is_cut_is_not_complete() -> None:
    for cut in range(1, len(upstream()) - 2):
        stream = codec()
        run(stream, upstream()[:cut])
        assert not stream.done, cut


def test_a_state_ends_it_where_nothing_else_does() -> None:
    events = [json.loads(event.split(b"data: ")[1]) for event in upstream()[:-2]]
    ended = {"event_type": "interaction.status_update", "interaction_id": ID, "status": "requires_action"}
    stream = codec()
    out = run(stream, [*map(written, events), written({**ended, "usage": USAGE})])
    assert stream.done and out.endswith(DONE) and stream.usage is not None
    assert stream.final is not None and stream.final["status"] == "requires_action"


def test_one_that_failed_says_so() -> None:
    failed = {**WHOLE, "status": "failed", "errors": [{"code": "internal", "message": "at http://10.0.0.7/x broke."}]}
    stream = codec()
    out = run(stream, upstream(failed))
    assert stream.done and stream.failed is not None and b"10.0.0.7" not in out
    stream = codec()
    stream.feed(b"".join(written(event) for event in peer.events_of({**failed, "steps": []})))
    assert stream.error is not None and not stream.done  # nothing was said: another channel may be asked


def test_one_that_says_nothing_is_no_answer() -> None:
    stream = codec()
    run(
        stream,
        upstream({**WHOLE, "steps": [], "usage": {**USAGE, "total_output_tokens": 0, "total_thought_tokens": 0}}),
    )
    assert stream.error is not None and not stream.done


def test_steps_are_put_together_from_any_events() -> None:
    image = {"type": "image", "data": "AAAA", "mime_type": "image/png"}
    annotated = {
        "type": "text",
        "text": "Look: ",
        "annotations": [{"type": "url_citation", "url": "https://a.example"}],
    }
    search = {"type": "google_search_call", "id": "g1", "arguments": {"queries": ["a"]}}
    steps = [THOUGHT, search, CALL, {"type": "model_output", "content": [annotated, image]}]
    told = [one.event.split(b"data: ")[1].strip() for one in events_of({**WHOLE, "steps": steps})]
    assert steps_of(told) == steps
    streamed = upstream({**WHOLE, "steps": [THOUGHT, CALL]})[:-1]
    assert steps_of(event.split(b"data: ")[1].strip() for event in streamed) == [THOUGHT, CALL]


def test_events_of_a_stored_one_can_be_gone_on_from() -> None:
    running = {**WHOLE, "status": "in_progress", "steps": [THOUGHT, HELLO]}
    before, after = events_of(running), events_of(WHOLE)
    assert after[: len(before)] == before and len({one.id for one in after}) == len(after)
    assert b'"text":"Hello there."' in b"".join(one.event for one in after[len(before) :])
    log = log_of([b'{"event_type":"step.stop","index":0,"event_id":"ev7"}'])
    assert [(one.id, one.event[:16]) for one in logged(log)] == [("ev7", b"event: step.stop")]
    assert logged(b"") == logged(b"no list") == []


def test_a_plain_one_keeps_its_bytes() -> None:
    body = b'{"id":"v1_x","status":"completed","steps":[{"type":"model_output","new":1.50}],"unknown":{"a": 2}}'
    shown = with_members(body, {"id": OWN})
    assert b'"new":1.50' in shown and b'{"a": 2}' in shown and json.loads(shown)["id"] == OWN
    answer = parse_interaction(body)
    assert answer is not None and (answer.id, answer.status, answer.running, answer.error) == (
        "v1_x",
        "completed",
        False,
        None,
    )


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b'{"error":{"code":"internal","message":"x"}}', True),
        (b'{"id":"v1_x","status":"failed","errors":[{"code":"internal","message":"x"}]}', True),
        (b'{"id":"v1_x","status":"failed"}', True),
        (b'{"id":"v1_x","status":"incomplete","errors":[{"code":"a","message":"x"}]}', False),
    ],
)
def test_errors_with_the_status_200(body: bytes, wrong: bool) -> None:
    answer = parse_interaction(body)
    assert answer is not None and (answer.error is not None) is wrong


def test_what_is_no_interaction() -> None:
    assert parse_interaction(b"[]") is None and parse_interaction(b'{"id":"v1_x"}') is None


def test_what_went_wrong_names_the_portals_id() -> None:
    wrong = {"code": "internal", "message": f"The interaction {ID} is gone."}
    stream = codec()
    for piece in upstream()[:4]:
        stream.feed(piece)
    stream.feed(written({"event_type": "error", "error": wrong}))
    assert stream.error is not None and OWN.encode() in stream.error and ID.encode() not in stream.error
    failed = {**WHOLE, "status": "failed", "errors": [wrong]}
    assert ID.encode() not in with_members(json.dumps(failed).encode(), MEMBERS)
    assert ID.encode() not in run(codec(), upstream(failed))
