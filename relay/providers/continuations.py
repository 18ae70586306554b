"""What upstreams say when they cannot continue a conversation: a response is gone, or reasoning not readable. Pure.

A client's words may be among theirs, so these decide about nothing but the client's own request: it is sent once more,
with all that is needed. For the same reason they may read what relays quote of their own upstreams: OpenRouter in
`metadata.raw`, LiteLLM and one-api as JSON inside the message.
"""

from __future__ import annotations

import re
from typing import Final

from relay.providers.classify import Failure

_UNRELATED: Final = frozenset((0, 401, 402, 403, 429))  # no answer, or one about keys, money and limits
_GONE: Final = frozenset((404, 410))
# OpenAI and Azure: code `previous_response_not_found`, “Previous response with id 'resp_…' not found.”, “Previous
# response cannot be used for this organization due to Zero Data Retention.” LM Studio: “Prediction history node with id
# '…' not found while attempting to build chat history chain …” (lmstudio-bug-tracker #1188). Servers that ignore
# `previous_response_id` miss the calls before outputs: “No tool call found for function call output with call_id …”.
# vLLM (“Response with id 'resp_…' not found.”, litellm #26147) and xAI (“Response with id=… not found”) answer 404.
_FORGOTTEN: Final = re.compile(
    r"previous[ _]?response|prediction history node|\bresponse with id\b|no tool call found for function call output",
    re.I,
)
# OpenAI: code `invalid_encrypted_content`, “The encrypted content … could not be verified.” xAI: “Could not decrypt the
# provided encrypted_content.”, “Could not decode the compaction blob.” (sub2api #4535, grok2api #688). Anthropic:
# “Invalid `signature` in `thinking` block”. Google: “Thought signature is not valid”, “Invalid thought signature.”,
# “Corrupted thought signature.” Others: “Failed to decrypt reasoning item”, “Reasoning could not be decoded.”
_UNREADABLE: Final = re.compile(
    r"\b(?:de|en)crypt|encrypted_|compaction[ _]blob|thought[ _]?signature"
    r"|signature\W{1,3}(?:\w+\W{1,3}){0,2}(?:thinking|reasoning)|(?:thinking|reasoning)\W{1,3}(?:\w+\W{1,3}){0,3}signature"
    r"|reasoning\W{1,3}(?:\w+\W{1,3}){0,6}(?:verif|decod|unreadable)|(?:verify|decode)\W{1,3}(?:\w+\W{1,3}){0,4}reasoning",
    re.I,
)
# OpenAI and Azure: “Invalid 'input[2].content': array too long. Expected an array with maximum length 0, but got an
# array with length 1 instead.” (querymt #976, copilot-cli #652)
_READABLE: Final = re.compile(r"input\[\d+\]\.content\W{1,3}array too long", re.I)
# OpenAI: “Invalid 'input[1].call_id': string too long. Expected a string with maximum length 64, but got …”
# Copilot: “Invalid 'input[1].id': string too long. …” (oh-my-pi #284, copilot-cli #3594)
_LONG_IDS: Final = re.compile(r"(?:call_id|input\[\d+\]\.id)\W{1,3}string too long", re.I)


def has_forgotten(failure: Failure, upstream_id: str) -> bool:
    """Whether an upstream may have refused a request because it does not have the response `upstream_id`."""
    if failure.status in _UNRELATED:
        return False
    text = _text(failure)
    return failure.status in _GONE or upstream_id in text or _FORGOTTEN.search(text) is not None


def cannot_read_reasoning(failure: Failure) -> bool:
    """Whether an upstream may have refused a request because another account's encrypted reasoning is in it."""
    return failure.status not in _UNRELATED and _UNREADABLE.search(_text(failure)) is not None


def refuses_readable_reasoning(failure: Failure) -> bool:
    """Whether an upstream may have refused a request because reasoning in it can be read."""
    return failure.status not in _UNRELATED and _READABLE.search(_text(failure)) is not None


def refuses_long_ids(failure: Failure) -> bool:
    """Whether an upstream may have refused a request because ids of calls or items in it are too long."""
    return failure.status not in _UNRELATED and _LONG_IDS.search(_text(failure)) is not None


def _text(failure: Failure) -> str:
    error = failure.error
    return f"{error.public_code} {error.param} {error.message} {failure.detail} {failure.whole}"
