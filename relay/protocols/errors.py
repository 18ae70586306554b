"""An upstream's error object in one shape, whatever shape it had. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.redact import clean_upstream_message

_object: Final = msgspec.json.Decoder(dict[str, object])
_MOST_WORDS: Final = 40


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """`words`: everything by which the error can be told, in lower case: code, type, status, reasons. `resets`: when it says that it will be over, undecoded."""

    message: str
    type: str
    code: str | None
    param: str | None
    words: frozenset[str] = frozenset()
    resets: tuple[str, ...] = field(default=())


def read_error(body: bytes) -> UpstreamError | None:
    """`{"error": {…}}`, `{"error": "…"}`, a flat object, `{"detail": …}`, `{"base_resp": …}` or `[{…}]`; None for anything else, such as HTML."""
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
    said = inner.get("message")
    message = said if isinstance(said, str) else msgspec.json.encode(said).decode() if said else ""
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
    """What rules can be matched against."""
    candidates: list[object] = [inner.get("code"), inner.get("type"), inner.get("status"), envelope.get("code"), envelope.get("type")]
    for name, keys in (("innererror", ("code",)), ("metadata", ("limit_source", "error_type", "reason")), ("details", ())):
        nested = inner.get(name)
        if isinstance(nested, dict):
            candidates += [nested.get(key) for key in keys]
    for detail in _details(inner):
        candidates += [detail.get("reason"), detail.get("error_code")]
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            quota = str(violation.get("quotaId", "")).lower() if isinstance(violation, dict) else ""
            candidates += ["quota_per_day"] if "perday" in quota else ["quota_per_minute"] if "perminute" in quota else []
    return frozenset(word.lower() for word in map(_word, candidates[:_MOST_WORDS]) if word)


def _resets(inner: dict[str, object], envelope: dict[str, object]) -> tuple[str, ...]:
    """Gemini's RetryInfo, and the members that say when a limit ends."""
    candidates = [detail.get("retryDelay") for detail in _details(inner)]
    metadata = inner.get("metadata")
    for holder in (inner, envelope, metadata if isinstance(metadata, dict) else {}):
        candidates += [holder.get(name) for name in ("resets_in_seconds", "retry_after", "resets_at", "reset_at", "reset_time")]
    return tuple(str(value) for value in candidates if isinstance(value, (str, int, float)) and not isinstance(value, bool))
