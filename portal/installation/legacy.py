"""Settings of AIRelays 0.x: which of its files and variables count here, and what is said of those that do not.

Names are those of the `config.toml` that `airelays init` of 0.2.5 and 0.22.0 writes, and of the variables that these
versions read, in lower case and without their prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Final

from portal.lib.texts import Message, gettext_noop

# Sections of its file in which names are short, and what they are called as variables. What is not listed is called by
# section and name, as `auth_other` in `[auth]`.
SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "auth": {
        "storage": "auth_storage",
        "browser_open": "browser_open",
        "login_timeout_seconds": "login_timeout_seconds",
    },
    "upstream": {
        "base_url": "upstream_base_url",
        "issuer_base_url": "issuer_base_url",
        "client_id": "client_id",
        "client_version": "client_version",
        "request_timeout_seconds": "request_timeout_seconds",
    },
    "logging": {
        "stream_lines": "log_stream_lines",
        "retention_days": "log_retention_days",
        "max_total_mb": "log_max_total_mb",
        "max_file_mb": "log_max_file_mb",
    },
}
_PROVIDERS: Final = "providers"  # the section of upstreams, with a section for each
_MOST_NAMED: Final = 8
# Variables that had the oldest prefix, OPENAI_ENDPOINT_.
OLDEST: Final = frozenset(
    (
        "host", "port", "data_dir", "config", "logs_dir", "auth_storage", "browser_open", "login_timeout_seconds",
        "upstream_base_url", "issuer_base_url", "client_id", "client_version", "request_timeout_seconds",
    )
)  # fmt: skip
_TOKEN: Final = frozenset({"bearer_token", "bearer_token_file", "auto_generate_bearer_token"})
_BY_VALUE: Final = frozenset({"trust_x_forwarded_for", "request_timeout_seconds"})
_WITHOUT_EFFECT: Final = frozenset(
    (
        "auth_storage", "browser_open", "log_stream_lines", "enable_openai", "models_cache_ttl_seconds",
        "openai_models_cache_ttl_seconds", "openai_balance", "openai_account_cooldown_seconds",
        "openai_retry_attempts", "openai_retry_backoff_seconds", "openai_extra_models", "image_timeout_seconds",
        "image_usage_probe", "enable_claude", "enable_claude_experimental", "claude_bin", "claude_command",
        "claude_timeout_seconds", "claude_max_concurrent_requests", "claude_balance",
        "claude_account_cooldown_seconds", "claude_strip_api_key_env", "claude_models", "claude_oauth_token_file",
    )
)  # fmt: skip
# In sections of the file `airelays init` of 0.x wrote these as they were for its own way of signing in, which its
# sign-ins keep. Elsewhere they are settings of the portal.
OF_SIGN_IN: Final = frozenset(
    ("login_timeout_seconds", "upstream_base_url", "issuer_base_url", "client_id", "client_version")
)
NAMES: Final = _TOKEN | _BY_VALUE | _WITHOUT_EFFECT | OF_SIGN_IN
_BOOLEANS: Final = frozenset(
    (
        "auto_generate_bearer_token", "require_bearer_auth", "trust_x_forwarded_for", "browser_open",
        "log_stream_lines", "enable_openai", "image_usage_probe", "enable_claude", "enable_claude_experimental",
        "claude_strip_api_key_env",
    )
)  # fmt: skip
_TIMEOUTS: Final = ("first_byte_timeout", "idle_timeout")  # what request_timeout_seconds limited
LOOPBACK: Final = ("127.0.0.0/8", "::1")


def name_in(section: str, key: str) -> str:
    """What a setting in a section of the file is called as a variable."""
    return SECTIONS[section].get(key, f"{section}_{key}")


def provider_sections(document: dict[str, object]) -> list[str]:
    """Take the upstreams of 0.x out of a configuration file: the names of their sections, as they stand there."""
    found = document.pop(_PROVIDERS, None)
    if not isinstance(found, dict):
        return [_PROVIDERS] if found is not None else []
    inner = [f"{_PROVIDERS}.{name}" for name, value in found.items() if isinstance(value, dict)]
    return inner if len(inner) == len(found) else [_PROVIDERS, *inner]


def without_providers(sections: Sequence[str]) -> Message:
    """What to say of upstreams that 0.x had in its file."""
    shown = [f"[{name[:60]}]" for name in sections[:_MOST_NAMED]] + ["…"] * (len(sections) > _MOST_NAMED)
    text = gettext_noop(
        "Upstreams are not set up by the configuration file, so %(sections)s has no effect: add a channel for each in "
        "the admin, or sign in to your ChatGPT plan with “airelays login”."
    )
    return Message(text, sections=", ".join(name if name.isprintable() else "[…]" for name in shown))


def apply(values: MutableMapping[str, object], found: Mapping[str, object]) -> list[Message]:
    """Carry over to the portal's settings what counts of the old ones, and return what is to be said of the others.

    `found` are old settings by name. Raises ValueError for a value that makes no sense.
    """
    said = []
    truths = {name: _truth(name, found[name]) for name in sorted(_BOOLEANS & found.keys())}
    if truths.get("trust_x_forwarded_for") and not values.get("trusted_proxies"):
        values["trusted_proxies"] = list(LOOPBACK)
        said.append(
            Message(
                gettext_noop(
                    "trust_x_forwarded_for: X-Forwarded-For is believed of proxies on this machine only. Name others "
                    "in AIRELAYS_TRUSTED_PROXIES."
                )
            )
        )
    if "request_timeout_seconds" in found:
        for name in _TIMEOUTS:
            values.setdefault(name, _seconds("request_timeout_seconds", found["request_timeout_seconds"]))
    names = sorted((_WITHOUT_EFFECT | OF_SIGN_IN) & found.keys())
    if names:
        said.append(
            Message(
                gettext_noop(
                    "These settings of AIRelays 0.x have no effect here: %(names)s. docs/configure.md says what the "
                    "portal has instead."
                ),
                names=", ".join(names),
            )
        )
    return said


def token_file(found: Mapping[str, object], data_dir: Path) -> Path:
    """Where AIRelays 0.x keeps its token. Raises RuntimeError when it is in a home folder that there is not."""
    return Path(str(found.get("bearer_token_file") or data_dir / "relay-token")).expanduser()


def relay_token(found: Mapping[str, object], data_dir: Path) -> str:
    """The token that clients of AIRelays 0.x use: from its variable, or its file. Empty if there is none.

    Raises ValueError if it is too short to be kept as a digest.
    """
    token = str(found.get("bearer_token") or "").strip()
    if not token:
        try:
            token = token_file(found, data_dir).read_text(encoding="utf-8").strip()
        except (OSError, RuntimeError, ValueError):
            return ""
    if token and (not 32 <= len(token) <= 200 or not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError(
            "the token of AIRelays 0.x is not taken over: it must have 32 to 200 characters, without spaces"
        )
    return token


def _truth(name: str, value: object) -> bool:
    """A boolean as 0.x writes it, which took any other word for its default. Raises ValueError."""
    word = str(value).strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"{name} ({str(value)[:60]!r}): write true or false")


def _seconds(name: str, value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise ValueError(f"{name} ({str(value)[:60]!r}): write seconds, more than 0 and at most 86400")
    return seconds
