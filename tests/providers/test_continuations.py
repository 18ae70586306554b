"""Which refusals mean that a conversation must be told otherwise, and which do not."""

from __future__ import annotations

import json

import pytest

from relay.providers.classify import classify
from relay.providers.continuations import cannot_read_reasoning, has_forgotten

ID = "resp_0123456789abcdef"


@pytest.mark.parametrize(
    ("status", "message", "forgotten"),
    [
        (400, f"Previous response with id '{ID}' not found.", True),
        (404, f"Response with id '{ID}' not found.", True),
        (404, "Not Found", True),
        (410, "Gone", True),
        (422, f"{ID} is unknown here", True),
        (500, "previous_response_id could not be resolved", True),
        (400, "The input is too long.", False),
        (422, "Unknown parameter: 'seed'.", False),
        (500, "The server had an error.", False),
        # About keys, money and limits, whatever else they say.
        (401, f"No access to {ID}", False),
        (403, "Previous response belongs to another project.", False),
        (429, f"Too many requests for {ID}", False),
    ],
)
def test_forgotten_responses(status: int, message: str, forgotten: bool) -> None:
    assert has_forgotten(classify(status, {}, json.dumps({"error": {"message": message}}).encode()), ID) is forgotten


@pytest.mark.parametrize(
    ("status", "error", "unreadable"),
    [
        (400, {"code": "invalid_encrypted_content", "message": "…"}, True),
        (400, {"message": "The encrypted content gAAA...DQ== could not be verified."}, True),
        (400, {"message": "Could not decrypt the provided encrypted_content."}, True),
        (400, {"message": "Could not decode the compaction blob. Ensure it is unmodified."}, True),
        (400, {"message": "messages.1.content.0: Invalid `signature` in `thinking` block"}, True),
        (400, {"message": "Invalid thought signature."}, True),
        (400, {"message": "Corrupted thought signature."}, True),
        (400, {"message": "The signature of the webhook is wrong."}, False),
        (401, {"message": "The encrypted content could not be verified."}, False),
        (429, {"message": "encrypted content"}, False),
    ],
)
def test_reasoning_of_another_account(status: int, error: dict[str, str], unreadable: bool) -> None:
    assert cannot_read_reasoning(classify(status, {}, json.dumps({"error": error}).encode())) is unreadable
