"""Settings: money."""

from __future__ import annotations

from pydantic import BaseModel, Field

from portal.installation import values


class Money(BaseModel):
    """Money."""

    new_user_balance: values.Balance = Field(
        "0", description=("USD in the wallet of a new user, or `unlimited`. Superusers are unlimited.")
    )
    unpriced: values.Unpriced = Field(
        "refuse",
        description=(
            "Models without a price: `refuse`, `free`, or a fallback price in USD per 1M tokens, input/output, such "
            "as `5/15`."
        ),
    )
    low_balance: values.Usd = Field(
        "1", description=("USD; a user whose balance falls below is told, unless the user chose another threshold.")
    )
    batch_price: values.Share = Field(
        "1",
        description=(
            "What requests of batches cost, as a share of the price: `0.5` for half, as OpenAI sells them. They are "
            "made at the upstreams' ordinary price, so less than `1` is your loss."
        ),
    )
    bill_drift_percent: float = Field(
        5.0,
        ge=0,
        le=100,
        description=(
            "Percent by which what an upstream says that it billed may differ from what was recorded, before the day "
            "is marked and staff are told: [upstream bills](reconciliation.md)."
        ),
    )
    prove_hours: float = Field(
        24.0,
        ge=0,
        le=8760,
        description=(
            "Hours between proofs of the books, each by a process of its own that reads the whole ledger. `0`: only "
            "when somebody asks."
        ),
    )
