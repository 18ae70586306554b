"""Which refusals mean that a conversation must be told otherwise, and which do not."""

from __future__ import annotations

import json

import pytest

from relay.providers.classify import classify
from relay.providers.continuations import cannot_read_reasoning, has_forgotten

ID = "resp_0123456789abcdef"


def wrapped(body: object) -> list[dict[str, object]]:
    """A refusal as relays quote it: OpenRouter's, LiteLLM's and one-api's form, and a relay before a relay."""
    raw = json.dumps(body)
    router: dict[str, object] = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}
    return [
        router,
        {"error": {"message": f"litellm.BadRequestError: OpenAIException - {raw}", "type": None, "code": "400"}},
        {"error": {"message": "bad response status code", "type": "upstream_error", "upstream_error": body}},
        {"detail": {"message": "upstream failed", "body": json.dumps(router)}},
    ]


@pytest.mark.parametrize(
    "message", ["insufficient balance", "Incorrect API key provided", "model_not_found", "Rate limit reached"]
)
def test_what_a_relay_quotes_moves_nothing_but_the_request(message: str) -> None:
    """Failure classes decide about keys and models; what is quoted may be the client's own words."""
    quoted = {"error": {"message": message, "type": message, "code": message.replace(" ", "_").lower()}}
    nothing = {"error": {"message": "x", "type": "x", "code": "x"}}
    for body, other in zip(wrapped(quoted), wrapped(nothing), strict=True):
        found = classify(400, {}, json.dumps(body).encode(), "openrouter")
        neutral = classify(400, {}, json.dumps(other).encode(), "openrouter")
        assert (found.kind, found.wait, found.code) == (neutral.kind, neutral.wait, neutral.code)


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
        (400, {"message": "Failed to decrypt reasoning item"}, True),
        (400, {"message": "Item rs_1 of type reasoning could not be decoded"}, True),
        (400, {"message": "Could not verify the signature of the thinking block"}, True),
        (400, {"message": "Unsupported value: 'xhigh' for reasoning effort."}, False),
        (400, {"message": "The signature of the webhook is wrong."}, False),
        (401, {"message": "The encrypted content could not be verified."}, False),
        (429, {"message": "encrypted content"}, False),
    ],
)
def test_reasoning_of_another_account(status: int, error: dict[str, str], unreadable: bool) -> None:
    plain = {"error": error}
    for body in (plain, *wrapped(plain)):
        assert cannot_read_reasoning(classify(status, {}, json.dumps(body).encode())) is unreadable, body
