"""A JSON body as its top-level members, undecoded: what need not be understood passes through as bytes."""

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
_MOST_TOKENS: Final = 2**31 - 1


class BadRequest(Exception):
    """The request cannot be understood. `param` names the field, `code` is OpenAI's word for it; `status` 422: it is understood, and cannot be done."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


def unsupported(message: str, param: str | None) -> BadRequest:
    return BadRequest(message, param, "unsupported_parameter", 422)


def read_fields(body: bytes) -> Fields:
    """Raises BadRequest."""
    try:
        return _fields.decode(body)
    except msgspec.ValidationError:
        raise BadRequest("The request body must be a JSON object.", None, "invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise BadRequest("The request body is not valid JSON. Check quotes, commas and encoding (UTF-8).", None, "invalid_json") from None


def read_model(fields: Mapping[str, msgspec.Raw], default: str = "") -> str:
    """The model that a request names. Raises BadRequest."""
    if default and ("model" not in fields or absent(fields["model"])):
        return default
    if "model" not in fields:
        raise BadRequest("The field “model” is missing: name a model from GET /v1/models.", "model", "missing_required_parameter")
    model = read(string, fields["model"], "model", "a string that names a model")
    if not model or not model.strip():
        raise BadRequest("The field “model” is empty: name a model from GET /v1/models.", "model")
    return model


def read(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw | None, name: str, wanted: str) -> T | None:
    """A member, decoded; None when it is not there. Raises BadRequest."""
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
    """What is no number of tokens (-1 means no limit to some servers) is the upstream's to judge, and limits nothing here."""
    try:
        limit = optional_int.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None
    return min(limit, _MOST_TOKENS) if limit is not None and limit >= 1 else None


def as_object(raw: msgspec.Raw | None) -> Fields:
    try:
        return dict(_fields.decode(raw)) if raw is not None else {}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}


def word(raw: msgspec.Raw) -> str:
    """A string of at most 256 characters; empty for anything else."""
    try:
        return str(string.decode(raw))[:256]
    except (msgspec.DecodeError, ValueError):
        return ""
