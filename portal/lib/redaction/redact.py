"""Redaction of secrets in logs, tracebacks and messages from upstreams.

First what was really sent is taken out, whatever its form (`sent`), then everything that looks like a secret. All that
an upstream says passes here before a client, a log, a usage record or a page gets it: errors are read in
`relay.protocols.errors`, and log lines in `portal.serving.logs.lines`.
"""

from __future__ import annotations

import re
from typing import Final

from portal.lib.redaction.places import without_places
from portal.lib.redaction.rules import KEY, apply, rule
from portal.lib.redaction.sent import sent
from portal.lib.redaction.words import is_random

_MASKS: Final = ("*", "…", "...")
_LONGEST_WORDS: Final = 24  # characters of something that is written after “bearer” and is no token


def _token(match: re.Match[str]) -> str:
    """What replaces something after “bearer” or “basic”: itself if it is a word, as in “basic authentication”."""
    value = match[2].rstrip(".")
    if is_random(value) or len(value) > _LONGEST_WORDS or value.endswith("="):
        return f"{match[1]} [redacted]"
    return match[0]


def _named_key(match: re.Match[str]) -> str:
    """What replaces something that is called a key: itself if it is a name."""
    value = match[2]
    masked = any(mark in value for mark in _MASKS) and any(map(str.isalnum, value))
    mixed = len(value) >= 16 and is_random(value) and any(map(str.isalpha, value))
    return f"{match[1]}{KEY}" if masked or mixed else match[0]


def _masked_key(match: re.Match[str]) -> str:
    """What replaces two texts with a mask between them: themselves if they are words, as in `Loading...done`."""
    return KEY if is_random(match[1]) or is_random(match[2] or match[3] or "") else match[0]


_SCHEME: Final = r"(?:(?:bearer|basic|token|digest|negotiate|ntlm|key|api-?key)\s+)?"

_RULES: Final = (
    # Authorization and key headers, as text or as repr of a dict or of a list of byte pairs.
    rule(
        "authorization api-key cookie mj-api-secret",
        r"(authorization|x-api-key|api-key|x-goog-api-key|cookie|set-cookie|proxy-authorization|mj-api-secret)"
        # A `b` stands before quotation marks alone: it is the first letter of a scheme, too.
        rf"(['\"]?\s*[:=,]\s*(?:b?['\"])?)(?!{_SCHEME}(?:\[redacted|%s\b)){_SCHEME}[^\s'\",;)\]}}]+"
        r"(?:;\s*[\w.-]+=[^\s'\",;)\]}]*)*",  # more cookies
        r"\1\2[redacted]",
        re.I,
    ),
    rule("bearer basic", r"\b(bearer|basic)\s+([A-Za-z0-9._~+/=-]{6,})", _token, re.I),
    # Keys by their form: OpenAI and relays (sk-), Anthropic, Groq, xAI; Hugging Face, Replicate.
    rule("sk- sk_ xai- xai_", r"\b(?:sk|gsk|xai)[-_][A-Za-z0-9_*.…-]{7,}[A-Za-z0-9*…]", KEY),
    # With these, names begin as well, such as `key_findings` or `hf-inference`: a few words in lower case.
    rule(
        "rk- rk_ pk- pk_ hf- hf_ r8- r8_ key- key_ tok- tok_",
        r"\b(?:rk|pk|hf|r8|key|tok)[-_](?![a-z]{1,16}(?:[-_][a-z]{1,16})*(?![\w*…-]|\.[\w*…]))"
        r"[A-Za-z0-9_*.…-]{7,}[A-Za-z0-9*…]",
        KEY,
    ),
    # Perplexity, NVIDIA, Cerebras, Together, Fireworks, Jina, Baidu, GitHub, GitLab, Slack, LangSmith; access and
    # refresh tokens of Google.
    rule(
        "pplx- nvapi- csk- tgp_v1_ fw_ jina_ bce-v3/ github_pat_ gho_ ghp_ ghr_ ghs_ ghu_ glpat- xox lsv2_ ya29. 1//0",
        r"\b(?:pplx-|nvapi-|csk-|tgp_v1_|fw_(?=\w*\d)|jina_|bce-v3/|github_pat_|gh[oprsu]_|glpat-|xox[abeprs]-|lsv2_|"
        r"ya29\.|1//0)[A-Za-z0-9_*.…+/=-]{4,}[A-Za-z0-9*…=]",
        KEY,
    ),
    rule("aiza dapi sess-", r"\b(?:AIza[0-9A-Za-z_*…-]{6,}|dapi[0-9a-f*]{20,}|sess-[A-Za-z0-9*]{20,})", KEY),
    # AWS (access keys, keys of Bedrock), Tencent, Alibaba; client secrets of Azure.
    rule(
        "akia asia absk bedrock-api-key- akid ltai q~",
        r"\b(?:A[KS]IA[0-9A-Z*]{12,}|ABSK[A-Za-z0-9+/=]{20,}|bedrock-api-key-[\w+/=-]{8,}|AKID[A-Za-z0-9*]{13,}|"
        r"LTAI[A-Za-z0-9*]{12,}|[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{30,})",
        KEY,
    ),
    rule("eyj", r"\beyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)*", KEY),  # JWT
    rule("-----begin", r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|$)", KEY, re.S),
    rule(".", r"\b[0-9a-f]{32}\.[A-Za-z0-9]{12,}\b", KEY),  # Zhipu
    rule("v1:gaaaa", r"\bv1:gAAAA[A-Za-z0-9_=-]+", "[redacted secret]"),  # our own encrypted secrets
    rule(
        "? &",
        r"([?&](?:key|api_key|apikey|token|access_token|secret|sig|sign|signature)=)[^&\s'\"]+",
        r"\1[redacted]",
        re.I,
    ),
    rule(
        "password passwd secret api_key apikey",
        r"(['\"]?\b(?:password|passwd|secret|api_key|apikey)['\"]?\s*[:=]\s*(?:b?['\"])?)(?!\[redacted)"
        r"[^\s'\",;)\]}]{3,}",
        r"\1[redacted]",
        re.I,
    ),
    rule("://", r"://[^/\s:@]+:[^/\s@]+@", "://[redacted]@"),
    # What is called a key, and what is masked as vendors mask keys.
    rule(
        "key token credential",
        r"\b((?:(?:api|access|secret|auth|subscription|license)[ _-]?(?:key|token)s?|credentials?|"
        r"key hash \(token\)|(?:key|token)(?=\s*(?:[:=]|provided)))(?:\s+(?:provided|given|received|id|is|was))*"
        r"\s*[:=]?\s*['\"`(<]*)([A-Za-z0-9_*.…+/=~-]{4,}[A-Za-z0-9*…=])",
        _named_key,
        re.I,
    ),
    rule("***", r"(?<![\w*])(?:[A-Za-z0-9]+[-_][A-Za-z0-9_-]*\*{3,}|[A-Za-z0-9]{2,}\*{4,})[\w*-]*", KEY),
    rule("****", r"(?<![\w*])\*{4,}[A-Za-z0-9]{2,}\b", KEY),
    rule(
        "… ...",
        r"\b(?:sk|pk|rk|gsk|xai|hf|r8|key|tok|pplx|nvapi|csk|fw|ghp|ak)[-_][A-Za-z0-9_-]*(?:…|\.{3,})[A-Za-z0-9]{2,}",
        KEY,
    ),
    rule(
        "*** … ... ••",
        r"(?<![\w*.…•-])([\w-]{2,24})(?:(?:\*{3,}|•{2,})([\w-]{0,24})|(?:…|\.{3,})([\w-]{2,24}))(?![\w-])",
        _masked_key,
    ),
)


def redact(text: str) -> str:
    """Replace all secrets that were sent in a text, and everything that looks like one."""
    return apply(_RULES, sent.without_secrets(text))


def clean_upstream_message(text: str, limit: int = 900, is_name: bool = False) -> str:
    """A message of an upstream for clients: one line, at most `limit` characters, without keys, hosts and accounts.

    `is_name`: it is what something in the client's request is called, such as `tools.web.app`.
    """
    if len(text) > 4 * limit:
        text = text[: 4 * limit].rpartition(" ")[0]  # the last word is cut off, and may be a secret
    text = "".join(character if character.isprintable() else " " for character in text)
    text = redact(" ".join(text.split()))
    text = without_places(sent.without_addresses(text), is_name)
    return text if len(text) <= limit else text[: limit - 1] + "…"
