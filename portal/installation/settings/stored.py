"""Settings: what is stored for users."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Stored(BaseModel):
    """What is stored for users."""

    max_upload_bytes: int = Field(32 * 1024 * 1024, ge=1024, description=("Largest file that can be stored."))
    max_total_upload_bytes: int = Field(
        0,
        ge=0,
        description=(
            "Bytes that all stored files may take up together. `0`: 256 MiB while one person has an account here, 1 "
            "GiB with several."
        ),
    )
    max_user_upload_bytes: int = Field(
        0,
        ge=0,
        description=(
            "Bytes that the files of one user may take up together. `0`: all of `MAX_TOTAL_UPLOAD_BYTES` while one "
            "person has an account here, a quarter of it with several, so that nobody takes it all."
        ),
    )
    max_user_stored_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=1024 * 1024,
        description=(
            "Bytes that the files, responses, conversations and batches of one user may take up together; each counts"
            " 512 bytes beside its content."
        ),
    )
    max_request_file_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description=("Bytes of stored files that one request may bring along; a file counts as often as it is named."),
    )
    response_keep_days: int = Field(
        30,
        ge=0,
        le=3650,
        description=(
            "Days for which responses and conversations are kept; a conversation from its last item on. `0`: "
            "responses are not kept."
        ),
    )
    refused_keep_days: int = Field(
        30,
        ge=0,
        le=3650,
        description=(
            "Days for which requests that were refused before routing (no balance, unknown model …) are kept. `0`: "
            "they are not recorded."
        ),
    )
    usage_keep_days: int = Field(
        0,
        ge=0,
        le=36500,
        description=(
            "Days for which records of requests are kept, with their receipts; sums by day, the ledger and its proofs "
            "stay. `0`: for ever."
        ),
    )
