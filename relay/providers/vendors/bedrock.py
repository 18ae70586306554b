"""Amazon Bedrock: its APIs in OpenAI's form, with a Bedrock API key.

Source: Bedrock's user guide and the errors of botocore 1.44, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="bedrock",
    telemetry_name="aws.bedrock",
    label="Amazon Bedrock (OpenAI API)",
    position=300,
    version_path="/openai/v1",
    address_form="https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
    apis=CHAT | {"responses"},
    price_list="aws",
)
