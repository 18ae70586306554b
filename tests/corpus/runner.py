"""Runs one case of the corpus: a file that says what upstreams answer, what clients send, and what must come of it.

The format is described in tests/corpus/README.md.
"""

from __future__ import annotations

import gzip
import json
import tomllib
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx

from portal.lib import money
from tests.support.asserts import until
from tests.support.money import settled
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import Call, hello

PRICE: Final = {"input": 10, "output": 20}  # USD per million tokens
_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}
_STREAM: Final = "text/event-stream"


class CaseError(AssertionError):
    """Something of a case did not come out as it should; the message says what."""


class Case:
    """A case and the objects made for it."""

    def __init__(self, path: Path, live: Portal, server: Server) -> None:
        self.live, self.server = live, server
        self.spec: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        self.known: dict[str, str] = {}  # $NAMES in requests and expectations
        self.answers: list[dict[str, Any]] = []  # of the step at hand
        self.calls: list[Call] = []  # what upstreams were sent in it
        self._users: dict[str, Any] = {}
        self._tokens: dict[str, str] = {}

    def run(self) -> None:
        for number, step in enumerate(self.spec["step"], 1):
            for _ in range(step.get("repeat", 1)):
                self.answers, self.calls = list(step.get("upstream", [])), []
                response = self._send(step)
                try:
                    self._check(step, response)
                except CaseError as error:
                    sent = "\n".join(
                        f"  {call.path} {call.body.decode(errors='replace')[:3000]}" for call in self.calls
                    )
                    raise CaseError(
                        f"step {number}: {error}\nanswer {response.status_code} {dict(response.headers)}\n"
                        f"{response.content.decode(errors='replace')[:6000]}\nsent up:\n{sent}"
                    ) from None
        if (balance := self.spec.get("balance_left")) is not None:
            account = settled(self._users["owner"])
            _same("the balance left", money.plain(account.granted - account.used), str(balance))

    # -- what is needed ----------------------------------------------------------------------------------------------

    def make(self) -> None:
        spec, live = self.spec, self.live
        channels = [spec.get("channel", {}), *spec.get("spare", [])]
        made = [
            live.channel(keys=(f"sk-corpus-{number}-0123456789",), priority=10 - number, **options)
            for number, options in enumerate(channels, 1)
        ]
        model = {"price": PRICE, **spec.get("model", {})}
        name = live.model(self._answer, channels=made, **model)
        self.known["MODEL"] = name
        for key, options in spec.get("models", {}).items():  # more of them, on the same channels
            self.known[key] = live.model(self._answer, channels=made, **{"price": PRICE, **options})
        for key, options in ({"owner": {}} | spec.get("users", {})).items():
            options = dict(options)
            if "balance" in options:
                options["balance"] = money.nano(Decimal(options["balance"]))
            self._users[key] = live.user(**options)
            self._tokens[key] = live.token(self._users[key])

    async def _answer(self, call: Call) -> None:
        """The next answer of the step for the channel that was asked; the last one stays."""
        key = call.headers.get("authorization", "").removeprefix("Bearer ")
        channel = int(key.split("-")[2]) if key.startswith("sk-corpus-") else 0
        self.calls.append(call)
        fitting = [answer for answer in self.answers if answer.get("channel", channel) == channel]
        if not fitting:
            await hello(call)
            return
        answer = fitting[0]
        if len(fitting) > 1:
            self.answers.remove(answer)
        pieces = [_bytes(piece) for piece in answer.get("pieces", [])] or [self._fill(answer)]
        headers = dict(answer.get("headers", {}))
        if (encoding := headers.get("content-encoding", "")) in _ENCODERS:
            pieces = [_ENCODERS[encoding](b"".join(pieces))]
        streamed = "pieces" in answer or headers.get("content-type", "").startswith(_STREAM)
        headers = {"content-type": "application/json", **headers}
        if streamed:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["content-length"] = str(len(pieces[0]))
        head = f"HTTP/1.1 {answer.get('status', 200)} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items())
        await call.raw(head.encode() + b"\r\n")
        for piece in pieces:
            await (call.send(piece) if streamed else call.raw(piece))
        if answer.get("end") == "cut":
            call.cut()
        elif streamed:
            await call.end()

    def _fill(self, holder: dict[str, Any]) -> bytes:
        """The body of a request or answer, with its $NAMES."""
        if "body_hex" in holder:
            return bytes.fromhex(holder["body_hex"])
        text = holder["body"] if isinstance(holder.get("body"), str) else json.dumps(holder.get("body", {}))
        return _bytes(self._named(text))

    def _named(self, text: str) -> str:
        for name in sorted(self.known, key=len, reverse=True):
            text = text.replace(f"${name}", self.known[name])
        return text

    # -- the request -------------------------------------------------------------------------------------------------

    def _send(self, step: dict[str, Any]) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._tokens[step.get('user', 'owner')]}", **step.get("headers", {})}
        options: dict[str, Any] = {}
        if "form" in step:
            options["data"] = {name: self._named(text) for name, text in step["form"].items()}
            options["files"] = {
                name: (file["name"], _bytes(file["body"]), file.get("type")) for name, file in step["files"].items()
            }
        elif step.get("method", "POST") != "GET":
            headers = {"content-type": "application/json", **headers}
            options["content"] = self._fill(step)
            if (encoding := headers.get("content-encoding", "")) in _ENCODERS:
                options["content"] = _ENCODERS[encoding](options["content"])
        return httpx.request(
            step.get("method", "POST"),
            self.server.url + self._named(step.get("path", "/v1/chat/completions")),
            headers=headers,
            timeout=60,
            trust_env=False,
            verify=NO_CERTIFICATES,
            **options,
        )

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _check(self, step: dict[str, Any], response: httpx.Response) -> None:
        expect = dict(step["expect"])
        _same("the status", response.status_code, expect.pop("status", 200))
        if "body" in expect:
            _same("the body", response.text, self._named(expect.pop("body")))
        _holds("the answer", response.text, expect)
        for name, value in expect.pop("headers", {}).items():
            _same(f"the header {name}", response.headers.get(name, ""), value)
        streamed = response.headers.get("content-type", "").startswith(_STREAM)
        events = list(_events(response.content)) if streamed else []
        answer = Answer(events if streamed else [_json(response.content)])
        for name in ("said", "thought", "calls", "finish", "error", "done"):
            if name in expect:
                _same(name, getattr(answer, name), expect.pop(name))
        final = answer.final
        for path, value in expect.pop("json", {}).items():
            _same(path, _at(final, path), self._named(value) if isinstance(value, str) else value)
        for name, path in step.get("keep", {}).items():
            self.known[name] = str(_at(final, path))
        if "sent" in expect:
            _same("the number of requests upstream", len(self.calls), expect.pop("sent"))
        if (up := expect.pop("upstream", None)) is not None:
            self._check_sent(dict(up))
        if (record := expect.pop("record", None)) is not None:
            row = self.live.record(response)
            for name, value in record.items():
                found = getattr(row, name)
                found = money.plain(found) if name in {"cost", "shortfall", "upstream_cost"} else found
                _same(f"the record's {name}", found, value)
        if expect:
            raise CaseError(f"the case expects what no runner knows: {', '.join(expect)}")

    def _check_sent(self, up: dict[str, Any]) -> None:
        until(lambda: self.calls)
        call = self.calls[-1]
        if "path" in up:
            _same("the path asked for", call.path, up.pop("path"))
        _holds("what was sent up", call.body.decode(errors="replace"), up)
        for path, value in up.pop("json", {}).items():
            _same(f"sent {path}", _at(call.json, path), self._named(value) if isinstance(value, str) else value)
        if up:
            raise CaseError(f"the case expects of what was sent what no runner knows: {', '.join(up)}")


class Answer:
    """What an answer says, whichever protocol it has and whether it was streamed."""

    def __init__(self, events: list[Any]) -> None:
        self.done = bool(events) and (
            events[-1] == "[DONE]"
            or (
                isinstance(events[-1], dict) and events[-1].get("type") in {"response.completed", "response.incomplete"}
            )
        )
        self._events = [event for event in events if isinstance(event, dict)]
        ended = [event["response"] for event in self._events if isinstance(event.get("response"), dict)]
        self.final: Any = ended[-1] if ended else self._events[-1] if self._events else None

    @property
    def _choices(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for event in self._events:
            for choice in event.get("choices") or ():
                yield choice, choice.get("delta") or choice.get("message") or {}

    @property
    def _items(self) -> list[dict[str, Any]]:
        return [item for item in (self.final or {}).get("output") or () if isinstance(item, dict)]

    @property
    def said(self) -> str:
        """The text, as a reader of the events puts it together."""
        if not self._responses:
            return "".join(message.get("content") or "" for _choice, message in self._choices)
        deltas = [event["delta"] for event in self._events if event.get("type") == "response.output_text.delta"]
        messages = [item for item in self._items if item.get("type") == "message"]
        whole = "".join(part.get("text") or "" for item in messages for part in item.get("content") or ())
        if len(self._events) > 1 and "".join(deltas) != whole:
            raise CaseError(f"the deltas say {''.join(deltas)!r}, the items {whole!r}")
        return whole

    @property
    def thought(self) -> str:
        if not self._responses:
            return "".join(message.get("reasoning_content") or "" for _choice, message in self._choices)
        found = [item for item in self._items if item.get("type") == "reasoning"]
        return "".join(
            part.get("text") or ""
            for item in found
            for part in (item.get("content") or []) + (item.get("summary") or [])
        )

    @property
    def calls(self) -> list[list[str]]:
        """[id, name, arguments] of each call, as the SDKs accumulate them."""
        if self._responses:
            kinds = {"function_call", "custom_tool_call"}
            return [
                [item.get("call_id", ""), item.get("name", ""), item.get("arguments", item.get("input", ""))]
                for item in self._items
                if item.get("type") in kinds
            ]
        found: dict[object, list[str]] = {}
        for choice, message in self._choices:
            for number, call in enumerate(message.get("tool_calls") or ()):
                place = (choice.get("index"), call.get("index", number))
                line = found.setdefault(place, ["", "", ""])
                function = call.get("function") or {}
                line[0] = line[0] or call.get("id") or ""
                line[1] += function.get("name") or ""
                line[2] += function.get("arguments") or ""
        return list(found.values())

    @property
    def finish(self) -> str:
        if self._responses:
            details = (self.final or {}).get("incomplete_details") or {}
            return details.get("reason") or (self.final or {}).get("status") or ""
        return next((choice["finish_reason"] for choice, _ in self._choices if choice.get("finish_reason")), "")

    @property
    def error(self) -> str:
        """The code of the error, in the body or in an event; empty: there is none."""
        for event in self._events:
            failed = event.get("error") or ((event.get("response") or {}).get("error"))
            if event.get("type") == "error" and not failed:
                failed = event
            if isinstance(failed, dict):
                return str(failed.get("code") or failed.get("type"))
        return ""

    @property
    def _responses(self) -> bool:
        final = self.final if isinstance(self.final, dict) else {}
        return final.get("object") == "response" or "output" in final


def _events(body: bytes) -> Iterator[Any]:
    """The data of server-sent events, decoded where it is JSON."""
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if data:
            yield "[DONE]" if data == b"[DONE]" else _json(data)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _at(value: Any, path: str) -> Any:
    """The value at a path such as `choices.0.message.content`; None where there is none. `#` counts a list."""
    for part in path.split("."):
        if part == "#":
            return len(value or ())
        if isinstance(value, list):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _holds(what: str, text: str, expect: dict[str, Any]) -> None:
    for part in expect.pop("contains", []):
        if part not in text:
            raise CaseError(f"{what} lacks {part!r}")
    for part in expect.pop("lacks", []):
        if part in text:
            raise CaseError(f"{what} contains {part!r}")


def _same(what: str, found: Any, wanted: Any) -> None:
    wanted = None if wanted == "<none>" else wanted
    if found != wanted:
        raise CaseError(f"{what} is {found!r}, not {wanted!r}")
