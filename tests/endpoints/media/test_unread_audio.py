"""What a recording costs whose container cannot be read: an estimate by its size and by what was heard."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared

MINUTE = b"\x93NEW" + bytes(960_000)  # at 128 kbit/s
WORDS = "word " * 150  # a minute of speech
BY_SECOND = {"input": 0, "output": 0, "per_second": "0.01"}


def heard(live: Portal, server: Server, content: bytes, price: dict[str, Any], answer: Any, **form: Any) -> Any:
    async def script(call: Call) -> None:
        if form.get("stream"):
            await call.open_stream()
            await call.event({"type": "transcript.text.delta", "delta": answer})
            if form["stream"] == "cut":
                call.cut()
                return
            await call.event({"type": "transcript.text.done", "text": answer})
            await call.end()
        elif isinstance(answer, str):
            await call.reply(200, answer.encode(), {"content-type": "text/plain"})
        else:
            await call.reply(200, answer)

    model = live.model(script, price=price)
    data = {"model": model, **form, **({"stream": "true"} if form.get("stream") else {})}
    path = "/v1/audio/transcriptions"
    token = live.token(live.user(balance=10**11))
    server.catch_up()
    response = server.request("POST", token, path, data=data, files={"file": ("a.new", content)})
    assert response.status_code == 200, response.text
    return live.record(response)


@pytest.mark.parametrize("text", ["", WORDS])
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_minute_costs_about_a_minute(live: Portal, server: Server, text: str, form: str) -> None:
    answer: Any = {"text": text} if form == "json" else text
    record = heard(live, server, MINUTE, BY_SECOND, answer, response_format=form)
    assert record.usage_source == "estimated" and 45_000 <= record.milliseconds <= 90_000
    assert record.cost == record.milliseconds * 10_000
    assert record.reserved >= record.cost


def test_few_bytes_with_many_words_cost_what_was_said(live: Portal, server: Server) -> None:
    few = b"\x93NEW" + bytes(50_000)
    for answer, form in (({"text": WORDS}, {}), (WORDS, {"response_format": "text"}), (WORDS, {"stream": "yes"})):
        record = heard(live, server, few, BY_SECOND, answer, **form)
        assert record.usage_source == "estimated" and 40_000 <= record.milliseconds <= 90_000, form
    record = heard(live, server, few, BY_SECOND, WORDS, stream="cut")
    assert record.end_reason == "truncated" and 40_000 <= record.milliseconds <= 90_000
    cues = "1\n00:00:00,000 --> 00:01:00,000\nHello\n"
    assert heard(live, server, few, BY_SECOND, cues, response_format="srt").milliseconds == 60_000


def test_tokens_of_audio_follow_the_same_length(live: Portal, server: Server) -> None:
    record = heard(live, server, MINUTE, {"input": 0, "audio_input": 6, "output": 0}, {"text": ""})
    assert record.usage_source == "estimated" and record.audio_input_tokens == 60 * 17 + 1


@pytest.mark.parametrize("seconds", [59.5, 30])
def test_a_length_that_the_upstream_reports_is_believed(live: Portal, server: Server, seconds: float) -> None:
    record = heard(live, server, MINUTE, BY_SECOND, {"text": "", "duration": seconds})
    assert (record.usage_source, record.milliseconds) == ("reported", seconds * 1000)
