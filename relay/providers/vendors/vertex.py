"""Gemini on Google Cloud's Vertex AI, which Google also calls Gemini Enterprise Agent Platform.

The key is the JSON file of a service account; project and location are in the address. The location `global` has no
host of its own: https://aiplatform.googleapis.com/v1/projects/{project}/locations/global

Source: Vertex AI's REST reference and error codes, google-genai 3.6 and google-auth 2.63, read in November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from relay.providers.apis import GEMINI, PREDICT
from relay.providers.credentials.service_account import SERVICE_ACCOUNT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import gemini

_MODEL: Final = "/publishers/google/models/{model}"
# Of the cloud, whatever model is asked; `invalid_…` are those of the token endpoint (RFC 6749, 5.2).
CLOUD_FAILURES: Final = (
    # The clock of this machine is wrong: the key may be right.
    rule(FailureClass.CONFIG, "401", "invalid_grant", r"^invalid jwt: token must be a short-lived"),
    rule(
        FailureClass.KEY_DEAD,
        "401",
        "invalid_grant invalid_client unauthorized_client invalid_private_key account_state_invalid",
    ),
    rule(FailureClass.CONFIG, "401", "invalid_scope invalid_request"),
    rule(FailureClass.TRANSIENT, "503", "token_unavailable"),
    rule(FailureClass.BILLING, "403", "billing_disabled"),
    rule(FailureClass.CONFIG, "403", "service_disabled"),
    # What is denied on which resource is quoted.
    rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "permission_denied", r"^permission … \(or it may not exist\)"),
    rule(
        FailureClass.KEY_FORBIDDEN_MODEL,
        "400",
        "failed_precondition",
        r"^project …$|^publisher model … is not servable in region",
    ),
    # Pay as you go shares what there is: no key of the same project and region fares better.
    rule(FailureClass.OVERLOAD, "429", "resource_exhausted", r"^resource (has been )?exhausted"),
    rule(FailureClass.RATE, "429", text=r"^too many requests\. exceeded the provisioned throughput"),
)

VENDOR: Final = Vendor(
    key="vertex",
    telemetry_name="gcp.vertex_ai",
    label="Google Vertex AI (Gemini)",
    position=310,
    protocol="gemini",
    address_form="https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/{region}",
    credentials=SERVICE_ACCOUNT,
    models_path="//v1beta1/publishers/google/models?pageSize=1000",
    apis=GEMINI | PREDICT,
    # Of its models for vectors, those that are no Gemini have `:predict` alone.
    model_apis=((re.compile(r"gemini|maas"), GEMINI), (re.compile(r"embed|gecko"), PREDICT), (re.compile(""), GEMINI)),
    paths={
        "predict": f"{_MODEL}:predict",
        "generate_content.embed": f"{_MODEL}:embedContent",
        "generate_content.embed_batch": f"{_MODEL}:batchEmbedContents",
        "generate_content": f"{_MODEL}:generateContent",
        "generate_content.stream": f"{_MODEL}:streamGenerateContent",
        "generate_content.count_tokens": f"{_MODEL}:countTokens",
    },
    counts_bare=True,
    embeds_bare=True,
    prompt_cache=gemini.VENDOR.prompt_cache,
    failures=(*CLOUD_FAILURES, *gemini.VENDOR.failures),
    # Answers of other tiers have other prices than their model's; `store` is known to AI Studio only.
    parameters={
        "generate_content/serviceTier": "drop",
        "generate_content/service_tier": "drop",
        "generate_content/store": "drop",
    },
    price_list="google",
)
