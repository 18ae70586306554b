"""Claude on Google Cloud's Vertex AI.

The key is the JSON file of a service account; project and location are in the address, as for Gemini there.

Source: the Vertex client of Anthropic's SDK 2.14 and Vertex AI's error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.protocols.framing.envelope import VERTEX
from relay.providers.apis import MESSAGES
from relay.providers.credentials.service_account import SERVICE_ACCOUNT
from relay.providers.vendor import Vendor
from relay.providers.vendors import anthropic, gemini, vertex

_MODELS: Final = "/publishers/anthropic/models"

VENDOR: Final = Vendor(
    key="vertex_claude",
    telemetry_name="gcp.vertex_ai",
    label="Google Vertex AI (Claude)",
    position=311,
    protocol="anthropic",
    address_form=vertex.VENDOR.address_form,
    credentials=SERVICE_ACCOUNT,
    models_path="//v1beta1/publishers/anthropic/models?pageSize=1000",
    apis=MESSAGES,
    paths={
        "messages": f"{_MODELS}/{{model}}:rawPredict",
        "messages.count_tokens": f"{_MODELS}/count-tokens:rawPredict",
    },
    stream_paths={"messages": f"{_MODELS}/{{model}}:streamRawPredict"},
    envelope=VERTEX,
    signs_thinking=True,
    parameters=anthropic.VENDOR.parameters,
    prompt_cache=anthropic.CLAUDE_CACHE,
    failures=(*vertex.CLOUD_FAILURES, *anthropic.VENDOR.failures, *gemini.VENDOR.failures),
    price_list="google",
    price_multiples=anthropic.VENDOR.price_multiples,
)
