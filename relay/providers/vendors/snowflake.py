"""Snowflake Cortex, with a programmatic access token. Models of Claude speak Anthropic's API, all others chat.

Source: the Cortex REST API's documentation, and what LiteLLM 1.110.2 sends to it, read in November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="snowflake",
    label="Snowflake Cortex",
    position=320,
    version_path="/api/v2/cortex/v1",
    address_form="https://{account}.snowflakecomputing.com/api/v2/cortex/v1",
    headers={
        "x-snowflake-authorization-token-type": "PROGRAMMATIC_ACCESS_TOKEN",
        "anthropic-version": "2023-06-01",
    },
    apis=CHAT | {"messages"},
    model_apis=((re.compile("claude"), frozenset(("messages",))), (re.compile(""), CHAT)),
    output_field="max_completion_tokens",
)
