"""Splits a JSON body into its undecoded top-level members, so that unknown ones pass through as bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]
_fields: Final = msgspec.json.Decoder(Fields)
string: Final[msgspec.json.Decoder[str]] = msgspec.json.Decoder(str)
optional_string: Final[msgspec.json.Decoder[str | None]] = msgspec.json.Decoder(str | None)
optional_bool: Final[msgspec.json.Decoder[bool | None]] = msgspec.json.Decoder(bool | None)
optional_int: Final[msgspec.json.Decoder[int | None]] = msgspec.json.Decoder(int | None)
_MAX_TOKENS: Final = 2**31 - 1


class BadRequest(Exception):
    """A request that is invalid (status 400), or that cannot be served as it is (422)."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400) -> None:
        """`param`: the field at fault. `code`: OpenAI's error code."""
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


def unsupported(message: str, param: str | None) -> BadRequest:
    """The error for a parameter that the upstream cannot honour."""
    return BadRequest(message, param, "unsupported_parameter", 422)


def read_fields(body: bytes) -> Fields:
    """Split a body into its top-level members. Raises BadRequest."""
    try:
        return _fields.decode(body)
    except msgspec.ValidationError:
        raise BadRequest("The request body must be a JSON object.", None, "invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        message = "The request body is not valid JSON. Check quotes, commas and encoding (UTF-8)."
        raise BadRequest(message, None, "invalid_json") from None


def read_model(fields: Mapping[str, msgspec.Raw], default: str = "") -> str:
    """The model that a request names, or `default` when it names none. Raises BadRequest."""
    if default and ("model" not in fields or absent(fields["model"])):
        return default
    if "model" not in fields:
        message = "The field “model” is missing: name a model from GET /v1/models."
        raise BadRequest(message, "model", "missing_required_parameter")
    model = decode_field(string, fields["model"], "model", "a string that names a model")
    if not model or not model.strip():
        raise BadRequest("The field “model” is empty: name a model from GET /v1/models.", "model")
    return model


def decode_field(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw | None, name: str, wanted: str) -> T | None:
    """Decode a member; None when it is missing. `wanted` describes a valid value. Raises BadRequest."""
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadRequest(f"The field “{name}” must be {wanted}.", name) from None


def absent(raw: msgspec.Raw | None) -> bool:
    """Whether a member is missing or null."""
    return raw is None or bytes(raw).strip() in (b"", b"null")


def token_limit(raw: msgspec.Raw) -> int | None:
    """The output limit in a field; None when the value is no positive number of tokens.

    Such values are left to the upstream to judge: some servers read -1 as no limit.
    """
    try:
        limit = optional_int.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    return min(limit, _MAX_TOKENS) if limit is not None and limit >= 1 else None


def as_object(raw: msgspec.Raw | None) -> Fields:
    """The members of an object; empty for anything else."""
    try:
        return dict(_fields.decode(raw)) if raw is not None else {}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}


def short_string(raw: msgspec.Raw) -> str:
    """A string of at most 256 characters; empty for anything else."""
    try:
        return str(string.decode(raw))[:256]
    except (msgspec.DecodeError, ValueError):
        return ""
