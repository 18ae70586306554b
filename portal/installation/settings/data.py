"""Settings: data and keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from portal.installation import sources, values


class Data(BaseModel):
    """Data and keys."""

    data_dir: values.Folder = Field(
        default_factory=sources.data_dir,
        description=(
            "Folder of the database, the keys and the uploads. The older `~/.airelay` is used when only that exists."
        ),
    )
    shared_data_dir: bool = Field(
        False,
        description=(
            "Several portals may serve from `DATA_DIR` at once, all with this setting, as when one takes over from "
            "another without a gap. Otherwise a second one ends with exit code 75, unless `DATABASE_URL` is set."
        ),
    )
    database_url: values.DatabaseUrl = Field(
        "",
        description=(
            "Database to use instead of SQLite: `postgresql://user:password@host:5432/airelays`, or `mysql://` or "
            "`mariadb://` in the same form."
        ),
    )
    database_connections: int = Field(
        10, ge=2, le=500, description=("Connections that one worker may hold to a PostgreSQL database.")
    )
    redis_url: values.RedisUrl = Field(
        "",
        description=(
            "Redis or Valkey that workers share rate limits and sign-in counts over: `redis://127.0.0.1:6379/0`. "
            "Empty: each worker counts alone, so a limit holds per worker."
        ),
    )
    sqlite_sync: Literal["full", "normal"] = Field(
        "full",
        description=(
            "`full`: a finished answer's record survives a power cut. `normal`: it survives a crash of the program "
            "only, and each commit saves a disk sync."
        ),
    )
    secret_key: values.Key = Field(
        "",
        description=(
            "Signs sessions: at least 32 random characters, such as of `openssl rand -hex 32`. Empty: made on the "
            "first run, kept in `keys/secret_key`."
        ),
    )
    encryption_keys: values.Keys = Field(
        [],
        description=(
            "Encrypt upstream keys and tokens; the first, as random as `SECRET_KEY`, encrypts, all decrypt. Empty: "
            "kept in `keys/encryption_keys`, one a line."
        ),
    )
    token_key: values.Key = Field(
        "",
        description=(
            "Keys the digests of relay tokens; changing it makes every token invalid. As random as `SECRET_KEY`. "
            "Empty: kept in `keys/token_key`."
        ),
    )
    feed_poll_seconds: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description=("How often a worker looks for changes made elsewhere; at most 1.")
    )
