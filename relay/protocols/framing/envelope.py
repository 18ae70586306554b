"""The Messages API as clouds have it: the model is in the address, and the version of the API in the body. Pure.

Source: the Vertex and Bedrock clients of Anthropic's SDK 2.14, November 2026.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from portal.lib.json import Json, decode_object, encode
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
    # The betas that the body may name, as they are called there; None: the header goes as it is.
    betas: Mapping[str, str] | None = None
    # Counts the tokens of a request of the API that it is given within another one.
    wraps_counts: bool = False

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
        if known := [self.betas[name] for name in names if name in self.betas]:
            fields.setdefault(_BETA, msgspec.Raw(encode(list(dict.fromkeys(known)))))
        return encode(fields), [name for name in names if name not in self.betas]

    def put_count(self, body: bytes, header: str = "") -> bytes:
        """The body of a client's request whose tokens are to be counted."""
        if not self.wraps_counts:
            return body
        whole, _ = self.put_bytes(body, header)
        fields = _decoder.decode(whole)
        fields.setdefault("max_tokens", msgspec.Raw(b"1"))  # which a request for an answer must have
        return encode({"input": {"invokeModel": {"body": base64.b64encode(encode(fields)).decode()}}})

    def counted(self, answer: bytes) -> bytes:
        """The answer to it in the API's own form; as it is where it is none."""
        tokens = (decode_object(answer) or {}).get("inputTokens") if self.wraps_counts else None
        return encode({"input_tokens": tokens}) if isinstance(tokens, int) else answer

    def _kept(self, members: Mapping[str, T]) -> dict[str, T]:
        return {name: value for name, value in members.items() if name != "model" and (self.stream or name != "stream")}


VERTEX: Final = Envelope("vertex-2023-10-16", stream=True)
# Any other beta is a 400. Source: LiteLLM's table of betas for Bedrock and those of the messages API's examples in
# Bedrock's user guide, November 2026.
_BEDROCK_BETAS: Final = (
    "compact-2026-01-12", "computer-use-2024-10-22", "computer-use-2025-01-24", "computer-use-2025-11-24",
    "context-1m-2025-08-07", "context-management-2025-06-27", "dangerous-tool-use-2026-09-03",
    "dev-full-thinking-2025-05-14", "effort-2025-11-24", "fine-grained-tool-streaming-2025-05-14",
    "interleaved-thinking-2025-05-14", "mid-conversation-output-config-2026-07-01",
    "mid-conversation-tool-changes-2026-07-01", "output-128k-2025-02-19", "thinking-binding-controls-2026-08-01",
    "thinking-display-updates-2026-08-18", "token-efficient-tools-2025-02-19", "tool-examples-2025-10-29",
    "tool-search-tool-2025-10-19",
)  # fmt: skip
BEDROCK: Final = Envelope(
    "bedrock-2023-05-31",
    stream=False,
    betas={
        **{name: name for name in _BEDROCK_BETAS},
        "advanced-tool-use-2025-11-20": "tool-search-tool-2025-10-19",
    },
    wraps_counts=True,
)
