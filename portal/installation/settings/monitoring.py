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
    metrics_token: values.Key = Field(
        "",
        description=(
            "What a scrape sends as `Authorization: Bearer …`: at least 32 random characters, such as of "
            "`openssl rand -hex 32`. Empty: there are no metrics, but for this machine on `METRICS_PORT`."
        ),
    )
