"""The settings of an installation, each with its type, default and description.

Where they come from is in `portal.installation.sources`, those of AIRelays 0.x in `portal.installation.legacy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from portal.installation import legacy, sources, values
from portal.installation.sources import ConfigError
from portal.lib.strategy import Strategy
from portal.lib.texts import Message

if TYPE_CHECKING:
    from django.http import HttpRequest


class Config(BaseSettings):
    """All settings. A test keeps `docs/configure.md` complete."""

    model_config = SettingsConfigDict(extra="forbid", env_ignore_empty=True, frozen=True)

    host: str = Field("127.0.0.1", description="Address that `serve` listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port that `serve` listens on.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes of `serve`.")
    data_dir: values.Folder = Field(
        default_factory=sources.data_dir, description="Folder of the database, the keys and the uploads."
    )
    public_url: values.PublicUrl = Field(
        "",
        description=(
            "Address under which users reach the portal, such as https://ai.example.org. Empty: taken from each "
            "request."
        ),
    )
    allowed_hosts: values.Hosts = Field(
        ["localhost", "127.0.0.1", "[::1]"],
        description="Host names the portal pages answer to. The host of `public_url` is added.",
    )
    trusted_proxies: values.Networks = Field(
        [], description="Networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    debug: bool = Field(False, description="Django's debug pages. Never on a machine that others reach.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe messages that are logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines.")
    time_zone: values.Zone = Field(
        "UTC", description="Time zone of dates in the pages, and of the days, weeks and months of budgets."
    )
    secret_key: values.Key = Field(
        "", description="Signs sessions. Empty: kept in `keys/secret_key` of the data folder."
    )
    encryption_keys: values.Keys = Field(
        [],
        description=(
            "Encrypt upstream keys and tokens; the first encrypts, all decrypt. Empty: kept in `keys/encryption_keys`."
        ),
    )
    token_key: values.Key = Field("", description="Keys the digests of relay tokens. Empty: kept in `keys/token_key`.")
    sqlite_sync: Literal["full", "normal"] = Field(
        "full",
        description=(
            "`full` survives a power cut; `normal` survives a crash of the program, and saves one disk sync per commit."
        ),
    )
    connections_per_address: int = Field(
        1000,
        ge=1,
        description=(
            "Connections that one worker holds with one address (IPv6: one /64). TRUSTED_PROXIES have no such limit."
        ),
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Largest JSON body accepted under /v1, in bytes."
    )
    max_memory_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024 * 1024,
        description=(
            "Bytes of request bodies and whole answers that one worker holds at once; one user may hold half of them."
        ),
    )
    max_upload_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest file that can be stored, in bytes.")
    max_total_upload_bytes: int = Field(
        1024 * 1024 * 1024, ge=1024, description="Bytes that all stored files may take up together."
    )
    max_user_upload_bytes: int = Field(
        0,
        ge=0,
        description=(
            "Bytes that the files of one user may take up together. 0: a quarter of MAX_TOTAL_UPLOAD_BYTES, so that "
            "nobody takes it all."
        ),
    )
    max_user_stored_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=1024 * 1024,
        description=(
            "Bytes that the files, responses, conversations and batches of one user may take up together; each counts "
            "512 bytes beside its content."
        ),
    )
    max_request_file_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Bytes of stored files that one request may bring along; a file counts as often as it is named.",
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
    refused_keep_days: int = Field(
        30,
        ge=0,
        le=3650,
        description=("Days for which requests that were refused before routing are kept. 0: they are not recorded."),
    )
    batch_concurrency: int = Field(
        4,
        ge=1,
        le=100,
        description=(
            "Requests of batches that one worker makes at once; users have equal shares of their time, then their "
            "tokens, then their batches. A user who has none running gets one all the same: up to as many again, and "
            "up to 128 more beside those that an upstream has had for 5 seconds."
        ),
    )
    batch_price: values.Share = Field(
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
    signup_domains: values.Domains = Field(
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
    connect_timeout: values.Seconds = Field(
        10.0, description="Seconds to reach an upstream, unless its channel says otherwise."
    )
    first_byte_timeout: values.Seconds = Field(
        180.0, description="Seconds until the first byte of an upstream's answer."
    )
    idle_timeout: values.Seconds = Field(120.0, description="Longest silence inside an upstream's answer, in seconds.")
    total_timeout: values.Seconds = Field(3600.0, description="Longest duration of one request, in seconds.")
    disconnect_read_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds that an answer is read on after its client has left, for the usage that is then reported.",
    )
    keepalive_seconds: values.Seconds = Field(
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
    retry_seconds: values.Seconds = Field(
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
    upstream_allow: values.Allowances = Field(
        [],
        description=(
            "Addresses, networks or host names outside the public Internet that channels may use, such as "
            "127.0.0.1:11434. Administrators can add more in the admin."
        ),
    )
    webhook_allow: values.Allowances = Field(
        [],
        description=(
            "Addresses, networks or host names outside the public Internet that webhooks of users may call, such as "
            "10.0.0.5:8080. What channels may use does not count for them."
        ),
    )
    upstream_objects: Literal["refuse", "allow"] = Field(
        "refuse",
        description=(
            "Whether requests may name objects of the accounts at upstreams, such as vector stores: every user may "
            "then read what is in them."
        ),
    )
    google_token_uris: values.Urls = Field(
        [],
        description=(
            "Addresses, beside Google's own, to which keys of Google Cloud's service accounts may be shown for a "
            "token, such as https://sts.example.com/token. Each must be the token_uri of the key, letter for letter."
        ),
    )
    upstream_ca_file: values.Certificates = Field(
        "", description="PEM file with extra certificate authorities for upstreams."
    )
    failed_auth_max_attempts: int = Field(8, ge=1, description="Bad tokens from one address before it is blocked.")
    failed_auth_window_seconds: values.Seconds = Field(
        300.0, description="Window in which bad tokens are counted, in seconds."
    )
    failed_auth_block_seconds: values.Seconds = Field(
        900.0, description="How long an address stays blocked, in seconds."
    )
    relay_headers: bool = Field(
        True,
        description=(
            "Send x-relay-channel, x-relay-attempts, x-relay-overhead-ms and x-relay-cost-usd to everyone. Staff "
            "tokens always get them."
        ),
    )
    cors_origins: values.Origins = Field(
        [], description="Origins of browser apps that may call /v1, or `*`. Empty: none."
    )
    tokens_revealable: bool = Field(True, description="Keep an encrypted copy of each token that its owner can reveal.")
    database_url: values.DatabaseUrl = Field(
        "", description="Database to use instead of SQLite, such as postgresql://user:password@host:5432/airelays."
    )
    database_connections: int = Field(
        10, ge=2, le=500, description="Connections that one worker may hold to a PostgreSQL database."
    )
    redis_url: values.RedisUrl = Field(
        "",
        description=(
            "Redis or Valkey that workers share limits over, such as redis://127.0.0.1:6379/0. Empty: each worker "
            "counts alone."
        ),
    )
    new_user_balance: values.Balance = Field(
        "0", description="USD in the wallet of a new user, or `unlimited`. Superusers are unlimited."
    )
    unpriced: values.Unpriced = Field(
        "refuse",
        description=(
            "Models without a price: `refuse`, `free`, or a fallback price in USD per 1M tokens, input/output, such "
            "as `5/15`."
        ),
    )
    low_balance: values.Usd = Field(
        "1", description="USD; a user whose balance falls below is told, unless the user chose another threshold."
    )
    email_host: values.Host = Field("", description="Mail server for notices. Empty: none are mailed.")
    email_port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    email_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is protected."
    )
    email_user: str = Field("", description="User name at the mail server.")
    email_password: str = Field("", description="Password at the mail server.")
    email_from: values.Sender = Field("airelays@localhost", description="Sender of the portal's e-mails.")
    feed_poll_seconds: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="How often a worker looks for changes made elsewhere, in seconds."
    )
    cache_drop: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "Staff are told when the share of prompts that a channel or model reads from caches falls below this part "
            "of its own last seven days, once a day. 0: never."
        ),
    )
    cache_drop_tokens: int = Field(
        1_000_000, ge=1, description="Tokens of prompts in a day, below which CACHE_DROP says nothing of them."
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
        le=525_600,
        description=(
            "Minutes between tests of a channel, each a small real request. 0: only keys that were taken out of "
            "service are tested."
        ),
    )
    refresh_hours: float = Field(
        6.0,
        ge=0,
        le=8760,
        description="Hours between looks at the upstreams' model lists and balances, which cost nothing. 0: never.",
    )
    prove_hours: float = Field(
        24.0,
        ge=0,
        le=8760,
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
    shutdown_seconds: values.Seconds = Field(
        20.0, description="How long running requests may go on after a stop signal, in seconds."
    )

    # What is to be said of the settings when the portal starts, and on the page of the installation.
    _notices: list[Message] = PrivateAttr(default_factory=list)
    _old: dict[str, object] = PrivateAttr(default_factory=dict)  # settings of AIRelays 0.x

    @property
    def notices(self) -> list[Message]:
        """What is to be said of settings that are known but have no effect, or are not known."""
        return self._notices

    def relay_token(self) -> str:
        """The token of AIRelays 0.x in the data folder or its settings, empty without one. Raises ValueError."""
        return legacy.relay_token(self._old, self.data_dir)

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


def load(flags: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> Config:
    """Read the settings from flags, environment and configuration file. Raises ConfigError."""
    found = sources.collect(Config.model_fields, flags or {}, environ)
    try:
        found.notices += legacy.apply(found.given, found.old, found.sections)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        config = Config(**found.given)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "?"
        if first["type"] == "extra_forbidden":
            raise ConfigError(found.unknown(field)) from error
        raise ConfigError(found.refusal(field, first.get("input"), first["msg"])) from error
    config._notices.extend(found.notices)
    config._old.update(found.old)
    return config
