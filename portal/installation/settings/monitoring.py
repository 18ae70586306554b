"""Settings: metrics and traces."""

from __future__ import annotations

from pydantic import BaseModel, Field

from portal.installation import values


class Monitoring(BaseModel):
    """Metrics and traces."""

    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description=(
            "Port on which `serve` answers `GET /metrics`, and nothing else, for [Prometheus](monitoring.md). 0: none; "
            "with `METRICS_TOKEN` they are on `PORT` then."
        ),
    )
    metrics_host: values.ListeningAddress = Field(
        "127.0.0.1",
        description=("Address of `METRICS_PORT`. One that other machines reach needs `METRICS_TOKEN`."),
    )
    metrics_token: values.Bearer = Field(
        "",
        description=(
            "What a scrape sends as `Authorization: Bearer …`: at least 32 random characters, such as of "
            "`openssl rand -hex 32`. Empty: there are no metrics, but for this machine on `METRICS_PORT`."
        ),
    )
    otlp_endpoint: values.ServerUrl = Field(
        "",
        description=(
            "Address of a collector that takes [traces](monitoring.md#traces) over OTLP/HTTP, such as "
            "`http://127.0.0.1:4318`; `/v1/traces` is appended. Empty: there are none. Needs the extra `tracing`."
        ),
    )
    trace_upstreams: bool = Field(
        False,
        description=(
            "Whether upstreams are sent `traceparent` and `tracestate`, so that their spans come below those of the "
            "portal. For upstreams of your own: others learn the id of the trace."
        ),
    )
