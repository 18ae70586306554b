"""Parses the error objects of upstreams, in all their shapes, into one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.redaction.redact import clean_upstream_message

# The message of an error object without one.
NO_REASON: Final = "The upstream gave no reason."
_object: Final = msgspec.json.Decoder(dict[str, object])
_MAX_WORDS: Final = 40
_MAX_OWN: Final = 900  # characters of a message that failure rules look at
# A code and not a sentence.
_CODE: Final = re.compile(r"[\w.:-]{1,64}")
_MAX_TEXT: Final = 4096  # bytes of a body that may be a sentence
_MAX_WHOLE: Final = 64 * 1024  # bytes of a body that is searched
_DEEPEST: Final = 4  # errors inside errors
_DATA: Final = re.compile(rb"^data:(.*)$", re.M)
# Everything that opens or closes a quotation or an echo of JSON; not the apostrophe inside a word.
_MARK: Final = re.compile(r"[\"`“”„«»‹›「」『』《》{}\[\]]|(?<!\w)['’‘]|['’‘](?!\w)")


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """An error of an upstream, cleaned of secrets."""

    message: str
    type: str
    code: str | None
    param: str | None
    words: frozenset[str] = frozenset()  # code, type, status and reasons in lower case, for failure rules
    resets: tuple[str, ...] = field(default=())  # when the error ends, as the upstream wrote it
    # The message without all that it quotes. Not cleaned: for failure rules only.
    own: str = field(default="", repr=False)
    # All that the body says, with what a relay quotes of its own upstream. Not cleaned, and full of the client's words:
    # for decisions that concern nothing but the request that was refused.
    whole: str = field(default="", repr=False)
    quoted: bytes = field(
        default=b"", repr=False
    )  # the error of the vendor behind a relay, which quotes it; empty: none


Told = Callable[[bytes], dict[str, object]]  # what a client is told of an error: its four members, from its body


def read_error(body: bytes) -> UpstreamError | None:
    """Parse the error in a body; None when it has none of the known shapes, for example HTML.

    The shapes: `{"error": {…}}`, `{"error": "…"}`, a flat object with a `message`, `msg`, `error_msg` or `detail`,
    `{"detail": {…}}`, `{"errors": …}`, `{"base_resp": {…}}` with a status other than 0, `{"Response": {"Error": {…}}}`
    and `[{…}]`; each also as the data of an event.
    """
    text = body.strip()
    if text.startswith((b"data:", b"event:", b"id:", b":")):  # DashScope, to a request for a stream
        found = _DATA.search(text)
        text = found[1].strip() if found is not None else text
    if text.startswith(b"["):
        text = text[1:-1]
    try:
        envelope = _object.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    inner = _inner(envelope)
    if inner is None:
        return None
    said = inner.get("message")
    if isinstance(said, str):
        message, own = said, own_words(said)
    else:  # a list of faults, each with the part of the request that is at fault
        message, own = msgspec.json.encode(said).decode() if said else "", ""
    quoted = _quoted_error(inner)
    kind, code, param = inner.get("type"), _word(inner.get("code")), inner.get("param")
    return UpstreamError(
        clean_upstream_message(message) or NO_REASON,
        clean_upstream_message(kind, 64) if isinstance(kind, str) else "",
        clean_upstream_message(code, 64) if code else None,
        clean_upstream_message(param, 200, is_name=True) if isinstance(param, str) else None,
        _words(inner, envelope),
        _resets(inner, envelope),
        own,
        quoted_text(text),
        quoted if quoted and _said(quoted) not in message else b"",
    )


def told_plainly(body: bytes) -> dict[str, object]:
    """What an error says, in the form of OpenAI's."""
    error = read_error(body) or UpstreamError(NO_REASON, "", None, None)
    return {"message": error.message, "type": error.type or "server_error", "param": error.param, "code": error.code}


def read_text(body: bytes) -> UpstreamError | None:
    """A body that is a sentence, as servers written with axum and others answer; None for HTML and whatever is none."""
    text = body.strip()
    if not text or text.startswith((b"<", b"{", b"[")) or len(text) > _MAX_TEXT:
        return None
    try:
        message = text.decode()
    except UnicodeDecodeError:
        return None
    return UpstreamError(
        clean_upstream_message(message), "", None, None, own=own_words(message), whole=quoted_text(text)
    )


def quoted_text(body: bytes) -> str:
    """A body as text in which quoted JSON reads as it did where it was written, however often it has been quoted."""
    return body[:_MAX_WHOLE].decode("utf-8", "replace").replace("\\n", " ").replace("\\", "")


def _quoted_error(inner: dict[str, object], depth: int = 0) -> bytes:
    """The error of the vendor behind a relay, where the relay's own message says only that something failed.

    OpenRouter has the vendor's body in `metadata.raw`, other relays in `upstream_error`.
    """
    metadata = inner.get("metadata")
    for holder in (metadata if isinstance(metadata, dict) else {}, inner):
        for value in (holder.get("raw"), holder.get("upstream_error")):
            body = value.encode("utf-8", "replace") if isinstance(value, str) else msgspec.json.encode(value)
            try:
                nested = _inner(_object.decode(body))
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue
            if nested is not None:
                return (depth < _DEEPEST and _quoted_error(nested, depth + 1)) or body
    return b""


def _said(body: bytes) -> str:
    said = (_inner(_object.decode(body)) or {}).get("message")
    return said if isinstance(said, str) else ""


def own_words(message: str) -> str:
    """What an upstream says in its own words: a message without all that it quotes, which may be the client's.

    Everything between the first and the last mark of a quotation goes, since what is quoted may hold such marks, too.
    """
    text = " ".join(message.split())
    first = _MARK.search(text)
    if first is None:
        return text[:_MAX_OWN]
    *_others, last = first, *_MARK.finditer(text, first.end())
    if last is not first:
        return f"{text[: first.start()]}…{text[last.end() :]}"[:_MAX_OWN]
    if first[0] in "'’‘" and text[: first.start()][-1:].isalnum():  # the plural's, as in “the tokens' limit”
        return text[:_MAX_OWN]
    return f"{text[: first.start()]}…"[:_MAX_OWN]


def _inner(envelope: dict[str, object]) -> dict[str, object] | None:
    """The object that describes the error, with its text as `message`."""
    error, message = envelope.get("error"), envelope.get("message")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        if not isinstance(message, str) or not message:
            return {**envelope, "message": error}
        # “Bad Request” in words, or a code.
        return {"code": error, **envelope} if _CODE.fullmatch(error) else envelope
    if message is not None:
        return envelope
    for name in ("msg", "error_msg", "error_message"):
        if envelope.get(name) is not None:
            return {"code": envelope.get("error_code"), **envelope, "message": envelope[name]}
    detail = envelope.get("detail")
    if isinstance(detail, dict):
        return _inner(detail) or {**envelope, "message": detail}
    if detail is not None:
        return {**envelope, "message": detail}
    base = envelope.get("base_resp")
    if isinstance(base, dict):
        status = base.get("status_code")
        return {"message": base.get("status_msg"), "code": status} if status else None
    event = envelope.get("response")  # of response.failed
    if isinstance(event, dict) and isinstance(fault := event.get("error"), dict):
        return fault
    response = envelope.get("Response")
    if isinstance(response, dict) and isinstance(fault := response.get("Error"), dict):
        return {"message": fault.get("Message"), "code": fault.get("Code")}
    errors = envelope.get("errors")
    if isinstance(errors, list) and errors:
        found = errors[0]
        return found if isinstance(found, dict) and found.get("message") is not None else {"message": found}
    return {"message": errors} if isinstance(errors, dict) and errors else None


def _word(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


def _details(inner: dict[str, object]) -> list[dict[str, object]]:
    found = inner.get("details")
    if isinstance(found, dict):
        return [found]
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _words(inner: dict[str, object], envelope: dict[str, object]) -> frozenset[str]:
    """The words that failure rules are matched against: only members in which vendors write codes of their own.

    Not `param`, not what a relay quotes of its upstream (`metadata.raw`), and nothing of a list of faults, all of which
    hold parts of the request.
    """
    candidates: list[object] = [
        inner.get("code"),
        inner.get("type"),
        inner.get("status"),
        envelope.get("code"),
        envelope.get("type"),
        envelope.get("error_type"),
        envelope.get("error_code"),  # Databricks
        envelope.get("reason"),  # Novita
    ]
    for name, keys in (("innererror", ("code",)), ("metadata", ("limit_source", "error_type"))):
        nested = inner.get(name)
        if isinstance(nested, dict):
            candidates += [nested.get(key) for key in keys]
    base = envelope.get("base_resp")
    if isinstance(base, dict):
        candidates.append(f"base_resp:{_word(base.get('status_code'))}")
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
    metadata = metadata if isinstance(metadata, dict) else {}
    for holder in (inner, envelope, metadata):
        candidates += [
            holder.get(name) for name in ("resets_in_seconds", "retry_after", "resets_at", "reset_at", "reset_time")
        ]
    headers = metadata.get("headers")  # OpenRouter puts those of its own limits into the body
    if isinstance(headers, dict):
        lower = {str(name).lower(): value for name, value in headers.items()}
        candidates += [lower.get("retry-after"), lower.get("x-ratelimit-reset")]
    return tuple(
        str(value) for value in candidates if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    )
