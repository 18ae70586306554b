"""How the APIs of other vendors than OpenAI write their errors. Pure."""

from __future__ import annotations

from typing import Final

from relay.errors import ErrorShape, RelayError
from relay.protocols.anthropic_messages.errors import error_body, is_error_body
from relay.protocols.gemini import errors as gemini
from relay.protocols.interactions import errors as interactions


def _anthropic(error: RelayError, request_id: str) -> bytes:
    return error.verbatim or error_body(error.http_status, error.told, error.public_code, error.param, request_id)


ANTHROPIC_ERRORS: Final = ErrorShape("messages", _anthropic, is_error_body, b"request-id")


def _gemini(error: RelayError, _request_id: str) -> bytes:
    return error.verbatim or gemini.error_body(
        error.http_status, error.told, error.public_code, error.param, error.retry_after
    )


GEMINI_ERRORS: Final = ErrorShape("generate_content", _gemini, gemini.is_error_body)


def _interaction(error: RelayError, _request_id: str) -> bytes:
    return error.verbatim or interactions.error_body(error.http_status, error.told, error.public_code, error.param)


INTERACTIONS_ERRORS: Final = ErrorShape("interactions", _interaction, interactions.is_error_body)
