"""Settings: upstreams."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from portal.installation import values
from portal.lib.strategy import Strategy


class Upstreams(BaseModel):
    """Upstreams."""

    connect_timeout: values.Seconds = Field(
        10.0, description=("Seconds to reach an upstream. Each of the four can be set per channel.")
    )
    first_byte_timeout: values.Seconds = Field(180.0, description=("Seconds until the head of an upstream's answer."))
    idle_timeout: values.Seconds = Field(120.0, description=("Longest silence inside an answer, in seconds."))
    total_timeout: values.Seconds = Field(3600.0, description=("Longest duration of one request, in seconds."))
    max_attempts: int = Field(3, ge=1, le=10, description=("Upstream keys tried for one request; none is tried twice."))
    retry_seconds: values.Seconds = Field(
        60.0, description=("Seconds after a request's begin until which another key may still be tried.")
    )
    routing_strategy: Strategy = Field(
        Strategy.WEIGHTED,
        description=(
            "How one of several channels of the same priority is chosen: `weighted`, `round_robin`, `least_in_flight`"
            " or `lowest_latency`. A model's own choice, or its channels' pool's, stands before it."
        ),
    )
    upstream_connections: int = Field(
        2000,
        ge=1,
        description=("Connections to upstreams that one worker may hold; at most half of the files that it may open."),
    )
    upstream_allow: values.Allowances = Field(
        [],
        description=(
            "Addresses outside the public Internet that channels may use: `127.0.0.1:11434,10.0.0.0/8,ollama.lan`. "
            "Superusers can add more in the admin."
        ),
    )
    upstream_objects: Literal["refuse", "allow"] = Field(
        "refuse",
        description=(
            "Whether requests may name objects of the accounts at upstreams, such as vector stores and containers "
            "([which](api.md)). With `allow` every user may read what is in them: for portals of one person, or of "
            "people who share everything."
        ),
    )
    upstream_ca_file: values.Certificates = Field(
        "", description=("PEM file with extra certificate authorities for upstreams.")
    )
    unpriced_tools: Literal["refuse", "allow"] = Field(
        "refuse",
        description=(
            "Whether requests may use tools that vendors bill by what has no price class here: containers for code "
            "(`code_interpreter`, `shell` with a new container; OpenAI bills up to $1.92 for 20 minutes), "
            "`file_search`, searches of collections and attachments (xAI), Google Maps. With `allow` they are served, "
            "users pay for tokens alone, and the rest is the portal's."
        ),
    )
    google_token_uris: values.Urls = Field(
        [],
        description=(
            "Addresses, beside Google's own, to which keys of Google Cloud's service accounts may be shown for a "
            "token, such as `https://sts.example.com/token`. Each must be the `token_uri` of the key, letter for "
            "letter."
        ),
    )
    probe_minutes: int = Field(
        0,
        ge=0,
        le=525_600,
        description=(
            "Minutes between tests of a channel, each a small real request that costs a few tokens; a channel can say"
            " otherwise. `0`: only keys that were taken out of service are tested."
        ),
    )
    refresh_hours: float = Field(
        6.0,
        ge=0,
        le=8760,
        description=("Hours between looks at the upstreams' model lists and balances, which cost nothing. `0`: never."),
    )
    jobs: bool = Field(
        True,
        description=(
            "Servers do the scheduled work (tests, balances, model lists) themselves. Turn off where "
            "`airelays manage jobs` does it."
        ),
    )
    cache_drop: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "Staff are told when the share of prompts that a channel or model reads from caches falls below this part"
            " of that of its own last seven days, once a day. `0`: never."
        ),
    )
    cache_drop_tokens: int = Field(
        1_000_000,
        ge=1,
        description=("Tokens of prompts, of today and of those seven days, below which `CACHE_DROP` says nothing."),
    )
