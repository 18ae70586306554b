"""What refusals are about: the request, a path, or another model than the one that was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import CredentialsExhausted, UpstreamRefused
from relay.protocols.errors import read_error
from relay.providers.classify import classify
from relay.providers.failures import FailureClass as C
from relay.providers.subject import about_chosen_model, says_missing
from tests.providers.bodies import anthropic, openai


def body(message: str, code: object = None, type_: str = "invalid_request_error", param: str | None = None) -> bytes:
    return json.dumps(openai(message, code, type_, param)).encode()


@pytest.mark.parametrize(
    ("status", "message", "param"),
    [
        # vLLM's serving_responses.py answers NotImplementedError with 501
        (501, "Only 'auto' tool_choice is supported in response API with Harmony", None),
        (501, "logprobs are not supported with gpt-oss models", None),
        (501, "Background mode is not implemented for this model", None),
        (501, "verbose_json is not supported", "response_format"),
        (501, "Not implemented", "response_format"),
        (405, "logprobs are not allowed", None),
        (404, "Not found", "previous_response_id"),
    ],
)
def test_an_error_object_with_words_about_the_request_is_the_requests(
    status: int, message: str, param: str | None
) -> None:
    said = body(message, status, "NotImplementedError", param)
    assert not says_missing(status, said)
    failure = classify(status, {}, said, "vllm")
    assert failure.kind is C.CLIENT and isinstance(failure.error, UpstreamRefused)
    assert failure.error.message == message and failure.error.http_status == (400 if status == 501 else status)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (501, "This server does not support embeddings. Start it with `--embeddings`"),  # llama.cpp
        (501, "This server does not support completions."),
        (501, "API not implemented"),  # new-api
        (501, "Operation is not implemented, or supported, or enabled."),  # Google
        (501, "The Responses API is not supported by this model"),
        (501, "Not Implemented"),
        (501, ""),
        (405, "Method Not Allowed"),
        (405, "Unsupported method"),
    ],
)
def test_an_error_object_with_words_about_the_path_may_mean_that_it_is_lacking(status: int, message: str) -> None:
    said = body(message, status, "server_error")
    assert says_missing(status, said)
    if status == 501:
        assert classify(status, {}, said, "openai").kind is C.TRANSIENT, "another channel may have it"


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
@pytest.mark.parametrize(
    "message",
    [
        "insufficient quota",
        "Insufficient credits. Add more at the console.",
        "Your account has insufficient balance",
        "You have no credits left",
        "You're out of extra usage. Add more at claude.ai/settings/usage and keep going.",
        "Your credit balance is too low to access the Anthropic API.",
        "用户额度不足, 剩余额度: 0",
    ],
)
def test_words_about_money_are_a_doubt_about_the_key_and_told_as_the_portals(status: int, message: str) -> None:
    failure = classify(status, {}, body(message), "openai")
    assert failure.kind is C.BILLING and not failure.reserved
    assert failure.certain, "a test of ours that is answered so takes the key out"
    assert isinstance(failure.error, CredentialsExhausted) and failure.error.retry is not True
    assert "administrator" in failure.error.message and message not in failure.error.message


@pytest.mark.parametrize(
    "message",
    [
        "messages[0].role: unknown variant `insufficient quota`, expected `system`",
        "Insufficient tool messages following tool_calls message",
        "The tool has insufficient quota of arguments",
        "No usage of `eval` in the tool's code",
        "Not enough images: 1",
    ],
)
def test_words_that_sound_like_money_are_none(message: str) -> None:
    assert classify(400, {}, body(message), "openai").kind is C.CLIENT


@pytest.mark.parametrize(
    ("status", "provider", "said", "code"),
    [
        (
            402,
            "openrouter",
            "Prompt tokens limit exceeded: 41250 > 3180. To increase, visit …",
            "context_length_exceeded",
        ),
        (402, "openrouter", "max_tokens limit exceeded: 100000 > 9577. To increase, visit …", "max_tokens_too_high"),
        (402, "deepseek", "Requested tokens 9000 > 120", "max_tokens_too_high"),
        (429, "openai", "Extra usage is required for long context requests.", "context_length_exceeded"),
        (429, "relay", "Usage credits are required for long context requests.", "context_length_exceeded"),
        (400, "relay", "The long context beta is not yet available for this subscription.", "context_length_exceeded"),
    ],
)
def test_what_is_too_large_for_the_account_cools_nothing(status: int, provider: str, said: str, code: str) -> None:
    kinds: list[dict[str, Any]] = [openai(said, status), anthropic("rate_limit_error", said)]
    for form in kinds:
        failure = classify(status, {}, json.dumps(form).encode(), provider)
        assert failure.kind is C.TOO_LARGE
        assert (failure.error.http_status, failure.error.public_code) == (400, code)
        assert "3180" not in failure.error.message


@pytest.mark.parametrize(
    ("form", "kind", "status"),
    [
        (openai("x", "rate_limit_exceeded", "tokens"), C.RATE, 429),
        (
            {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "x"}}},
            C.RATE,
            429,
        ),
        (anthropic("rate_limit_error"), C.RATE, 429),
        (anthropic("overloaded_error"), C.OVERLOAD, 529),
        (openai("x", "insufficient_quota", "insufficient_quota"), C.BILLING, 402),
        (openai("insufficient quota"), C.BILLING, 400),
        (openai("x", None, "authentication_error"), C.KEY_DEAD, 401),
        (openai("x", None, "permission_error"), C.KEY_FORBIDDEN_MODEL, 403),
        (openai("The model `x` does not exist", "model_not_found"), C.KEY_FORBIDDEN_MODEL, 404),
        (openai("x", "model_not_found", "", "tools[0].model"), C.CLIENT, 404),
        (openai("x", "invalid_value", "", "tools[0].x"), C.CLIENT, 502),
        (openai("Only 'auto' is supported", None, "NotImplementedError"), C.CLIENT, 501),
        (openai("x", None, "server_error"), C.TRANSIENT, 500),
        (openai("x", None, ""), C.TRANSIENT, 502),
    ],
)
def test_an_error_inside_a_200_has_the_status_that_its_words_stand_for(
    form: dict[str, Any], kind: C, status: int
) -> None:
    failure = classify(200, {}, json.dumps(form).encode(), "openai", inside_200=True)
    assert (failure.kind, failure.status, failure.implied) == (kind, status, True)


def test_the_wait_of_a_limit_inside_a_200_is_that_of_a_429() -> None:
    said = "Rate limit reached for gpt-5 in organization org-x on tokens per min (TPM). Please try again in 11.054s."
    said_in_429 = classify(429, {}, body(said, "rate_limit_exceeded", "tokens"), "openai")
    inside = classify(200, {}, body(said, "rate_limit_exceeded", "tokens"), "openai", inside_200=True)
    assert (
        (inside.wait, inside.error.retry_after) == (said_in_429.wait, said_in_429.error.retry_after) == (11.054, 11.054)
    )


SENT = b'{"model": "gpt-5-model", "tools": [{"type": "image_generation", "model": "gpt-image-2"}], "input": "x"}'


@pytest.mark.parametrize(
    ("message", "sent", "chosen"),
    [
        ("Your organization must be verified to use the model `gpt-image-2`. Please go to: https://x", SENT, True),
        ("Your organization must be verified to use the model gpt-image-2. Please go to: https://x", SENT, True),
        ("Rate limit reached for gpt-image-2 in organization org-x on input-images per min", SENT, True),
        # the tool's own
        ("must be verified to use the model `gpt-image-1`", b'{"tools":[{"type":"image_generation"}]}', True),
        ("Your organization must be verified to use the model `gpt-5-model`.", SENT, False),
        # another relay's name for it
        ("The model `gpt-4o` does not exist", SENT, False),
        ("Rate limit reached for requests", SENT, False),
        ("no", SENT, False),
    ],
)
def test_a_model_that_a_part_of_the_request_names_is_the_clients_choice(
    message: str, sent: bytes, chosen: bool
) -> None:
    error = read_error(body(message))
    assert error is not None and about_chosen_model(error, "gpt-5-model", sent) == chosen
