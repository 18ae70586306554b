"""Settings: where the portal listens, and who may come in."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from portal.installation import values


class Listening(BaseModel):
    """Where the portal listens, and who may come in."""

    host: values.ListeningAddress = Field("127.0.0.1", description=("Address that `serve` listens on."))
    port: int = Field(8080, ge=1, le=65535, description=("Port that `serve` listens on."))
    workers: int = Field(1, ge=1, le=64, description=("Worker processes of `serve`."))
    relay_only: bool = Field(
        False,
        description=(
            "`serve` answers `/v1` and health checks alone: no pages, no jobs. For processes [beside a"
            " portal](operate.md#processes-that-only-relay) that has both; they take less memory."
        ),
    )
    public_url: values.PublicUrl = Field(
        "",
        description=(
            "Address under which users reach the portal, such as `https://ai.example.org`. Empty: taken from each "
            "request. Scheme and host only: the portal is not built to be served below a path. With `https://`, "
            "cookies are marked secure and HTTP is redirected."
        ),
    )
    allowed_hosts: values.Hosts = Field(
        ["localhost", "127.0.0.1", "[::1]"],
        description=(
            "Host names the pages answer to. The host of `PUBLIC_URL` is added, and, unless `HOST` is loopback, the "
            "names and addresses of the machine."
        ),
    )
    trusted_proxies: values.Networks = Field(
        [],
        description=(
            "Networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, none wider "
            "than a /8 (IPv6: /16). From anybody else they are ignored."
        ),
    )
    network_scope: Literal["loopback", "private", "any"] = Field(
        "any",
        description=(
            "Who may come in, by address, on every path: `loopback` this machine, `private` also the networks that are"
            " not part of the Internet, `any` everybody. Others are answered with 403."
        ),
    )
    require_bearer_auth: bool = Field(
        True,
        description=(
            "Whether `/v1` needs a token. `false`, or `serve --no-auth`: an [open relay](#an-open-relay), which "
            "answers programs on its own machine without one."
        ),
    )
    open_relay_on_network: bool = Field(
        False,
        description=(
            "With `REQUIRE_BEARER_AUTH=false`: answer other machines without a token, too. Everybody who reaches the "
            "port then spends the money of your upstreams."
        ),
    )
    connections_per_address: int = Field(
        1000,
        ge=1,
        description=(
            "Connections that one worker holds with one address (IPv6: one /64). `TRUSTED_PROXIES` have no such limit."
        ),
    )
    cors_origins: values.Origins = Field([], description=("Origins of browser apps that may call `/v1`, or `*`."))
    shutdown_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description=(
            "How long connections are still taken after a stop signal, while `/readyz` already says no. For load "
            "balancers that need a moment to notice."
        ),
    )
    shutdown_seconds: values.Seconds = Field(
        20.0,
        description=(
            "How long running requests, in the background too, may go on after a stop signal; what is left then ends "
            "with an error that says so."
        ),
    )
    restart_seconds: values.Seconds = Field(
        600.0,
        description=(
            "How long running requests may go on in a worker that is replaced (`SIGHUP`), beside the one that serves "
            "in its place."
        ),
    )
    debug: bool = Field(False, description=("Django's debug pages. Never on a machine that others reach."))
