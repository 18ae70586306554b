"""The faults of upstreams, what the client must see, and what the record must say. Data for `bench.faults.run`.

The faulty upstream is a real server on a real port (`tests.support.upstream`); the name of the model selects its fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.faults.scripts import (
    RESETS,
    answer_error,
    answer_with,
    cut_after_terminal,
    cut_mid_stream,
    end_without_terminal,
    error_as_first_event,
    error_mid_stream,
    gzip_cut,
    healthy,
    huge_event,
    malformed_event,
    plain_cut,
    reset,
    silent,
    split_utf8,
    stall,
)
from tests.support.upstream import Script

IDLE: Final = 2  # seconds of the idle and first-byte timeouts of targets
TEXT: Final = "Hello there."


@dataclass
class ClientAnswer:
    """The answer that a client received."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    broken: str = ""  # why the connection ended before the answer did
    seconds: float = 0.0

    @property
    def events(self) -> list[str]:
        """The payloads of a stream."""
        return [
            line[5:].strip()
            for line in self.body.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
            if line.startswith("data:")
        ]

    @property
    def done(self) -> bool:
        return bool(self.events) and self.events[-1] == "[DONE]"

    @property
    def text(self) -> str:
        """The text of the answer, streamed or not."""
        if not self.events:
            try:
                return str(json.loads(self.body)["choices"][0]["message"]["content"])
            except (ValueError, KeyError, IndexError, TypeError):
                return ""
        words = []
        for event in self.events:
            try:
                words += [choice["delta"].get("content") or "" for choice in json.loads(event)["choices"]]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return "".join(words)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal or of a stream's last event; empty when there is none."""
        for text in (
            [self.body.decode("utf-8", "replace")]
            if not self.events
            else [event for event in self.events if event != "[DONE]"][::-1]
        ):
            try:
                found = json.loads(text).get("error")
            except (ValueError, AttributeError):
                continue
            if isinstance(found, dict):
                return found
        return {}


FaultCheck = Callable[[ClientAnswer], str]  # what is wrong, empty when nothing is


@dataclass(frozen=True)
class Case:
    """One fault of an upstream."""

    name: str
    script: Script
    check: FaultCheck
    expected: str  # what the client must see, in words
    stream: bool = False
    spare: bool = False  # a second, healthy upstream serves the model as well
    outcome: str = ""  # of the first attempt on the record
    ends: str = "completed"  # the end reason on the record
    where: str = "upstream"  # `upstream` (the scripted one), `refused` or `tls`
    waits: bool = False  # the record must contain the upstream's wait
    retry: str = "broken"  # the channel's `retry_unanswered`


# -- checks of what clients see ----------------------------------------------------------------------------------------


def complete(seen: ClientAnswer) -> str:
    if seen.status != 200 or seen.broken:
        return f"status {seen.status} {seen.broken}".strip()
    if seen.text != TEXT:
        return f"the text is {seen.text[:60]!r}"
    return "" if not seen.events or seen.done else "no [DONE]"


def refused_with(*statuses: int, code: str = "", retry_after: bool = False) -> FaultCheck:
    def check(seen: ClientAnswer) -> str:
        if seen.status not in statuses:
            return f"status {seen.status or seen.broken}"
        if not seen.error.get("message"):
            return "no error object"
        if code and seen.error.get("code") != code:
            return f"code {seen.error.get('code')!r}"
        if retry_after and not seen.headers.get("retry-after", "").isdigit():
            return f"Retry-After is {seen.headers.get('retry-after')!r}"
        return ""

    return check


def cut_off(seen: ClientAnswer) -> str:
    """A stream that began and broke off must contain an error, and no regular end."""
    if seen.status != 200:
        return f"status {seen.status}"
    if seen.done or "[DONE]" in seen.events:
        return "[DONE], as if it were complete"
    return (
        ""
        if seen.error.get("message")
        else "ends without an error, as if it were complete"
        if not seen.broken
        else "no error event, only a broken connection"
    )


def within(check: FaultCheck, seconds: float) -> FaultCheck:
    def timed(seen: ClientAnswer) -> str:
        return check(seen) or (f"after {seen.seconds:.1f} s" if seen.seconds > seconds else "")

    return timed


def intact_utf8(seen: ClientAnswer) -> str:
    return (
        ""
        if seen.status == 200 and seen.text == "Grüße, 世界 🌍" and seen.done
        else f"status {seen.status}, the text is {seen.text[:40]!r}"
    )


def intact_huge(seen: ClientAnswer) -> str:
    return (
        ""
        if seen.status == 200 and len(seen.text) == 20_000_000 and seen.done
        else f"status {seen.status}, {len(seen.text)} characters"
    )


_SPARE: Final = "the whole answer, from the other upstream"

CASES: Final = (
    Case("connection refused", healthy, complete, _SPARE, spare=True, where="refused", outcome="transient"),
    Case(
        "connection refused, no other",
        healthy,
        refused_with(502, 503, 500),
        "502 with an error object",
        where="refused",
        outcome="transient",
        ends="upstream_error",
    ),
    Case("TLS error", healthy, complete, _SPARE, spare=True, where="tls", outcome="transient"),
    Case("401", answer_error(401, "invalid_api_key"), complete, _SPARE, spare=True, outcome="key_dead"),
    Case(
        "401, no other",
        answer_error(401, "invalid_api_key"),
        refused_with(502, 503),
        "502, never 401: the client's own token is fine",
        outcome="key_dead",
        ends="upstream_error",
    ),
    Case("402", answer_error(402, "x"), complete, _SPARE, spare=True, outcome="billing"),
    Case("403", answer_error(403, "x"), complete, _SPARE, spare=True, outcome="key_forbidden_model"),
    Case("404", answer_error(404, "model_not_found"), complete, _SPARE, spare=True, outcome="key_forbidden_model"),
    *(
        Case(f"429, {name}", script, complete, _SPARE, spare=True, outcome="rate", waits=True)
        for name, script in RESETS.items()
    ),
    Case(
        "429, no other",
        RESETS["retry-after"],
        refused_with(429, retry_after=True),
        "429 with the upstream's own Retry-After",
        outcome="rate",
        waits=True,
        ends="upstream_error",
    ),
    Case("500", answer_error(500, "x"), complete, _SPARE, spare=True, outcome="transient"),
    Case("500 on a stream", answer_error(500, "x"), complete, _SPARE, spare=True, stream=True, outcome="transient"),
    Case("503", answer_error(503, "x"), complete, _SPARE, spare=True, outcome="overload"),
    Case("529", answer_error(529, "overloaded_error"), complete, _SPARE, spare=True, outcome="overload"),
    Case(
        "HTML 502",
        answer_with(502, b"<html><h1>502 Bad Gateway</h1></html>", {"content-type": "text/html"}),
        complete,
        _SPARE,
        spare=True,
        outcome="transient",
    ),
    Case(
        "HTML 200",
        answer_with(200, b"<html>Welcome</html>", {"content-type": "text/html"}),
        complete,
        _SPARE,
        spare=True,
        outcome="transient",
    ),
    Case(
        "200 with an error body", answer_error(200, "server_error"), complete, _SPARE, spare=True, outcome="transient"
    ),
    Case("empty 200", answer_with(200, b""), complete, _SPARE, spare=True, outcome="transient"),
    Case(
        "empty 200 on a stream",
        answer_with(200, b"", {"content-type": "text/event-stream"}),
        complete,
        _SPARE,
        spare=True,
        stream=True,
        outcome="transient",
    ),
    Case("malformed JSON", answer_with(200, b'{"choices": [{"mess'), complete, _SPARE, spare=True, outcome="transient"),
    Case("error as first event", error_as_first_event, complete, _SPARE, spare=True, stream=True, outcome="transient"),
    Case(
        "redirect",
        answer_with(302, b"", {"location": "http://127.0.0.1:9/v1"}),
        complete,
        _SPARE,
        spare=True,
        outcome="config",
    ),
    Case("gzip cut", gzip_cut, complete, _SPARE, spare=True, outcome="unanswered"),
    Case("plain answer cut", plain_cut, complete, _SPARE, spare=True, outcome="unanswered"),
    Case("reset", reset, complete, _SPARE, spare=True, outcome="unanswered"),
    Case(
        "slow first byte",
        silent,
        within(complete, IDLE + 2),
        f"{_SPARE}, after the first-byte timeout",
        spare=True,
        outcome="timeout",
        retry="always",
    ),
    Case(
        "slow first byte, no other",
        silent,
        within(refused_with(504, 408), IDLE + 2),
        "504 (or 408) after the first-byte timeout",
        outcome="timeout",
        ends="timeout",
    ),
    Case(
        "stall mid-stream",
        stall,
        within(cut_off, IDLE + 2),
        "an error event after the idle timeout, no [DONE]",
        stream=True,
        ends="timeout",
    ),
    Case("cut mid-stream", cut_mid_stream, cut_off, "an error event, no [DONE]", stream=True, ends="truncated"),
    Case(
        "end without terminal event",
        end_without_terminal,
        cut_off,
        "an error event, no [DONE]",
        stream=True,
        ends="truncated",
    ),
    Case("cut after terminal event", cut_after_terminal, complete, "the whole answer and [DONE]", stream=True),
    Case(
        "error mid-stream",
        error_mid_stream,
        cut_off,
        "the upstream's error, no [DONE]",
        stream=True,
        ends="upstream_error",
    ),
    Case("malformed event", malformed_event, complete, "the events before and after it, and [DONE]", stream=True),
    Case("UTF-8 split", split_utf8, intact_utf8, "the same characters", stream=True),
    Case("20 MB event", huge_event, intact_huge, "every byte of it", stream=True),
)
