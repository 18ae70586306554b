"""Parses the error objects of upstreams, in all their shapes, into one. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.redact import clean_upstream_message

_object: Final = msgspec.json.Decoder(dict[str, object])
_MAX_WORDS: Final = 40


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """An error of an upstream, cleaned of secrets."""

    message: str
    type: str
    code: str | None
    param: str | None
    words: frozenset[str] = frozenset()  # code, type, status and reasons in lower case, for failure rules
    resets: tuple[str, ...] = field(default=())  # when the error ends, as the upstream wrote it


def read_error(body: bytes) -> UpstreamError | None:
    """Parse the error in a body; None when it has none of the known shapes, for example HTML.

    The shapes: `{"error": {…}}`, `{"error": "…"}`, a flat object, `{"detail": …}`, `{"base_resp": …}` and `[{…}]`.
    """
    text = body.strip()
    if text.startswith(b"["):
        text = text[1:-1]
    try:
        envelope = _object.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    error = envelope.get("error")
    inner: dict[str, object]
    if isinstance(error, dict):
        inner = error
    elif isinstance(error, str):
        inner = {**envelope, "message": error}
    elif envelope.get("message") is not None:
        inner = envelope
    elif envelope.get("detail") is not None:
        inner = {**envelope, "message": envelope["detail"]}
    elif isinstance(envelope.get("base_resp"), dict):
        base: dict[str, object] = envelope["base_resp"]  # type: ignore[assignment]  # the line above says so
        inner = {"message": base.get("status_msg"), "code": base.get("status_code")}
    else:
        return None
    text_or_object = inner.get("message")
    message = text_or_object if isinstance(text_or_object, str) else ""
    if not isinstance(text_or_object, str) and text_or_object:
        message = msgspec.json.encode(text_or_object).decode()
    kind, code, param = inner.get("type"), _word(inner.get("code")), inner.get("param")
    return UpstreamError(
        clean_upstream_message(message) or "The upstream gave no reason.",
        kind if isinstance(kind, str) and kind else "",
        clean_upstream_message(code, 64) if code else None,
        param if isinstance(param, str) else None,
        _words(inner, envelope),
        _resets(inner, envelope),
    )


def _word(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


def _details(inner: dict[str, object]) -> list[dict[str, object]]:
    found = inner.get("details")
    if isinstance(found, dict):
        return [found]
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _words(inner: dict[str, object], envelope: dict[str, object]) -> frozenset[str]:
    """The words that failure rules are matched against."""
    candidates: list[object] = [
        inner.get("code"),
        inner.get("type"),
        inner.get("status"),
        envelope.get("code"),
        envelope.get("type"),
    ]
    for name, keys in (
        ("innererror", ("code",)),
        ("metadata", ("limit_source", "error_type", "reason")),
        ("details", ()),
    ):
        nested = inner.get(name)
        if isinstance(nested, dict):
            candidates += [nested.get(key) for key in keys]
    for detail in _details(inner):
        candidates += [detail.get("reason"), detail.get("error_code")]
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            quota = str(violation.get("quotaId", "")).lower() if isinstance(violation, dict) else ""
            candidates += (
                ["quota_per_day"] if "perday" in quota else ["quota_per_minute"] if "perminute" in quota else []
            )
    return frozenset(word.lower() for word in map(_word, candidates[:_MAX_WORDS]) if word)


def _resets(inner: dict[str, object], envelope: dict[str, object]) -> tuple[str, ...]:
    """The values that say when a limit ends, from Gemini's RetryInfo or members such as `retry_after`."""
    candidates = [detail.get("retryDelay") for detail in _details(inner)]
    metadata = inner.get("metadata")
    for holder in (inner, envelope, metadata if isinstance(metadata, dict) else {}):
        candidates += [
            holder.get(name) for name in ("resets_in_seconds", "retry_after", "resets_at", "reset_at", "reset_time")
        ]
    return tuple(
        str(value) for value in candidates if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    )
