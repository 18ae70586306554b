"""Redaction of secrets in logs, tracebacks and messages from upstreams."""

from __future__ import annotations

import re

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Authorization and key headers, as text or as repr of a dict or of a list of byte pairs.
    (
        re.compile(
            r"(?i)(authorization|x-api-key|api-key|x-goog-api-key|cookie|set-cookie|proxy-authorization|mj-api-secret)"
            r"(['\"]?\s*[:=,]\s*b?['\"]?)(?:bearer\s+|basic\s+)?[^\s'\",;)\]}]+"
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 [redacted]"),
    # Keys by their form: OpenAI and relays (sk-), Anthropic, Groq, xAI, Hugging Face, Replicate; Google; AWS; our own
    # encrypted secrets.
    (re.compile(r"\b(?:sk|gsk|xai)[-_][A-Za-z0-9_*.…-]{7,}[A-Za-z0-9*…]"), "[redacted key]"),
    # With these, names begin as well, such as `key_findings` or `hf-inference`: a few words in lower case.
    (
        re.compile(
            r"\b(?:rk|pk|hf|r8|key|tok)[-_](?![a-z]{1,16}(?:[-_][a-z]{1,16})*(?![\w*…-]|\.[\w*…]))"
            r"[A-Za-z0-9_*.…-]{7,}[A-Za-z0-9*…]"
        ),
        "[redacted key]",
    ),
    (re.compile(r"\bAIza[0-9A-Za-z_-]{20,}"), "[redacted key]"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), "[redacted key]"),
    (re.compile(r"\bv1:gAAAA[A-Za-z0-9_=-]+"), "[redacted secret]"),
    (
        re.compile(r"(?i)([?&](?:key|api_key|apikey|token|access_token|secret|sig|sign|signature)=)[^&\s'\"]+"),
        r"\1[redacted]",
    ),
    (
        re.compile(
            r"(?i)(['\"]?\b(?:password|passwd|secret|api_key|apikey)['\"]?\s*[:=]\s*b?['\"]?)[^\s'\",;)\]}]{3,}"
        ),
        r"\1[redacted]",
    ),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), "://[redacted]@"),
)
_TOP_LEVEL_DOMAINS = "com|net|org|io|ai|cn|dev|app|cloud|internal|local|azure"
_UPSTREAM: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>)]+", re.I), "[link removed]"),
    (re.compile(r"\b(?:org|proj|acct|user)[-_][A-Za-z0-9]{6,}"), "[account]"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?\b"), "[address]"),
    (re.compile(rf"(?<![\w.-])(?:[a-z0-9-]+\.)+(?:{_TOP_LEVEL_DOMAINS})(?::\d+)?(?![\w-])", re.I), "[host]"),
)


def redact(text: str) -> str:
    """Replace everything in a text that looks like a secret."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def clean_upstream_message(text: str, limit: int = 900) -> str:
    """A message of an upstream for clients: one line, at most `limit` characters, without keys, hosts and accounts."""
    text = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    text = redact(" ".join(text.split()))
    for pattern, replacement in _UPSTREAM:
        text = pattern.sub(replacement, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
