"""What an API for text must give, so that its clients can use every upstream and its upstreams serve every client. Pure.

Each API converts to and from one form, the hub (`relay.protocols.chat_completions.hub`), and knows no other API. A client's request
becomes a hub request, the upstream's answer a hub completion or hub chunks. Where both sides speak the same API, bytes pass through and
nothing of this is used: see `request`, `answer` and `stream` of that API's folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from portal.lib.json import Json
from relay.protocols.usage import Usage


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between upstreams of the same API."""

    output_field: str = "max_completion_tokens"  # what a chat upstream calls the limit of tokens
    least_output: int = 1  # the fewest tokens that the upstream takes as a limit
    ask_usage: bool = True  # it reports the usage of a stream when it is asked to
    sends_done: bool = True  # its streams end with a marker; where not, every finish_reason ends them


@dataclass(slots=True)
class Form:
    """A request in the form of one API. `dropped`: names of parameters that are not sent, and whose absence is told to the client."""

    body: Json
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer of an upstream: a completion in the hub's form, or the error object that came with the status 200."""

    completion: Json | None
    usage: Usage | None = None
    error: bytes | None = None


class Encoder(Protocol):
    """Hub chunks as the events of a stream to a client."""

    units: float  # a rough number of tokens of the text that came out
    ending: bytes  # what a whole stream ends with whose upstream sent no end marker
    final: Json | None  # the whole answer after `end`, where the API has one that is stored

    def chunk(self, chunk: Json) -> bytes: ...
    def end(self) -> tuple[bytes, bytes]:
        """What goes out now, and the end marker, which goes out when the usage record is on disk."""

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes: ...


class Decoder(Protocol):
    """An upstream's events as hub chunks."""

    usage: Usage | None  # as the upstream reports it
    error: bytes | None  # the upstream's error object
    done: bool  # the end marker has come

    def chunks(self, event: bytes) -> list[Json]:
        """Hub chunks for one whole event."""

    def finish(self) -> None:
        """The connection was closed; whether that is the end of a whole answer, `done` says."""


class Client(Protocol):
    """One request of a client."""

    def hub_request(self) -> Form:
        """Raises BadRequest for what no upstream of another API could be given."""

    def answer(self, completion: Json) -> Json:
        """The answer in the client's API."""

    def encoder(self) -> Encoder: ...


class Upstream(Protocol):
    """An API as upstreams speak it."""

    api: str  # its name among `relay.providers.apis.PATHS`
    answer_name: str  # what a whole answer is, in words

    def request(self, hub: Json, dialect: Dialect) -> Form:
        """Raises BadRequest for what the API cannot be given and the answer would miss."""

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        """Ask for an answer of at most so many tokens."""

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes: ...
    def completion(self, body: bytes) -> Completion | None:
        """None when the body is no answer of this API."""

    def decoder(self, dialect: Dialect) -> Decoder: ...
