"""What a text API implements, so that its clients can use every upstream and its upstreams serve every client. Pure.

Each API converts to and from one form, the hub (`relay.protocols.chat_completions.hub`), and knows no other API. Where
both sides speak the same API, bytes pass through: see `request`, `answer` and `stream` of that API's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from portal.lib.json import Json
from relay.protocols.framing.envelope import Envelope
from relay.protocols.usage import Usage


@dataclass(frozen=True, slots=True)
class Dialect:
    """The differences between upstreams of the same API."""

    output_field: str = "max_completion_tokens"  # the output limit's name at a chat completions upstream
    least_output: int = 1  # the smallest output limit that the upstream accepts, in tokens
    ask_usage: bool = True  # it reports the usage of a stream on request
    sends_done: bool = True  # its streams end with a marker; otherwise with every choice's finish_reason
    late_system: bool = False  # it accepts system messages behind others; templates of open models refuse them
    cache_marks: frozenset[str] = frozenset()  # what chat completions upstreams take of the ends of cached prefixes
    longest: int = 0  # tokens of the longest answer of the model, for APIs that demand a limit; 0: it is not known
    envelope: Envelope | None = None  # how it takes requests of the Messages API, where that is not Anthropic's own way
    vendor: str = ""  # which gets back what it wants to have back with the conversation


@dataclass(slots=True)
class ConvertedRequest:
    """A request converted to one API's form."""

    body: Json
    dropped: list[str] = field(default_factory=list)  # parameters that are not sent, as reported to the client
    names: Mapping[str, str] = field(default_factory=dict)  # the client's of tools, by those that the upstream is told
    stops: Sequence[str] = ()  # before the first of these the answer is ended here, since the upstream cannot


@dataclass(frozen=True, slots=True)
class Completion:
    completion: Json | None  # a complete answer in the hub form; None for an error
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the error object that came with the status 200


class Encoder(Protocol):
    """Encodes hub chunks as the events of a stream to a client."""

    units: float  # estimated tokens of the text written so far
    ending: bytes  # ends a complete stream whose upstream sent no end marker
    final: Json | None  # the complete answer after `end`, for APIs that store it

    def chunk(self, chunk: Json) -> bytes: ...
    def end(self) -> tuple[bytes, bytes]:
        """The bytes to send now, and the end marker, which is sent once the usage record is on disk."""

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes: ...
    def so_far(self) -> Json | None: ...  # what has been written, for APIs that store an answer that breaks off


class Decoder(Protocol):
    """Decodes an upstream's events into hub chunks."""

    usage: Usage | None  # as the upstream reports it
    error: bytes | None  # the upstream's error object
    done: bool  # the answer is complete

    def chunks(self, event: bytes) -> list[Json]:
        """The hub chunks of one complete event."""

    def finish(self, clean: bool) -> None:
        """The connection was closed; `clean`: where the framing says. Sets `done` when the answer is complete."""


class Client(Protocol):
    """One request of a client, converted to the hub form and back."""

    def hub_request(self) -> ConvertedRequest: ...  # raises BadRequest for what no other API can express
    def answer(self, completion: Json) -> Json: ...  # a hub completion in the client's API
    def encoder(self) -> Encoder: ...


class Upstream(Protocol):
    """The upstream side of an API: hub requests converted to it, and its answers to the hub form."""

    api: str  # its name among `relay.providers.apis.PATHS`
    answer_name: str  # what it calls a complete answer, for error messages
    refuses_longer: bool  # it refuses a limit above that of the model, of which clients of other APIs do not know

    def address(self, stream: bool) -> tuple[str, str]: ...  # the name in PATHS of what is asked, and its query
    # A hub request in this API. Raises BadRequest for what the API cannot express and the answer depends on.
    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest: ...
    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None: ...  # limits the answer to so many tokens
    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes: ...
    def completion(self, body: bytes, dialect: Dialect) -> Completion | None: ...  # None: it is none of this API
    def decoder(self, dialect: Dialect) -> Decoder: ...
