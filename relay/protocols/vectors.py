"""What an API in which upstreams make vectors implements, so that clients of OpenAI's embeddings can use it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from portal.lib.json import Json
from relay.protocols.usage import Usage


@dataclass(frozen=True, slots=True)
class Embedded:
    """What the portal needs of an answer in another API."""

    vectors: list[list[float]] = field(default_factory=list)
    usage: Usage | None = None  # None: the upstream reports none
    error: bytes | None = None  # the error object that came with the status 200


@dataclass(frozen=True, slots=True)
class VectorRequest:
    """A request for vectors in another API."""

    api: str  # that is asked
    body: Json
    lost: list[str]  # members of the client's request that are not carried


class VectorUpstream(Protocol):
    """An API of upstreams that makes vectors, for clients of OpenAI's embeddings."""

    api: str  # its name among `relay.providers.apis.PATHS`

    def request(self, fields: Json, model: str) -> VectorRequest:
        """The request of a client, decoded, for what the upstream calls `model`. Raises BadRequest."""

    def read(self, body: bytes, wanted: int) -> Embedded | None:
        """An answer; None when it is none, or has not just the `wanted` vectors."""
