"""Runs one case of the corpus: a file that says what upstreams answer, what clients send, and what must come of it.

The format is described in tests/corpus/README.md.
"""

from __future__ import annotations

import gzip
import json
import tomllib
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx

from portal.lib import money
from tests.corpus.ways import Way
from tests.support.apis.answers import Answer, CaseError, check_items, decoded, events_of
from tests.support.asserts import until
from tests.support.money import settled
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server
from tests.support.upstream import Call, hello

PRICE: Final = {"input": 10, "output": 20}  # USD per million tokens
_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}
_STREAM: Final = "text/event-stream"


class Case:
    """A case and the objects made for it."""

    def __init__(self, path: Path, live: Portal, server: Server) -> None:
        self.live, self.server = live, server
        self.spec: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        self.known: dict[str, str] = {}  # $NAMES in requests and expectations
        self.answers: list[dict[str, Any]] = []  # of the step at hand
        self.calls: list[Call] = []  # what upstreams were sent in it
        self.ways = [Way(spec, number) for number, spec in enumerate(self.spec.get("ways", ()), 1)]
        self._way: Way | None = None  # of the step at hand
        self._users: dict[str, Any] = {}
        self._tokens: dict[str, str] = {}

    def run(self) -> None:
        steps = [*self.spec.get("step", ()), *(step for way in self.ways for step in way.steps())]
        for number, step in enumerate(steps, 1):
            for _ in range(step.get("repeat", 1)):
                self.answers, self.calls = list(step.get("upstream", [])), []
                self._way = step.get("way")
                response = self._send(step)
                try:
                    answer = self._check(step, response)
                    if step.get("again"):
                        step = step["way"].again(step, answer)
                        self.answers = list(step["upstream"])
                        response = self._send(step)
                        self._check(step, response)
                except CaseError as error:
                    sent = "\n".join(
                        f"  {call.path} {call.body.decode(errors='replace')[:3000]}" for call in self.calls
                    )
                    raise CaseError(
                        f"step {number}: {step.get('about', '')} {error}\n"
                        f"answer {response.status_code} {dict(response.headers)}\n"
                        f"{response.content.decode(errors='replace')[:6000]}\nsent up:\n{sent}"
                    ) from None
        if (balance := self.spec.get("balance_left")) is not None:
            account = settled(self._users["owner"])
            _same("the balance left", money.plain(account.granted - account.used), str(balance))

    # -- what is needed ----------------------------------------------------------------------------------------------

    def make(self) -> None:
        spec, live = self.spec, self.live
        channels = [spec.get("channel", {}), *spec.get("spare", [])] if "step" in spec else []
        made = [
            live.channel(keys=(f"sk-corpus-{number}-0123456789",), priority=10 - number, **options)
            for number, options in enumerate(channels, 1)
        ]
        if made:
            self.known["MODEL"] = live.model(self._answer, channels=made, **{"price": PRICE, **spec.get("model", {})})
        for key, options in spec.get("models", {}).items():  # more of them, on the same channels
            self.known[key] = live.model(self._answer, channels=made, **{"price": PRICE, **options})
        for way in self.ways:
            root = live.upstream.base_url.removesuffix("/v1")
            channel = live.channel(root + way.path, keys=("sk-corpus-1-0123456789",), **way.channel)
            upstream_name = f"{way.model}-{20_000_000 + channel.pk}"  # which chooses the script
            self.known[way.name] = live.model(
                self._answer, channels=[channel], price=PRICE, upstream_name=upstream_name
            )
        for key, options in ({"owner": {}} | spec.get("users", {})).items():
            options = dict(options)
            if "balance" in options:
                options["balance"] = money.nano(Decimal(options["balance"]))
            self._users[key] = live.user(**options)
            self._tokens[key] = live.token(self._users[key])

    async def _answer(self, call: Call) -> None:
        """The next answer of the step for the channel that was asked; the last one stays."""
        signed = (call.headers.get(name, "") for name in ("authorization", "x-api-key", "x-goog-api-key"))
        key = next(filter(None, signed), "").removeprefix("Bearer ")
        channel = int(key.split("-")[2]) if key.startswith("sk-corpus-") else 0
        self.calls.append(call)
        if self._way is not None and (wrong := self._way.fault(call)):
            await call.error(400, f"refused: {wrong}")
            return
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

    def _check(self, step: dict[str, Any], response: httpx.Response) -> Answer:
        expect = dict(step["expect"])
        _same("the status", response.status_code, expect.pop("status", 200))
        if "body" in expect:
            _same("the body", response.text, self._named(expect.pop("body")))
        _holds("the answer", response.text, expect)
        for name, value in expect.pop("headers", {}).items():
            _same(f"the header {name}", response.headers.get(name, ""), value)
        ignored = response.headers.get("x-airelays-ignored-parameters", "").split(",")
        for name in expect.pop("ignored", []):
            if name not in ignored:
                raise CaseError(f"{name} is not among the ignored parameters, {ignored}")
        streamed = response.headers.get("content-type", "").startswith(_STREAM)
        events = list(events_of(response.content)) if streamed else []
        answer = Answer(events if streamed else [decoded(response.content)])
        if streamed and step.get("client") == "responses" != step["way"].upstream:
            check_items(answer.events)
        for name in ("said", "thought", "calls", "called", "finish", "ended", "error", "done"):
            if name in expect:
                _same(name, getattr(answer, name), expect.pop(name))
        final = answer.final
        for path, value in expect.pop("json", {}).items():
            _same(path, _at(final, path), self._named(value) if isinstance(value, str) else value)
        for path, value in expect.pop("least", {}).items():
            if (_at(final, path) or 0) < value:
                raise CaseError(f"{path} is {_at(final, path)}, less than {value}")
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
        return answer

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


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


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
