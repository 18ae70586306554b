"""The `[[ways]]` of a case: one thing for several clients and an upstream, plain and as a stream.

Each becomes steps for `tests.corpus.runner`. The format is described in tests/corpus/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.protocols.chat_rules import refusal
from tests.support.apis.answers import Answer
from tests.support.apis.turns import next_turn
from tests.support.apis.upstreams import STREAMS, framed, ordinary, stream_of, whole_answer, wrong_items
from tests.support.peers import cohere, gemini, messages, ollama
from tests.support.peers.clouds import converse
from tests.support.upstream import Call

Json = dict[str, Any]

CLIENTS: Final = ("chat", "responses", "messages", "gemini")
# What the channel is, and how the name of the model begins.
_PROVIDERS: Final = {
    "chat": "openai", "responses": "openai", "messages": "anthropic", "gemini": "gemini", "converse": "bedrock_claude",
    "cohere": "cohere_v2", "ollama": "ollama_native",
}  # fmt: skip
_MODELS: Final = {
    "chat": "mock", "responses": "mock", "messages": "claude-sonnet-4-5", "gemini": "gemini-3-pro",
    "converse": "us.amazon.nova-2-lite", "cohere": "command-a", "ollama": "llama",
}  # fmt: skip
_PATHS: Final = {"converse": "", "cohere": "/v2", "ollama": ""}  # of base URLs, where it is not `/v1`
_FAULTS: Final[dict[str, Callable[[Call], str]]] = {
    "messages": messages.fault, "gemini": gemini.fault, "converse": converse.wrong_call, "cohere": cohere.fault,
    "ollama": ollama.fault,
}  # fmt: skip
_SAY: Final = "Say hello."
_ASK: Final[dict[str, Json]] = {
    "chat": {"messages": [{"role": "user", "content": _SAY}]},
    "responses": {"input": _SAY},
    "messages": {"messages": [{"role": "user", "content": _SAY}], "max_tokens": 2000},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": _SAY}]}]},
}
_KEYS: Final = {
    "clients", "upstream", "provider", "model", "channel", "streams", "ask", "answer", "events", "split", "expect",
    "of", "again",
}  # fmt: skip


class Way:
    """One of a case's ways, with the channel and the model that are made for it."""

    def __init__(self, spec: Json, number: int) -> None:
        if unknown := set(spec) - _KEYS:
            raise AssertionError(f"a way has what no runner knows: {', '.join(unknown)}")
        self.upstream: str = spec["upstream"]
        self.name = f"WAY{number}_"
        self.channel: Json = {"provider": spec.get("provider", _PROVIDERS[self.upstream]), **spec.get("channel", {})}
        if self.upstream in {"chat", "responses"}:
            self.channel.setdefault("text_api", self.upstream)
        self.model = spec.get("model", _MODELS[self.upstream])
        self.path: str = _PATHS.get(self.upstream, "/v1")
        self._spec = spec

    def steps(self) -> Iterator[Json]:
        usual = [True] if "events" in self._spec and "answer" not in self._spec else [False, True]
        for client in self._spec["clients"]:
            for stream in self._spec.get("streams", usual):
                yield self._step(client, stream)

    def _step(self, client: str, stream: bool) -> Json:
        asked = self._spec.get("ask", {})
        if isinstance(asked, dict) and all(
            name in CLIENTS and isinstance(value, (dict, str)) for name, value in asked.items()
        ):
            asked = asked.get(client, {})
        body = {**_ASK[client], **_table(asked)}
        about = f"{client} → {self.upstream}, {'a stream' if stream else 'plain'}"
        step: Json = {"about": about, "way": self, "client": client, "stream": stream}
        if "again" in self._spec:
            step["again"] = True
        if client == "gemini":
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
            step["path"] = f"/v1beta/models/${self.name}:{method}"
        else:
            paths = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
            step["path"] = paths[client]
            body = {"model": f"${self.name}", **body, **({"stream": True} if stream else {})}
        step["body"] = json.dumps(body, ensure_ascii=False)
        step["expect"] = _joined(self._spec.get("expect", {}), self._spec.get("of", {}).get(client, {}))
        if stream and not step["expect"].keys() & {"error", "status"}:
            step["expect"].setdefault("done", True)
        whole = whole_answer(self.upstream, _table(self._spec.get("answer", {})))
        sent = _answered(self.upstream, whole, self._spec.get("events"), stream, self._spec.get("split", 0))
        return {**step, "upstream": [sent]}

    def again(self, step: Json, answer: Answer) -> Json:
        """The step of the next turn: the conversation so far, as the client's SDK keeps it, and what follows."""
        client = step["client"]
        body = next_turn(client, json.loads(step["body"]), answer)
        expect = dict(self._spec["again"])
        expect = _joined(expect, expect.pop("of", {}).get(client, {}))
        about = f"{step['about']}, the second turn"
        return {
            **step,
            "about": about,
            "body": json.dumps(body, ensure_ascii=False),
            "expect": expect,
            "upstream": [_answered(self.upstream, ordinary(self.upstream), None, step["stream"], 0)],
        }

    def fault(self, call: Call) -> str:
        """Why an upstream as strict as the real one would refuse a request; empty: it would not."""
        if self.upstream in _FAULTS:
            return _FAULTS[self.upstream](call)
        return refusal(call.json) if self.upstream == "chat" else wrong_items(call.json)


def _answered(api: str, whole: Json, events: list[Any] | None, stream: bool, split: int) -> Json:
    """What the upstream sends. `split`: characters that arrive at once; 0: an event."""
    if not stream:
        return {"body": json.dumps(whole, ensure_ascii=False)}
    pieces = [framed(api, event) for event in events or stream_of(api, whole)]
    if split:
        text = b"".join(pieces)
        pieces = [text[at : at + split] for at in range(0, len(text), split)]
    return {"headers": {"content-type": STREAMS.get(api, "text/event-stream")}, "pieces": pieces}


def _table(value: Any) -> Json:
    return json.loads(value) if isinstance(value, str) else value  # type: ignore[no-any-return]


def _joined(one: Json, other: Json) -> Json:
    """Two tables of expectations; what both have as tables or lists is put together."""
    found = dict(one)
    for name, value in other.items():
        old = found.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            found[name] = _joined(old, value)
        elif isinstance(old, list) and isinstance(value, list) and name in {"contains", "lacks", "ignored"}:
            found[name] = [*old, *value]
        else:
            found[name] = value
    return found
