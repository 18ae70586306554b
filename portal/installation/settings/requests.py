"""Settings: requests of clients."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from portal.installation import values


class Requests(BaseModel):
    """Requests of clients."""

    max_body_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description=("Largest JSON body under `/v1`. Larger ones are refused with 413 before they are buffered."),
    )
    max_memory_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024 * 1024,
        description=(
            "Bytes of request bodies and whole answers that one worker holds at once; one user may hold half of them."
        ),
    )
    keepalive_seconds: values.Seconds = Field(
        15.0, description=("Silence in a stream after which the client is sent a comment.")
    )
    stream_head_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description=(
            "Seconds without an answer after which a text stream's status 200 and comments are sent, for proxies that"
            " cut silent connections (Cloudflare after 100 s, nginx after 60 s). Other channels are still tried after"
            " that, but a failure is then an event in the stream, and `x-relay-*` headers are missing. `0`: the "
            "status waits for the answer."
        ),
    )
    disconnect_read_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description=(
            "Seconds that an answer is read on after its client has left, for the usage that the upstream then "
            "reports; `0`: the upstream is closed at once."
        ),
    )
    batch_concurrency: int = Field(
        4,
        ge=1,
        le=100,
        description=(
            "Requests of batches that one worker makes at once; users have equal shares of their time, then their "
            "tokens, then their batches; what nobody else wanted is not counted against who used it. When all are "
            "taken, users have their share all the same, one at least: up to as many again, and up to 128 more beside"
            " those that an upstream has had for 5 seconds. So what hangs keeps nobody else waiting, and a user's "
            "other batches have one more."
        ),
    )
    relay_headers: bool = Field(
        True,
        description=(
            "Send `x-relay-channel`, `x-relay-attempts`, `x-relay-overhead-ms`, `x-relay-cost-usd` to everyone. "
            "Tokens of staff always get them."
        ),
    )
    openapi: Literal["off", "tokens", "public"] = Field(
        "tokens",
        description=(
            "Who may read `/v1/openapi.json` and `/docs/`: `off` nobody, `tokens` those with a token or signed in, "
            "`public` everybody."
        ),
    )
    rate_limit_per_minute: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description=(
            "Requests to `/v1` a minute that one worker takes from one address (IPv6: one /64), whatever their token; "
            "more are answered with 429. `0`: no such limit. Limits of tokens, users, groups and models are set in the"
            " admin."
        ),
    )
    rate_limit_burst: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description=(
            "Requests that may come at once before `RATE_LIMIT_PER_MINUTE` holds. `0`: a third of it, as 40 of 120."
        ),
    )
    concurrent_requests_per_ip: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description=(
            "Requests to `/v1` of one address (IPv6: one /64) that one worker serves at once, streams until they end; "
            "more are answered with 429. `0`: no such limit."
        ),
    )
    failed_auth_max_attempts: int = Field(
        8, ge=1, description=("Bad tokens from one address (IPv6: one /64) before it is blocked.")
    )
    failed_auth_window_seconds: values.Seconds = Field(300.0, description=("Window in which they are counted."))
    failed_auth_block_seconds: values.Seconds = Field(
        900.0, description=("How long an address stays blocked. A valid token works from it all the same.")
    )
