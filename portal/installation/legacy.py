"""Settings of AIRelays 0.x: which of its files and variables count here, and what is said of those that do not.

Names are those of the `config.toml` that `airelays init` of 0.2.5 and 0.22.0 writes, and of the variables that these
versions read, in lower case and without their prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Final

from portal.lib import net
from portal.lib.texts import Message, gettext_noop

# Sections of which nothing counts: sign-in at ChatGPT and Claude, and files of logs.
SECTIONS: Final = frozenset({"auth", "upstream", "providers", "logging"})
_TOKEN: Final = frozenset({"bearer_token", "bearer_token_file", "auto_generate_bearer_token"})
_BY_VALUE: Final = frozenset({"require_bearer_auth", "trust_x_forwarded_for", "network_scope"})
_WITHOUT_EFFECT: Final = frozenset(
    (
        "logs_dir", "rate_limit_per_minute", "rate_limit_burst", "concurrent_requests_per_ip", "auth_storage",
        "browser_open", "login_timeout_seconds", "upstream_base_url", "issuer_base_url", "client_id", "client_version",
        "request_timeout_seconds", "log_stream_lines", "enable_openai", "models_cache_ttl_seconds",
        "openai_models_cache_ttl_seconds", "openai_balance", "openai_account_cooldown_seconds",
        "openai_retry_attempts", "openai_retry_backoff_seconds", "openai_extra_models", "image_timeout_seconds",
        "image_usage_probe", "enable_claude", "enable_claude_experimental", "claude_bin", "claude_command",
        "claude_timeout_seconds", "claude_max_concurrent_requests", "claude_balance",
        "claude_account_cooldown_seconds", "claude_strip_api_key_env", "claude_models", "claude_oauth_token_file",
    )
)  # fmt: skip
NAMES: Final = _TOKEN | _BY_VALUE | _WITHOUT_EFFECT
LOOPBACK: Final = ("127.0.0.0/8", "::1")


def apply(values: MutableMapping[str, object], found: Mapping[str, object], unused: Iterable[str]) -> list[Message]:
    """Carry over to the portal's settings what counts of the old ones, and return what is to be said of the others.

    `found` are old settings by name, `unused` the names of sections of which nothing counts, as they are shown.
    Raises ValueError when an old setting limits who can reach the portal, and nothing here would.
    """
    said = []
    if "require_bearer_auth" in found and not _is(found["require_bearer_auth"], True):
        said.append(
            Message(
                gettext_noop(
                    "require_bearer_auth=false has no effect: the portal does not answer without a token. Give your "
                    "clients one."
                )
            )
        )
    if _is(found.get("trust_x_forwarded_for"), True) and not values.get("trusted_proxies"):
        values["trusted_proxies"] = list(LOOPBACK)
        said.append(
            Message(
                gettext_noop(
                    "trust_x_forwarded_for: X-Forwarded-For is believed of proxies on this machine only. Name others "
                    "in AIRELAYS_TRUSTED_PROXIES."
                )
            )
        )
    scope = str(found.get("network_scope", "any")).strip().lower() or "any"
    if scope != "any" and not is_loopback(str(values.get("host") or "127.0.0.1")):
        raise ValueError(
            f"network_scope={scope} is not built: the portal would answer everybody who reaches {values['host']}. Set "
            "AIRELAYS_HOST=127.0.0.1, or limit it by a firewall and set network_scope to any"
        )
    names = [*sorted(unused), *sorted(_WITHOUT_EFFECT & set(found))]
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


def is_loopback(host: str) -> bool:
    """Whether a server that listens on the host is reached from its own machine only."""
    address = net.parse_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def relay_token(found: Mapping[str, object], data_dir: Path) -> str:
    """The token that clients of AIRelays 0.x use: from its variable, or its file. Empty if there is none.

    Raises ValueError if it is too short to be kept as a digest.
    """
    token = str(found.get("bearer_token") or "").strip()
    if not token:
        path = Path(str(found.get("bearer_token_file") or data_dir / "relay-token"))
        try:
            token = path.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, RuntimeError, ValueError):
            return ""
    if token and (not 32 <= len(token) <= 200 or not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError(
            "the token of AIRelays 0.x is not taken over: it must have 32 to 200 characters, without spaces"
        )
    return token


def _is(value: object, wanted: bool) -> bool:
    words = {True: {"1", "true", "yes", "on"}, False: {"0", "false", "no", "off"}}
    return str(value).strip().lower() in words[wanted]
