"""Databricks: its AI gateway. A model is the name of an endpoint; those of Claude speak Anthropic's API.

Source: the Foundation Model APIs' documentation, and errors of them as they are reported, read in November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from relay.providers.apis import CHAT, EVERYTHING, MESSAGES
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="databricks",
    label="Databricks",
    position=310,
    version_path="/ai-gateway/mlflow/v1",
    address_form="https://{workspace}.cloud.databricks.com/ai-gateway/mlflow/v1",
    headers={"anthropic-version": "2023-06-01"},
    apis=CHAT | {"responses", "messages", "embeddings"},
    model_apis=((re.compile("claude"), frozenset(("messages",))), (re.compile(""), EVERYTHING - MESSAGES)),
    paths={"messages": "/../../anthropic/v1/messages"},
    failures=(
        rule(FailureClass.RATE, "429", "request_limit_exceeded"),
        # Also of paths that it does not have.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "endpoint_not_found", r"^the given endpoint does not exist"),
    ),
    price_list="databricks",
)
