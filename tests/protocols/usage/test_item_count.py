"""What a Responses API stream has delivered, counted once whatever its ids and indexes are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.responses.stream import ResponsesStream
from relay.protocols.responses.usage import ItemCount

TEXT = "word " * 80  # 100 tokens


def event(kind: str, **more: Any) -> tuple[str, bytes]:
    kind = f"response.{kind}"
    return kind, f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def call(item_id: str = "i", text: str = TEXT) -> dict[str, Any]:
    return {"type": "function_call", "id": item_id, "call_id": "c", "name": "f", "arguments": text}


def added(index: int | None, item_id: str = "i") -> tuple[str, bytes]:
    where = {} if index is None else {"output_index": index}
    return event("output_item.added", **where, item=call(item_id, ""))


def delta(index: int | None, item_id: str = "i", text: str = TEXT) -> tuple[str, bytes]:
    where = {} if index is None else {"output_index": index}
    return event("function_call_arguments.delta", **where, item_id=item_id, delta=text)


def done(index: int | None, item_id: str = "i", text: str = TEXT) -> tuple[str, bytes]:
    where = {} if index is None else {"output_index": index}
    return event("output_item.done", **where, item=call(item_id, text))


@pytest.mark.parametrize(
    ("events", "units"),
    [
        ([delta(0), delta(0)], 200),
        ([delta(0), done(0)], 100),
        ([done(0), done(1, "j")], 200),
        ([done(0), done(0)], 100),  # said twice
        ([done(0, "", "a" * 400), done(0, "", "b" * 400)], 200),  # two items in one place
        ([done(0, "i", "a" * 400), done(1, "i", "b" * 400)], 200),  # two items with one id
        ([delta(0, "i"), delta(0, "i2"), done(0, "i3", TEXT * 2)], 200),  # ids that change (Copilot)
        ([added(0), delta(0), added(1, "j"), delta(0, "j"), done(0), done(1, "j")], 200),  # indexes that do not
        ([delta(None), done(None), delta(None, "j"), done(None, "j")], 200),
        ([done(0), delta(1, "j")], 200),  # whole, and then one that breaks off
        ([delta(0), delta(1, "j"), done(1, "j"), done(0)], 200),  # at the same time
        ([delta(0), done(0, text="")], 100),
        ([event("function_call_arguments.done", output_index=0, item_id="i", arguments=TEXT), done(0)], 100),
        ([event("output_text.delta", output_index=0, delta=5), event("output_item.done", item=None)], 0),
        ([event("output_item.done", item=7), ("response.output_item.done", b"data: {")], 0),
        ([event("output_item.done", item={"type": "function_call_output", "output": TEXT})], 0),
        ([event("output_item.done", item={"type": "web_search_call", "action": {"sources": [TEXT]}})], 0),
        ([event("output_item.done", item={"type": ["x"], "content": [{"text": TEXT}]})], 100),
        ([event("output_item.done", item={"type": "x_call", "a": json.loads("[" * 500 + "1" + "]" * 500)})], 0.25),
    ],
)
def test_each_item_counts_once(events: list[tuple[str, bytes]], units: float) -> None:
    for late in (False, True):
        count = ItemCount()
        for kind, data in events:
            count.add(kind, data)
            if not late:
                count.units()
        assert count.units() == pytest.approx(units)


@pytest.mark.parametrize(
    ("item", "opaque"),
    [
        (call(), False),
        ({"type": "message", "content": [{"type": "output_text", "text": 'the "images": [{ of a text'}]}, False),
        ({"type": "message", "content": [{"type": "output_text", "text": "x", "annotations": []}]}, False),
        ({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "x"}]}, False),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}, True),
        (
            {"type": "reasoning", "encrypted_content": "gAAAA", "content": [{"type": "reasoning_text", "text": "x"}]},
            True,
        ),
        ({"type": "computer_call", "action": {"type": "screenshot"}}, True),
        ({"type": "image_generation_call", "result": "iVBOR"}, True),
        ({"type": "web_search_call"}, True),
    ],
)
def test_what_cannot_be_counted_is_known(item: dict[str, Any], opaque: bool) -> None:
    count = ItemCount()
    count.add(*event("output_item.done", output_index=0, item=item))
    assert count.is_opaque() is opaque
    count = ItemCount()
    count.end(json.dumps([item]).encode())
    assert count.is_opaque() is opaque


def test_a_short_stream_is_not_counted_until_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting costs more than the rest of an event."""

    def count_event(self: ItemCount, kind: str, data: bytes) -> None:
        raise AssertionError("counted")

    monkeypatch.setattr(ItemCount, "_count_event", count_event)
    stream = ResponsesStream(lambda response: response)
    for _ in range(20):
        stream.feed(delta(0)[1])
    with pytest.raises(AssertionError, match="counted"):
        stream.delivered_units()
