"""Settings: logs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from portal.installation import values


class Logs(BaseModel):
    """Logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description=("`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description=(
            "`text` or `json`. An error that comes again within 10 seconds is not logged again; the next line with it"
            " says how often it came meanwhile (`repeated` in `json`)."
        ),
    )
    access_log: bool = Field(
        False,
        description=(
            "[A line in the log](monitoring.md#the-access-log) for each request: time, address of the client, name of "
            "the token, method, path without its query, status, milliseconds, bytes, id. With `LOG_FORMAT=json` these "
            "are members, beside ids of user and token, model, channel and trace."
        ),
    )
    access_log_sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description=(
            "Share of the requests below 400 that have a line in that log, such as 0.01. All others always have one."
        ),
    )
    logs_dir: values.OptionalFolder = Field(
        None,
        description=(
            "Folder of log files, beside the standard error output: one file a day, readable by their owner only. "
            "Empty: none are written."
        ),
    )
    log_retention_days: int = Field(7, ge=1, le=3650, description=("Days for which files in `LOGS_DIR` are kept."))
    log_max_total_mb: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description=("MiB that the files in `LOGS_DIR` may take up together: the oldest are deleted first."),
    )
    log_max_file_mb: int = Field(
        50, ge=1, le=1_000_000, description=("MiB of one of those files, after which another is begun.")
    )
