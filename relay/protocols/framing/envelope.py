"""The Messages API as clouds have it: the model is in the address, and the version of the API in the body. Pure.

Source: the Vertex and Bedrock clients of Anthropic's SDK 2.14, November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from portal.lib.json import Json, encode
from relay.protocols.fields import Fields

T = TypeVar("T")
VERSION: Final = "anthropic_version"
_BETA: Final = "anthropic_beta"
_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Envelope:
    """What one cloud takes in place of members and headers."""

    # What it calls the version of the API.
    version: str
    # Whether the body says that the answer is to be streamed, beside the address.
    stream: bool
    # The betas that the body may name, where a header names them elsewhere; None: the header goes as it is.
    betas: frozenset[str] | None = None

    def put(self, body: Json) -> Json:
        """The members of a request of the portal's own."""
        return {VERSION: self.version, **self._kept(body)}

    def put_bytes(self, body: bytes, header: str = "") -> tuple[bytes, list[str]]:
        """The body of a client's request, and the betas that are left out, since the cloud would refuse the request.

        `header`: the betas that the client names, separated by commas.
        """
        fields: Fields = self._kept(_decoder.decode(body))
        fields.setdefault(VERSION, msgspec.Raw(encode(self.version)))
        if self.betas is None:
            return encode(fields), []
        names = list(dict.fromkeys(name for part in header.split(",") if (name := part.strip())))
        if known := [name for name in names if name in self.betas]:
            fields.setdefault(_BETA, msgspec.Raw(encode(known)))
        return encode(fields), [name for name in names if name not in self.betas]

    def _kept(self, members: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in members.items() if name != "model" and (self.stream or name != "stream")}


VERTEX: Final = Envelope("vertex-2023-10-16", stream=True)
# The betas are those that Bedrock's user guide lists for Claude (November 2026); any other is a 400.
BEDROCK: Final = Envelope(
    "bedrock-2023-05-31",
    stream=False,
    betas=frozenset((
        "computer-use-2024-10-22", "computer-use-2025-01-24", "computer-use-2025-11-24",
        "token-efficient-tools-2025-02-19", "interleaved-thinking-2025-05-14", "output-128k-2025-02-19",
        "dev-full-thinking-2025-05-14", "context-1m-2025-08-07", "context-management-2025-06-27", "effort-2025-11-24",
        "tool-search-tool-2025-10-19", "tool-examples-2025-10-29", "fine-grained-tool-streaming-2025-05-14",
        "compact-2026-01-12",
    )),
)  # fmt: skip
