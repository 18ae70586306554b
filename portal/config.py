"""The settings of an installation, each with its type, default and description.

Sources, in order of precedence: command-line flag, `AIRELAYS_*` environment variable (then the legacy
prefixes `AIRELAY_*` and, for the oldest settings, `OPENAI_ENDPOINT_*`), `config.toml`, default.
"""

from __future__ import annotations

import os
import tomllib
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from portal.lib import databases, net
from portal.lib.strategy import Strategy

if TYPE_CHECKING:
    from django.http import HttpRequest

PREFIXES = ("AIRELAYS_", "AIRELAY_")
OLDEST_PREFIX = "OPENAI_ENDPOINT_"
_OLDEST = {"host", "port", "data_dir", "config"}
# Sections and keys of a config.toml of AIRelays 0.x that are ignored, so that the old file still loads.
_FOREIGN_SECTIONS = {"auth", "upstream", "providers", "logging"}
_FOREIGN_KEYS = {
    "logs_dir",
    "bearer_token_file",
    "auto_generate_bearer_token",
    "rate_limit_per_minute",
    "rate_limit_burst",
}


class ConfigError(Exception):
    """A setting has an invalid value. The message is one line and names the setting."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _networks(value: list[str]) -> list[str]:
    net.parse_networks(value)
    return value


def _allowances(value: list[str]) -> list[str]:
    for line in value:
        net.Allowance.parse(line)
    return value


def _usd(value: str) -> str:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError("write an amount in USD, such as 2.50") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError("write an amount in USD that is not negative")
    return value


def _share(value: str) -> str:
    if Decimal(_usd(value)) > 10:
        raise ValueError("write a share of the price between 0 and 10, such as 0.5")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("write a time zone such as Europe/Berlin") from None
    return value


def _redis(value: str) -> str:
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("write it as redis://host:6379/0")
    return value


def _strip_trailing_slash(value: str) -> str:
    return value.rstrip("/")


def _balance(value: str) -> str:
    return value if value == "unlimited" else _usd(value)


def _unpriced(value: str) -> str:
    if value not in {"refuse", "free"}:
        parts = value.split("/")
        if len(parts) != 2:
            raise ValueError("write refuse, free, or two prices such as 5/15")
        for part in parts:
            _usd(part)
    return value


def _expand(value: Path) -> Path:
    return value.expanduser().absolute()


Words = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Networks = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_networks)]
Allowances = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_allowances)]
Folder = Annotated[Path, AfterValidator(_expand)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def default_data_dir() -> Path:
    """`~/.airelays`, or the legacy `~/.airelay` when only that exists."""
    current, legacy = Path.home() / ".airelays", Path.home() / ".airelay"
    return legacy if legacy.is_dir() and not current.exists() else current


def default_config_file() -> Path:
    current, legacy = (Path.home() / ".config" / name / "config.toml" for name in ("airelays", "airelay"))
    return legacy if legacy.is_file() and not current.exists() else current


class Config(BaseSettings):
    """All settings. A test keeps `docs/configure.md` complete."""

    model_config = SettingsConfigDict(extra="forbid", env_ignore_empty=True, frozen=True)

    host: str = Field("127.0.0.1", description="Address that `serve` listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port that `serve` listens on.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes of `serve`.")
    data_dir: Folder = Field(
        default_factory=default_data_dir, description="Folder of the database, the keys and the uploads."
    )
    public_url: Annotated[str, AfterValidator(_strip_trailing_slash)] = Field(
        "",
        description=(
            "Address under which users reach the portal, such as https://ai.example.org. Empty: taken from each "
            "request."
        ),
    )
    allowed_hosts: Words = Field(
        ["localhost", "127.0.0.1", "[::1]"],
        description="Host names the portal pages answer to. The host of `public_url` is added.",
    )
    trusted_proxies: Networks = Field(
        [], description="Networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    debug: bool = Field(False, description="Django's debug pages. Never on a machine that others reach.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe messages that are logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", description="Time zone of dates in the pages, and of the days, weeks and months of budgets."
    )
    secret_key: str = Field("", description="Signs sessions. Empty: kept in `keys/secret_key` of the data folder.")
    encryption_keys: Words = Field(
        [],
        description=(
            "Encrypt upstream keys and tokens; the first encrypts, all decrypt. Empty: kept in `keys/encryption_keys`."
        ),
    )
    token_key: str = Field("", description="Keys the digests of relay tokens. Empty: kept in `keys/token_key`.")
    sqlite_sync: Literal["full", "normal"] = Field(
        "full",
        description=(
            "`full` survives a power cut; `normal` survives a crash of the program, and saves one disk sync per commit."
        ),
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest JSON body accepted under /v1, in bytes."
    )
    max_upload_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest file that can be stored, in bytes.")
    max_total_upload_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, description="Bytes that all stored files may take up together."
    )
    max_user_upload_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, description="Bytes that the files of one user may take up together."
    )
    response_keep_days: int = Field(
        30,
        ge=0,
        le=3650,
        description=(
            "Days for which responses and conversations are kept; a conversation from its last item on. 0: responses "
            "are not kept."
        ),
    )
    batch_concurrency: int = Field(4, ge=1, le=100, description="Requests of batches that one worker makes at once.")
    batch_price: Annotated[str, AfterValidator(_share)] = Field(
        "1",
        description=(
            "What requests of batches cost, as a share of the price: 0.5 for half. They are made at the upstreams' "
            "ordinary price."
        ),
    )
    openapi: Literal["off", "tokens", "public"] = Field(
        "tokens",
        description=(
            "Who may read /v1/openapi.json and /v1/docs: nobody, those with a token or signed in, or everybody."
        ),
    )
    signup: Literal["off", "invitation", "open"] = Field(
        "off", description="Who may make an account: nobody, those with an invitation, or everybody."
    )
    signup_domains: Words = Field(
        [],
        description=(
            "Domains of e-mail addresses that may sign up when sign-up is open, such as example.org. Empty: all."
        ),
    )
    staff_mfa: bool = Field(
        False, description="Staff enter the admin only with a second factor: an authenticator app or a passkey."
    )
    status_page: Literal["off", "users", "public"] = Field(
        "users", description="Who may see /status/: nobody, those signed in, or everybody."
    )
    connect_timeout: Seconds = Field(
        10.0, description="Seconds to reach an upstream, unless its channel says otherwise."
    )
    first_byte_timeout: Seconds = Field(180.0, description="Seconds until the first byte of an upstream's answer.")
    idle_timeout: Seconds = Field(120.0, description="Longest silence inside an upstream's answer, in seconds.")
    total_timeout: Seconds = Field(3600.0, description="Longest duration of one request, in seconds.")
    keepalive_seconds: Seconds = Field(
        15.0, description="Silence in a stream after which the client is sent a comment, in seconds."
    )
    stream_head_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description=(
            "Seconds without an answer after which a stream's status and comments are sent, for proxies that cut "
            "silent connections; a failure after that is an event. 0: the status waits for the answer."
        ),
    )
    max_attempts: int = Field(3, ge=1, le=10, description="Upstream keys tried for one request before it fails.")
    retry_seconds: Seconds = Field(
        60.0, description="Seconds after a request's begin until which another upstream key may still be tried."
    )
    routing_strategy: Strategy = Field(
        Strategy.WEIGHTED,
        description=(
            "How one of several channels of the same priority is chosen, where neither the model nor its channels' "
            "pool says so."
        ),
    )
    upstream_connections: int = Field(2000, ge=1, description="Connections to upstreams that one worker may hold open.")
    upstream_allow: Allowances = Field(
        [],
        description=(
            "Addresses, networks or host names outside the public Internet that channels may use, such as "
            "127.0.0.1:11434. Administrators can add more in the admin."
        ),
    )
    upstream_ca_file: str = Field("", description="PEM file with extra certificate authorities for upstreams.")
    failed_auth_max_attempts: int = Field(8, ge=1, description="Bad tokens from one address before it is blocked.")
    failed_auth_window_seconds: Seconds = Field(
        300.0, description="Window in which bad tokens are counted, in seconds."
    )
    failed_auth_block_seconds: Seconds = Field(900.0, description="How long an address stays blocked, in seconds.")
    relay_headers: bool = Field(
        True,
        description=(
            "Send x-relay-channel, x-relay-attempts, x-relay-overhead-ms and x-relay-cost-usd to everyone. Staff "
            "tokens always get them."
        ),
    )
    cors_origins: Words = Field([], description="Origins of browser apps that may call /v1, or `*`. Empty: none.")
    tokens_revealable: bool = Field(True, description="Keep an encrypted copy of each token that its owner can reveal.")
    database_url: Annotated[str, AfterValidator(databases.check_database_url)] = Field(
        "", description="Database to use instead of SQLite, such as postgresql://user:password@host:5432/airelays."
    )
    database_connections: int = Field(
        10, ge=2, le=500, description="Connections that one worker may hold to a PostgreSQL database."
    )
    redis_url: Annotated[str, AfterValidator(_redis)] = Field(
        "",
        description=(
            "Redis or Valkey that workers share limits over, such as redis://127.0.0.1:6379/0. Empty: each worker "
            "counts alone."
        ),
    )
    new_user_balance: Annotated[str, AfterValidator(_balance)] = Field(
        "0", description="USD in the wallet of a new user, or `unlimited`. Superusers are unlimited."
    )
    unpriced: Annotated[str, AfterValidator(_unpriced)] = Field(
        "refuse",
        description=(
            "Models without a price: `refuse`, `free`, or a fallback price in USD per 1M tokens, input/output, such "
            "as `5/15`."
        ),
    )
    low_balance: Annotated[str, AfterValidator(_usd)] = Field(
        "1", description="USD; a user whose balance falls below is told, unless the user chose another threshold."
    )
    email_host: str = Field("", description="Mail server for notices. Empty: none are mailed.")
    email_port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    email_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is protected."
    )
    email_user: str = Field("", description="User name at the mail server.")
    email_password: str = Field("", description="Password at the mail server.")
    email_from: str = Field("airelays@localhost", description="Sender of the portal's e-mails.")
    feed_poll_seconds: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="How often a worker looks for changes made elsewhere, in seconds."
    )
    jobs: bool = Field(
        True,
        description=(
            "Servers do the scheduled work (tests, balances, model lists) themselves. Turn off where `manage.py jobs` "
            "does it."
        ),
    )
    probe_minutes: int = Field(
        0,
        ge=0,
        description=(
            "Minutes between tests of a channel, each a small real request. 0: only keys that were taken out of "
            "service are tested."
        ),
    )
    refresh_hours: float = Field(
        6.0,
        ge=0,
        description="Hours between looks at the upstreams' model lists and balances, which cost nothing. 0: never.",
    )
    prove_hours: float = Field(
        24.0,
        ge=0,
        description=(
            "Hours between proofs of the books, each by a process of its own that reads the whole ledger. 0: only "
            "when somebody asks."
        ),
    )
    shutdown_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description=(
            "How long connections are still taken after a stop signal, while /readyz already says no, in seconds."
        ),
    )
    shutdown_seconds: Seconds = Field(
        20.0, description="How long running requests may go on after a stop signal, in seconds."
    )

    def origin(self, request: HttpRequest) -> str:
        """The URL of this portal without a trailing slash: as configured, otherwise that of the request."""
        return self.public_url or f"{request.scheme}://{request.get_host()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # load() merges the sources: pydantic-settings supports neither several prefixes nor sections of TOML.
        return (init_settings,)


def names_of(field: str) -> list[str]:
    """Environment variables that set a field, in order of precedence; empty ones do not count."""
    prefixes = (*PREFIXES, OLDEST_PREFIX) if field in _OLDEST else PREFIXES
    return [prefix + field.upper() for prefix in prefixes]


def load(flags: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> Config:
    """Read the settings from flags, environment and configuration file. Raises ConfigError."""
    env = dict(os.environ) if environ is None else environ
    values: dict[str, object] = {}
    origin: dict[str, str] = {}
    for key, value in _read_toml(env).items():
        values[key], origin[key] = value, f"{key} in the configuration file"
    for field in Config.model_fields:
        for name in names_of(field):
            if env.get(name, "").strip():
                values[field], origin[field] = env[name].strip(), name
                break
    for key, value in (flags or {}).items():
        if value is not None:
            values[key], origin[key] = value, f"--{key.replace('_', '-')}"
    try:
        return Config(**values)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "?"
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{origin.get(field, field)} is not a setting; docs/configure.md lists them all"
            ) from error
        shown = (
            "" if any(word in field for word in ("key", "url", "password")) else f" ({str(first.get('input'))[:60]!r})"
        )
        raise ConfigError(f"{origin.get(field, field)}{shown}: {first['msg'].removeprefix('Value error, ')}") from error


def _read_toml(env: dict[str, str]) -> dict[str, object]:
    named = next((env[name] for name in names_of("config") if env.get(name)), "")
    path = Path(named).expanduser() if named else default_config_file()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"there is no configuration file {path}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    flat: dict[str, object] = {}
    for key, value in document.items():
        if key in _FOREIGN_SECTIONS:
            continue
        entries: dict[str, Any] = value if isinstance(value, dict) else {key: value}
        flat.update({name: entry for name, entry in entries.items() if name not in _FOREIGN_KEYS})
    return flat
